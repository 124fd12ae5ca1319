"""From a request's raw bytes to a typed view: bounds first, then JSON, then types.

Shared by the request formats. Every refusal is a :class:`RequestError` with a stable code and the
parameter at fault; no message repeats a value that the caller sent, because messages reach logs.
"""

import re
from typing import NoReturn, TypeVar

import msgspec

from trunkline.base.errors import RequestError

BODY_BYTES_MAX = 24 * 1024 * 1024
"""Largest request body. Below the attempt's own bound, which carries it."""
DEPTH_MAX = 64
"""Deepest nesting of arrays and objects in a request."""
TOP_LEVEL_FIELDS_MAX = 128
STRUCTURE_MAX = 500_000
"""Most brackets and commas outside strings: what decoding costs grows with them, not with text."""
ID_CHARS_MAX = 512
"""Ours: a tool call's id, a model's name, a caller's label."""

ABSENT = msgspec.Raw(b"")
"""Default of a free-form member. ``Raw | None`` is no type that msgspec can decode."""

T = TypeVar("T")

_ESCAPED_ASCII = re.compile(rb"\\u00[2-7]")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_INNERMOST = re.compile(rb"\[,*\]")
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{},"')
_TOP_LEVEL = msgspec.json.Decoder(dict[str, msgspec.Raw])


def top_level(raw: bytes) -> dict[str, msgspec.Raw]:
    """The members of the body's top-level object, values undecoded, after the bounds were checked.

    Raises :class:`RequestError`: ``body_too_large``, ``too_deep``, ``too_complex``,
    ``invalid_json``; the last also for a member given twice, of which two readers might believe
    different ones.
    """
    if len(raw) > BODY_BYTES_MAX:
        raise RequestError(
            f"the request body is larger than {BODY_BYTES_MAX} bytes",
            code="body_too_large",
            status=413,
        )
    deep = raw.count(b"{") + raw.count(b"[") > DEPTH_MAX or raw.count(b",") > STRUCTURE_MAX
    counted = _count_members(raw) if deep else None
    try:
        # What the views skip or keep raw is decoded by nobody here, and nodes must be able to.
        if not raw.isascii():
            raw.decode()
        members = _TOP_LEVEL.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError("the body is not a JSON object", code="invalid_json") from None
    if len(members) > TOP_LEVEL_FIELDS_MAX:
        raise RequestError("the request has too many fields", code="invalid_json")
    if _may_repeat(raw, members) and (counted or _count_members(raw)) != len(members):
        raise RequestError("the request gives a field twice", code="invalid_json")
    return members


def decode(
    raw: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[T], *, unknown_code: str, at: str = ""
) -> T:
    """Decode ``raw`` to the decoder's type. Raises :class:`RequestError` naming the parameter.

    ``unknown_code`` is the code for a field or a variant that the type does not know; ``at`` is the
    name of the member that ``raw`` is, if it is not the whole body.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        _refuse(str(error), unknown_code, at)
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


def check_range(value: float | None, low: float, high: float, param: str) -> None:
    """Refuse a number that was given and is outside of ``low`` to ``high``."""
    # Written so that a NaN, which no comparison holds for, is refused too.
    if value is not None and not low <= value <= high:
        raise invalid(f"must be between {low} and {high}", param)


def check_chars(value: str, param: str, chars_max: int = ID_CHARS_MAX) -> None:
    """Refuse a text that is empty, or longer than ``chars_max`` characters."""
    if not 1 <= len(value) <= chars_max:
        raise invalid(f"must have 1 to {chars_max} characters", param)


def _refuse(text: str, unknown_code: str, at: str) -> NoReturn:
    problem, _, path = text.partition(" - at `")
    param = (at + path.rstrip("`").removeprefix("$")).removeprefix(".")
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


def _count_members(raw: bytes) -> int:
    """Members of the top-level object, counted without decoding; bounds depth and size.

    Strings go first, then everything that is no bracket or comma, then the innermost brackets
    again and again: as many times as they nest. All of it runs at the speed of C.
    """
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Of a string without brackets or commas two quotes are left. Two that end one string and begin
    # the next may be taken for such a pair: the two become one string, and nothing else changes.
    bare = plain.translate(_BRACKETS, _NOT_STRUCTURE).replace(b'""', b"")
    structure = b"".join(bare.split(b'"')[::2])
    if len(structure) > STRUCTURE_MAX:
        raise RequestError("the request has too many elements", code="too_complex")
    inside = structure[1:-1]
    for _ in range(DEPTH_MAX):
        if not inside.strip(b","):
            # ``{}`` is counted as one; it is refused later for want of its required fields.
            return len(inside) + 1
        outer = _INNERMOST.sub(b"", inside)
        if len(outer) == len(inside):
            # Brackets that do not match: the decoder will say so.
            return 0
        inside = outer
    raise RequestError(f"the request nests deeper than {DEPTH_MAX} levels", code="too_deep")


def _may_repeat(raw: bytes, members: dict[str, msgspec.Raw]) -> bool:
    """Whether a member may be there twice: a quick look that errs on the side of yes."""
    if b"\\u00" in raw and _ESCAPED_ASCII.search(raw) is not None:
        return True
    return any(
        _PLAIN_NAME.fullmatch(name) is None or raw.count(b'"%b"' % name.encode("ascii")) > 1
        for name in members
    )
