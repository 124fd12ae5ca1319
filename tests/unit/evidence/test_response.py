"""A response that is hashed as it passes says what one that was kept says, and keeps nothing."""

import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.evidence import make_vectors as made

from trunkline.evidence import Evidence, Step, encode, verify
from trunkline.evidence.response import CHAINS_MAX, REPEATED_MAX, PassingResponse
from trunkline.receipts import Receipt, StreamDigest, bound_bytes

DONE = b"data: [DONE]\n\n"
FIRST, LAST = made.receipt(), made.resumed()
STREAMED = [b"data: %s\n\n" % chunk for chunk in made.CHUNKS]
SIGNED = made.evidence(made.part(FIRST))
TAKEN_OVER = made.evidence(made.part(LAST, made.BETA))
MIB = 1024 * 1024


def chain(of: Receipt, back: int = 0, **changes: str) -> bytes:
    attempt = changes.get("attempt", of.attempt)
    request = changes.get("request", of.request.digest)
    return f"chain: {attempt} {request} {back}\n".encode()


def passing(*pieces: bytes) -> PassingResponse:
    response = PassingResponse()
    for piece in pieces:
        response.add(piece)
    response.close()
    return response


def step(evidence: Evidence, response: bytes | PassingResponse) -> Step:
    report = verify(encode(evidence), policy=made.POLICY, response=response)
    return next(step for step in report.steps if step.title == "response")


def both(evidence: Evidence, *events: bytes) -> str:
    """What the step says, however the response is read."""
    hashed = passing(*events)
    assert hashed.hashing
    found = step(evidence, hashed)
    assert found == step(evidence, b"".join(events))
    return found.result


def test_the_answer_is_as_signed() -> None:
    assert both(SIGNED, chain(FIRST), *STREAMED, DONE) == "pass"
    assert both(SIGNED, b": a sign of life\n\n", chain(FIRST), *STREAMED, DONE, DONE) == "pass"


def spoiled(events: Sequence[bytes]) -> Iterator[list[bytes]]:
    for at in range(len(events)):
        yield [*events[:at], *events[at + 1 :]]
        yield [*events[:at], events[at], *events[at:]]
        yield [*events[:at], b'data: {"m":1}\n\n', *events[at + 1 :]]
    for at in range(len(events) - 1):
        yield [*events[:at], events[at + 1], events[at], *events[at + 2 :]]


def test_cut_doubled_reordered_and_spliced_streams_fail() -> None:
    for events in spoiled(STREAMED):
        assert both(SIGNED, chain(FIRST), *events, DONE) == "fail"
    for kept in range(1, len(STREAMED)):
        assert both(SIGNED, chain(FIRST), *STREAMED[:kept], b'data: {"m":1}\n\n') == "fail"
        assert both(SIGNED, chain(FIRST), *STREAMED[:kept], DONE, *STREAMED[kept:]) == "fail"
    assert both(SIGNED, chain(FIRST), *STREAMED, DONE, STREAMED[-1]) == "fail"
    assert both(SIGNED, chain(FIRST), *STREAMED[:-1], STREAMED[-1][:-2]) == "fail"
    assert both(SIGNED, chain(FIRST), *STREAMED[:-1], b"event: x\n", STREAMED[-1]) == "fail"


@pytest.mark.parametrize("back", [0, 1, 3])
def test_a_takeover_is_signed_from_where_it_began(back: int) -> None:
    """By tokens; messages since the last one are repeated, and not shown again."""
    shown = (*STREAMED[: 4 + back], chain(LAST, back), *STREAMED[4 + back :], DONE)
    if back < 2:
        assert both(TAKEN_OVER, chain(FIRST), *shown) == "inconclusive"
    for wrong in ((back + 1) % 4, REPEATED_MAX + 1):
        spoiled = passing(
            chain(FIRST), *STREAMED[: 4 + back], chain(LAST, wrong), *STREAMED[4 + back :], DONE
        )
        assert step(TAKEN_OVER, spoiled).result == "fail"


def test_a_beginning_that_was_not_taken_over_shows() -> None:
    """Another answer's beginning before this one's end, and the end of another attempt."""
    other = [b'data: {"m":%d}\n\n' % number for number in range(4)]
    assert both(SIGNED, chain(LAST), *other, chain(FIRST), *STREAMED, DONE) == "fail"
    for at in range(1, len(STREAMED)):
        spliced = passing(chain(FIRST), *STREAMED[:at], chain(LAST), *STREAMED[at:], DONE)
        assert step(SIGNED, spliced).result == "fail"


