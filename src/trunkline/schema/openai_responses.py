"""``POST /v1/responses``: the request, in the format of OpenAI's Responses API.

Follows the ``responses.create`` parameters of OpenAI's API reference. Top-level fields are all
kept: those unknown are listed by name. Inside items, tools and choices the view is closed: a type
or a member that it does not name is refused as ``unsupported_parameter``, because a translator that
does not know a thing can not carry it. Tools that a provider would run itself (web search, file
search, code interpreter, computer, MCP and others) are refused by their type's name. Free-form JSON
(schemas) stays raw.

Answers are in ``openai_responses_answer``.
"""

from functools import cache
from typing import Literal, TypeVar

import msgspec

from trunkline.schema.parsing import (
    ABSENT,
    check_chars,
    decode,
    given,
    invalid,
    top_level,
    unsupported,
)
from trunkline.schema.unknown import plain_name

ITEMS_MAX = 10_000
"""Ours: items of one input."""
PARTS_MAX = 2_000
"""Ours: content parts of one item."""
TOOLS_MAX = 128

_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every part of a caller's message may hold: advice to a cache changes no answer."""

    prompt_cache_breakpoint: msgspec.Raw = ABSENT


class InputText(_Part, frozen=True, kw_only=True, tag_field="type", tag="input_text"):
    text: str


class InputImage(_Part, frozen=True, kw_only=True, tag_field="type", tag="input_image"):
    image_url: str | None = None
    """``https:`` or a ``data:`` URL that holds the image."""
    file_id: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None


class InputFile(_Part, frozen=True, kw_only=True, tag_field="type", tag="input_file"):
    file_data: str | None = None
    """A ``data:`` URL."""
    file_id: str | None = None
    file_url: str | None = None
    filename: str | None = None
    detail: Literal["auto", "low", "high"] | None = None


class OutputText(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="output_text",
):
    """Text of an earlier answer, as it was given."""

    text: str
    annotations: msgspec.Raw = ABSENT
    logprobs: msgspec.Raw = ABSENT
    """Says how the text came about, and nothing to the model."""


class OutputRefusal(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="refusal",
):
    refusal: str


Part = InputText | InputImage | InputFile | OutputText | OutputRefusal


class _Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every item may hold: labels that an earlier answer put there."""

    type: str | None = None
    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class Message(_Item, frozen=True, kw_only=True):
    role: Literal["user", "assistant", "system", "developer"]
    content: str | tuple[Part, ...]
    phase: str | None = None


class FunctionCall(_Item, frozen=True, kw_only=True, rename={"is_async": "async"}):
    call_id: str
    name: str
    arguments: str
    is_async: bool | None = None
    caller: msgspec.Raw = ABSENT
    namespace: str | None = None


class FunctionCallOutput(_Item, frozen=True, kw_only=True):
    call_id: str
    output: str | tuple[Part, ...]
    caller: msgspec.Raw = ABSENT
    name: str | None = None
    namespace: str | None = None


class ReasoningText(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["reasoning_text"]
    text: str


class Reasoning(_Item, frozen=True, kw_only=True):
    summary: tuple[msgspec.Raw, ...] = ()
    content: tuple[ReasoningText, ...] | None = None
    encrypted_content: str | None = None


class ItemReference(_Item, frozen=True, kw_only=True):
    """An item of an earlier answer, by its id."""


Item = Message | FunctionCall | FunctionCallOutput | Reasoning | ItemReference

_ITEMS: dict[str, type[Item]] = {
    "message": Message,
    "function_call": FunctionCall,
    "function_call_output": FunctionCallOutput,
    "reasoning": Reasoning,
    "item_reference": ItemReference,
}


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True,
                   rename={"is_async": "async"}):  # fmt: skip
    """A function that the caller runs."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: msgspec.Raw = ABSENT
    strict: bool | None = None
    is_async: bool | None = None
    allowed_callers: tuple[str, ...] | None = None
    defer_loading: bool | None = None
    output_schema: msgspec.Raw = ABSENT


class NamedFunction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["function"]
    name: str


