"""Anthropic's streams as chunks (part of ``openai_anthropic``).

Follows the Messages API (version 2023-06-01), "Streaming messages". The translator is a pure state
machine over the events' data; what it writes does not depend on how the bytes were cut. It refuses
to end an answer that the provider did not end: no ``message_stop``, no finish. What a client of
this format has no place for (thoughts, citations, events of unknown type) is left out, and named in
``skipped`` for whoever wants to know.
"""

from collections.abc import Iterator
from typing import Final, NoReturn

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    MalformedError,
    RateLimitedError,
    TimedOutError,
    TruncatedError,
    UpstreamError,
)
from trunkline.schema import openai_answer as out
from trunkline.schema.grid.openai_anthropic_answer import (
    Block,
    Message,
    Usage,
    finish_reason,
    input_text,
    openai_usage,
)
from trunkline.schema.unknown import plain_name

EVENT_BYTES_MAX: Final = 8 * 1024 * 1024
SKIPPED_MAX: Final = 32
"""Names kept of what was left out."""
_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})
_EVENTS: Final = frozenset(
    {
        "content_block_delta",
        "content_block_start",
        "content_block_stop",
        "error",
        "message_delta",
        "message_start",
        "message_stop",
        "ping",
    }
)


class _Delta(msgspec.Struct, frozen=True, kw_only=True):
    type: str = ""
    text: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Error(msgspec.Struct, frozen=True, kw_only=True):
    type: str = ""


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    type: str


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    index: int = -1
    message: Message | None = None
    content_block: Block | None = None
    delta: _Delta | None = None
    usage: Usage | None = None
    error: _Error | None = None


_EVENT: Final = msgspec.json.Decoder(_Event)
_KIND: Final = msgspec.json.Decoder(_Kind)


