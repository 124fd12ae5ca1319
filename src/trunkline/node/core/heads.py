"""What an answer says of itself beside its text: ``id``, ``object``, ``created`` and ``model``.

OpenAI's API reference has all four in every chunk, the same throughout, and typed clients fail
without one. Some providers leave some out, begin with an empty chunk about their filters (Azure),
or name each chunk anew. What is missing is filled in, and what changes is told as it was first;
``model`` is given only where the provider says none: a change of it is another model's doing, and
was refused before (``served.py``). A chunk that has all of it keeps its bytes. Receipts state what
the provider said, or that it said nothing.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.schema.parsing import ABSENT, given

COMPLETION: Final = "chat.completion"
CHUNK: Final = "chat.completion.chunk"
VECTORS: Final = "list"

_MEMBERS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.Encoder().encode


class _Said(msgspec.Struct, frozen=True):
    id: str = ""
    object: msgspec.Raw = ABSENT
    created: float = 0
    model: str = ""


_SAID: Final = msgspec.json.Decoder(_Said)


class Heads:
    """Follows one stream of chunks that were found good."""

    __slots__ = ("_created_s", "_id", "_model", "_otherwise")

    def __init__(self, name: str, created_s: int, model: str) -> None:
        """What stands for what the provider never says. ``created_s``: Unix seconds."""
        self._otherwise = (name, created_s, model)
        self._id = ""
        self._created_s = 0
        self._model = ""

    def fit(self, lines: Sequence[bytes]) -> list[bytes]:
        """The chunks that are passed on now. What an early one lacks, a later one may say."""
        said = [_SAID.decode(line) for line in lines]
        for one in said:
            self._id = self._id or one.id
            self._created_s = self._created_s or max(int(one.created), 0)
            self._model = self._model or one.model
        if lines:
            # Told once, it stays so, whatever comes after.
            name, created_s, model = self._otherwise
            self._id = self._id or name
            self._created_s = self._created_s or created_s
            self._model = self._model or model
        return [self._fitted(line, one) for line, one in zip(lines, said, strict=True)]

    def _fitted(self, line: bytes, said: _Said) -> bytes:
        head = (said.id, int(said.created), said.model)
        if head == (self._id, self._created_s, self._model) and bytes(said.object) == _CHUNK_RAW:
            return line
        return _encode(
            _MEMBERS.decode(line)
            | {
                "id": _raw(self._id),
                "object": _raw(CHUNK),
                "created": _raw(self._created_s),
                "model": _raw(self._model),
            }
        )


_CHUNK_RAW: Final = _encode(CHUNK)


def filled(body: bytes, kind: str, **otherwise: str | int) -> bytes:
    """A whole answer with what it lacks: its ``object`` is ``kind``, and of ``otherwise`` it gets
    what it does not say (missing, null, empty, zero). One that lacks nothing keeps its bytes."""
    members = _MEMBERS.decode(body)
    missing = {
        name: _raw(value)
        for name, value in otherwise.items()
        if bytes(members.get(name, ABSENT)) in _NOTHING
    }
    if not given(members.get("object", ABSENT)):
        missing["object"] = _raw(kind)
    return _encode(members | missing) if missing else body


_NOTHING: Final = frozenset({b"", b"null", b'""', b"0"})


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))