class AllowedTools(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: tuple[NamedFunction, ...]


class TextFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw = ABSENT
    strict: bool | None = None


class Text(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    mode: str | None = None
    context: str | None = None


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    include_obfuscation: bool | None = None


class ResponsesParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Every documented field. None: not given, or given as null."""

    model: str
    input: str | tuple[msgspec.Raw, ...]
    access_programs: msgspec.Raw = ABSENT
    background: bool | None = None
    context_management: msgspec.Raw = ABSENT
    conversation: msgspec.Raw = ABSENT
    image: msgspec.Raw = ABSENT
    include: tuple[str, ...] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    moderation: msgspec.Raw = ABSENT
    parallel_tool_calls: bool | None = None
    previous_response_id: str | None = None
    prompt: msgspec.Raw = ABSENT
    prompt_cache_key: str | None = None
    prompt_cache_options: msgspec.Raw = ABSENT
    prompt_cache_retention: str | None = None
    reasoning: ReasoningOptions | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    text: Text | None = None
    tool_choice: msgspec.Raw = ABSENT
    tools: tuple[msgspec.Raw, ...] | None = None
    top_logprobs: int | None = None
    top_p: float | None = None
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None


class ResponsesRequest(ResponsesParameters, frozen=True, kw_only=True):
    """The typed view, the bytes it is a view of, and the names that it does not know."""

    items: tuple[Item, ...]
    """The input; a plain text is one message of the user."""
    functions: tuple[FunctionTool, ...]
    choice: Literal["none", "auto", "required"] | NamedFunction | AllowedTools | None
    raw: bytes
    unknown: tuple[str, ...]

    def __repr__(self) -> str:
        # The inherited one would print the conversation into whatever logs it.
        return f"ResponsesRequest(model={self.model!r}, bytes={len(self.raw)})"

    @property
    def streams(self) -> bool:
        return self.stream is True


class _Output(msgspec.Struct, frozen=True, kw_only=True):
    output: tuple[msgspec.Raw, ...]


class _Typed(msgspec.Struct, frozen=True, kw_only=True):
    type: str | None = None


_DECODER = msgspec.json.Decoder(ResponsesParameters)
_OUTPUT = msgspec.json.Decoder(_Output)
_TYPED = msgspec.json.Decoder(_Typed)
_WORD = msgspec.json.Decoder(Literal["none", "auto", "required"])
FIELDS: frozenset[str] = frozenset(ResponsesParameters.__struct_fields__)


def parse(raw: bytes) -> ResponsesRequest:
    """Read and check a request body. Raises :class:`RequestError` naming the parameter at fault."""
    members = top_level(raw)
    view = decode(raw, _DECODER, unknown_code="unsupported_parameter")
    check_chars(view.model, "model")
    return ResponsesRequest(
        items=_items(view.input),
        functions=_functions(view.tools or ()),
        choice=_choice(view.tool_choice),
        raw=raw,
        unknown=tuple(plain_name(name) for name in members if name not in FIELDS),
        **msgspec.structs.asdict(view),
    )


def output_items(response: bytes) -> tuple[Item, ...]:
    """The items of a response's output, as a caller would send them back. Raises
    :class:`RequestError` for what is no response of ours."""
    output = decode(response, _OUTPUT, unknown_code="unsupported_parameter").output
    return tuple(_item(raw, f"output[{index}]") for index, raw in enumerate(output))


def _items(given_input: str | tuple[msgspec.Raw, ...]) -> tuple[Item, ...]:
    if isinstance(given_input, str):
        return (Message(role="user", content=given_input),)
    if not 1 <= len(given_input) <= ITEMS_MAX:
        raise invalid(f"must hold 1 to {ITEMS_MAX} items", "input")
    return tuple(_item(raw, f"input[{index}]") for index, raw in enumerate(given_input))


def _item(raw: msgspec.Raw, param: str) -> Item:
    kind = _kind(raw, param) or "message"
    if kind not in _ITEMS:
        raise unsupported(param, f"items of type {plain_name(kind)} are not supported")
    item = _member(raw, _ITEMS[kind], param)
    match item:
        case Message():
            _check_parts(item.content, f"{param}.content")
        case FunctionCallOutput():
            _check_parts(item.output, f"{param}.output")
            check_chars(item.call_id, f"{param}.call_id")
        case FunctionCall():
            check_chars(item.call_id, f"{param}.call_id")
        case ItemReference():
            check_chars(item.id or "", f"{param}.id")
        case Reasoning():
            pass
    return item


def _check_parts(content: str | tuple[Part, ...], param: str) -> None:
    if not isinstance(content, str) and not 1 <= len(content) <= PARTS_MAX:
        raise invalid(f"must hold 1 to {PARTS_MAX} parts", param)


def _functions(tools: tuple[msgspec.Raw, ...]) -> tuple[FunctionTool, ...]:
    if len(tools) > TOOLS_MAX:
        raise invalid(f"must hold at most {TOOLS_MAX} tools", "tools")
    return tuple(_function(raw, f"tools[{index}]") for index, raw in enumerate(tools))


def _function(raw: msgspec.Raw, param: str) -> FunctionTool:
    kind = _kind(raw, param)
    if kind is None:
        raise invalid("is required", f"{param}.type", "missing_required_parameter")
    if kind != "function":
        raise unsupported(param, f"the tool {plain_name(kind)} is not supported, only functions")
    return _member(raw, FunctionTool, param)


def _choice(
    raw: msgspec.Raw,
) -> Literal["none", "auto", "required"] | NamedFunction | AllowedTools | None:
    if not given(raw):
        return None
    if bytes(raw).startswith(b'"'):
        return decode(raw, _WORD, unknown_code="invalid_value", at="tool_choice")
    match _kind(raw, "tool_choice"):
        case "function":
            return _member(raw, NamedFunction, "tool_choice")
        case "allowed_tools":
            return _member(raw, AllowedTools, "tool_choice")
        case None:
            raise invalid("is required", "tool_choice.type", "missing_required_parameter")
        case kind:
            raise unsupported("tool_choice", f"the tool {plain_name(kind)} is not supported")


def _kind(raw: msgspec.Raw, param: str) -> str | None:
    try:
        return _TYPED.decode(raw).type
    except (msgspec.DecodeError, RecursionError):
        raise invalid("expected an object with a type", param, "invalid_type") from None


def _member(raw: msgspec.Raw, kind: type[_Struct], param: str) -> _Struct:
    """Decode a member whose type is known now; what is wrong is named from the top."""
    found: _Struct = decode(raw, _decoder(kind), unknown_code="unsupported_parameter", at=param)
    return found


@cache
def _decoder(kind: type[_Struct]) -> msgspec.json.Decoder[_Struct]:
    return msgspec.json.Decoder(kind)
