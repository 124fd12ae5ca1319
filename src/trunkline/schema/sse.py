"""Server-sent events: bytes to events and back, for the hot path.

Follows the WHATWG HTML standard, "Interpreting an event stream": lines end in LF, CR or CRLF, one
byte order mark may come first, data lines join with LF, an event named twice has its last name, an
event that the stream leaves unfinished is not an event. Two additions, both needed by
``docs/spec/attempt-protocol.md`` and invisible to other parsers: fields of unknown name are handed
on (``tokens``, ``used``), and so is a block without ``data``, for which a browser dispatches
nothing.

It does no I/O, decodes no JSON, and refuses an event longer than its limit. The events that it
yields do not depend on how the bytes were cut.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from trunkline.base.errors import MalformedError

EVENT_BYTES_MAX = 8 * 1024 * 1024
FIELDS_MAX = 32
"""Most fields of unknown name in one event."""
TOKENS_MAX = 4096
"""Most token entries in one event: far above 16 choices, each with a few tokens."""
TOKEN_MAX = 0xFFFF_FFFF
COUNT_DIGITS_MAX = 15

DONE_DATA = b"[DONE]"
DONE = b"data: [DONE]\n\n"
"""How a stream in the OpenAI format ends. Nodes never send it; gateways do."""

_BOM = b"\xef\xbb\xbf"
_NO_FIELDS: Mapping[str, bytes] = MappingProxyType({})


class SseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One block of the stream, up to its blank line."""

    event: str = ""
    """The event's name; empty for an unnamed one (a browser's ``message``)."""
    data: bytes | None = None
    """Its data lines joined with LF; None without any: a browser would dispatch nothing."""
    id: bytes | None = None
    fields: Mapping[str, bytes] = _NO_FIELDS
    """Fields that the standard does not name (``tokens``), and ``retry``, as sent."""
    comment: bool = False
    """True for a block of nothing but comments: a sign of life."""
    complete: bool = True
    """False only from :meth:`SseParser.finish`: the stream ended before the blank line."""

    @property
    def tokens(self) -> tuple[tuple[int, int], ...]:
        """``(choice, token id)`` pairs of the ``tokens`` field; empty without one."""
        text = self.fields.get("tokens")
        return () if text is None else parse_tokens(text)

    @property
    def used(self) -> tuple[int, int] | None:
        """Prompt and completion tokens of the ``used`` field; None without one."""
        text = self.fields.get("used")
        return None if text is None else parse_used(text)


