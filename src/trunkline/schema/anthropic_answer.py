"""Answers to ``POST /v1/messages`` in the Anthropic format: the message, and a stream's events.

Follows Anthropic's Messages API (version 2023-06-01), "Streaming messages". Functions here write
one event each and know no order; the order is the translator's (``grid/anthropic_openai.py``).
"""

from typing import Literal

import msgspec

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""A sign of life that clients skip; allowed anywhere between events."""

_encode = msgspec.json.Encoder().encode


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Counted model tokens. In a stream, totals so far: a later one replaces an earlier one."""

    input_tokens: int
    """Prompt tokens that were not read from a cache."""
    output_tokens: int
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class TextBlock(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str


class ToolUseBlock(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: tuple[TextBlock | ToolUseBlock, ...]
    stop_reason: StopReason | None
    """None only in ``message_start``."""
    stop_sequence: str | None
    usage: Usage


def encode_message(message: Message) -> bytes:
    """The message's bytes."""
    return _encode(message)


def _event(name: bytes, rest: bytes) -> bytes:
    return b'event: %b\ndata: {"type":"%b"%b}\n\n' % (name, name, rest)


def message_start(message_id: str, model: str) -> bytes:
    """First event. Its usage is not known yet and says 0; ``message_delta`` gives the totals."""
    message = Message(
        id=message_id,
        model=model,
        content=(),
        stop_reason=None,
        stop_sequence=None,
        usage=Usage(input_tokens=0, output_tokens=0),
    )
    return _event(b"message_start", b',"message":' + _encode(message))


def text_start(index: int) -> bytes:
    return _event(
        b"content_block_start",
        b',"index":%d,"content_block":{"type":"text","text":""}' % index,
    )


def tool_use_start(index: int, tool_id: str, name: str) -> bytes:
    return _event(
        b"content_block_start",
        b',"index":%d,"content_block":{"type":"tool_use","id":%b,"name":%b,"input":{}}'
        % (index, _encode(tool_id), _encode(name)),
    )


def text_delta(index: int, text: str) -> bytes:
    return _event(
        b"content_block_delta",
        b',"index":%d,"delta":{"type":"text_delta","text":%b}' % (index, _encode(text)),
    )


def input_json_delta(index: int, partial_json: str) -> bytes:
    return _event(
        b"content_block_delta",
        b',"index":%d,"delta":{"type":"input_json_delta","partial_json":%b}'
        % (index, _encode(partial_json)),
    )


def block_stop(index: int) -> bytes:
    return _event(b"content_block_stop", b',"index":%d' % index)


def message_delta(reason: StopReason, stop_sequence: str | None, usage: Usage) -> bytes:
    return _event(
        b"message_delta",
        b',"delta":{"stop_reason":"%b","stop_sequence":%b},"usage":%b'
        % (reason.encode("ascii"), _encode(stop_sequence), _encode(usage)),
    )


def message_stop() -> bytes:
    return _event(b"message_stop", b"")
