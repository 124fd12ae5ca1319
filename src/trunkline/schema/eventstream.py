"""Amazon's event stream encoding (``application/vnd.amazon.eventstream``): bytes in, messages out.

Pure. Each message is a prelude (total length, headers' length, CRC-32 of both), headers, a payload
and a CRC-32 of all that. It believes no length before its checksum, holds no more than one message,
and refuses what does not check. Follows the encoding's specification in the Smithy documents.
"""

import struct
from typing import Final
from zlib import crc32

import msgspec

from trunkline.base.errors import MalformedError

HEADERS_BYTES_MAX: Final = 128 * 1024
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""The encoding's own bounds."""
HEADERS_MAX: Final = 64
PRELUDE_BYTES: Final = 12
_OVERHEAD: Final = PRELUDE_BYTES + 4
_PRELUDE: Final = struct.Struct(">III")
_WORD: Final = struct.Struct(">I")
_SHORT: Final = struct.Struct(">H")
_FIXED: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
"""Bytes of the header types whose length does not vary."""
_BYTES: Final = 6
_STRING: Final = 7


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the stream."""

    headers: dict[str, str]
    """Headers that are strings; those of other types are checked and left out."""
    payload: bytes


class EventStreamParser:
    """Takes bytes however they were cut. ``feed`` returns the messages that are complete."""

    __slots__ = ("_buffer", "_limit")

    def __init__(self, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._limit = message_bytes_max

    @property
    def empty(self) -> bool:
        """Nothing is left over: the stream may end here."""
        return not self._buffer

    def feed(self, data: bytes) -> list[Message]:
        """Raises :class:`MalformedError` ``bad_eventstream``; the stream is then unusable."""
        self._buffer += data
        messages: list[Message] = []
        start = 0
        while len(self._buffer) - start >= PRELUDE_BYTES:
            total, headers_bytes = self._prelude(start)
            if len(self._buffer) - start < total:
                break
            messages.append(_message(bytes(self._buffer[start : start + total]), headers_bytes))
            start += total
        del self._buffer[:start]
        return messages

    def _prelude(self, start: int) -> tuple[int, int]:
        total, headers_bytes, checksum = _PRELUDE.unpack_from(self._buffer, start)
        if crc32(self._buffer[start : start + 8]) != checksum:
            raise _bad("a prelude's checksum is wrong")
        if total > self._limit or headers_bytes > HEADERS_BYTES_MAX:
            raise _bad("a message is too large")
        if total < _OVERHEAD + headers_bytes:
            raise _bad("a message is shorter than its headers")
        return total, headers_bytes


def _message(data: bytes, headers_bytes: int) -> Message:
    (checksum,) = _WORD.unpack_from(data, len(data) - 4)
    if crc32(data[:-4]) != checksum:
        raise _bad("a message's checksum is wrong")
    ended = PRELUDE_BYTES + headers_bytes
    return Message(headers=_headers(data[PRELUDE_BYTES:ended]), payload=data[ended:-4])


def _headers(data: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    at = count = 0
    while at < len(data):
        count += 1
        size = data[at]
        name, kind = data[at + 1 : at + 1 + size], data[at + 1 + size : at + 2 + size]
        at += 2 + size
        if not kind or count > HEADERS_MAX:
            raise _bad("headers are cut, or too many")
        length = _FIXED.get(kind[0])
        if length is None:
            if kind[0] not in (_BYTES, _STRING) or at + 2 > len(data):
                raise _bad("a header has no known type")
            (length,) = _SHORT.unpack_from(data, at)
            at += 2
        value = data[at : at + length]
        at += length
        if at > len(data):
            raise _bad("a header is cut")
        if kind[0] == _STRING:
            headers[_text(name)] = _text(value)
    return headers


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("a header is no text") from None


def _bad(what: str) -> MalformedError:
    return MalformedError(what, code="bad_eventstream")
