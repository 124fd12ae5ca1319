"""Answers to chat requests in the OpenAI format: the whole completion, and chunks of a stream.

Follows the ``chat.completion`` and ``chat.completion.chunk`` objects of OpenAI's API reference,
with one extension that other servers share: ``stop_reason`` beside ``finish_reason`` holds the stop
string that was met. :class:`ChunkWriter` writes a chunk's bytes for one answer: the same calls give
the same bytes on every node, which exact continuation rests on. Nothing here writes ``[DONE]``.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.schema.openai_parts import FunctionCall
from trunkline.schema.parsing import ABSENT

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]

CHUNK_BYTES_MAX = 8 * 1024 * 1024
LOGPROB_MIN = -9999.0
"""Stands for minus infinity, which JSON has no number for (the API's own convention)."""

_encode = msgspec.json.Encoder().encode


class TopLogprob(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    """The token's text; U+FFFD where its bytes are no whole character."""
    logprob: float
    bytes: tuple[int, ...] | None = None


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    """Natural logarithm, at least ``LOGPROB_MIN``."""
    bytes: tuple[int, ...] | None = None
    top_logprobs: tuple[TopLogprob, ...] = ()


class Logprobs(msgspec.Struct, frozen=True, kw_only=True):
    content: tuple[TokenLogprob, ...] | None = None
    refusal: tuple[TokenLogprob, ...] | None = None


class PromptTokensDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: int | None = None


class CompletionTokensDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counted model tokens, of all choices together. What a provider leaves out reads as 0."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokensDetails | msgspec.UnsetType | None = msgspec.UNSET
    completion_tokens_details: CompletionTokensDetails | msgspec.UnsetType | None = msgspec.UNSET

    @classmethod
    def counted(cls, prompt: int, completion: int) -> "Usage":
        return cls(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
        )


class AnswerToolCall(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """``content`` and ``refusal`` are always written, as null where there is none."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: str | None = None
    tool_calls: tuple[AnswerToolCall, ...] | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: FinishReason
    stop_reason: str | msgspec.UnsetType = msgspec.UNSET
    """Extension: the stop string that was met."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer, for a request without ``stream``."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    """Unix seconds."""
    model: str
    choices: tuple[Choice, ...]
    usage: Usage | None
    system_fingerprint: str | msgspec.UnsetType = msgspec.UNSET
    service_tier: str | msgspec.UnsetType = msgspec.UNSET


def encode_completion(completion: Completion) -> bytes:
    """The completion's bytes: one line of compact JSON."""
    return _encode(completion)


class FunctionDelta(msgspec.Struct, frozen=True, kw_only=True):
    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    id: str | None = None
    type: str | None = None
    function: FunctionDelta | None = None


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    role: str | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] | None = None
    function_call: FunctionDelta | None = None
    reasoning_content: str | None = None
    reasoning: msgspec.Raw = ABSENT
    """Thoughts, as OpenRouter, Groq, Ollama and newer vLLM name them."""


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    delta: Delta = Delta()
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    """Extension: the stop string; a number is a stop token's id."""
    logprobs: msgspec.Raw = ABSENT
    """As sent: providers differ in what they leave out."""
    error: msgspec.Raw = ABSENT
    """OpenRouter's way of saying that this choice broke off."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk as read: what a provider may leave out has a default."""

    id: str = ""
    model: str = ""
    created: float = 0
    choices: tuple[ChunkChoice, ...] = ()
    usage: Usage | None = None
    system_fingerprint: str | None = None
    error: msgspec.Raw = ABSENT
    """Some providers send their error in the stream, as a chunk with nothing but this."""


class ReadMessage(msgspec.Struct, frozen=True, kw_only=True):
    role: str = "assistant"
    content: str | None = None
    refusal: str | None = None
    tool_calls: tuple[AnswerToolCall, ...] | None = None
    function_call: FunctionCall | None = None
    reasoning_content: str | None = None
    reasoning: msgspec.Raw = ABSENT


class ReadChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    message: ReadMessage
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: msgspec.Raw = ABSENT
    """As sent."""
    error: msgspec.Raw = ABSENT


class ReadCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A completion as read from a node or a provider."""

    id: str = ""
    model: str = ""
    created: float = 0
    choices: tuple[ReadChoice, ...]
    usage: Usage | None = None
    system_fingerprint: str | None = None


_CHUNK = msgspec.json.Decoder(Chunk)
_COMPLETION = msgspec.json.Decoder(ReadCompletion)


def parse_chunk(data: bytes) -> Chunk:
    """Read one chunk of a stream. Raises :class:`MalformedError`."""
    if len(data) > CHUNK_BYTES_MAX:
        raise MalformedError("a chunk is too large", code="bad_chunk")
    try:
        return _CHUNK.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # What msgspec says may quote the chunk, which is the answer's text.
        raise MalformedError("a chunk does not parse", code="bad_chunk") from None


def parse_completion(data: bytes) -> ReadCompletion:
    """Read a whole completion. Raises :class:`MalformedError`."""
    try:
        return _COMPLETION.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedError("a completion does not parse", code="bad_completion") from None


class ChunkWriter:
    """Writes the chunks of one answer as compact JSON, each on one line.

    Everything that is the same in each chunk is encoded once. ``include_usage`` follows the
    request: every chunk then says ``"usage":null``, and :meth:`usage` writes the last one.
    """

    __slots__ = ("_close", "_head", "_include_usage", "_open")

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 -- the field's own name on the wire
        created_s: int,
        model: str,
        system_fingerprint: str | None = None,
        service_tier: str | None = None,
        include_usage: bool = False,
    ) -> None:
        head = b'{"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b' % (
            _encode(id),
            created_s,
            _encode(model),
        )
        if service_tier is not None:
            head += b',"service_tier":' + _encode(service_tier)
        if system_fingerprint is not None:
            head += b',"system_fingerprint":' + _encode(system_fingerprint)
        self._head = head
        self._open = head + b',"choices":[{"index":'
        self._close = b'}],"usage":null}' if include_usage else b"}]}"
        self._include_usage = include_usage

    def role(self, index: int) -> bytes:
        """The choice's first chunk: the role, and empty content."""
        return self._chunk(index, b'{"role":"assistant","content":""}', None)

    def content(self, index: int, text: str, logprobs: Sequence[TokenLogprob] = ()) -> bytes:
        """More text of the choice."""
        return self._chunk(index, b'{"content":%b}' % _encode(text), _logprobs(logprobs))

    def refusal(self, index: int, text: str) -> bytes:
        """More text of a refusal."""
        return self._chunk(index, b'{"refusal":%b}' % _encode(text), None)

    def tool_call(
        self,
        index: int,
        call: int,
        *,
        id: str,  # noqa: A002
        name: str,
        arguments: str = "",
    ) -> bytes:
        """The choice's tool call number ``call`` begins; its arguments may come whole."""
        delta = b'{"tool_calls":[{"index":%d,"id":%b,"type":"function","function":%b}]}' % (
            call,
            _encode(id),
            b'{"name":%b,"arguments":%b}' % (_encode(name), _encode(arguments)),
        )
        return self._chunk(index, delta, None)

    def tool_arguments(self, index: int, call: int, arguments: str) -> bytes:
        """More of the arguments of tool call number ``call``."""
        delta = b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (
            call,
            _encode(arguments),
        )
        return self._chunk(index, delta, None)

    def finish(
        self,
        index: int,
        reason: FinishReason,
        *,
        stop_reason: str | None = None,
        logprobs: Sequence[TokenLogprob] = (),
    ) -> bytes:
        """The choice's last chunk. ``stop_reason``: the stop string, if one was met."""
        tail = b'"%b"' % reason.encode("ascii")
        if stop_reason is not None:
            tail += b',"stop_reason":' + _encode(stop_reason)
        return self._chunk(index, b"{}", _logprobs(logprobs), tail)

    def usage(self, usage: Usage) -> bytes:
        """The stream's last chunk when the request asked for usage."""
        return self._head + b',"choices":[],"usage":%b}' % _encode(usage)

    def _chunk(
        self, index: int, delta: bytes, logprobs: bytes | None, finish: bytes = b"null"
    ) -> bytes:
        if logprobs is None:
            return b'%b%d,"delta":%b,"finish_reason":%b%b' % (
                self._open,
                index,
                delta,
                finish,
                self._close,
            )
        return b'%b%d,"delta":%b,"logprobs":%b,"finish_reason":%b%b' % (
            self._open,
            index,
            delta,
            logprobs,
            finish,
            self._close,
        )


def _logprobs(tokens: Sequence[TokenLogprob]) -> bytes | None:
    if not tokens:
        return None
    return _encode(Logprobs(content=tuple(tokens)))


def logprob(value: float) -> float:
    """A log-probability that JSON can say: minus infinity and NaN become ``LOGPROB_MIN``."""
    return value if value > LOGPROB_MIN else LOGPROB_MIN
