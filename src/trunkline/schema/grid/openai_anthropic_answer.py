"""Anthropic's whole answer as a completion (part of ``openai_anthropic``).

Follows the Messages API (version 2023-06-01). It refuses an answer without a known stop reason: a
finish is never made up. What a client of this format has no place for (thoughts, citations) is left
out. The names without underscore serve ``openai_anthropic_stream`` too.
"""

from typing import Annotated, Final, TypeAlias

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.schema import openai_answer as out
from trunkline.schema.openai_parts import FunctionCall
from trunkline.schema.parsing import ABSENT, given

_FINISH: Final[dict[str, out.FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""``pause_turn`` is missing: it comes with the provider's own tools, which are never asked for."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class _OutputDetails(msgspec.Struct, frozen=True, kw_only=True):
    thinking_tokens: Count | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Counts so far; in a stream, each event repeats only some of them."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None
    output_tokens_details: _OutputDetails | None = None


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Any block: which members it has depends on its type, and unknown types are read too."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = ABSENT


class Message(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    model: str
    content: tuple[Block, ...] = ()
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage | None = None


_MESSAGE: Final = msgspec.json.Decoder(Message)


def translate_answer(data: bytes, *, created_s: int) -> bytes:
    """The whole answer as a completion, under the provider's own id and model name.

    Raises :class:`MalformedError`, also where there is no known stop reason.
    """
    try:
        message = _MESSAGE.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedError("a message does not parse", code="bad_completion") from None
    texts = [block.text for block in message.content if block.type == "text"]
    calls = tuple(_call(block) for block in message.content if block.type == "tool_use")
    finish = finish_reason(message.stop_reason)
    stop = message.stop_sequence if message.stop_reason == "stop_sequence" else None
    said = out.AnswerMessage(
        content="".join(texts) if texts else None, tool_calls=calls or msgspec.UNSET
    )
    choice = out.Choice(
        index=0, message=said, finish_reason=finish, stop_reason=stop or msgspec.UNSET
    )
    return out.encode_completion(
        out.Completion(
            id=message.id,
            created=created_s,
            model=message.model,
            choices=(choice,),
            usage=openai_usage(message.usage),
        )
    )


def _call(block: Block) -> out.AnswerToolCall:
    arguments = input_text(block.input)
    if not block.id or not block.name or arguments is None:
        raise MalformedError("a tool call lacks a part", code="bad_tool_call")
    return out.AnswerToolCall(
        id=block.id, function=FunctionCall(name=block.name, arguments=arguments)
    )


def input_text(raw: msgspec.Raw) -> str | None:
    """A call's input as it was written; None for one that is no object."""
    if not given(raw):
        return "{}"
    data = bytes(raw)
    return data.decode("utf-8") if data.startswith(b"{") else None


def finish_reason(reason: str | None) -> out.FinishReason:
    finish = _FINISH.get(reason or "")
    if finish is None:
        # A finish that nobody gave is never made up.
        raise MalformedError("an answer has no known stop reason", code="bad_completion")
    return finish


def openai_usage(usage: Usage | None) -> out.Usage | None:
    """None where the prompt's or the answer's tokens were not counted: no count is not zero."""
    if usage is None or usage.input_tokens is None or usage.output_tokens is None:
        return None
    read = usage.cache_read_input_tokens
    written = usage.cache_creation_input_tokens
    # Anthropic counts the three apart; this format counts the prompt as a whole, and its parts.
    prompt = usage.input_tokens + (read or 0) + (written or 0)
    completion = usage.output_tokens
    details = usage.output_tokens_details
    thought = None if details is None else details.thinking_tokens
    return out.Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=(
            out.PromptTokensDetails(cached_tokens=read, cache_write_tokens=written)
            if read is not None or written is not None
            else msgspec.UNSET
        ),
        completion_tokens_details=(
            msgspec.UNSET
            if thought is None
            else out.CompletionTokensDetails(reasoning_tokens=thought)
        ),
    )
