"""Which answer a repeated request gets: the rules of ``Idempotency-Key``, without I/O.

Follows draft-ietf-httpapi-idempotency-key-header: a key may be a quoted string, and one that is
used again for something else is a 422. It belongs to its tenant and to one request, path and body
as sent. Refuses to answer another request with a kept answer, and to answer the same one twice.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.base.errors import RequestError, require
from trunkline.crypto.digest import sha256

KEY_CHARS_MAX: Final = 255
HEADER: Final = "idempotency-key"
REPLAYED: Final = ("idempotent-replayed", "true")
"""Response header of an answer that an earlier request began."""

Headers = tuple[tuple[str, str], ...]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One request under one key. Neither key nor request can be read from it."""

    id: bytes
    """Of the tenant and the key."""
    request: bytes
    """Of the path and the body."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer as the app is sent it, to become durable with its evidence."""

    claim: bytes
    status: int
    headers: Headers
    body: bytes | None
    """None: too long to be kept, or there are no words for it in the client's format."""


class ClaimRow(msgspec.Struct, frozen=True, kw_only=True):
    """What the store knows of a claim."""

    claim: Claim
    answer: str
    created_ms: int
    kept: Kept | None
    """None: the answer is not whole. If nobody works on it, a gateway died over it."""


def read_key(header: str | None) -> str | None:
    """The header's key, without the quotes of a structured field; None: there is none.

    Raises :class:`RequestError` 400 ``invalid_idempotency_key``.
    """
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 0 < len(key) <= KEY_CHARS_MAX or not (key.isascii() and key.isprintable()):
        raise RequestError(
            f"Idempotency-Key: 1 to {KEY_CHARS_MAX} printable ASCII characters are expected",
            code="invalid_idempotency_key",
            param="Idempotency-Key",
        )
    return key


def claim_of(tenant: str, key: str, path: str, body: bytes) -> Claim:
    """The claim that a request makes. Fields are told apart by their lengths' fixed sizes."""
    return Claim(
        id=sha256(b"claim\n" + sha256(tenant.encode()) + sha256(key.encode())),
        request=sha256(b"request\n" + sha256(path.encode()) + sha256(body)),
    )


def require_same(claim: Claim, other: Claim) -> None:
    """Raise :class:`RequestError` 422 if a key's request is not the one that it was used for."""
    require(claim.id == other.id, "claims of one key are compared")
    if claim.request != other.request:
        raise RequestError(
            "Idempotency-Key: this key was used for another request; use a new one",
            code="idempotency_key_reused",
            param="Idempotency-Key",
            status=422,
        )


def not_kept(answer: str) -> RequestError:
    """The request was answered, once, and what it was answered is no longer here."""
    return RequestError(
        f"Idempotency-Key: this request was answered, and its answer was too long to be kept; its "
        f"receipt is {answer}",
        code="idempotent_answer_not_kept",
        param="Idempotency-Key",
        status=409,
    )


def expired(row: ClaimRow, now_ms: int, keep_ms: int) -> bool:
    """Whether a claim is forgotten: its key may be used for anything."""
    return row.created_ms + keep_ms <= now_ms


def whole(row: ClaimRow, claim: Claim) -> Kept | None:
    """What a request is answered with; None: it is to be answered under ``row.answer``.

    Raises :class:`RequestError`: 422 for another request, 409 for an answer that was not kept.
    """
    require_same(row.claim, claim)
    if row.kept is not None and row.kept.body is None:
        raise not_kept(row.answer)
    return row.kept


def too_many(sizes: Sequence[int], bytes_max: int) -> int:
    """How many of the oldest must go, so that the others hold at most ``bytes_max``. ``sizes``:
    of all, newest first."""
    total = 0
    for index, size in enumerate(sizes):
        total += size
        if total > bytes_max:
            return len(sizes) - index
    return 0
