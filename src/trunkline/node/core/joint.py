"""Where a provider goes on after a given text: its chunks made to follow those shown before.

``docs/spec/attempt-protocol.md``, rule 12. The app's stream is one: its ``id``, ``created`` and
``model`` stay, the role is not said again, usage is that of the whole. Of the text, exactly two
things are taken away, and only where they are certain: an echo of the text that was given, from a
provider known to send one, and the space at its end, which was kept back from the provider
(``prefix.py``) and which it has to say first. If it says something else there, or thinks anew, the
attempt fails: what it goes on with is then not known to fit.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.base.errors import BadResponseError
from trunkline.node.core.order import BAD_CHUNK
from trunkline.node.core.prefix import Dialect, sent
from trunkline.node.core.served import WRONG_MODEL, same_model
from trunkline.node.core.usage import Told, UsageAsked, used_of, with_usage
from trunkline.schema.attempt import Prefix
from trunkline.schema.openai_answer import Chunk, ChunkChoice, Usage, parse_chunk

BAD_SEAM: Final = "upstream_bad_seam"

_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_NULL: Final = msgspec.Raw(b"null")
_THOUGHTS: Final = ("reasoning_content", "reasoning")
_SILENT: Final = frozenset({b"", b"null", b'""', b"[]"})


class _Awaited:
    """A text that has to come first, and is dropped when it does."""

    __slots__ = ("_matched", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._matched = 0

    @property
    def matched(self) -> str:
        """As much of it as came."""
        return self._text[: self._matched]

    @property
    def over(self) -> bool:
        return self._matched == len(self._text)

    def take(self, text: str) -> str | None:
        """What is left of ``text`` after it; None where another text came."""
        size = min(len(text), len(self._text) - self._matched)
        if self._text[self._matched : self._matched + size] != text[:size]:
            return None
        self._matched += size
        return text[size:]


class Joint:
    """Follows the chunks of one attempt that goes on after ``prefix``."""

    __slots__ = ("_asked", "_echo", "_head", "_names", "_prefix", "_space")

    def __init__(
        self, prefix: Prefix, dialect: Dialect, asked: UsageAsked, names: Sequence[str]
    ) -> None:
        """``names``: right ones for the model, as for ``ServedName``."""
        self._prefix = prefix
        self._asked = asked
        self._names = names
        given = sent(prefix.text)
        self._echo: _Awaited | None = _Awaited(given) if dialect.echoes else None
        self._space: _Awaited | None = _Awaited(prefix.text[len(given) :])
        head = {"id": prefix.id, "created": prefix.created, "model": prefix.model}
        self._head = {name: _raw(value) for name, value in head.items()}

    def tell(self, line: bytes) -> Told | None:
        """``line``: a chunk that was found good. None: nothing in it is for the app. Raises
        BadResponseError ``upstream_bad_seam``, ``upstream_wrong_model``."""
        chunk = parse_chunk(line)
        if not same_model(self._prefix.model, chunk.model, self._names):
            raise BadResponseError("another model went on", code=WRONG_MODEL)
        members = _OBJECT.decode(line) | self._head
        speaks = self._choice(chunk, members)
        used, counted = self._usage(chunk, members)
        if not speaks and not counted:
            return None
        return Told(msgspec.json.encode(members), used)

    def _choice(self, chunk: Chunk, members: dict[str, msgspec.Raw]) -> bool:
        """Write the choice anew; whether it says anything."""
        if not chunk.choices:
            return False
        if len(chunk.choices) > 1 or chunk.choices[0].index != 0:
            raise BadResponseError("a chunk of a choice that nobody asked for", code=BAD_CHUNK)
        (choice,) = _OBJECTS.decode(members["choices"])
        given = choice.get("delta", _NULL)
        delta = {} if bytes(given) == b"null" else _OBJECT.decode(given)
        delta.pop("role", None)
        if any(bytes(delta.get(name, _NULL)) not in _SILENT for name in _THOUGHTS):
            raise BadResponseError("the model thinks anew instead of going on", code=BAD_SEAM)
        before = chunk.choices[0].delta.content or ""
        text = self._text(before, ended=_moves_on(chunk.choices[0]))
        if text != before:
            delta["content"] = _raw(text)
        choice["delta"] = _raw(delta)
        members["choices"] = _raw([choice])
        return bool(text) or _moves_on(chunk.choices[0])

    def _text(self, text: str, *, ended: bool) -> str:
        """What of the text is new. ``ended``: no more of it comes."""
        echo, space = self._echo, self._space
        if echo is not None:
            left = echo.take(text)
            if left is None:
                # No echo after all: what looked like its beginning is the answer's.
                text = echo.matched + text
                self._echo = None
            elif echo.over:
                text = left
                self._echo = None
            elif ended and echo.matched:
                raise BadResponseError("an echo of the text so far breaks off", code=BAD_SEAM)
            elif not ended:
                return ""
        if space is not None:
            left = space.take(text)
            if left is None:
                raise BadResponseError("the answer does not go on where it was", code=BAD_SEAM)
            text = left
            if space.over or ended:
                self._space = None
        return text

    def _usage(
        self, chunk: Chunk, members: dict[str, msgspec.Raw]
    ) -> tuple[tuple[int, int] | None, bool]:
        """State usage for the whole; what it is, where known, and whether the app is told."""
        if chunk.usage is None:
            return None, False
        fate = self._asked.fate(last=not chunk.choices)
        before, own = self._prefix.used, used_of(chunk.usage)
        whole = None
        if before is not None and own is not None:
            whole = (before.prompt, before.completion + own[1])
        if fate == "keep":
            members["usage"] = self._restated(members["usage"], whole)
        else:
            with_usage(members, _NULL if fate == "null" else None)
        return whole, fate == "keep"

    def _restated(self, usage: msgspec.Raw, whole: tuple[int, int] | None) -> msgspec.Raw:
        if whole is not None:
            return _raw(Usage.counted(*whole))
        # The provider's own count: of the whole in sum, with the text so far among the prompt.
        return _raw(_OBJECT.decode(usage) | {"continued_characters": _raw(len(self._prefix.text))})


def _moves_on(choice: ChunkChoice) -> bool:
    """Whether it says something other than text."""
    delta = choice.delta
    other = delta.tool_calls or delta.function_call or delta.refusal
    return bool(other or choice.finish_reason)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
