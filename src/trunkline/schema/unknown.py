"""Which members of a request its typed view does not know, at any depth.

A typed decoder skips such members without a word; this finds them, so that nothing is dropped
silently. What a member is allowed to hold is read off the structs themselves. Free-form members
(``msgspec.Raw``, maps) are not entered: everything in them is passed on.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import get_args

import msgspec

from trunkline.base.errors import RequestError

_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
UNUSUAL = "(a field of unusual name)"

# Numbers stay text: only names matter here, and one beyond a float's range is no reason to fail.
_decode = msgspec.json.Decoder(dict[str, object], float_hook=str).decode

Structs = tuple[type[msgspec.Struct], ...]


def plain_name(name: str) -> str:
    """A member's name, or a placeholder for one that should not be repeated in messages."""
    return name if _PLAIN.fullmatch(name) is not None else UNUSUAL


def unknown_members(raw: bytes, view: type[msgspec.Struct]) -> list[str]:
    """Dotted paths, without indexes and each once, of what ``view`` does not know in ``raw``.

    ``raw`` must have been decoded as ``view`` before: its types and its depth are believed. Members
    that the view skips or keeps raw were not decoded then: :class:`RequestError` ``invalid_json``
    if they are broken.
    """
    try:
        members = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RequestError("the body is not valid JSON", code="invalid_json") from None
    return list(dict.fromkeys(path.removeprefix(".") for path in _walk(members, (view,), "")))


def _walk(value: object, structs: Structs, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _walk(item, structs, path)
    elif isinstance(value, dict):
        struct = _pick(value, structs)
        known = _members(struct)
        for name, member in value.items():
            inner = known.get(name)
            if inner is None:
                yield f"{path}.{plain_name(name)}"
            elif inner:
                yield from _walk(member, inner, f"{path}.{name}")


def _pick(value: Mapping[str, object], structs: Structs) -> type[msgspec.Struct]:
    """The variant of a tagged union that ``value`` is."""
    for struct in structs:
        field = struct.__struct_config__.tag_field
        if field is not None and value.get(field) == struct.__struct_config__.tag:
            return struct
    return structs[0]


@cache
def _members(struct: type[msgspec.Struct]) -> Mapping[str, Structs]:
    """For each member that the struct knows, the structs that it may hold."""
    members = {
        field.encode_name: tuple(_structs(field.type)) for field in msgspec.structs.fields(struct)
    }
    tag = struct.__struct_config__.tag_field
    return members if tag is None else {**members, tag: ()}


def _structs(kind: object) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for argument in get_args(kind):
        yield from _structs(argument)
