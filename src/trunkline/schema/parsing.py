"""From a request's raw bytes to a typed view: bounds first, then JSON, then types.

Shared by the request formats. Every refusal is a :class:`RequestError` with a stable code and the
parameter at fault; no message repeats a value that the caller sent, because messages reach logs.
"""

import re
from itertools import accumulate
from typing import NoReturn, TypeVar

import msgspec

from trunkline.base.errors import RequestError

BODY_BYTES_MAX = 24 * 1024 * 1024
"""Largest request body. Below the attempt's own bound, which carries it."""
DEPTH_MAX = 64
"""Deepest nesting of arrays and objects in a request."""
TOP_LEVEL_FIELDS_MAX = 128

ABSENT = msgspec.Raw(b"")
"""Default of a free-form member. ``Raw | None`` is no type that msgspec can decode."""

T = TypeVar("T")

# Possessive, and content with a missing end quote, so that no input makes it scan a byte twice.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_STRUCTURE = re.compile(rb"[^\[\]{},]+")
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]")
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1, ord(","): 0}
_TOP_LEVEL = msgspec.json.Decoder(dict[str, msgspec.Raw])


def top_level(raw: bytes) -> dict[str, msgspec.Raw]:
    """The members of the body's top-level object, values undecoded, after the bounds were checked.

    Raises :class:`RequestError`: ``body_too_large``, ``invalid_json``, ``too_deep``, and
    ``invalid_json`` also for a member given twice, of which two readers might believe different
    ones.
    """
    if len(raw) > BODY_BYTES_MAX:
        raise RequestError(
            f"the request body is larger than {BODY_BYTES_MAX} bytes",
            code="body_too_large",
            status=413,
        )
    structure = _structure(raw) if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX else None
    if structure is not None and _depth(structure) > DEPTH_MAX:
        raise RequestError(f"the request nests deeper than {DEPTH_MAX} levels", code="too_deep")
    try:
        members = _TOP_LEVEL.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError("the body is not a JSON object", code="invalid_json") from None
    if len(members) > TOP_LEVEL_FIELDS_MAX:
        raise RequestError("the request has too many fields", code="invalid_json")
    if _may_repeat(raw, members) and _members(structure or _structure(raw)) != len(members):
        raise RequestError("the request gives a field twice", code="invalid_json")
    return members


def decode(raw: bytes, decoder: msgspec.json.Decoder[T], *, unknown_code: str) -> T:
    """Decode ``raw`` to the decoder's type. Raises :class:`RequestError` naming the parameter.

    ``unknown_code`` is the code for a field or a variant that the type does not know.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        _refuse(str(error), unknown_code)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError("the body is not valid JSON", code="invalid_json") from None


def given(raw: msgspec.Raw) -> bool:
    """Whether a free-form member was sent, and not as null."""
    return bytes(raw) not in (b"", b"null")


def invalid(message: str, param: str, code: str = "invalid_value") -> RequestError:
    """A refusal of one parameter; the message is completed with its name."""
    return RequestError(f"{param}: {message}", code=code, param=param)


def unsupported(param: str, why: str = "is not supported") -> RequestError:
    """A refusal of something that can not be honoured here, though it may be elsewhere."""
    return invalid(why, param, "unsupported_parameter")


def _refuse(text: str, unknown_code: str) -> NoReturn:
    problem, _, path = text.partition(" - at `")
    param = path.rstrip("`").removeprefix("$").removeprefix(".")
    param = re.sub(r"\[\.\.\.\]", "[]", param)
    field = problem.rpartition("field `")[2].rstrip("`") if "field `" in problem else ""
    # A field's name comes from the caller when it is unknown: repeat it only if it is plain.
    plain = re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", field) is not None
    whole = f"{param}.{field}".removeprefix(".") if plain else param
    if problem.startswith("Object missing required field"):
        raise invalid("is required", whole, "missing_required_parameter") from None
    if problem.startswith("Object contains unknown field"):
        raise invalid("is not supported", whole, unknown_code) from None
    if problem.startswith("Expected"):
        raise invalid(problem[0].lower() + problem[1:], param, "invalid_type") from None
    # "Invalid enum value 'x'" and its like: a variant that the type does not name.
    raise invalid("is not one of the supported values", param, unknown_code) from None


def _structure(raw: bytes) -> bytes:
    """The brackets and commas outside strings."""
    return _NOT_STRUCTURE.sub(b"", _STRING.sub(b"", raw))


def _depth(structure: bytes) -> int:
    return max(accumulate(map(_STEP.__getitem__, structure)), default=0)


def _may_repeat(raw: bytes, members: dict[str, msgspec.Raw]) -> bool:
    if _ESCAPED_LETTER.search(raw) is not None:
        return True
    return any(raw.count(b'"%b"' % name.encode("utf-8", "replace")) > 1 for name in members)


def _members(structure: bytes) -> int:
    """Members of the top-level object, counted by its commas."""
    depths = accumulate(map(_STEP.__getitem__, structure))
    commas = sum(
        1 for byte, depth in zip(structure, depths, strict=True) if byte == 0x2C and depth == 1
    )
    # ``{}`` has no member and no comma, and is refused later for want of its required fields.
    return commas + 1
