"""Reading JSON that strangers hand around, so that every reader finds the same in it.

Specified in ``docs/spec/evidence.md``, "The file". JSON leaves open what a repeated member says,
how deep is too deep, and whether ``2.0`` is ``2``; parsers differ, and a file that two verifiers
read in two ways shows each of them another answer. It is refused, and nothing is repaired.
"""

import json
import re
from typing import NoReturn, TypeVar

import msgspec

from trunkline.base.errors import MalformedError

DEPTH_MAX = 16
"""Levels of nesting; evidence has five."""
VALUES_MAX = 1_048_576
"""Strings, and commas between values: the longest answers that are kept have fewer events. Small
values take many times their bytes to read."""

_STRING = re.compile(rb'"[^"]*"')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))

Decoded = TypeVar("Decoded")


def decode_text(
    decoder: "msgspec.json.Decoder[Decoded]", data: bytes, bytes_max: int, what: str
) -> Decoded:
    """What ``decoder`` reads. MalformedError for anything else, for more than ``bytes_max`` bytes,
    and for JSON that readers may differ about."""
    if len(data) > bytes_max:
        raise MalformedError(f"{what}: {len(data)} bytes exceed {bytes_max}")
    try:
        # As text: the decoder alone does not look into members that it skips, and JSON is UTF-8.
        decoded = decoder.decode(data.decode())
        _check(data)
    except (ValueError, RecursionError) as error:
        # Not the parser's message: it may quote what it read.
        raise MalformedError(f"not {what}") from error
    return decoded


def _check(data: bytes) -> None:
    """ValueError unless there is one reading of ``data``, which is JSON."""
    # Every quote that is left begins or ends a string.
    quoted = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    if quoted.count(b'"') > 2 * VALUES_MAX:
        raise ValueError("too many strings")
    bare = _STRING.sub(b"", quoted)
    if bare.count(b",") > VALUES_MAX:
        raise ValueError("too many values")
    nested = bare.translate(_BRACKETS, _NOT_BRACKETS)
    for _ in range(DEPTH_MAX):
        # Each time, the innermost level goes.
        nested = nested.replace(b"[]", b"")
    if nested:
        raise ValueError("nested too deep")
    _STRICT.decode(data.decode())


def _one_each(members: list[tuple[str, object]]) -> None:
    if len({name for name, _ in members}) != len(members):
        raise ValueError("a member is there twice")


def _refuse(number: str) -> NoReturn:
    raise ValueError("a number with a fraction or an exponent")


# Integers are not made: some have more digits than can be.
_STRICT = json.JSONDecoder(object_pairs_hook=_one_each, parse_float=_refuse, parse_int=str)
