"""What an answer consists of so far, and what of the running attempt may be shown to the app.

Three parts of a stream are held back. Its head, until the first token: before that, another node
can still start afresh. Its end, from the chunk by which every choice is finished: a finish reason
must never reach the app before the receipt is verified and durable. And, from a node that can not
be continued exactly, tool calls from where they begin and documents that must be JSON, until they
are complete and valid (``values.py``); text as well if the caller says so. Everything else passes
at once. So does what goes on after a text, once it is sure that it does (``seam.py``). Of an answer
that is verified before it is shown all is held back.

Specified in ``docs/spec/attempt-protocol.md``, rules 2 to 5 and 8. It refuses events out of order,
data that is not what an OpenAI client could read, and tokens of choices nobody asked for.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.gateway.core.actions import Chain, Plan
from trunkline.gateway.core.seam import Seam
from trunkline.gateway.core.values import Gathered
from trunkline.receipts import ShownDigest, StreamDigest, bound_bytes
from trunkline.schema.attempt import PREFIX_CHARS_MAX, RESUME_TOKENS_MAX, Prefix, Used
from trunkline.schema.openai_answer import Delta, FunctionDelta, ReadMessage
from trunkline.schema.openai_embeddings import decode_vectors
from trunkline.schema.openai_parts import FunctionCall
from trunkline.schema.parsing import ABSENT

HELD_EVENTS_MAX: Final = 256
WITHHELD_EVENTS_MAX: Final = 100_000
"""The same while a tool call or a document is held back."""
HELD_BYTES_MAX: Final = 64 * 1024 * 1024

Tokens = Sequence[tuple[int, int]]


class _Delta(Delta, frozen=True, kw_only=True):
    reasoning: msgspec.Raw = ABSENT
    """What some providers call ``reasoning_content``."""

    @property
    def plain(self) -> bool:
        """Nothing but text is in it."""
        other = self.tool_calls or self.function_call or self.refusal or self.reasoning_content
        return not other and bytes(self.reasoning) in (b"", b"null", b'""')


class _Choice(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    finish_reason: str | None = None
    delta: _Delta = _Delta()
    message: ReadMessage | None = None


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a chunk or a whole response: enough to know where it ends."""

    choices: tuple[_Choice, ...]
    id: str = ""
    created: float = 0
    model: str = ""


class _AnyChoice(msgspec.Struct, frozen=True, kw_only=True):
    delta: dict[str, msgspec.Raw] = {}


class _AnyMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A chunk, read for whatever it may say in members that this gateway does not know."""

    choices: tuple[_AnyChoice, ...] = ()


class _Embeddings(msgspec.Struct, frozen=True, kw_only=True):
    data: tuple[msgspec.Raw, ...]


_MESSAGE: Final = msgspec.json.Decoder(_Message)
_ANY_MESSAGE: Final = msgspec.json.Decoder(_AnyMessage)
_SILENT: Final = frozenset({b"", b"null", b'""', b"[]", b"{}"})
_NOTHING: Final = _Message(choices=())
_EMBEDDINGS: Final = msgspec.json.Decoder(_Embeddings)


class Event(msgspec.Struct, frozen=True):
    """One unnamed event."""

    number: int
    tokens: Tokens
    data: bytes | None
    reasons: dict[int, str]
    """Finish reasons that this event gives, by choice."""
    characters: int = 0
    """Characters of text, and of tool calls' arguments, that it shows."""
    text: str = ""
    """The first choice's text in it."""
    plain: bool = True
    """It shows nothing but that text."""
    head: tuple[str, int, str] | None = None
    """The chunk's ``id``, ``created`` and ``model``."""
    used: tuple[int, int] | None = None
    """Prompt and completion tokens of the answer so far."""

    def says(self) -> bool:
        """Whether the answer is any further by it: a role, empty text or filters' findings alone
        are what a provider may send for ever."""
        if self.tokens or self.characters or self.reasons or not self.plain:
            return True
        if self.data is None:
            return False
        try:
            choices = _ANY_MESSAGE.decode(self.data).choices
        except msgspec.MsgspecError:
            return True
        members = (member for choice in choices for member in choice.delta.items())
        return any(name != "role" and bytes(value) not in _SILENT for name, value in members)


