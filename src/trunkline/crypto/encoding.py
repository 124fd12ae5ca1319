"""The two spellings that C2SP texts use for binary values: standard base64, and plain decimals.

Both readers are strict: one value has one spelling, so a signed text can not be respelled. Nothing
here is a general codec: URL-safe base64, signs, spaces and underscores are refused.
"""

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from re import compile as regex

from trunkline.base.errors import MalformedError

UINT63_MAX = 2**63 - 1
"""Largest tree size, index and timestamp: what fits a signed 64-bit integer in any language."""

_DECIMAL = regex(rb"0|[1-9][0-9]{0,18}")


def encode_base64(data: bytes) -> str:
    """RFC 4648 §4 with padding."""
    return b2a_base64(data, newline=False).decode("ascii")


def decode_base64(text: bytes | str) -> bytes:
    """Undo :func:`encode_base64`; MalformedError for anything it would not have written."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    try:
        data = a2b_base64(raw)
    except Base64Error as error:
        raise MalformedError("not base64") from error
    # The decoder passes over other characters, and over stray bits after the last whole byte:
    # every one of those would be a second spelling.
    if b2a_base64(data, newline=False) != raw:
        raise MalformedError("not canonical base64")
    return data


def decode_hash(text: bytes | str) -> bytes:
    """Base64 of a 32-byte SHA-256 hash; MalformedError for any other length."""
    data = decode_base64(text)
    if len(data) != 32:
        raise MalformedError("a hash is 32 bytes")
    return data


def decode_decimal(text: bytes | str) -> int:
    """ASCII decimal, 0 to 2⁶³−1, no leading zeroes; MalformedError otherwise."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if _DECIMAL.fullmatch(raw) is None:
        raise MalformedError("not a decimal number")
    value = int(raw)
    if value > UINT63_MAX:
        raise MalformedError("number too large")
    return value
