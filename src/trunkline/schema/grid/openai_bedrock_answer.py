"""Bedrock's answers as completions and chunks (part of ``openai_bedrock``).

An answer counts once its stop reason is known and none that means that it failed: a finish is never
made up. Converse says neither an id nor a model; both are handed in. What a client of this format
has no place for (thoughts, citations, media) is left out, and named in ``skipped``. The translator
of streams is a pure state machine: what it writes does not depend on how the bytes were cut.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from trunkline.base.errors import MalformedError, TruncatedError
from trunkline.schema import bedrock_answer as src
from trunkline.schema import openai_answer as out
from trunkline.schema.openai_parts import FunctionCall
from trunkline.schema.parsing import given

_FINISH: Final[dict[str, out.FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
"""What is missing stands for an answer that failed (``malformed_tool_use`` and its like)."""
_SKIPPED: Final = ("reasoning_content", "citations_content", "citation", "tool_result", "image")
BLOCKS_MAX: Final = 10_000


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What Converse does not say of its answer."""

    id: str
    model: str
    created_s: int
    """Unix seconds."""


def translate_answer(data: bytes, head: Head) -> bytes:
    """The whole answer as a completion. Raises :class:`MalformedError`, also where there is no
    known stop reason."""
    response = src.parse_response(data)
    texts: list[str] = []
    calls: list[out.AnswerToolCall] = []
    for block in response.output.message.content:
        if block.tool_use is not None:
            calls.append(_call(block.tool_use))
        elif block.text is not None:
            texts.append(block.text)
    text = "".join(texts)
    return out.encode_completion(
        out.Completion(
            id=head.id,
            created=head.created_s,
            model=head.model,
            choices=(
                out.Choice(
                    index=0,
                    message=out.AnswerMessage(
                        content=text if text or not calls else None,
                        tool_calls=tuple(calls) or msgspec.UNSET,
                    ),
                    finish_reason=_finish(response.stop_reason),
                ),
            ),
            usage=_usage(response.usage),
        )
    )


def _call(call: src.ToolUse) -> out.AnswerToolCall:
    arguments = bytes(call.input).decode("utf-8") if given(call.input) else "{}"
    if not call.tool_use_id or not call.name or not arguments.startswith("{"):
        raise MalformedError("a tool call lacks a part", code="bad_tool_call")
    function = FunctionCall(name=call.name, arguments=arguments)
    return out.AnswerToolCall(id=call.tool_use_id, function=function)


def _finish(reason: str) -> out.FinishReason:
    finish = _FINISH.get(reason)
    if finish is None:
        raise MalformedError("an answer has no known stop reason", code="bad_completion")
    return finish


def _usage(usage: src.TokenUsage | None) -> out.Usage | None:
    if usage is None:
        return None
    read, written = usage.cache_read_input_tokens, usage.cache_write_input_tokens
    prompt = usage.input_tokens + (read or 0) + (written or 0)
    details = out.PromptTokensDetails(cached_tokens=read, cache_write_tokens=written)
    return out.Usage(
        prompt_tokens=prompt,
        completion_tokens=usage.output_tokens,
        total_tokens=prompt + usage.output_tokens,
        prompt_tokens_details=msgspec.UNSET if read is written is None else details,
    )


class StreamTranslator:
    """Converse events in, chunks out. One per answer.

    ``feed`` takes each event (``schema.bedrock_answer.Event``) in order and returns the data of
    zero or more chunks; ``finish``, when the stream has ended, returns the closing ones, or raises
    :class:`TruncatedError` if the answer is not complete. For data that no answer can be made of,
    ``feed`` raises :class:`MalformedError`.
    """

    __slots__ = ("_begun", "_calls", "_include_usage", "_open", "_over", "_skipped", "_usage",
                 "_writer")  # fmt: skip

    def __init__(self, head: Head, *, include_usage: bool = False) -> None:
        self._include_usage = include_usage
        self._writer = out.ChunkWriter(
            id=head.id, created_s=head.created_s, model=head.model, include_usage=include_usage
        )
        self._begun = False
        self._over = False
        self._calls = 0
        # Tool calls that are open: number of the call, by its block's index.
        self._open: dict[int, int] = {}
        self._usage: src.TokenUsage | None = None
        self._skipped: dict[str, None] = {}

    @property
    def skipped(self) -> tuple[str, ...]:
        """Kinds of content that were left out, each once."""
        return tuple(self._skipped)

    def feed(self, data: bytes) -> list[bytes]:
        """The chunks for one event."""
        return list(self._event(src.parse_event(data)))

    def finish(self) -> list[bytes]:
        """The closing chunks of a complete answer: its usage, if asked for and given."""
        if not self._over:
            raise TruncatedError("the stream ended without a stop reason")
        usage = _usage(self._usage)
        return [self._writer.usage(usage)] if self._include_usage and usage is not None else []

    def _event(self, event: src.Event) -> Iterator[bytes]:
        if event.metadata is not None:
            self._usage = event.metadata.usage or self._usage
            return
        if self._over:
            raise MalformedError("an answer goes on after its end", code="bad_chunk")
        if event.message_start is not None:
            if self._begun:
                raise MalformedError("an answer begins twice", code="bad_chunk")
            self._begun = True
            yield self._writer.role(0)
        elif not self._begun and event != src.Event():
            raise MalformedError("an answer does not begin with its start", code="bad_chunk")
        elif event.content_block_start is not None:
            yield from self._start(event.content_block_start)
        elif event.content_block_delta is not None:
            yield from self._delta(event.content_block_delta)
        elif event.content_block_stop is not None:
            self._open.pop(event.content_block_stop.content_block_index, None)
        elif event.message_stop is not None:
            if self._open:
                raise MalformedError("an answer ends within a tool call", code="bad_chunk")
            reason = _finish(event.message_stop.stop_reason)
            self._over = True
            yield self._writer.finish(0, reason)

    def _start(self, event: src.BlockStart) -> Iterator[bytes]:
        call = event.start.tool_use
        if call is None:
            self._note(event.start)
            return
        index = event.content_block_index
        if not call.tool_use_id or not call.name or index in self._open:
            raise MalformedError("a tool call lacks a part", code="bad_tool_call")
        if self._calls >= BLOCKS_MAX:
            raise MalformedError("too many tool calls", code="bad_tool_call")
        self._open[index] = self._calls
        yield self._writer.tool_call(0, self._calls, id=call.tool_use_id, name=call.name)
        self._calls += 1

    def _delta(self, event: src.BlockDelta) -> Iterator[bytes]:
        delta = event.delta
        if delta.tool_use is not None:
            call = self._open.get(event.content_block_index)
            if call is None:
                raise MalformedError("arguments of no tool call", code="bad_tool_call")
            if delta.tool_use.input:
                yield self._writer.tool_arguments(0, call, delta.tool_use.input)
        elif delta.text:
            yield self._writer.content(0, delta.text)
        else:
            self._note(delta)

    def _note(self, block: src.Start | src.Delta) -> None:
        kinds = [name for name in _SKIPPED if given(getattr(block, name, msgspec.Raw()))]
        self._skipped.update(dict.fromkeys(kinds))
