"""From tokens to text, one choice at a time: what each token releases, and when the choice ends.

A deterministic function of the tokens and the request alone. That is what exact continuation rests
on: another node fed the same tokens releases the same text at the same places, so an answer can be
taken over after any token. Nothing here asks the engine why it stopped.

In order: bytes of the token → whole characters (a partial one is held) → stop strings (text that
may become one is held, the string itself is cut) → tool calls (a block is held until it closes).
"""

import codecs
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from trunkline.base.errors import require
from trunkline.inference import toolcalls
from trunkline.inference.toolcalls import CLOSE_TAG, OPEN_TAG, Call
from trunkline.schema.openai_answer import TokenLogprob

Reason = Literal["", "stop", "length", "tool_calls"]

_utf8_decoder: Final = codecs.getincrementaldecoder("utf-8")


class PipeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the request says about how its tokens become text."""

    tokens_max: int
    """Most tokens of the choice."""
    stops: tuple[str, ...] = ()
    end_tokens: frozenset[int] = frozenset()
    """Tokens that end the model's turn."""
    tools: frozenset[str] = frozenset()
    """Names of the functions on offer; none: tool calls are not looked for."""
    one_block: bool = False
    """The choice ends with its first block of calls (a call is demanded, or only one allowed)."""
    demanded: bool = False
    """The choice is calls and nothing else, by grammar: what is cut short is no text either."""
    calls_max: int = toolcalls.CALLS_MAX
    document: bool = False
    """The choice is one JSON object or array, by grammar, and ends with it."""


Part = str | Call
"""Text, never empty, or a whole call."""

Released = tuple[Part, ...]
"""What a token brings to the app, in order."""


class ChoicePipe:
    """One choice's tokens, pushed in order until ``finish`` is not empty."""

    __slots__ = (
        "_calls", "_decoder", "_document", "_logprobs", "_pieces", "_settings", "_stops",
        "finish", "stop_reason", "tokens",
    )  # fmt: skip

    def __init__(self, settings: PipeSettings, pieces: Sequence[bytes]) -> None:
        """``pieces``: the bytes that each token id stands for."""
        self._settings = settings
        self._pieces = pieces
        self._decoder = _utf8_decoder("replace")
        self._stops = _StopFilter(settings.stops)
        self._calls = _CallFilter(settings)
        self._document = _DocumentEnd() if settings.document else None
        self._logprobs: list[TokenLogprob] = []
        self.finish: Reason = ""
        self.stop_reason: str | None = None
        """The stop string that was met."""
        self.tokens: list[int] = []

    def push(self, token: int, logprob: TokenLogprob | None = None) -> Released:
        """Take the next token. ``logprob`` where the request asked for it."""
        require(not self.finish, "a finished choice takes no token")
        self.tokens.append(token)
        if token in self._settings.end_tokens:
            return self._end("stop")
        if logprob is not None:
            self._logprobs.append(logprob)
        text = self._decoder.decode(self._pieces[token])
        ended = self._document is not None and self._document.feed(text)
        self._calls.feed(self._stops.feed(text))
        if self._stops.met is not None or ended or self._calls.closed:
            return self._end("stop")
        if len(self.tokens) >= self._settings.tokens_max:
            return self._end("length")
        return self._calls.take()

    def _end(self, reason: Reason) -> Released:
        """Release everything held. The stop string itself, and what follows it, is not."""
        if self._stops.met is None:
            self._calls.feed(self._stops.finish(self._decoder.decode(b"", final=True)))
        if self._stops.met is not None:
            # It may also have been completed only now, by the mark for a broken last character.
            reason = "stop"
            self.stop_reason = self._stops.met
        self._calls.finish()
        self.finish = "tool_calls" if self._calls.made and reason == "stop" else reason
        return self._calls.take()

    def take_logprobs(self) -> tuple[TokenLogprob, ...]:
        """Log-probabilities of the tokens since this was called last."""
        left = tuple(self._logprobs)
        self._logprobs.clear()
        return left


