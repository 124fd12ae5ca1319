"""``POST /v1/chat/completions``: the request, in the OpenAI format.

The typed view follows OpenAI's API reference (Chat Completions, Create) field by field, with the
extension fields that our nodes honour beside it (``top_k``, ``min_p``). It is a view: the raw bytes
stay with it, and they are what is sent on, hashed and signed. It refuses what is out of range, and
drops nothing: :func:`parameters_set` names everything that asks for other than the default, fields
unknown to us included, so that a node honours each name or refuses the request.

Answers are in ``openai_answer``.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from trunkline.schema import openai_checks
from trunkline.schema.openai_parts import (
    FunctionDefinition,
    Message,
    Named,
    Tool,
    ToolChoice,
    content_kinds,
)
from trunkline.schema.parsing import ABSENT, decode, given, top_level
from trunkline.schema.unknown import unknown_members


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class JsonSchema(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    schema: msgspec.Raw = ABSENT
    """The schema as sent; absent means any JSON."""
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatParameters(msgspec.Struct, frozen=True, kw_only=True):
    """Every documented field. None: not given, or given as null, which is the same."""

    model: str
    messages: tuple[Message, ...]
    audio: msgspec.Raw = ABSENT
    frequency_penalty: float | None = None
    function_call: Literal["none", "auto"] | Named | None = None
    functions: tuple[FunctionDefinition, ...] | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    metadata: dict[str, str] | None = None
    min_p: float | None = None
    """Extension: drop tokens less likely than this share of the likeliest one's probability."""
    modalities: tuple[Literal["text", "audio"], ...] | None = None
    moderation: msgspec.Raw = ABSENT
    n: int | None = None
    parallel_tool_calls: bool | None = None
    prediction: msgspec.Raw = ABSENT
    presence_penalty: float | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: msgspec.Raw = ABSENT
    prompt_cache_retention: str | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    response_format: ResponseFormat | None = None
    safety_identifier: str | None = None
    seed: int | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast"] | None = None
    stop: str | tuple[str, ...] | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    tools: tuple[Tool, ...] | None = None
    top_k: int | None = None
    """Extension: sample among this many likeliest tokens. 0: no limit."""
    top_logprobs: int | None = None
    top_p: float | None = None
    user: str | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    web_search_options: msgspec.Raw = ABSENT


class ChatRequest(ChatParameters, frozen=True, kw_only=True):
    """The typed view, the bytes it is a view of, and the names that it does not know."""

    raw: bytes
    unknown: tuple[str, ...]
    """Members that the view does not know, at any depth: dotted paths without indexes, in the
    order sent (``mirostat``, ``messages.cache_control``)."""

    def __repr__(self) -> str:
        # The inherited one would print the conversation into whatever logs it.
        return f"ChatRequest(model={self.model!r}, bytes={len(self.raw)})"

    @property
    def choices(self) -> int:
        """How many answers are asked for (``n``)."""
        return 1 if self.n is None else self.n

    @property
    def streams(self) -> bool:
        return self.stream is True

    @property
    def include_usage(self) -> bool:
        """The stream's last chunk shall carry the usage."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def tokens_max(self) -> int | None:
        """Most tokens of each choice, by either of the two names; None: not bounded."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, in the order sent."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else self.stop

    @property
    def logit_biases(self) -> dict[int, float]:
        """Bias by token id."""
        return {int(token): bias for token, bias in (self.logit_bias or {}).items()}

    @property
    def top_logprobs_wanted(self) -> int:
        """-1: no log-probabilities; else how many alternatives to the chosen token's."""
        return (self.top_logprobs or 0) if self.logprobs else -1


_DECODER = msgspec.json.Decoder(ChatParameters)
FIELDS: frozenset[str] = frozenset(ChatParameters.__struct_fields__)
"""Every top-level field that the typed view knows."""
EXTENSIONS = frozenset({"min_p", "top_k"})
"""Those of them that OpenAI's API does not document."""

HINTS = frozenset(
    {
        "metadata",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "user",
    }
)
"""Fields that cannot change the answer: labels, and advice about caches. A node may honour one by
doing nothing, and the support matrix says so."""

_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "frequency_penalty": (0,),
    "function_call": ("auto", "none"),
    "functions": ((),),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": ({},),
    "min_p": (0,),
    "modalities": (("text",), ()),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "service_tier": ("auto", "default"),
    "stop": ((),),
    "store": (False,),
    "stream": (False,),
    "temperature": (1,),
    "tool_choice": ("auto",),
    "tools": ((),),
    "top_k": (0,),
    "top_logprobs": (0,),
    "top_p": (1,),
    "verbosity": ("medium",),
}
"""Values by which the caller asks for what would happen anyway."""

_ALWAYS = frozenset({"model", "messages", "stream_options", "response_format"})


def parse(raw: bytes) -> ChatRequest:
    """Read and check a request body. Raises :class:`RequestError` naming the parameter at fault."""
    top_level(raw)
    view = decode(raw, _DECODER, unknown_code="invalid_value")
    openai_checks.check(view)
    unknown = tuple(unknown_members(raw, ChatParameters))
    return ChatRequest(raw=raw, unknown=unknown, **msgspec.structs.asdict(view))


def unknown_fields(raw: bytes) -> list[str]:
    """The body's members that the view does not know, at any depth, as ``ChatRequest.unknown``.

    Raises :class:`RequestError` for a body that is no chat request.
    """
    return list(parse(raw).unknown)


def parameters_set(request: ChatRequest) -> frozenset[str]:
    """What the caller asks for beyond the defaults, by name.

    Top-level fields by their names; members unknown to us, at any depth, by their paths. Where
    support is a finer matter than the field, a dotted name stands beside the field's own or in its
    place: ``response_format.json_object``, ``response_format.json_schema``,
    ``stream_options.include_usage``, ``stream_options.include_obfuscation``, ``tools.custom``,
    ``tools.strict``, ``tool_choice.allowed_tools``, ``messages.prefix``, and
    ``messages.<part type>`` for each kind of content other than text. A node subtracts what it
    honours; anything left it must refuse.
    """
    names = {name for name in FIELDS - _ALWAYS if _is_set(request, name)}
    names.update(request.unknown)
    names.update(_finer(request))
    return frozenset(names)


def _is_set(request: ChatRequest, name: str) -> bool:
    value = getattr(request, name)
    if value is None or (isinstance(value, msgspec.Raw) and not given(value)):
        return False
    return not any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
        for neutral in _NEUTRAL.get(name, ())
    )


def _finer(request: ChatRequest) -> Iterable[str]:
    if request.response_format is not None and request.response_format.type != "text":
        yield "response_format"
        yield f"response_format.{request.response_format.type}"
    options = request.stream_options
    if options is not None and options.include_usage:
        yield "stream_options.include_usage"
    if options is not None and options.include_obfuscation:
        yield "stream_options.include_obfuscation"
    for tool in request.tools or ():
        if tool.custom is not None:
            yield "tools.custom"
        elif tool.function is not None and tool.function.strict:
            yield "tools.strict"
    choice = request.tool_choice
    if isinstance(choice, ToolChoice) and choice.type != "function":
        yield f"tool_choice.{choice.type}"
    for kind in content_kinds(request.messages):
        yield f"messages.{kind}"
    if any(message.prefix for message in request.messages):
        yield "messages.prefix"
