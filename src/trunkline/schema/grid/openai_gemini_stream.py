"""Gemini's streams as chunks (part of ``openai_gemini``).

``streamGenerateContent`` with ``alt=sse``: unnamed events, each a ``GenerateContentResponse`` with
what is new. No event says that the stream is over; an answer is complete once every candidate has a
finish reason. The translator is a pure state machine over the events' data; what it writes does not
depend on how the bytes were cut. It refuses to end an answer that the provider did not end. What a
client of this format has no place for is left out, and named in ``skipped``.
"""

from collections.abc import Iterator
from typing import Final, NoReturn

from trunkline.base.errors import (
    BadResponseError,
    MalformedError,
    RateLimitedError,
    TimedOutError,
    TruncatedError,
    UpstreamError,
)
from trunkline.schema import gemini_answer as src
from trunkline.schema import openai_answer as out
from trunkline.schema.grid.openai_gemini_answer import (
    blocked,
    finish_reason,
    openai_logprobs,
    openai_usage,
    read_call,
)
from trunkline.schema.parsing import given

LOGPROBS_HELD_MAX: Final = 65_536
"""Scores held back for the text that they belong to."""
_MEDIA: Final = ("inline_data", "file_data", "executable_code", "code_execution_result")


class _Lane:
    """What is known of one candidate."""

    __slots__ = ("calls", "finished", "scored", "started")

    def __init__(self) -> None:
        self.started = False
        self.finished = False
        self.calls = 0
        self.scored: list[out.TokenLogprob] = []


class StreamTranslator:
    """Gemini events in, chunks out. One per answer.

    ``feed`` takes each event's data in order and returns the data of zero or more chunks;
    ``finish``, when the stream has ended, returns the closing ones, or raises
    :class:`TruncatedError` if the answer is not complete. For data that no answer can be made of,
    ``feed`` raises :class:`MalformedError`; for an error event, the :class:`UpstreamError`.
    """

    __slots__ = ("_created_s", "_id", "_include_usage", "_lanes", "_skipped", "_usage", "_writer")

    def __init__(self, *, created_s: int, choices: int = 1, include_usage: bool = False) -> None:
        """``choices``: how many were asked for."""
        self._created_s = created_s
        self._include_usage = include_usage
        self._lanes = tuple(_Lane() for _ in range(choices))
        self._writer: out.ChunkWriter | None = None
        self._id = ""
        self._usage: src.UsageMetadata | None = None
        self._skipped: dict[str, None] = {}

    @property
    def skipped(self) -> tuple[str, ...]:
        """Kinds of content that were left out, each once."""
        return tuple(self._skipped)

    def feed(self, data: bytes) -> list[bytes]:
        """The chunks for one event."""
        response = src.parse_response(data)
        if response.error is not None:
            _fail(response.error)
        return list(self._event(response))

    def finish(self) -> list[bytes]:
        """The closing chunks of a complete answer: its usage, if asked for and given."""
        if self._writer is None or not all(lane.finished for lane in self._lanes):
            raise TruncatedError("the stream ended without a finish reason")
        usage = openai_usage(self._usage)
        return [self._writer.usage(usage)] if self._include_usage and usage is not None else []

    def _event(self, response: src.Response) -> Iterator[bytes]:
        writer = self._start(response)
        if response.usage_metadata is not None:
            # Totals so far: a later one replaces an earlier one.
            self._usage = response.usage_metadata
        if blocked(response):
            yield from self._block(writer)
        for candidate in response.candidates:
            if not 0 <= candidate.index < len(self._lanes):
                raise MalformedError("a candidate that was not asked for", code="bad_chunk")
            yield from self._candidate(writer, candidate, self._lanes[candidate.index])

    def _start(self, response: src.Response) -> out.ChunkWriter:
        if self._writer is None:
            self._id = response.response_id
            self._writer = out.ChunkWriter(
                id=self._id,
                created_s=self._created_s,
                model=response.model_version,
                include_usage=self._include_usage,
            )
        return self._writer

    def _block(self, writer: out.ChunkWriter) -> Iterator[bytes]:
        """The prompt was refused: every choice is filtered, and none has said anything."""
        if any(lane.started for lane in self._lanes):
            raise MalformedError("a prompt is blocked after it was answered", code="bad_chunk")
        for index, lane in enumerate(self._lanes):
            lane.started = lane.finished = True
            yield writer.role(index)
            yield writer.finish(index, "content_filter")

    def _candidate(
        self, writer: out.ChunkWriter, candidate: src.Candidate, lane: _Lane
    ) -> Iterator[bytes]:
        if lane.finished:
            if any(part.text or part.function_call for part in candidate.content.parts):
                raise MalformedError("a candidate goes on after its end", code="bad_chunk")
            return
        if not lane.started:
            lane.started = True
            yield writer.role(candidate.index)
        lane.scored.extend(openai_logprobs(candidate.logprobs_result))
        if len(lane.scored) > LOGPROBS_HELD_MAX:
            raise MalformedError("scores without the text that they belong to", code="bad_chunk")
        for part in candidate.content.parts:
            yield from self._part(writer, candidate.index, part, lane)
        if candidate.finish_reason:
            reason = finish_reason(candidate.finish_reason, called=lane.calls > 0)
            lane.finished = True
            yield writer.finish(candidate.index, reason, logprobs=lane.scored)

    def _part(
        self, writer: out.ChunkWriter, index: int, part: src.Part, lane: _Lane
    ) -> Iterator[bytes]:
        if part.thought:
            self._skipped["thought"] = None
        elif part.function_call is not None:
            call_id, name, arguments = read_call(part.function_call, self._id, index, lane.calls)
            yield writer.tool_call(index, lane.calls, id=call_id, name=name, arguments=arguments)
            lane.calls += 1
        elif part.text:
            scored, lane.scored = lane.scored, []
            yield writer.content(index, part.text, scored)
        else:
            media = [name for name in _MEDIA if given(getattr(part, name))]
            self._skipped.update(dict.fromkeys(media))


def _fail(error: src.Failure) -> NoReturn:
    """Raise what an error in the stream stands for, without its words."""
    match error.status:
        case "RESOURCE_EXHAUSTED":
            raise RateLimitedError("the provider's limit was reached within the answer")
        case "UNAVAILABLE" | "INTERNAL":
            raise UpstreamError(
                "the provider failed within the answer", code="upstream_unavailable"
            )
        case "DEADLINE_EXCEEDED":
            raise TimedOutError("the provider ran out of time within the answer")
        case _:
            raise BadResponseError("an error event in the stream")
