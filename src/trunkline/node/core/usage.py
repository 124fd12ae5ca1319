"""Usage in a provider's stream: always asked for, shown to the app as far as the app asked.

The count at a stream's end tells whether a chunk came twice (``upstream.py``); the count so far,
where a provider gives it with each chunk, tells what a part has used that dies before its end
(``docs/spec/attempt-protocol.md``, rule 13). What only this node asked for is taken out again;
everything else stays as the provider wrote it. Nothing is counted or estimated here.
"""

from typing import Final, Literal

import msgspec

from trunkline.base.errors import RequestError
from trunkline.node.core.mending import COUNT_MAX
from trunkline.node.core.upstream import with_members
from trunkline.schema.openai_answer import Usage
from trunkline.schema.parsing import given, top_level

_NULL: Final = msgspec.Raw(b"null")

Fate = Literal["keep", "null", "drop"]


class _Options(msgspec.Struct, frozen=True, kw_only=True):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class _Request(msgspec.Struct, frozen=True, kw_only=True):
    stream_options: _Options | None = None


class _Chunk(msgspec.Struct, frozen=True, kw_only=True):
    choices: tuple[msgspec.Raw, ...] = ()
    usage: Usage | None = None


_REQUEST: Final = msgspec.json.Decoder(_Request)
_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Told(msgspec.Struct, frozen=True):
    """One chunk as the app is told it."""

    data: bytes
    used: tuple[int, int] | None = None
    """Prompt and completion tokens of the answer so far."""


class UsageAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Who wants to know what."""

    app: bool = False
    """The app wants the count at the end."""
    app_running: bool = False
    """The app wants it with each chunk."""
    added: bool = False
    """This node asks for the count at the end, whoever else does."""
    added_running: bool = False
    """And for the count so far with each chunk."""

    @classmethod
    def of(cls, raw: bytes, *, ask: bool, running: bool) -> "UsageAsked":
        """``raw``: the app's request. ``ask``: the provider takes the question at all."""
        try:
            options = _REQUEST.decode(raw).stream_options or _Options()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            # Not as the format has it: left as it is, for the provider to say so.
            return cls()
        return cls(
            app=options.include_usage is True,
            app_running=options.continuous_usage_stats is True,
            added=ask,
            added_running=ask and running,
        )

    def request(self, raw: bytes) -> bytes:
        """The request with the question in it; other members keep their bytes."""
        wanted = {"include_usage": self.added and not self.app}
        wanted["continuous_usage_stats"] = self.added_running and not self.app_running
        missing = {name: b"true" for name, missing in wanted.items() if missing}
        if not missing:
            return raw
        found = top_level(raw).get("stream_options", msgspec.Raw())
        try:
            options = with_members(bytes(found) if given(found) else b"{}", missing)
        except RequestError:
            return raw
        return with_members(raw, {"stream_options": options})

    @property
    def kept_back(self) -> bool:
        """The app wants the count, and is shown none but the last."""
        return self.app and self.fate(last=False) == "null"

    def fate(self, *, last: bool) -> Fate:
        """What becomes of a usage that a chunk has. ``last``: the chunk has nothing else."""
        if last:
            return "keep" if self.app or not self.added else "drop"
        if self.app_running or not self.added_running:
            # A provider that gives it beside the text's end does so unasked.
            return "keep"
        return "null" if self.app else "drop"


class UsageFilter:
    """Shows the app a provider's chunks, one by one."""

    __slots__ = ("_asked",)

    def __init__(self, asked: UsageAsked) -> None:
        self._asked = asked

    def tell(self, line: bytes) -> Told | None:
        """``line``: a chunk that was found good. None: nothing in it is for the app."""
        if b'"usage"' not in line:
            return Told(line)
        chunk = _CHUNK.decode(line)
        if chunk.usage is None:
            return Told(line)
        used = used_of(chunk.usage)
        match self._asked.fate(last=not chunk.choices):
            case "keep":
                return Told(line, used)
            case "null":
                return Told(with_usage(_OBJECT.decode(line), _NULL), used)
            case "drop":
                return Told(with_usage(_OBJECT.decode(line), None), used) if chunk.choices else None


def used_of(usage: Usage) -> tuple[int, int] | None:
    """The counts, where they are some."""
    counts = (usage.prompt_tokens, usage.completion_tokens)
    return counts if all(0 <= count <= COUNT_MAX for count in counts) and any(counts) else None


def with_usage(members: dict[str, msgspec.Raw], usage: msgspec.Raw | None) -> bytes:
    """A chunk of these members, with another ``usage`` or none."""
    if usage is None:
        members.pop("usage", None)
    else:
        members["usage"] = usage
    return msgspec.json.encode(members)
