"""Client: OpenAI. Provider: AWS Bedrock. A chat request becomes a request of the Converse API
(2023-09-30).

It refuses, as ``unsupported_parameter`` naming the parameter, whatever that API can not say for any
model; it drops nothing but hints (``openai_chat.HINTS``) and says nothing in a natural language.
``docs/support-matrix.md`` lists every parameter. Messages are in ``openai_bedrock_messages``, the
way back in ``openai_bedrock_answer``.
"""

import re
from typing import Final

from trunkline.schema import openai_chat
from trunkline.schema.grid import openai_bedrock_messages as messages
from trunkline.schema.grid import openai_turns
from trunkline.schema.grid.openai_anthropic import object_schema
from trunkline.schema.grid.openai_bedrock_answer import StreamTranslator, translate_answer
from trunkline.schema.grid.openai_turns import UrlCall
from trunkline.schema.openai_chat import ChatRequest
from trunkline.schema.openai_parts import Tool, ToolChoice
from trunkline.schema.parsing import given, unsupported

__all__ = ["HONOURED", "StreamTranslator", "UrlCall", "translate_answer", "translate_request"]

TEMPERATURE_MAX: Final = 1.0
HONOURED: Final = frozenset(
    {
        "max_completion_tokens",
        "max_tokens",
        "messages.file",
        "messages.image_url",
        "messages.prefix",
        "messages.refusal",
        "reasoning_effort",
        "response_format",
        "response_format.json_schema",
        "service_tier",
        "stop",
        "stream",
        "stream_options.include_usage",
        "temperature",
        "tool_choice",
        "tools",
        "tools.strict",
        "top_p",
    }
)
"""Names of ``openai_chat.parameters_set`` that are translated, some for some values only."""

_TIERS: Final = frozenset({"default", "flex", "priority"})
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

Json = dict[str, object]


def translate_request(raw: bytes, *, model: str | None = None) -> UrlCall:
    """The call that asks for the same. Raises :class:`RequestError`.

    ``model``: the provider's own name of the model, where it is not the request's.
    """
    return from_openai(openai_chat.parse(raw), model=model)


def from_openai(request: ChatRequest, *, model: str | None = None) -> UrlCall:
    """The same, for a request that is parsed already."""
    _refuse_inexpressible(request)
    system, turns = messages.translate(request)
    body: Json = {"messages": turns}
    if system:
        body["system"] = system
    config = _inference(request)
    if config:
        body["inferenceConfig"] = config
    body.update(_tools(request))
    body.update(_output(request))
    if request.service_tier not in (None, "auto"):
        body["serviceTier"] = {"type": request.service_tier}
    return UrlCall.of(request, body, model=model)


def _refuse_inexpressible(request: ChatRequest) -> None:
    openai_turns.refuse_unhonoured(request, HONOURED)
    if request.temperature is not None and request.temperature > TEMPERATURE_MAX:
        raise unsupported("temperature", f"at most {TEMPERATURE_MAX} is supported")
    if request.reasoning_effort in ("none", "minimal"):
        raise unsupported("reasoning_effort", "low and above are supported")
    if request.service_tier not in (None, "auto") and request.service_tier not in _TIERS:
        raise unsupported("service_tier", "default, flex and priority are supported")
    if request.tools and request.tool_choice == "none":
        # The API has no word for it, and wants the tools wherever a history holds calls.
        raise unsupported("tool_choice", "none is not supported")
    for index, tool in enumerate(request.tools or ()):
        if _NAME.fullmatch(tool.name) is None:
            raise unsupported(f"tools[{index}].function.name", "at most 64 characters here")


def _inference(request: ChatRequest) -> Json:
    config: Json = {}
    for name, value in (
        ("maxTokens", request.tokens_max),
        ("temperature", request.temperature),
        ("topP", request.top_p),
        ("stopSequences", request.stops or None),
    ):
        if value is not None:
            config[name] = value
    return config


def _tools(request: ChatRequest) -> Json:
    if not request.tools:
        return {}
    config: Json = {"tools": [{"toolSpec": _tool(tool)} for tool in request.tools]}
    choice = request.tool_choice
    if isinstance(choice, ToolChoice):
        config["toolChoice"] = {"tool": {"name": openai_turns.function_chosen(choice)}}
    elif choice is not None:
        config["toolChoice"] = {"any": {}} if choice == "required" else {"auto": {}}
    return {"toolConfig": config}


def _tool(tool: Tool) -> Json:
    definition = tool.function
    if definition is None:
        raise unsupported("tools.custom")
    spec: Json = {"name": definition.name}
    if definition.description:
        spec["description"] = definition.description
    spec["inputSchema"] = {"json": object_schema(definition.parameters)}
    if definition.strict is not None:
        spec["strict"] = definition.strict
    return spec


def _output(request: ChatRequest) -> Json:
    config: Json = {}
    if request.reasoning_effort is not None:
        config["effort"] = request.reasoning_effort
    wanted = request.response_format
    if wanted is not None and wanted.json_schema is not None and wanted.type == "json_schema":
        if not given(wanted.json_schema.schema):
            raise unsupported("response_format.json_schema.schema", "must be given here")
        schema: Json = {
            # The schema travels as text.
            "schema": bytes(wanted.json_schema.schema).decode("utf-8"),
            "name": wanted.json_schema.name,
        }
        if wanted.json_schema.description is not None:
            schema["description"] = wanted.json_schema.description
        config["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": schema}}
    return {"outputConfig": config} if config else {}
