"""TOML tables as records, with errors that name the line and the key.

The TOML reader forgets lines. For an error's sake a text that is known to be valid is read once
more, statement by statement: the smallest run of lines that is valid by itself is one. Where that
finds nothing, no line is named rather than a wrong one.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar, get_args, get_type_hints

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.base.money import MicroUsd

QUOTED_CHARS_MAX: Final = 64
MESSAGE_CHARS_MAX: Final = 400

Path = tuple[str, ...]
_ReadT = TypeVar("_ReadT")

_WHERE: Final = re.compile(r"(?P<what>.*?)(?: - at `\$(?P<where>[^`]*)`)?", re.DOTALL)
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_FIRST_WORD: Final = re.compile(r"[a-z_]+")


class WrongKeyError(Exception):
    """What is wrong with which key. Never leaves the reader of the file."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(what)
        self.path, self.what = path, what

    def explain(self, text: str) -> str:
        """One line for a person: where in ``text``, which key, what to do."""
        line = line_of(text, self.path)
        where = "" if line is None else f"line {line}: "
        key = ".".join(part[:QUOTED_CHARS_MAX] for part in self.path)
        return f"{where}{key}: {self.what[:MESSAGE_CHARS_MAX]}"


def convert(value: object, kind: type[_ReadT], path: Path) -> _ReadT:
    """``value`` at ``path`` as a ``kind``. Raises :class:`WrongKeyError`.

    A record's own checks begin their message with the field's name.
    """
    try:
        return msgspec.convert(value, kind, dec_hook=_money)
    except msgspec.ValidationError as error:
        raise _explained(str(error), kind, path) from None


def _explained(text: str, kind: type[object], path: Path) -> WrongKeyError:
    """msgspec's message, with the key that it is about as the end of the path."""
    matched = _WHERE.fullmatch(text)
    what, where = (matched["what"], matched["where"] or "") if matched else (text, "")
    fields: tuple[str, ...] = getattr(kind, "__struct_fields__", ())
    if unknown := _UNKNOWN.fullmatch(what):
        return WrongKeyError((*path, unknown[1]), f"no such key; there are: {', '.join(fields)}")
    if missing := _MISSING.fullmatch(what):
        return WrongKeyError((*path, missing[1]), "this key is missing; add it")
    inner = tuple(part for part in re.split(r"[.\[\]]+", where) if part.isidentifier())
    first = _FIRST_WORD.match(what)
    if not inner and first is not None and first[0] in fields:
        inner = (first[0],)
    if what.startswith("Invalid enum value") and inner:
        choices = get_args(get_type_hints(kind).get(inner[-1]))
        what = f"one of these is expected: {', '.join(map(str, choices))}"
    return WrongKeyError((*path, *inner), what[:1].lower() + what[1:])


def _money(kind: type[object], value: object) -> MicroUsd:
    if kind is not MicroUsd:
        raise NotImplementedError(kind)
    if not isinstance(value, str):
        raise ValueError('write the amount as text, in quotes: "1.25"')
    try:
        return MicroUsd.parse(value)
    except MalformedError as error:
        raise ValueError(error.message) from None


def line_of(text: str, path: Path) -> int | None:
    """The line (from 1) of the statement that sets ``path``, or of the nearest table around it.

    Keys inside arrays have no line of their own: leave indices out of ``path``.
    """
    best: int | None = None
    depth = 0
    for number, found in _statements(text):
        shared = _shared(found, path)
        # The first statement at the same depth: a table's header comes before what is in it.
        if shared > depth:
            best, depth = number, shared
    return best


def _statements(text: str) -> Iterator[tuple[int, Path]]:
    """Each header and each assignment: its first line, and the path that it sets."""
    table: Path = ()
    held: list[str] = []
    began = 1
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not held:
            began = number
        held.append(line)
        try:
            parsed = tomllib.loads("\n".join(held))
        except tomllib.TOMLDecodeError:
            continue
        header = held[0].lstrip().startswith("[")
        held = []
        if header:
            table = next(_paths(parsed))
            yield began, table
        else:
            yield from ((began, table + path) for path in _paths(parsed))


def _paths(table: Mapping[str, object]) -> Iterator[Path]:
    """The paths of a table's leaves, through inline tables too."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            for path in _paths(value):
                yield (key, *path)
        else:
            yield (key,)


def _shared(found: Path, path: Path) -> int:
    """How much of ``path`` the statement names; 0 if it is about something beside it."""
    length = 0
    for mine, wanted in zip(found, path, strict=False):
        if mine != wanted:
            break
        length += 1
    # A sibling shares the table but not the key: only the table's own header speaks for it.
    return length if length in (len(found), len(path)) else 0
