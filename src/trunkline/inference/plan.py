"""From a chat request to engine jobs: every parameter is honoured, or refused by its name.

``max_tokens`` is an upper bound in the OpenAI format, so a larger one than the context leaves room
for is met by what is left. Unset, it is ``ANSWER_TOKENS_DEFAULT``, likewise: a small model that has
lost its thread would else write to the end of its context. Either way the answer then ends with
``finish_reason`` ``length``, and nobody is misled.

A request that sets neither ``temperature`` nor ``top_p`` gets what the model's authors advise
(``ModelInfo``), as from other servers of open models, and the receipt says what that was. One that
sets either gets it with the other at 1: who asks for a temperature has asked for no narrow nucleus.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from trunkline.base.errors import RequestError
from trunkline.inference import grammar
from trunkline.inference.grammar import FunctionGrammar
from trunkline.inference.ports import NOT_SHARED, Generate, Sampling, Sharing
from trunkline.inference.textpipe import PipeSettings
from trunkline.inference.toolcalls import CALLS_MAX
from trunkline.sampling import choice_seed, seed_from_caller
from trunkline.schema import openai_chat
from trunkline.schema.openai_chat import ChatRequest
from trunkline.schema.openai_parts import Tool, ToolChoice
from trunkline.schema.parsing import given

ANSWER_TOKENS_DEFAULT: Final = 1024

HONOURED: Final = openai_chat.HINTS | {
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "min_p",
    "n",
    "parallel_tool_calls",
    "presence_penalty",
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
"""What the embedded model takes, by the names of :func:`openai_chat.parameters_set`."""

SeedSource = Literal["nonces", "caller", "inherited"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the model and the engine can do."""

    context_tokens: int
    vocabulary_size: int
    choices_max: int
    """Sequences that the engine generates at once: choices go in lock-step."""
    end_tokens: tuple[int, ...]
    temperature: float = 1.0
    """With ``top_p``: taken where the request sets neither."""
    top_p: float = 1.0


class ChatPlan(msgspec.Struct, frozen=True, kw_only=True):
    """A chat request, ready to be run."""

    prompt: tuple[int, ...]
    choices: int
    pipe: PipeSettings
    sampling: Sampling
    """The same for every choice, but for the seed."""
    stream: bool
    include_usage: bool
    sharing: Sharing = NOT_SHARED

    @property
    def logprobs(self) -> bool:
        return self.sampling.top_logprobs >= 0

    def job(self, choice: int, seed: bytes, prefix: Sequence[int] = ()) -> Generate:
        """The engine's job for one choice of the answer with this seed (32 bytes).

        Every choice has a seed of its own, also when there is only one.
        """
        return Generate(
            prompt=self.prompt,
            prefix=tuple(prefix),
            max_tokens=self.pipe.tokens_max,
            sampling=msgspec.structs.replace(self.sampling, seed=choice_seed(seed, choice)),
            sharing=self.sharing,
        )


def check_supported(request: ChatRequest) -> None:
    """Raise :class:`RequestError` ``unsupported_parameter`` for the first thing not honoured."""
    for name in sorted(openai_chat.parameters_set(request) - HONOURED):
        _unsupported(name)
    if _demanded(request) is not None and _form(request) != "text":
        _unsupported("response_format")


