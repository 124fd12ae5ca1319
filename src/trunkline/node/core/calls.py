"""Tool calls in a provider's stream, numbered and named as the format has it.

An app puts a call together from its parts by their ``index``, and answers it by its ``id``. Some
providers give every call the index 0 or none at all, some give no id; then an app would run two
calls into one. Such parts get the number and the id that they lack, and ``type`` with it. All other
chunks are kept byte for byte. Follows ``chat.completion.chunk`` of OpenAI's API reference; that a
new id, or a name after arguments, begins a new call is what those providers do.
"""

from typing import Final

import msgspec

CALLS_MAX: Final = 1024
_encode = msgspec.json.Encoder().encode

Members = dict[str, object]


class _Call:
    __slots__ = ("id", "number", "said")

    def __init__(self, number: int, id_: str) -> None:
        self.number = number
        self.id = id_
        self.said = False
        """Some of its arguments have come."""


class CallNumbers:
    """Follows one stream. ``salt``: what the ids that are made here begin with, after ``call_``."""

    __slots__ = ("_calls", "_last", "_salt")

    def __init__(self, salt: str) -> None:
        self._salt = salt
        self._calls: dict[tuple[int, int | None], _Call] = {}
        """By choice and the provider's own index: the call that its parts belong to now."""
        self._last: dict[int, int] = {}
        """How many calls each choice has."""

    def tidy(self, data: bytes) -> bytes:
        """The chunk's data, with what its calls lack. What is no chunk is handed back as it is."""
        if b'"tool_calls"' not in data:
            return data
        try:
            chunk: object = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return data
        changed = False
        for choice in _objects(_member(chunk, "choices")):
            index = choice.get("index", 0)
            parts = _objects(_member(choice.get("delta"), "tool_calls"))
            if isinstance(index, int):
                for part in parts:
                    changed = self._part(index, part) or changed
        return _encode(chunk) if changed else data

    def _part(self, choice: int, part: Members) -> bool:
        """Complete one part in place. Returns whether anything had to be changed."""
        before = dict(part)
        given, id_ = part.get("index"), part.get("id")
        given = given if isinstance(given, int) else None
        id_ = id_ if isinstance(id_, str) else ""
        name, arguments = (_member(part.get("function"), key) for key in ("name", "arguments"))
        call = self._calls.get((choice, given))
        other = call is not None and (
            (id_ not in ("", call.id)) if id_ else bool(name) and call.said
        )
        if call is None or other:
            number = self._last.get(choice, 0)
            if number >= CALLS_MAX:
                return False
            self._last[choice] = number + 1
            call = _Call(number, id_ or f"call_{self._salt}_{choice}_{number}")
            self._calls[(choice, given)] = call
            part["id"] = call.id
            part["type"] = part.get("type") or "function"
        call.said = call.said or bool(arguments)
        part["index"] = call.number
        return part != before


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _objects(value: object) -> list[Members]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
