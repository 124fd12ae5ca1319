"""Client: OpenAI. Provider: Google Gemini. A chat request becomes a ``generateContent`` request of
the Gemini API (v1beta).

It refuses, as ``unsupported_parameter`` naming the parameter, whatever that API can not say; it
drops nothing but hints (``openai_chat.HINTS``) and says nothing in a natural language.
``docs/support-matrix.md`` lists every parameter. Messages are in ``openai_gemini_contents``, the
way back in ``openai_gemini_answer`` and ``openai_gemini_stream``.
"""

import re
from typing import Final

from trunkline.schema import openai_chat
from trunkline.schema.grid import openai_gemini_contents as contents
from trunkline.schema.grid import openai_turns
from trunkline.schema.grid.openai_gemini_answer import translate_answer
from trunkline.schema.grid.openai_gemini_stream import StreamTranslator
from trunkline.schema.grid.openai_turns import UrlCall
from trunkline.schema.openai_chat import ChatRequest
from trunkline.schema.openai_parts import Tool, ToolChoice
from trunkline.schema.parsing import given, unsupported

__all__ = ["HONOURED", "StreamTranslator", "UrlCall", "translate_answer", "translate_request"]

CHOICES_MAX: Final = 8
SEED_MAX: Final = 2**31 - 1
HONOURED: Final = frozenset(
    {
        "frequency_penalty",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages.file",
        "messages.image_url",
        "messages.input_audio",
        "messages.prefix",
        "messages.refusal",
        "n",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "response_format.json_object",
        "response_format.json_schema",
        "seed",
        "stop",
        "stream",
        "stream_options.include_usage",
        "temperature",
        "tool_choice",
        "tools",
        "tools.strict",
        "top_k",
        "top_logprobs",
        "top_p",
    }
)
"""Names of ``openai_chat.parameters_set`` that are translated, some for some values only."""

_TOOL_MODES: Final = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
_LEVELS: Final = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH"}
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_RENAMED: Final = (
    ("temperature", "temperature"),
    ("top_p", "topP"),
    ("seed", "seed"),
    ("frequency_penalty", "frequencyPenalty"),
    ("presence_penalty", "presencePenalty"),
    ("tokens_max", "maxOutputTokens"),
)

Json = dict[str, object]


def translate_request(raw: bytes, *, model: str | None = None) -> UrlCall:
    """The call that asks for the same. Raises :class:`RequestError`.

    ``model``: the provider's own name of the model, where it is not the request's.
    """
    return from_openai(openai_chat.parse(raw), model=model)


def from_openai(request: ChatRequest, *, model: str | None = None) -> UrlCall:
    """The same, for a request that is parsed already."""
    _refuse_inexpressible(request)
    system, turns = contents.translate(request)
    body: Json = {"contents": turns}
    if system:
        body["systemInstruction"] = {"parts": system}
    body.update(_tools(request))
    config = _sampling(request) | _output(request)
    if config:
        body["generationConfig"] = config
    return UrlCall.of(request, body, model=model)


def _refuse_inexpressible(request: ChatRequest) -> None:
    openai_turns.refuse_unhonoured(request, HONOURED)
    if request.choices > CHOICES_MAX:
        raise unsupported("n", f"at most {CHOICES_MAX} is supported")
    if request.seed is not None and not -SEED_MAX <= request.seed <= SEED_MAX:
        raise unsupported("seed", "only 32 bits are supported")
    if request.reasoning_effort in ("xhigh", "max"):
        raise unsupported("reasoning_effort", "at most high is supported")
    for index, tool in enumerate(request.tools or ()):
        if _NAME.fullmatch(tool.name) is None:
            raise unsupported(
                f"tools[{index}].function.name", "must begin with a letter or an underscore here"
            )


def _sampling(request: ChatRequest) -> Json:
    config: Json = {}
    for name, renamed in _RENAMED:
        value = getattr(request, name)
        if value is not None:
            config[renamed] = value
    if request.top_k:
        config["topK"] = request.top_k
    if request.stops:
        config["stopSequences"] = request.stops
    if request.choices > 1:
        config["candidateCount"] = request.choices
    if request.logprobs:
        config["responseLogprobs"] = True
        if request.top_logprobs:
            config["logprobs"] = request.top_logprobs
    if request.reasoning_effort == "none":
        config["thinkingConfig"] = {"thinkingBudget": 0}
    elif request.reasoning_effort is not None:
        config["thinkingConfig"] = {"thinkingLevel": _LEVELS[request.reasoning_effort]}
    return config


def _output(request: ChatRequest) -> Json:
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return {}
    config: Json = {"responseMimeType": "application/json"}
    if wanted.type == "json_schema" and wanted.json_schema is not None:
        if wanted.json_schema.description is not None:
            raise unsupported("response_format.json_schema.description")
        if given(wanted.json_schema.schema):
            config["responseJsonSchema"] = wanted.json_schema.schema
    return config


def _tools(request: ChatRequest) -> Json:
    if not request.tools:
        return {}
    body: Json = {"tools": [{"functionDeclarations": [_declared(t) for t in request.tools]}]}
    choice = request.tool_choice
    config: Json = {}
    if isinstance(choice, ToolChoice):
        named = openai_turns.function_chosen(choice)
        config = {"mode": "ANY", "allowedFunctionNames": [named]}
    elif choice is not None:
        config = {"mode": _TOOL_MODES[choice]}
    strict = any(tool.function is not None and tool.function.strict for tool in request.tools)
    if strict and choice in (None, "auto"):
        # Holds the calls to their schemas, as ANY does; the model still may just talk.
        config = {"mode": "VALIDATED"}
    if config:
        body["toolConfig"] = {"functionCallingConfig": config}
    return body


def _declared(tool: Tool) -> Json:
    definition = tool.function
    if definition is None:
        raise unsupported("tools.custom")
    declared: Json = {"name": definition.name}
    if definition.description is not None:
        declared["description"] = definition.description
    if given(definition.parameters):
        declared["parametersJsonSchema"] = definition.parameters
    return declared
