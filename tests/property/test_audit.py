"""Audits under Hypothesis: every flip in an opening or a bundle is noticed."""

import asyncio
from functools import cache

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.auditing import PARTIES, PROMPTS, Made, ToyNode, but, exact, saying

from trunkline.audit import bundle, calibration, recompute
from trunkline.audit.calibration import Calibration, build
from trunkline.audit.judge import judge
from trunkline.audit.standing import State, decode_state, encode_state, update
from trunkline.audit.trials import BINS, LEVELS, Trials
from trunkline.base.errors import Error, MalformedError

EXACT = exact()
MEASURE = calibration.encode(EXACT)


@cache
def made() -> Made:
    return ToyNode().serve(5, n=2, max_tokens=12)


@cache
def bundle_bytes() -> bytes:
    return judge(asyncio.run(made().case(EXACT)), None).bundle


@cache
def noisy() -> Calibration:
    some = Trials(
        bins=tuple(range(BINS)) * 4,
        ends=(9,),
        margins=(0, 500) * (2 * BINS),
        mismatches=20,
        tokens=4 * BINS,
    )
    return build([some] * 50, parties=PARTIES, regime="noisy", prompts=PROMPTS, seeds="")


trials = st.integers(0, 30).flatmap(
    lambda count: st.builds(
        Trials,
        bins=st.lists(st.integers(0, BINS - 1), min_size=count, max_size=count).map(tuple),
        ends=st.lists(st.integers(0, LEVELS), max_size=3).map(tuple),
        margins=st.lists(st.integers(0, LEVELS), min_size=count, max_size=count).map(tuple),
        mismatches=st.integers(0, count),
        tokens=st.integers(count, count + 3),
    )
)


def flipped(data: bytes, draw: st.DataObject) -> bytes:
    at = draw.draw(st.integers(0, len(data) - 1))
    return data[:at] + bytes((data[at] ^ draw.draw(st.integers(1, 255)),)) + data[at + 1 :]


def verdict(other: Made) -> str:
    return judge(asyncio.run(other.case(EXACT)), None).result


@given(st.data())
def test_every_byte_of_the_request_counts(draw: st.DataObject) -> None:
    raw = flipped(bytes(made().content.request), draw)
    assert verdict(but(made(), request=msgspec.Raw(raw))) == "fail"


@given(st.data())
def test_every_token_counts(draw: st.DataObject) -> None:
    tokens = [list(choice) for choice in made().content.tokens]
    choice = draw.draw(st.sampled_from(tokens))
    at = draw.draw(st.integers(0, len(choice) - 1))
    choice[at] = draw.draw(st.integers(-5, 2**33).filter(lambda token: token != choice[at]))
    assert verdict(but(made(), tokens=tuple(tuple(part) for part in tokens))) == "fail"


@given(st.data())
def test_every_token_of_the_prompt_counts(draw: st.DataObject) -> None:
    prompt = list(made().content.prompt)
    at = draw.draw(st.integers(0, len(prompt) - 1))
    prompt[at] = draw.draw(st.integers(-5, 2**33).filter(lambda token: token != prompt[at]))
    assert verdict(but(made(), prompt=tuple(prompt))) == "fail"


@given(st.data())
def test_every_salt_counts(draw: st.DataObject) -> None:
    salts = dict(made().content.salts)
    opened = ["request.digest", "request.prompt", "response.digest", "response.tokens"]
    name = draw.draw(st.sampled_from(opened))
    salts[name] = flipped(bytes.fromhex(salts[name]), draw).hex()
    assert verdict(but(made(), salts=salts)) == "fail"


@given(st.data())
def test_every_byte_of_the_commitment_to_a_nonce_counts(draw: st.DataObject) -> None:
    proof = made().content.nonce
    assert proof is not None
    note = flipped(proof.note.encode(), draw).decode("utf-8", "surrogateescape")
    changed = msgspec.structs.replace(proof, note=note)
    assert verdict(but(made(), nonce=changed)) == "fail"


RECEIPT_DIGITS = [
    ("sampling", "seed"),
    ("sampling", "node_nonce"),
    ("sampling", "caller_nonce"),
    ("sampling", "nonces"),
    ("request", "digest"),
    ("request", "prompt"),
    ("response", "digest"),
    ("response", "tokens"),
]


@given(st.sampled_from(RECEIPT_DIGITS), st.integers(-64, -1), st.sampled_from("0123456789abcdef"))
def test_every_digit_that_a_receipt_binds_with_counts(
    member: tuple[str, str], at: int, digit: str
) -> None:
    part, name = member
    said = getattr(getattr(made().receipt, part), name)
    place = len(said) + at
    other = said[:place] + digit + said[place + 1 :]
    expected = "pass" if other == said else "fail"
    assert verdict(saying(made(), part, **{name: other})) == expected


@given(st.data())
def test_no_byte_of_a_bundle_can_change_and_still_lead_to_its_numbers(draw: st.DataObject) -> None:
    data = flipped(bundle_bytes(), draw)
    try:
        found = recompute.numbers(data, MEASURE)
    except Error:
        return
    # Left are members that say about whom, and details for people: the verdict binds those by
    # the bundle's digest. No number is another.
    before = bundle.decode(bundle_bytes())
    after = found.bundle
    assert (after.evidence, after.standing, after.result) == (
        before.evidence,
        before.standing,
        before.result,
    )


@pytest.mark.parametrize("regime", ["exact", "noisy"])
@given(answers=st.lists(trials, max_size=6), faults=st.lists(st.booleans(), max_size=6))
def test_a_state_is_a_function_of_its_answers(
    regime: str, answers: list[Trials], faults: list[bool]
) -> None:
    measure = EXACT if regime == "exact" else noisy()
    state = saved = State.start(measure)
    for number, one in enumerate(answers):
        fault = number < len(faults) and faults[number]
        state = update(state, measure, one, fault=fault)
        saved = update(decode_state(encode_state(saved), measure), measure, one, fault=fault)
        assert saved == state
        assert state.standing == "failed" if fault else True
        assert state.wealth >= 0


@given(st.binary(max_size=300) | st.builds(lambda: b""))
def test_bytes_from_outside_are_refused_by_name(data: bytes) -> None:
    for read in (
        bundle.decode,
        calibration.decode,
        lambda raw: decode_state(raw, EXACT),
        lambda raw: recompute.numbers(raw, MEASURE),
    ):
        with pytest.raises(MalformedError):
            read(data)


@given(st.data())
def test_a_flipped_calibration_is_another_one_or_none(draw: st.DataObject) -> None:
    data = flipped(calibration.encode(noisy()), draw)
    try:
        found = calibration.decode(data)
    except MalformedError:
        return
    assert found.digest != noisy().digest
