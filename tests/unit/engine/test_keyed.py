"""What a server is told with a request, and which rows of its batch are ours as it changes."""

import msgspec
import pytest

from trunkline.engine.keyed import ARGUMENT, Batch, Keyed, Row, decode, encode
from trunkline.inference.ports import Sampling

SEED = bytes(range(32))


def keyed(given: int = 0, **sampling: object) -> Keyed:
    return Keyed(sampling=Sampling(seed=SEED, **sampling), given=given)


def row(*output: int, prefix: tuple[int, ...] = (), **sampling: object) -> Row:
    return Row(keyed=keyed(len(prefix), **sampling), prefix=prefix, output=list(output))


def test_what_is_written_is_read() -> None:
    told = keyed(7, temperature=0.7, top_p=0.9, logit_bias={5: -1.5, 70_000: 3.0})
    assert decode(encode(told)) == told


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": -0.1},
        {"temperature": 101.0},
        {"top_p": 1.5},
        {"min_p": -0.5},
        {"top_k": -1},
        {"presence_penalty": 1e9},
        {"logit_bias": {-1: 0.0}},
        {"logit_bias": dict.fromkeys(range(1025), 1.0)},
        {"logit_bias": {1: 500.0}},
        {"seed": b"short"},
        {"grammar": "root ::= [a-z]"},
    ],
)
def test_what_the_rule_could_stumble_over_is_refused_and_not_repeated(
    change: dict[str, object],
) -> None:
    raw = msgspec.json.encode({"sampling": msgspec.to_builtins(Sampling(**change)), "given": 0})
    with pytest.raises(ValueError, match=ARGUMENT) as refused:
        decode(raw.decode())
    assert "a-z" not in str(refused.value)


@pytest.mark.parametrize("value", [None, 3, "", "{", '{"sampling": {}, "other": 1}', "x" * 70_000])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match=ARGUMENT):
        decode(value)


def test_numbers_that_are_none_are_refused() -> None:
    for spelled in ("NaN", "1e999"):
        with pytest.raises(ValueError, match=ARGUMENT):
            decode(f'{{"sampling": {{"temperature": {spelled}}}}}')


def test_a_place_goes_on_from_what_was_given_and_the_prompt_does_not_count() -> None:
    going = row(4, 4, prefix=(9, 4), frequency_penalty=0.5)
    assert going.position == 4
    assert going.counts() == {4: 3, 9: 1}
    assert not row(4, 4, prefix=(9, 4)).counts()


def test_the_servers_own_list_is_read_as_it_grows() -> None:
    said: list[int] = []
    growing = Row(keyed=keyed(presence_penalty=1.0), prefix=(), output=said)
    said += [3, 3]
    assert (growing.position, growing.counts()) == (2, {3: 2})


def test_rows_follow_their_requests_through_the_batch() -> None:
    batch = Batch()
    a, b, c = row(1), row(2), row(3)
    batch.update(removed=[], added=[(0, a), (1, None), (2, b)], moved=[])
    assert batch.rows == {0: a, 2: b}
    # The last takes the place of one that ended, another is put where a third was.
    batch.update(removed=[0], added=[(1, c)], moved=[(2, 0, False)])
    assert batch.rows == {0: b, 1: c}
    # One that is not ours changes places with one that is.
    batch.update(removed=[], added=[], moved=[(1, 5, True)])
    assert batch.rows == {0: b, 5: c}
    batch.update(removed=[], added=[], moved=[(0, 5, True)])
    assert batch.rows == {0: c, 5: b}
    # A request that is not ours moves onto a place that was.
    batch.update(removed=[], added=[], moved=[(3, 0, False)])
    assert batch.rows == {5: b}
    batch.update(removed=[], added=[(5, None)], moved=[])
    assert batch.rows == {}
