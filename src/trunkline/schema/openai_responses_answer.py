"""Answers to ``POST /v1/responses``: the response object, its items, and a stream's events.

Follows the ``Response`` object and the streaming events of OpenAI's Responses API. What the format
requires and nobody knows (a cache's counts) is 0; what may be left out is left out. Functions here
write one event each and know no order; the order is the translator's
(``grid/responses_openai_stream.py``).
"""

from typing import Literal

import msgspec

from trunkline.schema.openai_answer import CompletionTokensDetails, PromptTokensDetails
from trunkline.schema.openai_answer import Usage as ChatUsage
from trunkline.schema.parsing import given

Status = Literal["in_progress", "completed", "incomplete", "failed"]
ItemStatus = Literal["in_progress", "completed", "incomplete"]

_encode = msgspec.json.Encoder().encode


class TopLogprob(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = ()


class TokenLogprob(TopLogprob, frozen=True, kw_only=True):
    """As chat answers have it, read and written."""

    top_logprobs: tuple[TopLogprob, ...] | None = ()


class OutputText(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    text: str
    annotations: tuple[()] = ()
    logprobs: tuple[TokenLogprob, ...] = ()


class OutputRefusal(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="refusal"):
    refusal: str


class ReasoningText(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning_text"
):
    text: str


Part = OutputText | OutputRefusal | ReasoningText


class Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    id: str
    status: ItemStatus
    role: Literal["assistant"] = "assistant"
    content: tuple[Part, ...] = ()


class FunctionCall(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"
):
    id: str
    status: ItemStatus
    call_id: str
    """The call's own id, to which its output refers."""
    name: str
    arguments: str = ""


class Reasoning(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="reasoning"):
    """What the model thought, openly: nothing is summed up, and nothing encrypted."""

    id: str
    status: ItemStatus
    summary: tuple[()] = ()
    content: tuple[Part, ...] = ()


Item = Message | FunctionCall | Reasoning


class InputDetails(msgspec.Struct, frozen=True, kw_only=True):
    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(msgspec.Struct, frozen=True, kw_only=True):
    reasoning_tokens: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counted model tokens."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """Why a response failed; the codes are the format's own. The stable code comes after it, in
    the event that ends the stream."""

    code: Literal["server_error", "rate_limit_exceeded"]
    message: str


class Incomplete(msgspec.Struct, frozen=True, kw_only=True):
    reason: Literal["max_output_tokens", "content_filter"]


class Echo(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer repeats of its request, with the format's defaults. A member that is null was
    not given, and the node's own default holds."""

    background: Literal[False] = False
    conversation: None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, str] = {}
    parallel_tool_calls: bool = True
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: msgspec.Raw = msgspec.Raw(b"null")
    safety_identifier: str | None = None
    store: bool = False
    """Whether the answer is kept here, as a fact: false, whatever the format's default is, unless
    bodies are kept."""
    temperature: float | None = None
    text: msgspec.Raw = msgspec.Raw(b'{"format":{"type":"text"}}')
    tool_choice: msgspec.Raw = msgspec.Raw(b'"auto"')
    tools: msgspec.Raw = msgspec.Raw(b"[]")
    top_logprobs: int | None = None
    top_p: float | None = None
    truncation: Literal["disabled"] = "disabled"
    user: str | None = None


class Response(Echo, frozen=True, kw_only=True):
    """The whole answer, or as much of it as an event tells."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    """Unix seconds."""
    status: Status
    error: Failed | None = None
    incomplete_details: Incomplete | None = None
    model: str
    output: tuple[Item, ...] = ()
    usage: Usage | None = None


def encode_response(response: Response) -> bytes:
    """The response's bytes."""
    return _encode(response)


def usage_of(usage: ChatUsage | None) -> Usage | None:
    """A chat answer's usage in this format's words."""
    if usage is None:
        return None
    read, written = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = read if isinstance(read, PromptTokensDetails) else PromptTokensDetails()
    thought = written if isinstance(written, CompletionTokensDetails) else CompletionTokensDetails()
    return Usage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputDetails(
            cached_tokens=cached.cached_tokens or 0,
            cache_write_tokens=cached.cache_write_tokens or 0,
        ),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputDetails(reasoning_tokens=thought.reasoning_tokens or 0),
        total_tokens=usage.total_tokens,
    )


class _Logprobs(msgspec.Struct, frozen=True, kw_only=True):
    content: tuple[TokenLogprob, ...] | None = None


_LOGPROBS = msgspec.json.Decoder(_Logprobs)


def logprobs_of(raw: msgspec.Raw) -> tuple[TokenLogprob, ...]:
    """A chat choice's log-probabilities of its text. Raises ``msgspec.DecodeError``."""
    if not given(raw):
        return ()
    return tuple(_filled(token) for token in _LOGPROBS.decode(raw).content or ())


def _filled(token: TokenLogprob) -> TokenLogprob:
    """The format has no null in these members: what a provider does not say is empty."""
    tops = token.top_logprobs or ()
    return TokenLogprob(
        token=token.token,
        logprob=token.logprob,
        bytes=token.bytes or (),
        top_logprobs=tuple(
            TopLogprob(token=top.token, logprob=top.logprob, bytes=top.bytes or ()) for top in tops
        ),
    )


def event(kind: str, sequence: int, **members: object) -> bytes:
    """One event of a stream; ``kind`` is its name and its type."""
    data = _encode({"type": kind, "sequence_number": sequence, **members})
    return b"event: %b\ndata: %b\n\n" % (kind.encode("ascii"), data)
