"""Chat chunks as the events of a Responses stream (part of ``responses_openai``).

A pure state machine over the chunks' bytes in order: each chunk's events are written at once, and
nothing is held back. What is kept is what the format repeats at the end of each part and of the
whole. When another node continues an answer with the chunks that the first would have sent, the
events go on byte for byte too.
"""

from collections.abc import Iterator
from typing import Literal

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.schema import errors, openai_answer
from trunkline.schema import openai_responses_answer as out
from trunkline.schema.parsing import given

_PartKind = Literal["output_text", "refusal", "reasoning_text"]


def malformed(what: str) -> MalformedError:
    return MalformedError(what, code="bad_completion")


def ending(finish: str | None) -> out.Incomplete | None:
    """Why a finished answer is not complete; None: it is. A finish that nobody gave is never made
    up: :class:`MalformedError`."""
    match finish:
        case "stop" | "tool_calls" | "function_call":
            return None
        case "length":
            return out.Incomplete(reason="max_output_tokens")
        case "content_filter":
            return out.Incomplete(reason="content_filter")
        case _:
            raise malformed("an answer has no known finish reason")


def item_id(kind: Literal["msg", "fc", "rs"], response_id: str, index: int) -> str:
    """An item's id: its response's, its kind and its place."""
    return f"{kind}_{response_id.removeprefix('resp_')}_{index}"


class Numbered:
    """Writes events, numbering them from 0."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, kind: str, **members: object) -> bytes:
        return out.event(kind, self.take(), **members)

    def take(self) -> int:
        """The next event's number."""
        number, self._next = self._next, self._next + 1
        return number


class _Speech:
    """An item that is made of parts of text: a message, or thoughts."""

    def __init__(
        self, write: Numbered, kind: Literal["msg", "rs"], answer: str, index: int
    ) -> None:
        self._write = write
        self._kind = kind
        self._id = item_id(kind, answer, index)
        self._index = index
        self._parts: list[out.Part] = []
        self._open: _PartKind | None = None
        self._text: list[str] = []
        self._logprobs: list[out.TokenLogprob] = []

    @property
    def thinks(self) -> bool:
        return self._kind == "rs"

    def begin(self) -> Iterator[bytes]:
        item = self._item("in_progress")
        yield self._write("response.output_item.added", output_index=self._index, item=item)

    def say(
        self, kind: _PartKind, text: str, logprobs: tuple[out.TokenLogprob, ...] = ()
    ) -> Iterator[bytes]:
        """More text of a part."""
        if self._open != kind:
            yield from self._close()
            self._open = kind
            part = _part(kind, "", ())
            yield self._event("response.content_part.added", part=part)
        self._text.append(text)
        more: dict[str, object] = {}
        if kind == "output_text":
            self._logprobs.extend(logprobs)
            more["logprobs"] = logprobs
        yield self._event(f"response.{kind}.delta", delta=text, **more)

    def end(self, status: out.ItemStatus) -> Iterator[bytes]:
        yield from self._close()
        item = self._item(status)
        yield self._write("response.output_item.done", output_index=self._index, item=item)

    def item(self, status: out.ItemStatus) -> out.Item:
        """The item as it is by now, with what its open part holds."""
        open_parts = () if self._open is None else (self._made(self._open),)
        return self._item(status, open_parts)

    def _item(self, status: out.ItemStatus, more: tuple[out.Part, ...] = ()) -> out.Item:
        content = (*self._parts, *more)
        if self._kind == "rs":
            return out.Reasoning(id=self._id, status=status, content=content)
        return out.Message(id=self._id, status=status, content=content)

    def _made(self, kind: _PartKind) -> out.Part:
        return _part(kind, "".join(self._text), tuple(self._logprobs))

    def _close(self) -> Iterator[bytes]:
        if self._open is None:
            return
        kind, part = self._open, self._made(self._open)
        text = "".join(self._text)
        more: dict[str, object] = {"refusal" if kind == "refusal" else "text": text}
        if kind == "output_text":
            more["logprobs"] = tuple(self._logprobs)
        yield self._event(f"response.{kind}.done", **more)
        yield self._event("response.content_part.done", part=part)
        self._parts.append(part)
        self._open = None
        self._text, self._logprobs = [], []

    def _event(self, kind: str, **members: object) -> bytes:
        return self._write(
            kind,
            item_id=self._id,
            output_index=self._index,
            content_index=len(self._parts),
            **members,
        )


