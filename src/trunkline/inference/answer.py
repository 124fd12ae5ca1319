"""An answer of one or more choices as the attempt protocol's events, in lock-step.

``docs/spec/attempt-protocol.md``, rules 1 to 5 and 8. The events are a function of the request and
the tokens alone, so taking over is replaying: push the tokens that were given, drop their events,
go on. Each token is one event; the chunks that follow from it without a token of their own (a
further call, a finish, the usage) are events right after it. It refuses tokens out of turn.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from trunkline.base.errors import CorruptStateError, RequestError, require
from trunkline.crypto.digest import sha256
from trunkline.inference import ports, toolcalls
from trunkline.inference.textpipe import ChoicePipe, Part, PipeSettings
from trunkline.schema import sse
from trunkline.schema.attempt import EVENT_PROGRESS
from trunkline.schema.audit import OpenedLogprob
from trunkline.schema.openai_answer import (
    AnswerMessage,
    AnswerToolCall,
    Choice,
    ChunkWriter,
    Completion,
    FinishReason,
    Logprobs,
    TokenLogprob,
    TopLogprob,
    Usage,
    encode_completion,
    logprob,
)
from trunkline.schema.openai_parts import FunctionCall


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the stream."""

    id: int | None
    """None: a named event (``progress``), of which the app hears nothing."""
    progress: int | None = None
    """A ``progress`` event's number: the answer's tokens before it."""
    tokens: tuple[tuple[int, int], ...] = ()
    data: bytes | None = None
    used: tuple[int, int] | None = None
    """Prompt and completion tokens of the answer so far, by a provider's word."""

    def encode(self) -> bytes:
        return sse.encode(
            event=EVENT_PROGRESS if self.id is None else None,
            id=self.progress if self.id is None else self.id,
            tokens=self.tokens or None,
            used=self.used,
            data=self.data,
        )


class AnswerHead(msgspec.Struct, frozen=True, kw_only=True):
    """What every chunk of the answer repeats."""

    answer: str
    created_s: int
    model: str
    fingerprint: str
    """``system_fingerprint``."""

    @staticmethod
    def fingerprint_of(numerics: str) -> str:
        """``system_fingerprint`` for an engine's numerics."""
        return f"fp_{sha256(numerics.encode()).hex()[:16]}"

    @property
    def completion_id(self) -> str:
        """The app's ``id``: the same from every node that has a part in the answer."""
        return "chatcmpl-" + self.answer.removeprefix("ans_")