class StreamTranslator:
    """Anthropic events in, chunks out. One per answer.

    ``feed`` takes each event's data in order and returns the data of zero or more chunks;
    ``finish``, when the stream has ended, returns the closing ones, or raises
    :class:`TruncatedError` if the answer is not complete. For data that no answer can be made of,
    ``feed`` raises :class:`MalformedError`; for an error event, the :class:`UpstreamError`.
    """

    __slots__ = (
        "_block", "_call", "_created_s", "_ended", "_include_usage", "_input", "_kind", "_reason",
        "_skipped", "_stop", "_usage", "_writer",
    )  # fmt: skip

    def __init__(self, *, created_s: int, include_usage: bool = False) -> None:
        self._created_s = created_s
        self._include_usage = include_usage
        self._writer: out.ChunkWriter | None = None
        self._block = -1
        """Index of the block that is open, or of the last one."""
        self._kind = ""
        """Type of the open block; empty: none is open."""
        self._call = -1
        """Number of the newest tool call."""
        self._input: str | None = None
        """What stands for the open call's arguments while no delta has brought any."""
        self._reason: str | None = None
        self._stop: str | None = None
        self._usage = Usage()
        self._ended = False
        self._skipped: dict[str, None] = {}

    @property
    def skipped(self) -> tuple[str, ...]:
        """Types of events, blocks and deltas that were left out, each once."""
        return tuple(self._skipped)

    def feed(self, data: bytes) -> list[bytes]:
        """The chunks for one event."""
        event = _parse(data)
        if event.type == "error":
            _fail(event.error)
        if self._ended:
            self._skip(event.type)
            return []
        return list(self._event(event))

    def finish(self) -> list[bytes]:
        """The closing chunks of a complete answer: its usage, if asked for and given."""
        if not self._ended or self._writer is None:
            raise TruncatedError("the stream ended before the message did")
        usage = openai_usage(self._usage)
        return [self._writer.usage(usage)] if self._include_usage and usage is not None else []

    def _event(self, event: _Event) -> Iterator[bytes]:
        match event.type:
            case "message_start":
                yield self._start(event)
            case "content_block_start":
                yield from self._open(event)
            case "content_block_delta":
                yield from self._delta(event)
            case "content_block_stop":
                yield from self._close(event)
            case "message_delta":
                self._note(event)
            case "message_stop":
                yield from self._end()
            case "ping":
                pass
            case unknown:
                self._skip(unknown)

    def _start(self, event: _Event) -> bytes:
        message = event.message
        if self._writer is not None or message is None:
            _malformed("a stream has one message_start, with a message")
        # It says how much of the answer there was before it began: no count of it.
        self._usage = msgspec.structs.replace(message.usage or Usage(), output_tokens=None)
        self._writer = out.ChunkWriter(
            id=message.id,
            created_s=self._created_s,
            model=message.model,
            include_usage=self._include_usage,
        )
        return self._writer.role(0)

    def _begun(self) -> out.ChunkWriter:
        if self._writer is None:
            _malformed("a stream starts with message_start")
        return self._writer

    def _open(self, event: _Event) -> Iterator[bytes]:
        writer, block = self._begun(), event.content_block
        if self._kind or block is None or event.index != self._block + 1:
            _malformed("a block is out of order")
        self._block = event.index
        self._kind = block.type or _malformed("a block has no type")
        if block.type == "text":
            if block.text:
                yield writer.content(0, block.text)
        elif block.type == "tool_use":
            self._input = input_text(block.input)
            if not block.id or not block.name or self._input is None:
                raise MalformedError("a tool call lacks a part", code="bad_tool_call")
            self._call += 1
            yield writer.tool_call(0, self._call, id=block.id, name=block.name)
        else:
            self._skip(block.type)

    def _delta(self, event: _Event) -> Iterator[bytes]:
        writer, delta = self._begun(), event.delta
        if not self._kind or delta is None or event.index != self._block:
            _malformed("a delta belongs to no open block")
        match delta.type:
            case "text_delta" if self._kind == "text":
                if delta.text:
                    yield writer.content(0, delta.text)
            case "input_json_delta" if self._kind == "tool_use":
                if delta.partial_json:
                    self._input = None
                    yield writer.tool_arguments(0, self._call, delta.partial_json)
            case "text_delta" | "input_json_delta" if self._kind in ("text", *_THOUGHTS):
                _malformed("a delta is of another kind than its block")
            case _:
                self._skip(delta.type)

    def _close(self, event: _Event) -> Iterator[bytes]:
        writer = self._begun()
        if not self._kind or event.index != self._block:
            _malformed("no such block is open")
        if self._kind == "tool_use" and self._input is not None:
            # A call whose input came with its start, or without any: as the whole answer has it.
            yield writer.tool_arguments(0, self._call, self._input)
        self._kind, self._input = "", None

    def _note(self, event: _Event) -> None:
        self._begun()
        if event.delta is not None and event.delta.stop_reason is not None:
            self._reason = event.delta.stop_reason
            self._stop = event.delta.stop_sequence
        if event.usage is not None:
            known = {
                name: value
                for name, value in msgspec.structs.asdict(event.usage).items()
                if value is not None
            }
            self._usage = msgspec.structs.replace(self._usage, **known)

    def _end(self) -> Iterator[bytes]:
        writer = self._begun()
        if self._kind:
            _malformed("a message ends inside a block")
        finish = finish_reason(self._reason)
        self._ended = True
        stop = self._stop if self._reason == "stop_sequence" else None
        yield writer.finish(0, finish, stop_reason=stop or None)

    def _skip(self, kind: str) -> None:
        if len(self._skipped) < SKIPPED_MAX:
            self._skipped[plain_name(kind)] = None


def _parse(data: bytes) -> _Event:
    if len(data) > EVENT_BYTES_MAX:
        _malformed("an event is too large")
    try:
        try:
            return _EVENT.decode(data)
        except msgspec.ValidationError:
            kind = _KIND.decode(data).type
            if kind not in _EVENTS:
                # An event from a later version may give our members other meanings.
                return _Event(type=kind)
            raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not the parser's message: it may quote the answer.
        raise MalformedError("an event does not parse", code="bad_chunk") from None


def _malformed(what: str) -> NoReturn:
    raise MalformedError(what, code="bad_chunk")


def _fail(error: _Error | None) -> NoReturn:
    """Raise what an error event stands for. Its words are left out: they may quote a prompt."""
    match "" if error is None else error.type:
        case "rate_limit_error":
            raise RateLimitedError("the provider's limit was reached within the answer")
        case "overloaded_error" | "api_error":
            raise UpstreamError(
                "the provider failed within the answer", code="upstream_unavailable"
            )
        case "timeout_error":
            raise TimedOutError("the provider ran out of time within the answer")
        case _:
            raise BadResponseError("an error event in the stream")
