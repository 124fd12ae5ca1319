"""Does a JSON document satisfy a JSON Schema? Enough of draft 2020-12 to catch a broken answer.

Judged: ``type``, ``enum``, ``const``, ``properties``, ``required``, ``additionalProperties``,
``items``, ``prefixItems``, ``anyOf``, ``oneOf``, ``allOf``, ``$ref`` inside the schema, and the
bounds of numbers, strings and arrays. What is not judged (``pattern``, ``format``, conditions,
schemas elsewhere, anything unknown, or more work than the bounds allow) counts as satisfied: an
answer is refused only for what is certainly wrong.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeGuard

import msgspec

DEPTH_MAX: Final = 64
STEPS_MAX: Final = 200_000

_TYPES: Final[dict[str, Callable[[object], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and value == value // 1,
}


class _NotJudgedError(Exception):
    """More work than the bounds allow."""


def satisfies(document: object, schema: object) -> bool:
    """Whether ``document`` satisfies ``schema``, both as decoded from JSON."""
    try:
        return _Judge(schema).good(document, schema, 0)
    except _NotJudgedError:
        return True


class _Judge:
    __slots__ = ("_root", "_steps")

    def __init__(self, root: object) -> None:
        self._root = root
        self._steps = 0

    def good(self, value: object, schema: object, depth: int) -> bool:
        self._steps += 1
        if depth > DEPTH_MAX or self._steps > STEPS_MAX:
            raise _NotJudgedError
        if not isinstance(schema, dict):
            return schema is not False
        below = depth + 1
        return (
            self._reference(value, schema, below)
            and _type(value, schema)
            and _listed(value, schema)
            and _bounds(value, schema)
            and self._members(value, schema, below)
            and self._items(value, schema, below)
            and self._combined(value, schema, below)
        )

    def _reference(self, value: object, schema: Mapping[str, object], depth: int) -> bool:
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#"):
            return True
        found = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or name not in found:
                return True
            found = found[name]
        return self.good(value, found, depth)

    def _members(self, value: object, schema: Mapping[str, object], depth: int) -> bool:
        if not isinstance(value, dict):
            return True
        required = schema.get("required")
        if isinstance(required, list) and not all(name in value for name in required):
            return False
        properties = schema.get("properties")
        known = properties if isinstance(properties, dict) else {}
        # With patterns for names, which members are "additional" is not judged here.
        others = True if "patternProperties" in schema else schema.get("additionalProperties", True)
        return all(
            self.good(member, known.get(name, others), depth) for name, member in value.items()
        )

    def _items(self, value: object, schema: Mapping[str, object], depth: int) -> bool:
        if not isinstance(value, list):
            return True
        prefix = schema.get("prefixItems")
        first = prefix if isinstance(prefix, list) else []
        rest = schema.get("items", True)
        return all(
            self.good(item, first[index] if index < len(first) else rest, depth)
            for index, item in enumerate(value)
        )

    def _combined(self, value: object, schema: Mapping[str, object], depth: int) -> bool:
        # ``oneOf`` is judged as ``anyOf``: an option judged too kindly must not refuse the others.
        for keyword, enough in (("allOf", all), ("anyOf", any), ("oneOf", any)):
            options = schema.get(keyword)
            if isinstance(options, list) and not enough(
                self.good(value, option, depth) for option in options
            ):
                return False
        return True


def _type(value: object, schema: Mapping[str, object]) -> bool:
    wanted = schema.get("type")
    names = wanted if isinstance(wanted, list) else [wanted]
    checks = [_TYPES.get(name) if isinstance(name, str) else None for name in names]
    return any(check is None or check(value) for check in checks)


def _listed(value: object, schema: Mapping[str, object]) -> bool:
    if "const" in schema and not _same(value, schema["const"]):
        return False
    options = schema.get("enum")
    return not isinstance(options, list) or any(_same(value, option) for option in options)


def _bounds(value: object, schema: Mapping[str, object]) -> bool:
    if isinstance(value, str):
        return _between(len(value), schema.get("minLength"), schema.get("maxLength"))
    if isinstance(value, list):
        return _between(len(value), schema.get("minItems"), schema.get("maxItems"))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if _is_number(above) and not value > above:
        return False
    if _is_number(below) and not value < below:
        return False
    return _between(value, schema.get("minimum"), schema.get("maximum"))


def _between(value: float, low: object, high: object) -> bool:
    return not (_is_number(low) and value < low) and not (_is_number(high) and value > high)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(one: object, other: object) -> bool:
    if _is_number(one) and _is_number(other):
        return one == other
    return msgspec.json.encode(one, order="deterministic") == msgspec.json.encode(
        other, order="deterministic"
    )