class _StopFilter:
    """Cuts at the first stop string; holds what may yet become one."""

    __slots__ = ("_held", "_longest", "_stops", "met")

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.met: str | None = None

    def feed(self, text: str) -> str:
        if not self._stops:
            return text
        text = self._held + text
        met = min(
            ((at, -len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0),
            default=None,
        )
        if met is not None:
            # The earliest one counts; of several that start there, the longest.
            self.met = met[2]
            self._held = ""
            return text[: met[0]]
        keep = _held_length(text, self._stops, self._longest)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self, text: str) -> str:
        """The rest, the last ``text`` included, at the end of the choice."""
        released = self.feed(text)
        held, self._held = self._held, ""
        return released + held


def _held_length(text: str, marks: Sequence[str], longest: int) -> int:
    """Length of the longest end of ``text`` that begins one of ``marks``."""
    for length in range(min(longest - 1, len(text)), 0, -1):
        end = text[-length:]
        if any(mark.startswith(end) for mark in marks):
            return length
    return 0


class _CallFilter:
    """Tells calls from text. Text between calls is released as it comes, a block when it closes."""

    __slots__ = ("_block", "_held", "_parts", "_settings", "closed", "made")

    def __init__(self, settings: PipeSettings) -> None:
        self._settings = settings
        self._held = ""
        self._block: str | None = None
        """Inside a block: its text so far, without the opening tag."""
        self._parts: list[Part] = []
        self.made = 0
        self.closed = False
        """A block closed that ends the choice."""

    def feed(self, text: str) -> None:
        if not self._settings.tools:
            self._emit(text)
            return
        text = self._held + text
        self._held = ""
        while text and not self.closed:
            text = self._in_text(text) if self._block is None else self._in_block(text)

    def _in_text(self, text: str) -> str:
        before, tag, rest = text.partition(OPEN_TAG)
        if tag:
            self._emit(before)
            self._block = ""
            return rest
        keep = _held_length(text, (OPEN_TAG,), len(OPEN_TAG))
        self._emit(text[: len(text) - keep])
        self._held = text[len(text) - keep :]
        return ""

    def _in_block(self, text: str) -> str:
        whole = (self._block or "") + text
        # The closing tag may have begun in what was here before.
        at = whole.find(CLOSE_TAG, max(0, len(self._block or "") - len(CLOSE_TAG)))
        if at < 0:
            self._block = whole
            return ""
        self._block = None
        calls = toolcalls.read(whole[:at], self._settings.tools)
        if calls is None:
            self._emit(OPEN_TAG + whole[: at + len(CLOSE_TAG)])
        else:
            calls = calls[: self._settings.calls_max - self.made]
            self.made += len(calls)
            self._parts.extend(calls)
            self.closed = self._settings.one_block
        return whole[at + len(CLOSE_TAG) :]

    def _emit(self, text: str) -> None:
        if not text:
            return
        last = self._parts[-1] if self._parts else None
        if isinstance(last, str):
            self._parts[-1] = last + text
        else:
            self._parts.append(text)

    def finish(self) -> None:
        """The choice ends: an open block is text after all, for it is what the model said. Where a
        call was demanded nothing was said but its beginning, and the finish reason tells why."""
        if not self._settings.demanded:
            if self._block is not None and not self.closed:
                self._emit(OPEN_TAG + self._block)
            self._emit(self._held)
        self._block = None
        self._held = ""

    def take(self) -> Released:
        taken = tuple(self._parts)
        self._parts.clear()
        return taken


class _DocumentEnd:
    """Notices the end of one JSON object or array, in text that a grammar keeps well-formed."""

    __slots__ = ("_depth", "_escaped", "_quoted")

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def feed(self, text: str) -> bool:
        """True once the outermost bracket has closed."""
        for char in text:
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = char == "\\"
                self._quoted = char != '"'
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return True
        return False