def _part(kind: _PartKind, text: str, logprobs: tuple[out.TokenLogprob, ...]) -> out.Part:
    match kind:
        case "output_text":
            return out.OutputText(text=text, logprobs=logprobs)
        case "refusal":
            return out.OutputRefusal(refusal=text)
        case "reasoning_text":
            return out.ReasoningText(text=text)


class _Call:
    """A function call."""

    def __init__(
        self, write: Numbered, answer: str, index: int, number: int, call_id: str, name: str
    ) -> None:
        self._write = write
        self._id = item_id("fc", answer, index)
        self._index = index
        self.number = number
        """Its index among the chat answer's calls."""
        self._call_id = call_id
        self._name = name
        self._arguments: list[str] = []

    def begin(self) -> Iterator[bytes]:
        item = self.item("in_progress")
        yield self._write("response.output_item.added", output_index=self._index, item=item)

    def more(self, arguments: str) -> Iterator[bytes]:
        self._arguments.append(arguments)
        yield self._event("delta", delta=arguments)

    def end(self, status: out.ItemStatus) -> Iterator[bytes]:
        yield self._event("done", name=self._name, arguments="".join(self._arguments))
        item = self.item(status)
        yield self._write("response.output_item.done", output_index=self._index, item=item)

    def item(self, status: out.ItemStatus) -> out.Item:
        return out.FunctionCall(
            id=self._id,
            status=status,
            call_id=self._call_id,
            name=self._name,
            arguments="".join(self._arguments),
        )

    def _event(self, kind: str, **members: object) -> bytes:
        return self._write(
            f"response.function_call_arguments.{kind}",
            item_id=self._id,
            output_index=self._index,
            **members,
        )


