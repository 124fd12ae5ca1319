"""``POST /v1/messages``: the request, in the Anthropic format.

Follows Anthropic's Messages API (version 2023-06-01). Top-level fields are all kept: those unknown
are listed by name. Inside messages and tools the view is closed: a block type or a field that it
does not name is refused as ``unsupported_parameter``, because a translator that does not know a
thing can not carry it. Free-form JSON (tool inputs, schemas) stays raw.

Answers are in ``anthropic_answer``.
"""

import re
from typing import Literal

import msgspec

from trunkline.schema.parsing import (
    ABSENT,
    ID_CHARS_MAX,
    check_chars,
    check_range,
    decode,
    invalid,
    top_level,
)
from trunkline.schema.unknown import plain_name

MESSAGES_MAX = 100_000
BLOCKS_MAX = 2_000
"""Ours: blocks of one message."""
TOOLS_MAX = 128
"""Ours: OpenAI's limit, since requests are translated."""
STOP_SEQUENCES_MAX = 64
"""Ours. A target may allow fewer."""
STOP_CHARS_MAX = 1_024
"""Ours."""
TOKENS_MAX = 2**31 - 1
TOP_K_MAX = 2**31 - 1

_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")


class CacheControl(msgspec.Struct, frozen=True, kw_only=True):
    """Advice to cache the prompt up to here. It can not change the answer."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class _Block(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every block may hold."""

    cache_control: CacheControl | None = None


class TextBlock(_Block, frozen=True, kw_only=True, tag_field="type", tag="text"):
    text: str
    citations: msgspec.Raw = ABSENT


class Base64Source(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="base64",
):
    media_type: str
    data: str


class UrlSource(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="url",
):
    url: str


class TextSource(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="text",
):
    media_type: str
    data: str


class FileSource(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="file",
):
    file_id: str


class ImageBlock(_Block, frozen=True, kw_only=True, tag_field="type", tag="image"):
    source: Base64Source | UrlSource | FileSource


class CitationsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    enabled: bool = False


class DocumentBlock(_Block, frozen=True, kw_only=True, tag_field="type", tag="document"):
    source: Base64Source | UrlSource | TextSource | FileSource
    title: str | None = None
    context: str | None = None
    citations: CitationsConfig | None = None


class ThinkingBlock(_Block, frozen=True, kw_only=True, tag_field="type", tag="thinking"):
    thinking: str
    signature: str = ""


class RedactedThinkingBlock(
    _Block, frozen=True, kw_only=True, tag_field="type", tag="redacted_thinking"
):
    data: str


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    type: str


