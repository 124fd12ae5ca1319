"""Client: OpenAI. Provider: Anthropic. A Chat Completions request becomes a Messages request
(Anthropic's Messages API, version 2023-06-01).

It refuses, as ``unsupported_parameter`` naming the parameter, whatever the Messages API can not
say; it drops nothing but hints (``openai_chat.HINTS``) and says nothing in a natural language.
``docs/support-matrix.md`` lists every parameter. Messages are in ``openai_anthropic_messages``, the
way back in ``openai_anthropic_answer`` and ``openai_anthropic_stream``.
"""

from typing import Final

import msgspec

from trunkline.schema import openai_chat
from trunkline.schema.grid import openai_anthropic_messages as messages
from trunkline.schema.grid import openai_turns
from trunkline.schema.grid.openai_anthropic_answer import translate_answer
from trunkline.schema.grid.openai_anthropic_stream import StreamTranslator
from trunkline.schema.openai_chat import ChatRequest
from trunkline.schema.openai_parts import Tool, ToolChoice
from trunkline.schema.parsing import given, unsupported

__all__ = ["HONOURED", "MAX_TOKENS_DEFAULT", "StreamTranslator", "translate_answer",
           "translate_request"]  # fmt: skip

MAX_TOKENS_DEFAULT: Final = 8192
"""The Messages API wants a bound on every answer; this is the one of a request that gives none.
An answer that reaches it says ``length``, as any other bound does."""
TEMPERATURE_MAX: Final = 1.0
HONOURED: Final = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages.file",
        "messages.image_url",
        "messages.prefix",
        "messages.refusal",
        "parallel_tool_calls",
        "reasoning_effort",
        "response_format",
        "response_format.json_schema",
        "stop",
        "stream",
        "stream_options.include_usage",
        "temperature",
        "tool_choice",
        "tools",
        "tools.strict",
        "top_k",
        "top_p",
    }
)
"""Names of ``openai_chat.parameters_set`` that are translated, some for some values only."""

_TOOL_CHOICES: Final = {"none": "none", "auto": "auto", "required": "any"}
_NO_PARAMETERS: Final = msgspec.Raw(b'{"type":"object","properties":{}}')

Json = dict[str, object]

_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def translate_request(
    raw: bytes, *, model: str | None = None, max_tokens: int = MAX_TOKENS_DEFAULT
) -> bytes:
    """The Messages request that asks for the same. Raises :class:`RequestError`.

    ``model``: the provider's own name of the model, where it is not the request's. ``max_tokens``:
    the bound for a request that gives none.
    """
    return from_openai(openai_chat.parse(raw), model=model, max_tokens=max_tokens)


def from_openai(
    request: ChatRequest, *, model: str | None = None, max_tokens: int = MAX_TOKENS_DEFAULT
) -> bytes:
    """The same, for a request that is parsed already."""
    _refuse_inexpressible(request)
    system, turns = messages.translate(request)
    body: Json = {
        "model": request.model if model is None else model,
        "max_tokens": request.tokens_max or max_tokens,
    }
    if system:
        body["system"] = system
    body["messages"] = turns
    for name in ("temperature", "top_p"):
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.top_k:
        body["top_k"] = request.top_k
    if request.stops:
        body["stop_sequences"] = request.stops
    body.update(_tools(request))
    body.update(_output(request))
    label = request.user or request.safety_identifier
    if label:
        body["metadata"] = {"user_id": label}
    if request.service_tier == "default":
        body["service_tier"] = "standard_only"
    if request.streams:
        body["stream"] = True
    return _encode(body)


def _refuse_inexpressible(request: ChatRequest) -> None:
    openai_turns.refuse_unhonoured(request, HONOURED)
    if request.temperature is not None and request.temperature > TEMPERATURE_MAX:
        raise unsupported("temperature", f"at most {TEMPERATURE_MAX} is supported")
    if request.reasoning_effort == "minimal":
        raise unsupported("reasoning_effort", "minimal is not supported")
    if any(not stop.strip() for stop in request.stops):
        raise unsupported("stop", "a string of nothing but white space is not supported")


def _tools(request: ChatRequest) -> Json:
    if not request.tools:
        return {}
    body: Json = {"tools": [_tool(tool) for tool in request.tools]}
    choice = request.tool_choice
    translated: Json = {}
    if isinstance(choice, ToolChoice):
        translated = {"type": "tool", "name": openai_turns.function_chosen(choice)}
    elif choice is not None:
        translated = {"type": _TOOL_CHOICES[choice]}
    if request.parallel_tool_calls is False and choice != "none":
        translated = {"type": "auto"} | translated | {"disable_parallel_tool_use": True}
    if translated:
        body["tool_choice"] = translated
    return body


def _tool(tool: Tool) -> Json:
    definition = tool.function
    if definition is None:
        raise unsupported("tools.custom")
    translated: Json = {"name": definition.name}
    if definition.description is not None:
        translated["description"] = definition.description
    translated["input_schema"] = object_schema(definition.parameters)
    if definition.strict is not None:
        translated["strict"] = definition.strict
    return translated


def object_schema(parameters: msgspec.Raw) -> msgspec.Raw:
    """A function's parameters as a schema that says so itself: arguments always are an object, but
    not every schema that OpenAI takes states it."""
    if not given(parameters):
        return _NO_PARAMETERS
    if "type" in _members(parameters):
        return parameters
    inside = bytes(parameters)[1:].lstrip()
    return msgspec.Raw(b'{"type":"object"%b%b' % (b"" if inside == b"}" else b",", inside))


def _output(request: ChatRequest) -> Json:
    config: Json = {}
    body: Json = {}
    if request.reasoning_effort == "none":
        body["thinking"] = {"type": "disabled"}
    elif request.reasoning_effort is not None:
        config["effort"] = request.reasoning_effort
    wanted = request.response_format
    if wanted is not None and wanted.json_schema is not None and wanted.type == "json_schema":
        if not given(wanted.json_schema.schema):
            raise unsupported("response_format.json_schema.schema", "must be given here")
        if wanted.json_schema.description is not None:
            raise unsupported("response_format.json_schema.description")
        config["format"] = {"type": "json_schema", "schema": wanted.json_schema.schema}
    if config:
        body["output_config"] = config
    return body
