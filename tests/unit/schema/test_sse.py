"""The server-sent events codec, field by field."""

import pytest

from trunkline.base.errors import MalformedError
from trunkline.schema import sse


def parse(data: bytes) -> list[sse.SseEvent]:
    return sse.SseParser().feed(data)


def test_one_event_has_name_id_tokens_and_data() -> None:
    (event,) = parse(b'event: x\nid: 7\ntokens: 0:504 1:9\ndata: {"a":1}\n\n')
    assert (event.event, event.id, event.data) == ("x", b"7", b'{"a":1}')
    assert event.tokens == ((0, 504), (1, 9))
    assert event.complete
    assert not event.comment


def test_an_event_may_carry_tokens_and_no_data() -> None:
    (event,) = parse(b"id: 2\ntokens: 0:3575\n\n")
    assert event.data is None
    assert event.tokens == ((0, 3575),)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_line_end_counts(end: bytes) -> None:
    events = parse(end.join([b"data: a", b"data: b", b"", b"data", b"", b""]))
    assert [event.data for event in events] == [b"a\nb", b""]


def test_a_crlf_cut_in_two_is_one_line_end() -> None:
    parser = sse.SseParser()
    events = parser.feed(b"data: a\r") + parser.feed(b"\ndata: b\r") + parser.feed(b"\n\r\n")
    assert [event.data for event in events] == [b"a\nb"]


def test_the_byte_order_mark_is_dropped_once() -> None:
    parser = sse.SseParser()
    events = [e for byte in b"\xef\xbb\xbfdata: a\n\n" for e in parser.feed(bytes([byte]))]
    assert [event.data for event in events] == [b"a"]
    assert parser.feed(b"\xef\xbb\xbfdata: b\n\n")[0].data is None


def test_only_one_space_after_the_colon_is_dropped() -> None:
    assert [e.data for e in parse(b"data:a\n\ndata:  a\n\n")] == [b"a", b" a"]


def test_comment_only_blocks_are_flagged() -> None:
    first, second = parse(b": queued\n\n: hi\ndata: x\n\n")
    assert first.comment
    assert first.data is None
    assert not second.comment


def test_blank_lines_are_nothing() -> None:
    assert parse(b"\n\n\n\n\n") == []


def test_an_id_with_nul_is_ignored() -> None:
    assert parse(b"id: a\0\ndata: x\n\n")[0].id is None


def test_a_long_event_is_refused_after_those_before_it() -> None:
    parser = sse.SseParser(limit_bytes=16)
    assert [e.data for e in parser.feed(b"data: ok\n\ndata: " + b"x" * 40 + b"\n\n")] == [b"ok"]
    with pytest.raises(MalformedError) as caught:
        parser.feed(b"data: more\n\n")
    assert caught.value.error_code == "sse_event_too_large"
    with pytest.raises(MalformedError):
        parser.finish()


def test_an_endless_event_is_refused_without_its_end() -> None:
    parser = sse.SseParser(limit_bytes=16)
    assert parser.feed(b"data: 9876543210") == []
    assert parser.feed(b"\n") == []
    with pytest.raises(MalformedError):
        parser.feed(b"d")


def test_too_many_fields_are_refused() -> None:
    lines = b"".join(b"f%d: x\n" % i for i in range(sse.FIELDS_MAX + 1))
    with pytest.raises(MalformedError):
        parse(lines + b"\n")


def test_finish_gives_whole_lines_marked_incomplete() -> None:
    parser = sse.SseParser()
    assert parser.feed(b"data: [DONE]\ntokens: 0:5") == []
    assert parser.pending_bytes > 0
    (event,) = parser.finish()
    assert event.data == sse.DONE_DATA
    assert not event.complete
    assert event.tokens == ()


def test_finish_on_a_boundary_gives_nothing() -> None:
    parser = sse.SseParser()
    parser.feed(b"data: a\n\n")
    assert parser.finish() == []


def test_encode_orders_its_fields() -> None:
    data = sse.encode(event="e", id=3, data=b"a\nb", tokens=[(0, 1), (1, 2)])
    assert data == b"event: e\nid: 3\ntokens: 0:1 1:2\ndata: a\ndata: b\n\n"


@pytest.mark.parametrize("bad", [{"event": "a\nb"}, {"id": b"a\r"}, {"data": b"a\rb"}])
def test_encode_refuses_what_the_format_can_not_carry(bad: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        sse.encode(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bad", [b"0", b"0:", b":1", b"0:1  0:2", b"-1:2", b"0:+1", b"0:4294967296", b"0:1 "]
)
def test_a_bad_tokens_field_is_malformed(bad: bytes) -> None:
    with pytest.raises(MalformedError):
        sse.parse_tokens(bad)


def test_a_tokens_field_is_bounded() -> None:
    with pytest.raises(MalformedError):
        sse.parse_tokens(b" ".join([b"0:1"] * (sse.TOKENS_MAX + 1)))


def test_comment_is_one_block() -> None:
    assert sse.comment("queued") == b": queued\n\n"