class Transcript:
    """What is settled of the answer: shown to the app, or kept to be continued from."""

    __slots__ = (
        "_plain", "_shown", "_text", "characters", "chunks", "head", "next_number", "reasons",
        "relayed", "tail", "text_size", "token_count", "tokens", "used",
    )  # fmt: skip

    def __init__(self, choices: int) -> None:
        self.tokens: list[list[int]] = [[] for _ in range(choices)]
        self.token_count = 0
        self.next_number = 0
        self.chunks = 0
        self.characters = 0
        self.reasons: dict[int, str] = {}
        self.relayed = False
        """Something has reached the app: no other beginning is possible any more."""
        self.head: tuple[str, int, str] | None = None
        """``id``, ``created`` and ``model`` of the chunks that the app was shown."""
        self.used: tuple[int, int] | None = None
        """Prompt and completion tokens that all this took; None: not known."""
        self.text_size = 0
        """Characters of the text that the app was shown."""
        self._text: list[str] = []
        self._plain = choices == 1
        self._shown = ShownDigest()
        self.tail: list[bytes | None] = []
        """Data of the events since the last token: a node that takes over may repeat them."""

    def add_tokens(self, tokens: Tokens) -> None:
        """Settle tokens: all, or none. Raises :class:`MalformedError` beyond the bounds."""
        if any(not 0 <= choice < len(self.tokens) for choice, _ in tokens):
            raise MalformedError("a token of a choice that nobody asked for")
        if self.token_count + len(tokens) > RESUME_TOKENS_MAX:
            raise MalformedError("the answer has too many tokens")
        for choice, token in tokens:
            self.tokens[choice].append(token)
        self.token_count += len(tokens)

    def settle(self, event: Event, *, exact: bool = True) -> None:
        """Take an event that is about to be relayed. ``exact``: its tokens can be continued."""
        self.add_tokens(event.tokens)
        if event.tokens:
            for data in (*self.tail, event.data):
                self._shown.update(data)
            self.tail.clear()
        elif exact:
            self.tail.append(event.data)
        self._note(event)
        self.next_number = event.number + 1
        self.reasons.update(event.reasons)
        self.chunks += event.data is not None
        self.characters += event.characters
        self.relayed = self.relayed or event.data is not None

    def _note(self, event: Event) -> None:
        """Keep what it takes to go on after the text."""
        if event.data is None:
            return
        self.head = self.head or event.head
        self.used = event.used
        self.text_size += len(event.text)
        self._plain = self._plain and event.plain and self.text_size <= PREFIX_CHARS_MAX
        if self._plain:
            self._text.append(event.text)
        else:
            self._text.clear()

    def prefix(self) -> Prefix | None:
        """What a node has to know to go on after the text; None where that is not possible:
        something other than the text of one choice was shown, too much of it, or its finish."""
        if not self._plain or not self.text_size or self.head is None or self.reasons:
            return None
        used = None if self.used is None else Used(prompt=self.used[0], completion=self.used[1])
        id_, created, model = self.head
        return Prefix(
            text="".join(self._text),
            events=self.next_number,
            id=id_,
            created=created,
            model=model,
            used=used,
        )

    @property
    def resumes_at(self) -> int:
        """Number of the event after the last settled token: where a takeover begins (rule 8)."""
        return self.next_number - len(self.tail)

    @property
    def shown(self) -> str:
        """Digest of what was shown up to the last token: what a node that takes over replays."""
        return self._shown.digest()

    def snapshot(self) -> tuple[tuple[int, ...], ...]:
        """The settled tokens, per choice."""
        return tuple(tuple(tokens) for tokens in self.tokens)