class StreamTranslator:
    """Chunks in, events out. One per answer.

    ``feed`` takes each chunk's data in order and returns the bytes of zero or more events;
    ``finish``, when the answer is complete, returns the closing ones; ``fail`` returns those that
    end it explicitly without an answer. ``feed`` and ``finish`` raise :class:`MalformedError` for
    chunks that no Responses stream can say.
    """

    __slots__ = ("_created_s", "_finish", "_id", "_items", "_model", "_open", "_told", "_usage",
                 "_write", "final")  # fmt: skip

    def __init__(self, *, response_id: str, told: out.Echo) -> None:
        self._id = response_id
        self._told = told
        self._write = Numbered()
        self._created_s = 0
        self._model: str | None = None
        """The model that the first chunk names; None: none came."""
        self._items: list[out.Item] = []
        """Items that are done."""
        self._open: _Speech | _Call | None = None
        self._finish: str | None = None
        self._usage: openai_answer.Usage | None = None
        self.final: out.Response | None = None
        """The whole response, once ``finish`` was called."""

    def feed(self, data: bytes) -> bytes:
        """The events for one chunk."""
        chunk = openai_answer.parse_chunk(data)
        if given(chunk.error):
            raise MalformedError("a chunk holds an error", code="error_in_stream")
        events: list[bytes] = []
        if self._model is None:
            self._model, self._created_s = chunk.model, int(chunk.created)
            response = self._response("in_progress")
            events.append(self._write("response.created", response=response))
            events.append(self._write("response.in_progress", response=response))
        for choice in chunk.choices:
            if choice.index != 0:
                raise malformed("an answer must have one choice")
            events.extend(self._delta(choice))
            if choice.finish_reason is not None:
                self._finish = choice.finish_reason
        if chunk.usage is not None:
            self._usage = chunk.usage
        return b"".join(events)

    def finish(self) -> bytes:
        """The closing events of a complete answer."""
        if self._model is None:
            raise malformed("an answer has no chunks")
        incomplete = ending(self._finish)
        status: Literal["completed", "incomplete"] = (
            "completed" if incomplete is None else "incomplete"
        )
        events = [*self._close(status)]
        self.final = self._response(status, incomplete=incomplete)
        events.append(self._write(f"response.{status}", response=self.final))
        return b"".join(events)

    def fail(self, described: errors.Described) -> bytes:
        """The events that end a stream in error: what was produced until then, as a failed
        response, and the error, which client libraries raise. Nothing looks like a finish."""
        failed = out.Failed(
            code="rate_limit_exceeded" if described.status == 429 else "server_error",
            message=described.message,
        )
        response = self._response("failed", failed=failed)
        if self._open is not None:
            output = (*self._items, self._open.item("incomplete"))
            response = msgspec.structs.replace(response, output=output)
        ended = self._write("response.failed", response=response)
        return ended + errors.responses_event(described, self._write.take())

    def _response(
        self,
        status: out.Status,
        *,
        incomplete: out.Incomplete | None = None,
        failed: out.Failed | None = None,
    ) -> out.Response:
        return out.Response(
            id=self._id,
            created_at=self._created_s,
            status=status,
            error=failed,
            incomplete_details=incomplete,
            model=self._model or "",
            output=tuple(self._items),
            usage=out.usage_of(self._usage),
            **msgspec.structs.asdict(self._told),
        )

    def _delta(self, choice: openai_answer.ChunkChoice) -> Iterator[bytes]:
        delta = choice.delta
        if delta.reasoning_content:
            yield from self._say("rs", "reasoning_text", delta.reasoning_content)
        if delta.content:
            yield from self._say("msg", "output_text", delta.content, logprobs(choice.logprobs))
        if delta.refusal:
            yield from self._say("msg", "refusal", delta.refusal)
        for call in delta.tool_calls or ():
            yield from self._call(call)

    def _say(
        self,
        kind: Literal["msg", "rs"],
        part: _PartKind,
        text: str,
        logprobs: tuple[out.TokenLogprob, ...] = (),
    ) -> Iterator[bytes]:
        speech = self._open
        if not isinstance(speech, _Speech) or (part == "reasoning_text") != speech.thinks:
            yield from self._close("completed")
            speech = _Speech(self._write, kind, self._id, len(self._items))
            self._open = speech
            yield from speech.begin()
        yield from speech.say(part, text, logprobs)

    def _call(self, delta: openai_answer.ToolCallDelta) -> Iterator[bytes]:
        function = delta.function or openai_answer.FunctionDelta()
        call = self._open
        if not isinstance(call, _Call) or call.number != delta.index:
            if not delta.id or not function.name:
                # Either a call without a beginning, or more of one that was closed.
                raise malformed("a tool call is out of order")
            yield from self._close("completed")
            call = _Call(
                self._write, self._id, len(self._items), delta.index, delta.id, function.name
            )
            self._open = call
            yield from call.begin()
        if function.arguments:
            yield from call.more(function.arguments)

    def _close(self, status: Literal["completed", "incomplete"]) -> Iterator[bytes]:
        if self._open is not None:
            yield from self._open.end(status)
            self._items.append(self._open.item(status))
            self._open = None


def logprobs(given_: msgspec.Raw) -> tuple[out.TokenLogprob, ...]:
    """A chat choice's log-probabilities. Raises :class:`MalformedError`."""
    try:
        return out.logprobs_of(given_)
    except msgspec.DecodeError:
        raise malformed("log-probabilities do not parse") from None