class SseParser:
    """Feed it bytes as they come; it returns the events that they complete.

    An event longer than ``limit_bytes``, or with too many fields, raises :class:`MalformedError`;
    events that came before it are returned first, and every later call raises.
    """

    __slots__ = ("_after_cr", "_error", "_head", "_limit_bytes", "_tail")

    def __init__(self, limit_bytes: int = EVENT_BYTES_MAX) -> None:
        self._limit_bytes = limit_bytes
        self._tail = bytearray()
        self._after_cr = False
        self._head: bytes | None = b""
        self._error: MalformedError | None = None

    @property
    def pending_bytes(self) -> int:
        """Bytes held of an event that is not complete."""
        return len(self._tail) + len(self._head or b"")

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that ``data`` completes, in order. Raises :class:`MalformedError`."""
        if self._error is not None:
            raise self._error
        if self._head is not None:
            data = self._strip_bom(data)
        if self._after_cr and data:
            # The CR ended a line already; its LF, cut off into this piece, is the same line end.
            self._after_cr = False
            if data[0] == 0x0A:
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data[-1] == 0x0D
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not data:
            return []
        return self._blocks(data)

    def finish(self) -> list[SseEvent]:
        """Call at the end of the stream: what was left unfinished, if it held a whole line.

        At most one event, with ``complete`` False. The standard discards it, and so must whoever
        relies on all of an event; it serves to accept a last ``data: [DONE]`` without blank line.
        A last line without line end is dropped, because it may be cut anywhere.
        """
        if self._error is not None:
            raise self._error
        tail = bytes(self._tail) if self._head is None else self._head
        self._tail.clear()
        self._head = None
        lines = tail.rpartition(b"\n")[0]
        event = self._event(lines) if lines else None
        if event is None:
            return []
        return [msgspec.structs.replace(event, complete=False)]

    def _strip_bom(self, data: bytes) -> bytes:
        head = (self._head or b"") + data
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _blocks(self, data: bytes) -> list[SseEvent]:
        tail = self._tail
        if tail:
            seen = len(tail)
            tail += data
            # A blank line may begin with the last byte that was here before.
            if tail.find(b"\n\n", seen - 1) < 0:
                return self._keep([])
            data = bytes(tail)
            tail.clear()
        *blocks, rest = data.split(b"\n\n")
        events: list[SseEvent] = []
        for block in blocks:
            if not block or block == b"\n":
                continue
            try:
                event = self._event(block)
            except MalformedError as error:
                return self._fail(error, events)
            if event is not None:
                events.append(event)
        tail += rest
        return self._keep(events)

    def _keep(self, events: list[SseEvent]) -> list[SseEvent]:
        # One more byte than the limit may be the first half of the blank line.
        if len(self._tail) > self._limit_bytes + 1:
            self._tail.clear()
            return self._fail(_too_long(self._limit_bytes), events)
        return events

    def _fail(self, error: MalformedError, events: list[SseEvent]) -> list[SseEvent]:
        self._error = error
        if not events:
            raise error
        return events

    def _event(self, block: bytes) -> SseEvent | None:
        if len(block) > self._limit_bytes:
            raise _too_long(self._limit_bytes)
        name = ""
        data: bytes | None = None
        more: list[bytes] | None = None
        event_id: bytes | None = None
        fields: dict[str, bytes] | None = None
        comment = False
        for line in block.split(b"\n"):
            if line.startswith(b"data: "):
                # Most bytes of most streams: copied once.
                field, colon, value = b"data", b":", line[6:]
            else:
                field, colon, value = line.partition(b":")
                if value[:1] == b" ":
                    value = value[1:]
            if field == b"data":
                if data is None:
                    data = value
                elif more is None:
                    more = [data, value]
                else:
                    more.append(value)
            elif field == b"id":
                # The standard ignores an id that holds NUL.
                event_id = event_id if b"\0" in value else value
            elif field == b"event":
                name = value.decode("utf-8", "replace")
            elif field:
                fields = {} if fields is None else fields
                fields[field.decode("utf-8", "replace")] = value
                if len(fields) > FIELDS_MAX:
                    raise MalformedError("an event has too many fields", code="sse_event_too_large")
            elif colon:
                comment = True
        if more is not None:
            data = b"\n".join(more)
        silent = data is None and event_id is None and fields is None and not name
        if silent and not comment:
            return None
        return SseEvent(
            event=name,
            data=data,
            id=event_id,
            fields=_NO_FIELDS if fields is None else fields,
            comment=silent,
        )


def _too_long(limit_bytes: int) -> MalformedError:
    return MalformedError(
        f"an event is longer than {limit_bytes} bytes", code="sse_event_too_large"
    )


def parse_tokens(text: bytes) -> tuple[tuple[int, int], ...]:
    """Read a ``tokens`` field: ``<choice>:<token id>`` separated by single spaces.

    Raises :class:`MalformedError` for anything else, and above ``TOKENS_MAX`` entries.
    """
    if not text:
        return ()
    entries = text.split(b" ", TOKENS_MAX)
    if len(entries) > TOKENS_MAX:
        raise MalformedError("a tokens field has too many entries", code="bad_tokens_field")
    return tuple(_token(entry) for entry in entries)


def _token(entry: bytes) -> tuple[int, int]:
    choice, _, token = entry.partition(b":")
    # isdigit on bytes admits ASCII digits only, so int() can not meet signs or underscores.
    if not (choice.isdigit() and token.isdigit() and len(choice) <= 5 and len(token) <= 10):
        raise MalformedError("a tokens field is not choice:token pairs", code="bad_tokens_field")
    number = int(token)
    if number > TOKEN_MAX:
        raise MalformedError("a token id is too large", code="bad_tokens_field")
    return int(choice), number


def format_tokens(tokens: Iterable[tuple[int, int]]) -> bytes:
    """The value of a ``tokens`` field."""
    return " ".join([f"{choice}:{token}" for choice, token in tokens]).encode("ascii")


def parse_used(text: bytes) -> tuple[int, int]:
    """Read a ``used`` field: two decimal counts with a space between. Raises
    :class:`MalformedError` for anything else."""
    counts = text.split(b" ", 2)
    if len(counts) != 2 or not all(c.isdigit() and len(c) <= COUNT_DIGITS_MAX for c in counts):
        raise MalformedError("a used field is not two counts", code="bad_used_field")
    return int(counts[0]), int(counts[1])


def encode(
    event: str | None = None,
    id: int | bytes | None = None,  # noqa: A002 -- the field's own name on the wire
    data: bytes | None = None,
    tokens: Iterable[tuple[int, int]] | None = None,
    used: tuple[int, int] | None = None,
) -> bytes:
    """One event's bytes, blank line included: fields in the order event, id, tokens, used, data.

    ``data`` with line feeds becomes several data lines. Raises :class:`MalformedError` for what
    the format can not carry: a carriage return in data, a line end in a name or an id.
    """
    parts: list[bytes] = []
    if event is not None:
        parts.append(b"event: %b\n" % _one_line(event.encode("utf-8")))
    if id is not None:
        parts.append(b"id: %b\n" % (b"%d" % id if isinstance(id, int) else _one_line(id)))
    if tokens is not None:
        parts.append(b"tokens: %b\n" % format_tokens(tokens))
    if used is not None:
        parts.append(b"used: %d %d\n" % used)
    if data is not None:
        if b"\r" in data:
            raise MalformedError("event data can not hold a carriage return", code="bad_event")
        parts.append(b"data: %b\n" % data.replace(b"\n", b"\ndata: "))
    parts.append(b"\n")
    return b"".join(parts)


def comment(text: str) -> bytes:
    """A comment line and the blank line after it: a sign of life that no client sees."""
    return b": %b\n\n" % _one_line(text.encode("utf-8"))


def _one_line(value: bytes) -> bytes:
    if b"\n" in value or b"\r" in value or b"\0" in value:
        raise MalformedError("a field of an event must be one line", code="bad_event")
    return value