class Answer:
    """The answer so far. Ask :attr:`next_choice`, push its next token, send what that returns."""

    __slots__ = (
        "_calls",
        "_choices",
        "_head",
        "_include_usage",
        "_logprobs",
        "_next_id",
        "_pieces",
        "_prompt_tokens",
        "_pushed",
        "_stream",
        "_texts",
        "_writer",
        "next_choice",
    )  # fmt: skip

    def __init__(
        self,
        head: AnswerHead,
        *,
        choices: int,
        pipe: PipeSettings,
        pieces: Sequence[bytes],
        prompt_tokens: int,
        stream: bool,
        include_usage: bool,
    ) -> None:
        self._head = head
        self._pieces = pieces
        self._prompt_tokens = prompt_tokens
        self._stream = stream
        self._include_usage = include_usage
        self._writer = ChunkWriter(
            id=head.completion_id,
            created_s=head.created_s,
            model=head.model,
            system_fingerprint=head.fingerprint,
            include_usage=include_usage,
        )
        self._choices = [ChoicePipe(pipe, pieces) for _ in range(choices)]
        # For the whole answer of a request that does not stream; also how many calls came before.
        self._texts: list[list[str]] = [[] for _ in range(choices)]
        self._calls: list[list[AnswerToolCall]] = [[] for _ in range(choices)]
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in range(choices)]
        self._next_id = 0
        self._pushed = 0
        self.next_choice: int | None = 0
        """Whose token comes next; None once every choice is finished."""

    @property
    def finish(self) -> tuple[str, ...]:
        """Finish reason per choice."""
        return tuple(pipe.finish for pipe in self._choices)

    @property
    def tokens(self) -> tuple[tuple[int, ...], ...]:
        """The answer's tokens per choice, those taken over included."""
        return tuple(tuple(pipe.tokens) for pipe in self._choices)

    @property
    def usage(self) -> Usage:
        """Counted from token ids: the prompt once, and every token of every choice."""
        completion = sum(len(pipe.tokens) for pipe in self._choices)
        return Usage.counted(self._prompt_tokens, completion)

    def opening(self) -> list[Event]:
        """The events before any token."""
        if not self._stream:
            return []
        return [self._chunk(self._writer.role(index)) for index in range(len(self._choices))]

    def push(self, token: int, scored: TokenLogprob | None = None) -> list[Event]:
        """Take the next token of :attr:`next_choice`. The first event is the token's own."""
        index = self.next_choice
        if index is None:
            raise CorruptStateError("invariant broken: a finished answer takes no token")
        pipe = self._choices[index]
        parts = pipe.push(token, scored)
        self.next_choice = self._after(index)
        if not self._stream:
            self._collect(index, parts)
            self._pushed += 1
            return [Event(id=None, progress=self._pushed - 1, tokens=((index, token),))]
        chunks = [self._part(index, part) for part in parts]
        first = chunks.pop(0) if chunks else None
        events = [Event(id=self._take_id(), tokens=((index, token),), data=first)]
        if pipe.finish:
            chunks.append(
                self._writer.finish(
                    index,
                    _reason(pipe.finish),
                    stop_reason=pipe.stop_reason,
                    logprobs=pipe.take_logprobs(),
                )
            )
        events.extend(self._chunk(data) for data in chunks)
        return events

    def closing(self) -> list[Event]:
        """The events after the last choice's end."""
        require(self.next_choice is None, "an answer closes when its choices are finished")
        if not self._stream:
            return [self._chunk(self._whole())]
        return [self._chunk(self._writer.usage(self.usage))] if self._include_usage else []

    def _after(self, index: int) -> int | None:
        count = len(self._choices)
        for step in range(1, count + 1):
            candidate = (index + step) % count
            if not self._choices[candidate].finish:
                return candidate
        return None

    def _take_id(self) -> int:
        taken = self._next_id
        self._next_id += 1
        return taken

    def _chunk(self, data: bytes) -> Event:
        return Event(id=self._take_id(), data=data)

    def _part(self, index: int, part: Part) -> bytes:
        if isinstance(part, str):
            logprobs = self._choices[index].take_logprobs()
            return self._writer.content(index, part, logprobs)
        made = self._call(index, part)
        return self._writer.tool_call(
            index,
            len(self._calls[index]) - 1,
            id=made.id,
            name=part.name,
            arguments=part.arguments,
        )

    def _call(self, index: int, call: toolcalls.Call) -> AnswerToolCall:
        number = len(self._calls[index])
        made = AnswerToolCall(
            id=toolcalls.call_id(self._head.answer, index, number),
            function=FunctionCall(name=call.name, arguments=call.arguments),
        )
        self._calls[index].append(made)
        return made

    def _collect(self, index: int, parts: Sequence[Part]) -> None:
        for part in parts:
            if isinstance(part, str):
                self._texts[index].append(part)
            else:
                self._call(index, part)
        self._logprobs[index].extend(self._choices[index].take_logprobs())

    def _whole(self) -> bytes:
        return encode_completion(
            Completion(
                id=self._head.completion_id,
                created=self._head.created_s,
                model=self._head.model,
                choices=tuple(self._choice(index) for index in range(len(self._choices))),
                usage=self.usage,
                system_fingerprint=self._head.fingerprint,
            )
        )

    def _choice(self, index: int) -> Choice:
        pipe = self._choices[index]
        text = "".join(self._texts[index])
        calls = tuple(self._calls[index])
        logprobs = tuple(self._logprobs[index])
        return Choice(
            index=index,
            message=AnswerMessage(
                content=None if calls and not text else text,
                tool_calls=calls or msgspec.UNSET,
            ),
            logprobs=Logprobs(content=logprobs) if logprobs else None,
            finish_reason=_reason(pipe.finish),
            stop_reason=msgspec.UNSET if pipe.stop_reason is None else pipe.stop_reason,
        )


_REASONS: Final[dict[str, FinishReason]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
}


def _reason(finish: str) -> FinishReason:
    return _REASONS[finish]


class Given:
    """The tokens of an earlier attempt, taken one at a time in the order that they were sent."""

    __slots__ = ("_left", "tokens")

    def __init__(self, tokens: Sequence[Sequence[int]], *, choices: int, vocabulary: int) -> None:
        """Raises :class:`RequestError` ``invalid_resume`` for what no answer could have been."""
        if len(tokens) != choices:
            raise bad_resume("does not have the request's number of choices")
        if any(not 0 <= token < vocabulary for part in tokens for token in part):
            raise bad_resume("holds a token that the model does not have")
        self.tokens = tuple(tuple(part) for part in tokens)
        self._left = [list(reversed(part)) for part in self.tokens]

    def __bool__(self) -> bool:
        return any(self._left)

    def take(self, choice: int | None) -> int:
        """The next token, which must be of ``choice``: lock-step leaves no other order."""
        if choice is None or not self._left[choice]:
            raise bad_resume("holds tokens that lock-step could not have reached")
        return self._left[choice].pop()


def bad_resume(why: str) -> RequestError:
    """The tokens to go on from are not what this request could have produced so far."""
    return RequestError(f"resume: {why}", code="invalid_resume", param="resume")


def as_sent(value: float, top: Iterable[ports.TokenLogprob]) -> OpenedLogprob:
    """What an engine says beside a token, in the numbers that an app is sent: for who sends them
    and for who checks them."""
    return OpenedLogprob(logprob(value), tuple((one.token, logprob(one.logprob)) for one in top))


def token_logprob(
    pieces: Sequence[bytes], token: int, value: float, top: Sequence[tuple[int, float]]
) -> TokenLogprob:
    """A token's log-probability as the API spells it."""

    def text(number: int) -> str:
        return pieces[number].decode("utf-8", "replace")

    return TokenLogprob(
        token=text(token),
        logprob=logprob(value),
        bytes=tuple(pieces[token]),
        top_logprobs=tuple(
            TopLogprob(token=text(number), logprob=logprob(chance), bytes=tuple(pieces[number]))
            for number, chance in top
        ),
    )
