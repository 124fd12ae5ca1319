"""Any bytes, cut anywhere, give the same events; what is encoded is read back."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError
from trunkline.schema import sse

LIMIT_BYTES = 24
PIECES = st.lists(
    st.sampled_from(
        [
            *[b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"id", b"event", b"tokens", b"0:1"],
            *[b"\xff", b"\xef\xbb\xbf", b"\0", b"x" * 9],
        ]
    )
    | st.binary(max_size=3),
    max_size=40,
).map(b"".join)


def run(pieces: list[bytes]) -> tuple[list[sse.SseEvent], str]:
    parser = sse.SseParser(limit_bytes=LIMIT_BYTES)
    events: list[sse.SseEvent] = []
    try:
        for piece in pieces:
            events += parser.feed(piece)
        events += parser.finish()
    except MalformedError as error:
        return events, error.error_code
    return events, ""


@given(PIECES, st.data())
def test_events_do_not_depend_on_the_cuts(data: bytes, draw: st.DataObject) -> None:
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=8)))
    edges = [0, *cuts, len(data)]
    whole = run([data])
    assert run([data[a:b] for a, b in pairwise(edges)]) == whole
    assert run([data[i : i + 1] for i in range(len(data))]) == whole


LINE = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=20)


@given(
    name=st.none() | LINE.filter(bool),
    number=st.none() | st.integers(0, 10**9),
    data=st.none() | st.binary(max_size=60).filter(lambda value: b"\r" not in value),
    tokens=st.none()
    | st.lists(st.tuples(st.integers(0, 15), st.integers(0, sse.TOKEN_MAX)), max_size=5),
)
def test_encode_then_parse(
    name: str | None, number: int | None, data: bytes | None, tokens: list[tuple[int, int]] | None
) -> None:
    events = sse.SseParser().feed(sse.encode(event=name, id=number, data=data, tokens=tokens))
    if name is None and number is None and data is None and tokens is None:
        assert events == []
        return
    (event,) = events
    assert event.event == (name or "")
    assert event.id == (None if number is None else b"%d" % number)
    assert event.data == data
    assert event.tokens == tuple(tokens or ())


@given(st.binary(max_size=40))
def test_any_tokens_field_is_read_or_malformed(text: bytes) -> None:
    try:
        tokens = sse.parse_tokens(text)
    except MalformedError:
        return
    assert sse.parse_tokens(sse.format_tokens(tokens)) == tokens