class Reception:
    """One attempt's events, on top of the transcript that it continues."""

    __slots__ = (
        "_exact", "_expected", "_gathered", "_goes_on", "_head", "_held", "_held_bytes", "_plan",
        "_seam", "_transcript", "_used", "_values", "chain", "digest", "finished", "further",
        "shown", "text_bytes", "withholding",
    )  # fmt: skip

    def __init__(
        self,
        plan: Plan,
        transcript: Transcript,
        attempt: str,
        *,
        exact: bool,
        prefix: Prefix | None = None,
    ) -> None:
        """``exact``: its tokens can be continued. ``prefix``: the text that it goes on after."""
        self._goes_on = prefix is not None
        self._seam = None if prefix is None else Seam(prefix.text)
        self._plan = plan
        self._transcript = transcript
        self._exact = exact
        self._expected = None if prefix is None else prefix.events
        self._held: list[Event] = []
        self._held_bytes = 0
        self._head = not transcript.relayed
        # What can be continued exactly needs no second try: its values are shown as they come.
        self._values = None if exact else plan.values
        self._gathered = [Gathered() for _ in range(plan.choices)]
        document = self._values is not None and self._values.document
        self.withholding = document or (plan.hold and not exact) or plan.before is not None
        """Nothing more is shown before the end."""
        self.digest = StreamDigest(bound_bytes(plan.request_digest), attempt)
        again = sum(data is not None for data in transcript.tail) if prefix is None else 0
        self.chain = Chain(attempt=attempt, request=plan.request_digest, repeats=again)
        self.shown = 0
        """Characters of text that the app was shown of this attempt."""
        self.text_bytes = 0
        """Of all that the node sent: text, thoughts, calls' names and arguments."""
        self._used: tuple[int, int] | None = None
        self.further = False
        """The last event brought the answer further: it said something, or counted more tokens."""
        self.finished = False
        """Every choice has its finish reason: only what follows the text may still come."""

    @property
    def reasons(self) -> dict[int, str]:
        """Finish reasons per choice, those held back included."""
        found = dict(self._transcript.reasons)
        for event in self._held:
            found.update(event.reasons)
        return found

    def all_tokens(self) -> tuple[tuple[int, ...], ...]:
        """The whole answer's tokens, those of held events included."""
        choices = [list(tokens) for tokens in self._transcript.tokens]
        for event in self._held:
            for choice, token in event.tokens:
                choices[choice].append(token)
        return tuple(tuple(tokens) for tokens in choices)

    def vectors(self) -> tuple[bytes, ...]:
        """Of a whole embeddings answer, each input's; none of any other, or where they can not be
        read."""
        if self._plan.kind != "embeddings":
            return ()
        try:
            return decode_vectors(b"".join(self.held()))
        except MalformedError:
            return ()

    def take(
        self,
        number: int,
        tokens: Tokens,
        data: bytes | None,
        used: tuple[int, int] | None = None,
    ) -> list[bytes]:
        """Take one unnamed event; returns what may be relayed now.

        Raises :class:`MalformedError` for what no honest node would send; its kind
        :class:`SeamError` for a text that begins again.
        """
        event = self._event(number, tokens, data, used)
        counted, self._used = used not in (None, self._used), used or self._used
        self.further = counted or event.says()
        if self._repeated(event):
            return []
        self._hold(event)
        if self._seam is not None:
            self._seam.take(event.text)
        if self.finished or not self._plan.stream:
            if tokens and self._plan.stream and not event.reasons:
                raise MalformedError("a token after the end of every choice")
            return []
        if event.reasons and len(self.reasons) == self._plan.choices:
            self.finished = True
            return []
        if self._head and not self._head_complete():
            return []
        self._head = False
        return [] if self.holding else self.release()

    @property
    def holding(self) -> bool:
        """What comes is held back: until the end, or until it is sure to go on after the text."""
        return self.withholding or (self._seam is not None and not self._seam.passed)

    @property
    def speaking(self) -> bool:
        """The text has begun, whether or not it may be shown yet."""
        return not self._head

    def held(self) -> list[bytes]:
        """The data of everything held."""
        return [event.data for event in self._held if event.data is not None]

    def release(self) -> list[bytes]:
        """Settle everything held and return its data."""
        held, self._held, self._held_bytes = self._held, [], 0
        for event in held:
            self._transcript.settle(event, exact=self._exact)
            self.shown += len(event.text)
        return [event.data for event in held if event.data is not None]

    def complete(self) -> None:
        """Raise :class:`MalformedError` unless the answer may end here; its kind
        :class:`InvalidAnswerError` if only a tool call or document is broken."""
        if self._plan.stream:
            if not self.finished:
                raise MalformedError("the stream ended without a finish reason")
        elif len(self._held) != 1:
            raise MalformedError("the response is missing")
        if self._values is not None:
            for choice, reason in self.reasons.items():
                self._values.check(self._gathered[choice], reason)

    def _event(
        self, number: int, tokens: Tokens, data: bytes | None, used: tuple[int, int] | None
    ) -> Event:
        if data is None:
            if not self._plan.stream:
                raise MalformedError("an event without data in a whole response")
            return Event(number, tokens, None, {})
        message = self._read(data)
        choices = message.choices
        head = (message.id, int(message.created), message.model)
        if self._goes_on and (
            head != self._transcript.head or any(choice.delta.role for choice in choices)
        ):
            raise MalformedError("a second beginning of the answer")
        return Event(
            number,
            tokens,
            data,
            self._reasons_of(choices),
            self._gather(choices),
            "".join(choice.delta.content or "" for choice in choices),
            all(choice.delta.plain for choice in choices),
            head,
            used,
        )

    def _read(self, data: bytes) -> _Message:
        self.digest.update(data)
        try:
            if not data.isascii():
                data.decode()
            if self._plan.kind == "embeddings":
                _EMBEDDINGS.decode(data)
                return _NOTHING
            return _MESSAGE.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise MalformedError("an event is not what a client could read") from None

    def _gather(self, choices: tuple[_Choice, ...]) -> int:
        """Note what the choices say; returns how many characters of it an app sees."""
        characters = 0
        for choice in choices:
            delta = choice.delta
            self.text_bytes += _said_bytes(delta)
            if choice.message is not None:
                self.text_bytes += _said_bytes(choice.message)
            characters += len(delta.content or "")
            for call in delta.tool_calls or ():
                if call.function is not None:
                    characters += len(call.function.arguments or "")
            if self._values is None:
                continue
            gathered = self._gathered[choice.index]
            gathered.add(delta)
            if choice.message is not None:
                gathered.take(choice.message)
            self.withholding = self.withholding or bool(gathered.calls)
        return characters

    def _reasons_of(self, choices: tuple[_Choice, ...]) -> dict[int, str]:
        found: dict[int, str] = {}
        for choice in choices:
            if not 0 <= choice.index < self._plan.choices:
                raise MalformedError("a choice that nobody asked for")
            if choice.finish_reason is not None:
                found[choice.index] = choice.finish_reason
        chat = self._plan.kind == "chat"
        if chat and not self._plan.stream and len(found) != self._plan.choices:
            raise MalformedError("the response lacks a choice or its finish reason")
        return found

    def _repeated(self, event: Event) -> bool:
        """Whether this is an event since the last token that the app has already (rule 8)."""
        settled = self._transcript
        expected = self._expected
        if expected is None:
            expected = settled.resumes_at
        if event.number != expected:
            raise MalformedError("an event is missing or doubled")
        self._expected = expected + 1
        back = settled.next_number - event.number
        if back <= 0:
            return False
        if self._held or event.tokens or settled.tail[-back] != event.data:
            raise MalformedError("a repeated event differs from what the app was sent")
        return True

    def _hold(self, event: Event) -> None:
        for choice, _ in event.tokens:
            if not 0 <= choice < self._plan.choices:
                raise MalformedError("a token of a choice that nobody asked for")
        self._held.append(event)
        self._held_bytes += len(event.data or b"")
        most = WITHHELD_EVENTS_MAX if self.holding else HELD_EVENTS_MAX
        if len(self._held) > most or self._held_bytes > HELD_BYTES_MAX:
            raise MalformedError("more is held back than an answer's ends can be")

    def _head_complete(self) -> bool:
        """The first token is here; or, without token ids, something after the role chunk."""
        if self._exact:
            return any(event.tokens for event in self._held)
        return sum(event.data is not None for event in self._held) > 1


def _said_bytes(part: Delta | ReadMessage) -> int:
    """Bytes of everything in it that a model generated."""
    # Asked of each chunk, and in most there is nothing but text.
    said = _bytes(part.content) + _bytes(part.refusal) + _bytes(part.reasoning_content)
    for call in part.tool_calls or ():
        said += _call_bytes(call.function)
    thoughts = bytes(part.reasoning)
    if thoughts not in _SILENT:
        said += len(thoughts) - len('""')
    return said + _call_bytes(part.function_call)


def _call_bytes(function: FunctionDelta | FunctionCall | None) -> int:
    return 0 if function is None else _bytes(function.name) + _bytes(function.arguments)


def _bytes(text: str | None) -> int:
    return len(text.encode()) if text else 0
