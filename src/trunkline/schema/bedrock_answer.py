"""AWS Bedrock's answers, as read: ``ConverseResponse`` and the events of ``ConverseStreamOutput``.

Member names are those of AWS's published service model ``bedrock-runtime-2023-09-30``. The view
holds what the grid translates; members unknown to it are skipped, because the format grows. It
refuses nothing but what does not parse.
"""

from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.schema.parsing import ABSENT

EVENT_BYTES_MAX: Final = 64 * 1024 * 1024

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
T = TypeVar("T")


class _Camel(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The wire's names are in camel case."""


class ToolUse(_Camel, frozen=True, kw_only=True):
    tool_use_id: str = ""
    name: str = ""
    input: msgspec.Raw = ABSENT
    """The arguments, an object."""


class Block(_Camel, frozen=True, kw_only=True):
    """One of its members is given. Others than these are only noted."""

    text: str | None = None
    tool_use: ToolUse | None = None
    reasoning_content: msgspec.Raw = ABSENT
    citations_content: msgspec.Raw = ABSENT
    image: msgspec.Raw = ABSENT


class Message(_Camel, frozen=True, kw_only=True):
    content: tuple[Block, ...] = ()


class Output(_Camel, frozen=True, kw_only=True):
    message: Message


class TokenUsage(_Camel, frozen=True, kw_only=True):
    input_tokens: Count = 0
    """Those read from or written to a cache not included."""
    output_tokens: Count = 0
    cache_read_input_tokens: Count | None = None
    cache_write_input_tokens: Count | None = None


class Response(_Camel, frozen=True, kw_only=True):
    output: Output
    stop_reason: str
    usage: TokenUsage | None = None


class ToolUseDelta(_Camel, frozen=True, kw_only=True):
    input: str = ""
    """More of the arguments' text."""


class Start(_Camel, frozen=True, kw_only=True):
    tool_use: ToolUse | None = None
    tool_result: msgspec.Raw = ABSENT
    image: msgspec.Raw = ABSENT


class Delta(_Camel, frozen=True, kw_only=True):
    text: str | None = None
    tool_use: ToolUseDelta | None = None
    reasoning_content: msgspec.Raw = ABSENT
    citation: msgspec.Raw = ABSENT
    tool_result: msgspec.Raw = ABSENT
    image: msgspec.Raw = ABSENT


class MessageStart(_Camel, frozen=True, kw_only=True):
    role: str = "assistant"


class BlockStart(_Camel, frozen=True, kw_only=True):
    start: Start
    content_block_index: Count


class BlockDelta(_Camel, frozen=True, kw_only=True):
    delta: Delta
    content_block_index: Count


class BlockStop(_Camel, frozen=True, kw_only=True):
    content_block_index: Count


class MessageStop(_Camel, frozen=True, kw_only=True):
    stop_reason: str


class Metadata(_Camel, frozen=True, kw_only=True):
    usage: TokenUsage | None = None


class Event(_Camel, frozen=True, kw_only=True):
    """One of its members is given; none for an event of a kind that is not known."""

    message_start: MessageStart | None = None
    content_block_start: BlockStart | None = None
    content_block_delta: BlockDelta | None = None
    content_block_stop: BlockStop | None = None
    message_stop: MessageStop | None = None
    metadata: Metadata | None = None


_RESPONSE: Final = msgspec.json.Decoder(Response)
_EVENT: Final = msgspec.json.Decoder(Event)


def parse_response(data: bytes) -> Response:
    """Read a whole answer. Raises :class:`MalformedError`."""
    return _parse(_RESPONSE, data)


def parse_event(data: bytes) -> Event:
    """Read one event, ``{"<its type>": <its payload>}``. Raises :class:`MalformedError`."""
    return _parse(_EVENT, data)


def _parse(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    if len(data) > EVENT_BYTES_MAX:
        raise MalformedError("a response is too large", code="bad_chunk")
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not the parser's message: it may quote the answer.
        raise MalformedError("a response does not parse", code="bad_chunk") from None
