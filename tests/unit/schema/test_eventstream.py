"""Amazon's event stream encoding: known messages, any cuts, any damage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.bedrock import frame, message

from trunkline.base.errors import MalformedError
from trunkline.schema.eventstream import EventStreamParser, Message

# The empty message of the specification's own test vectors.
EMPTY = bytes.fromhex("00000010 00000000 05c248eb 7d98c8ff")

HEADERS = st.dictionaries(st.sampled_from(["event_type", "message_type"]), st.text(max_size=20))
MESSAGE = st.tuples(HEADERS, st.binary(max_size=60))


def test_an_empty_message() -> None:
    assert frame(b"", b"") == EMPTY
    assert EventStreamParser().feed(EMPTY) == [Message(headers={}, payload=b"")]


def test_headers_of_all_types_are_passed_over_but_for_strings() -> None:
    sizes = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
    headers = b"".join(b"\x01h" + bytes((kind,)) + bytes(size) for kind, size in sizes.items())
    headers += b"\x01b\x06\x00\x02\xff\xff" + b"\x01s\x07\x00\x02hi"
    (told,) = EventStreamParser().feed(frame(headers, b"x"))
    assert told == Message(headers={"s": "hi"}, payload=b"x")


@given(st.lists(MESSAGE, max_size=4), st.data())
def test_messages_come_back_however_the_bytes_are_cut(
    told: list[tuple[dict[str, str], bytes]], data: st.DataObject
) -> None:
    stream = b"".join(message(payload, **headers) for headers, payload in told)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    parser = EventStreamParser()
    found = [
        each
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for each in parser.feed(stream[start:end])
    ]
    wanted = [
        ({":" + name.replace("_", "-"): value for name, value in headers.items()}, payload)
        for headers, payload in told
    ]
    assert [(each.headers, each.payload) for each in found] == wanted
    assert parser.empty


@given(MESSAGE, st.data())
def test_a_flipped_bit_is_never_a_message(
    told: tuple[dict[str, str], bytes], data: st.DataObject
) -> None:
    whole = bytearray(message(told[1], **told[0]))
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[bit // 8] ^= 1 << bit % 8
    parser = EventStreamParser()
    with pytest.raises(MalformedError) as refused:
        parser.feed(bytes(whole))
    assert refused.value.error_code == "bad_eventstream"


@given(MESSAGE, st.data())
def test_a_cut_message_is_not_over(told: tuple[dict[str, str], bytes], data: st.DataObject) -> None:
    whole = message(told[1], **told[0])
    parser = EventStreamParser()
    assert parser.feed(whole[: data.draw(st.integers(1, len(whole) - 1))]) == []
    assert not parser.empty


@given(st.binary(max_size=200))
def test_any_headers_give_a_message_or_malformed(headers: bytes) -> None:
    try:
        EventStreamParser().feed(frame(headers, b""))
    except MalformedError as error:
        assert error.error_code == "bad_eventstream"


def test_what_is_too_large_is_refused_before_it_comes() -> None:
    whole = frame(b"", bytes(100))
    with pytest.raises(MalformedError, match="too large"):
        EventStreamParser(message_bytes_max=99).feed(whole[:12])
    assert EventStreamParser(message_bytes_max=116).feed(whole)
