"""Canonical JSON: the part of RFC 8785 that signed records use, and a parser that refuses the rest.

The profile (``docs/spec/receipt.md``, "Canonical bytes"): objects with ASCII keys in sorted order,
arrays, strings of any Unicode scalar values as unescaped UTF-8, integers within ±(2⁵³−1), booleans.
No floats and no nulls, so that no reader's number formatting can matter. For values inside the
profile these bytes are those of RFC 8785, which the tests check against another implementation.

It refuses to repair: bytes that spell an admitted value in any other way are malformed.
"""

from typing import TypeAlias, TypeVar

import msgspec

from trunkline.base.errors import MalformedError

INTEGER_MAX = 2**53 - 1
"""Largest integer that every JSON implementation reads exactly (RFC 8785 §3.2.2.3, RFC 7493)."""

DEPTH_MAX = 16
"""Levels of nesting; a receipt has three."""

T = TypeVar("T")

Value: TypeAlias = "str | int | bool | list[Value] | dict[str, Value]"


def parse_canonical(data: bytes, *, bytes_max: int) -> Value:
    """The value that ``data`` is the one canonical spelling of.

    Raises :class:`MalformedError` for more than ``bytes_max`` bytes, for anything that is not
    JSON, for values outside the profile, and for an admitted value spelt in another way.
    """
    if len(data) > bytes_max:
        raise MalformedError(f"canonical JSON of {len(data)} bytes exceeds {bytes_max}")
    try:
        decoded: object = msgspec.json.decode(data)
    except (ValueError, RecursionError) as error:
        raise MalformedError("not JSON") from error
    value = _admit(decoded, DEPTH_MAX)
    # Duplicate keys, spaces, escapes that need not be and unsorted keys all end here.
    if msgspec.json.encode(value, order="sorted") != data:
        raise MalformedError("JSON is not in canonical form")
    return value


def decode_canonical(data: bytes, kind: type[T], *, bytes_max: int, what: str) -> T:
    """What ``data`` canonically spells, as ``kind``; ``what`` names one in the error.

    That a ``kind`` may leave out a member that has its default is not looked at: whoever needs the
    bytes to be the only ones for the value encodes it again. Raises :class:`MalformedError`.
    """
    parse_canonical(data, bytes_max=bytes_max)
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"not {what}") from error


def _admit(value: object, depth: int) -> Value:
    """``value``, when the profile has a place for it."""
    match value:
        case str() | bool():
            return value
        case int():
            if abs(value) > INTEGER_MAX:
                raise MalformedError("canonical JSON holds an integer beyond 2^53-1")
            return value
        case list() | dict() if depth == 0:
            raise MalformedError(f"canonical JSON is nested deeper than {DEPTH_MAX}")
        case list():
            return [_admit(item, depth - 1) for item in value]
        case dict():
            return {_admit_key(key): _admit(item, depth - 1) for key, item in value.items()}
        case _:
            raise MalformedError(f"canonical JSON holds a {type(value).__name__}")


def _admit_key(key: object) -> str:
    if not isinstance(key, str) or not key.isascii():
        raise MalformedError("canonical JSON has a key that is not ASCII")
    return key
