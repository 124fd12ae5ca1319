"""SHA-256, and its spelling in records: ``sha256:<64 lowercase hex digits>``."""

import hashlib
from re import compile as regex

from trunkline.base.errors import MalformedError

_DIGEST = regex(r"sha256:([0-9a-f]{64})")


def sha256(data: bytes) -> bytes:
    """The 32 bytes."""
    return hashlib.sha256(data).digest()


def digest(data: bytes) -> str:
    """``sha256:<hex>`` of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def parse_digest(text: str) -> bytes:
    """The 32 bytes that a digest spells; MalformedError for any other text."""
    match = _DIGEST.fullmatch(text)
    if match is None:
        raise MalformedError("not a sha256 digest")
    return bytes.fromhex(match[1])