class ToolUseBlock(_Block, frozen=True, kw_only=True, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: msgspec.Raw
    caller: Caller | None = None


class ToolResultBlock(_Block, frozen=True, kw_only=True, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | tuple[TextBlock | ImageBlock | DocumentBlock, ...] | None = None
    is_error: bool | None = None


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | ThinkingBlock
    | RedactedThinkingBlock
    | ToolUseBlock
    | ToolResultBlock
)


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    role: Literal["user", "assistant", "system"]
    content: str | tuple[Block, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The content as blocks, whichever way it was sent."""
        return (TextBlock(text=self.content),) if isinstance(self.content, str) else self.content


class Tool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool that the caller runs. The provider's own tools have other types, and are refused."""

    name: str
    input_schema: msgspec.Raw
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    allowed_callers: tuple[str, ...] | None = None
    defer_loading: bool | None = None
    eager_input_streaming: bool | None = None
    input_examples: msgspec.Raw = ABSENT


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    user_id: str | None = None


class Thinking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: str | None = None


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["json_schema"]
    schema: msgspec.Raw


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class MessagesParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Every documented field. None: not given, or given as null."""

    model: str
    max_tokens: int
    messages: tuple[Message, ...]
    cache_control: CacheControl | None = None
    container: msgspec.Raw = ABSENT
    diagnostics: msgspec.Raw = ABSENT
    inference_geo: str | None = None
    metadata: Metadata | None = None
    output_config: OutputConfig | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard", "fast"] | None = None
    stop_sequences: tuple[str, ...] | None = None
    stream: bool | None = None
    system: str | tuple[TextBlock, ...] | None = None
    temperature: float | None = None
    thinking: Thinking | None = None
    tool_choice: ToolChoice | None = None
    tools: tuple[Tool, ...] | None = None
    top_k: int | None = None
    top_p: float | None = None
    user_profile_id: str | None = None


class MessagesRequest(MessagesParameters, frozen=True, kw_only=True):
    """The typed view, the bytes it is a view of, and the names that it does not know."""

    raw: bytes
    unknown: tuple[str, ...]

    def __repr__(self) -> str:
        # The inherited one would print the conversation into whatever logs it.
        return f"MessagesRequest(model={self.model!r}, bytes={len(self.raw)})"

    @property
    def streams(self) -> bool:
        return self.stream is True


_DECODER = msgspec.json.Decoder(MessagesParameters)
FIELDS: frozenset[str] = frozenset(MessagesParameters.__struct_fields__)


def parse(raw: bytes) -> MessagesRequest:
    """Read and check a request body. Raises :class:`RequestError` naming the parameter at fault."""
    members = top_level(raw)
    view = decode(raw, _DECODER, unknown_code="unsupported_parameter")
    _check(view)
    unknown = tuple(plain_name(name) for name in members if name not in FIELDS)
    return MessagesRequest(raw=raw, unknown=unknown, **msgspec.structs.asdict(view))


def unknown_fields(raw: bytes) -> list[str]:
    """Names of the top-level fields that the format does not document, in the order sent."""
    return [plain_name(name) for name in top_level(raw) if name not in FIELDS]


def _check(view: MessagesParameters) -> None:
    check_chars(view.model, "model")
    check_range(view.max_tokens, 0, TOKENS_MAX, "max_tokens")
    check_range(view.temperature, 0, 1, "temperature")
    check_range(view.top_p, 0, 1, "top_p")
    check_range(view.top_k, 0, TOP_K_MAX, "top_k")
    stops = view.stop_sequences or ()
    if len(stops) > STOP_SEQUENCES_MAX:
        raise invalid(f"must hold at most {STOP_SEQUENCES_MAX} strings", "stop_sequences")
    for stop in stops:
        check_chars(stop, "stop_sequences", STOP_CHARS_MAX)
    if view.metadata is not None and len(view.metadata.user_id or "") > ID_CHARS_MAX:
        raise invalid(f"must have at most {ID_CHARS_MAX} characters", "metadata.user_id")
    _check_tools(view)
    if not 1 <= len(view.messages) <= MESSAGES_MAX:
        raise invalid(f"must hold 1 to {MESSAGES_MAX} messages", "messages")
    for index, message in enumerate(view.messages):
        _check_message(message, f"messages[{index}].content")


def _check_tools(view: MessagesParameters) -> None:
    tools = view.tools or ()
    if len(tools) > TOOLS_MAX:
        raise invalid(f"must hold at most {TOOLS_MAX} tools", "tools")
    for index, tool in enumerate(tools):
        if _NAME.fullmatch(tool.name) is None:
            raise invalid(
                "must have 1 to 128 letters, digits, underscores or dashes", f"tools[{index}].name"
            )
        if not bytes(tool.input_schema).startswith(b"{"):
            raise invalid("must be an object", f"tools[{index}].input_schema", "invalid_type")
    names = {tool.name for tool in tools}
    if len(names) != len(tools):
        raise invalid("must have different names", "tools")
    choice = view.tool_choice
    if choice is None or choice.type == "none":
        return
    if not tools:
        raise invalid("needs tools", "tool_choice")
    if (choice.name is not None) != (choice.type == "tool"):
        raise invalid("goes with type tool, and only with it", "tool_choice.name")
    if choice.name is not None and choice.name not in names:
        raise invalid("names a tool that tools does not hold", "tool_choice.name")


def _check_message(message: Message, param: str) -> None:
    if isinstance(message.content, str):
        return
    if not 1 <= len(message.content) <= BLOCKS_MAX:
        raise invalid(f"must hold 1 to {BLOCKS_MAX} blocks", param)
    for index, block in enumerate(message.content):
        if not isinstance(block, _BLOCKS_ALLOWED[message.role]):
            raise invalid(
                f"has a type that a message of role {message.role} can not hold",
                f"{param}[{index}].type",
            )
        if isinstance(block, ToolUseBlock):
            check_chars(block.id, f"{param}[{index}].id")
            if not bytes(block.input).startswith(b"{"):
                raise invalid("must be an object", f"{param}[{index}].input", "invalid_type")
        elif isinstance(block, ToolResultBlock):
            check_chars(block.tool_use_id, f"{param}[{index}].tool_use_id")


_BLOCKS_ALLOWED: dict[str, tuple[type[Block], ...]] = {
    "system": (TextBlock,),
    "user": (TextBlock, ImageBlock, DocumentBlock, ToolResultBlock),
    "assistant": (TextBlock, ThinkingBlock, RedactedThinkingBlock, ToolUseBlock),
}