def test_text_that_was_taken_over_is_what_was_shown() -> None:
    after = made.continued()
    evidence = made.evidence(made.part(after, made.BETA))
    rest = (chain(after), *STREAMED[4:], DONE)
    shown = [b"data: %s\n\n" % chunk for chunk in made.SHOWN]
    assert both(evidence, chain(FIRST), *shown, *rest) == "inconclusive"
    assert both(evidence, chain(FIRST), *shown[:1], *rest) == "fail"
    assert both(evidence, chain(FIRST), shown[0], b"data: {\n\n", *rest) == "fail"
    assert both(evidence, *rest) == "fail"


def test_parts_that_follow_one_another_each_have_their_chain() -> None:
    one, two = made.two_parts()
    evidence = made.evidence(made.part(one), made.part(two, made.BETA))
    count = one.response.chunks
    events = (chain(one), *STREAMED[:count], chain(two), *STREAMED[count:], DONE)
    assert both(evidence, *events) == both(evidence, *events[:-1])
    moved = (chain(one), *STREAMED[: count - 1], chain(two), *STREAMED[count - 1 :], DONE)
    assert step(evidence, passing(*moved)).result == "fail"


@pytest.mark.parametrize(
    "told",
    [
        chain(FIRST, attempt="att_9"),
        chain(FIRST, request="sha256:" + "ab" * 32),
        chain(FIRST) + STREAMED[0] + chain(FIRST),
        chain(FIRST) + STREAMED[0] + chain(LAST, back=2),
        chain(FIRST) + STREAMED[0] + b"chain: \xff\n",
        b"".join(chain(FIRST, attempt=f"att_{n}") + STREAMED[0] for n in range(CHAINS_MAX + 1)),
    ],
)
def test_a_gateway_that_names_other_attempts_proves_nothing(told: bytes) -> None:
    assert step(SIGNED, passing(told, *STREAMED, DONE)).result == "fail"


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"chain: \xff\n",
        chain(FIRST, back=1),
        chain(FIRST, attempt="a b"),
        chain(FIRST, attempt="x" * 129),
    ],
)
def test_where_nothing_is_said_of_chains_the_bytes_are_kept(told: bytes) -> None:
    response = passing(told, *STREAMED, DONE)
    assert not response.hashing
    assert step(SIGNED, response).result == "pass"
    response.forget()
    assert step(SIGNED, response).result == "fail"


def test_what_is_said_too_late_changes_nothing() -> None:
    response = passing(STREAMED[0], chain(FIRST), *STREAMED[1:], DONE)
    assert not response.hashing
    assert step(SIGNED, response).result == "pass"


def test_a_whole_answer_is_one_message() -> None:
    whole = made.evidence(made.part(made.receipt(chunks=[b'{"n":0}'])))
    assert step(whole, passing(b'{"n"', b":0}\r\n")).result == "pass"
    assert step(whole, passing(b'{"n"', b":1}\r\n")).result == "fail"


@given(data=st.data())
def test_how_the_bytes_were_cut_changes_nothing(data: st.DataObject) -> None:
    stream = b"".join((chain(FIRST), *STREAMED, DONE))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    response = passing(*pieces)
    assert response.done
    assert step(SIGNED, response).result == "pass"


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_pass_and_prove_nothing(pieces: list[bytes]) -> None:
    assert step(SIGNED, passing(chain(FIRST), *pieces)).result == "fail"
    assert step(SIGNED, passing(*pieces)).result == "fail"


def test_memory_stays_flat_whatever_the_length() -> None:
    """200 MiB through 2 MiB."""
    message = b'{"choices":[{"delta":{"content":"%s"}}]}' % (b"a" * 64 * 1024)
    count = 200 * MIB // len(message) + 1
    running = StreamDigest(bound_bytes(FIRST.request.digest), FIRST.attempt)
    for _ in range(count):
        running.update(message)
    response = PassingResponse()
    event = b"data: %s\n\n" % message
    tracemalloc.start()
    try:
        response.add(chain(FIRST))
        for _ in range(count):
            response.add(event[:40_000])
            response.add(event[40_000:])
        response.add(DONE)
        response.close()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * MIB
    assert response.count() == count
    assert response.digest(FIRST, 0, count) == running.close()