def plan_chat(request: ChatRequest, prompt: tuple[int, ...], limits: Limits) -> ChatPlan:
    """Plan a request that :func:`check_supported` let pass.

    Raises :class:`RequestError`: ``context_length_exceeded``, or naming a parameter.
    """
    if request.choices > limits.choices_max:
        raise RequestError(
            f"n: this node gives at most {limits.choices_max} choices",
            code="unsupported_parameter",
            param="n",
        )
    left = limits.context_tokens - len(prompt)
    if left < 1:
        raise RequestError(
            f"the prompt has {len(prompt)} tokens; the model's context of {limits.context_tokens} "
            "leaves no room for an answer",
            code="context_length_exceeded",
            param="messages",
        )
    bias = request.logit_biases
    if any(token >= limits.vocabulary_size for token in bias):
        raise RequestError(
            "logit_bias: names a token that the model does not have",
            code="invalid_value",
            param="logit_bias",
        )
    advised = request.temperature is None and request.top_p is None
    tokens_max = min(left, request.tokens_max or ANSWER_TOKENS_DEFAULT)
    rules = _grammar(request)
    return ChatPlan(
        prompt=prompt,
        choices=request.choices,
        pipe=_pipe(request, tokens_max, limits.end_tokens),
        sampling=Sampling(
            temperature=limits.temperature if advised else _or(request.temperature, 1.0),
            top_p=limits.top_p if advised else _or(request.top_p, 1.0),
            top_k=min(request.top_k or 0, limits.vocabulary_size),
            min_p=_or(request.min_p, 0.0),
            frequency_penalty=_or(request.frequency_penalty, 0.0),
            presence_penalty=_or(request.presence_penalty, 0.0),
            logit_bias=bias,
            top_logprobs=request.top_logprobs_wanted,
            grammar=rules,
        ),
        stream=request.streams,
        include_usage=request.include_usage,
    )


def caller_seed(request: ChatRequest) -> bytes | None:
    """The answer's seed where the request brings its own ``seed``."""
    return None if request.seed is None else seed_from_caller(request.seed)


def _pipe(request: ChatRequest, tokens_max: int, end_tokens: tuple[int, ...]) -> PipeSettings:
    several = request.parallel_tool_calls is not False
    demanded = _demanded(request)
    offered = () if request.tool_choice == "none" else demanded or request.tools or ()
    return PipeSettings(
        tokens_max=tokens_max,
        stops=request.stops,
        end_tokens=frozenset(end_tokens),
        tools=frozenset(tool.name for tool in offered),
        one_block=demanded is not None or not several,
        demanded=demanded is not None,
        calls_max=CALLS_MAX if several else 1,
        document=_form(request) != "text",
    )


def _demanded(request: ChatRequest) -> tuple[Tool, ...] | None:
    """The functions of which one must be called; None where words will do."""
    choice = request.tool_choice
    if choice == "required":
        return request.tools or ()
    if isinstance(choice, ToolChoice) and choice.function is not None:
        name = choice.function.name
        return tuple(tool for tool in request.tools or () if tool.name == name)
    return None


def _form(request: ChatRequest) -> Literal["text", "json_object", "json_schema"]:
    return "text" if request.response_format is None else request.response_format.type


def _grammar(request: ChatRequest) -> str:
    demanded = _demanded(request)
    several = request.parallel_tool_calls is not False
    if demanded is not None:
        return grammar.calls(_functions(demanded), several=several)
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        functions = [] if request.tool_choice == "none" else _functions(request.tools or ())
        if any(function.strict for function in functions):
            return grammar.words_or_calls(functions, several=several)
        # Without a strict one, text that is no call is text.
        return ""
    if wanted.json_schema is None or not given(wanted.json_schema.schema):
        return grammar.any_object()
    return grammar.document(bytes(wanted.json_schema.schema), "response_format.json_schema.schema")


def _functions(tools: Sequence[Tool]) -> list[FunctionGrammar]:
    return [
        FunctionGrammar(
            name=tool.name,
            parameters=bytes(tool.function.parameters) if given(tool.function.parameters) else b"",
            strict=tool.function.strict is True,
            param=f"tools.{tool.name}",
        )
        for tool in tools
        if tool.function is not None
    ]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _unsupported(name: str) -> None:
    # A name that the format does not know is the caller's own text: repeat it only if it is plain.
    plain = name.replace("_", "").replace(".", "").isalnum() and len(name) <= 64
    shown = name if plain else "a field"
    raise RequestError(
        f"{shown}: is not supported by this model",
        code="unsupported_parameter",
        param=name if plain else None,
    )
