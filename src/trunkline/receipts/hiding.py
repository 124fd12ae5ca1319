"""Salted digests: what a receipt binds, without a word of it to be guessed from the receipt.

A short prompt can be found from its digest by trying all likely ones. So what a receipt says of
content are commitments: each item's digest is hashed again with a salt of its own. All salts come
from one secret, the answer's *blinding*, that the gateway draws and tells the node; the salt of one
item says nothing of another's. Whoever is given one item and its salt can check that item, and
still guess at no other. Without the blinding nothing can be opened any more.

    salt       = HMAC-SHA256(blinding, "trunkline.salt/v1\\n" ‖ item ‖ LF ‖ scope)
    commitment = SHA256("trunkline.commitment/v1\\n" ‖ item ‖ LF ‖ salt ‖ digest, 32 bytes)

Specified in ``docs/spec/receipt.md``, "Salted digests". It draws no randomness.
"""

import hashlib
import hmac
from typing import Final, Literal, TypeAlias

from trunkline.base.errors import MalformedError
from trunkline.receipts.receipt import Receipt

BLINDING_BYTES: Final = 32
SALT_DOMAIN: Final = b"trunkline.salt/v1\n"
COMMITMENT_DOMAIN: Final = b"trunkline.commitment/v1\n"
SALTED: Final = "salted:"

Item: TypeAlias = Literal[
    "request.client",
    "request.digest",
    "request.prompt",
    "response.digest",
    "response.prefix",
    "response.resumed_digest",
    "response.tokens",
]
REQUEST_ITEMS: Final[tuple[Item, ...]] = ("request.client", "request.digest", "request.prompt")
RESPONSE_ITEMS: Final[tuple[Item, ...]] = (
    "response.digest",
    "response.prefix",
    "response.resumed_digest",
    "response.tokens",
)
ITEMS: Final = REQUEST_ITEMS + RESPONSE_ITEMS

_PLAIN: Final = "sha256:"
_KINDS: Final = (_PLAIN, SALTED)
_SALT_HEADS: Final = {item: SALT_DOMAIN + item.encode() + b"\n" for item in ITEMS}
_COMMITMENT_HEADS: Final = {item: COMMITMENT_DOMAIN + item.encode() + b"\n" for item in ITEMS}


def bound_bytes(text: str) -> bytes:
    """The 32 bytes of a digest in a receipt, salted or not; MalformedError for other text."""
    digits = text[len(_PLAIN) :]
    try:
        hashed = bytes.fromhex(digits)
    except ValueError as error:
        raise MalformedError("not a digest of a receipt") from error
    # Written again: the reader passes over spaces, and takes capitals.
    if len(hashed) != 32 or hashed.hex() != digits or not text.startswith(_KINDS):
        raise MalformedError("not a digest of a receipt")
    return hashed


def salt_of(blinding: bytes, item: Item, *, answer: str, attempt: str) -> bytes:
    """The 32-byte salt of one item. A request's is the same in every attempt at the answer."""
    scope = answer if item in REQUEST_ITEMS else attempt
    return hmac.digest(blinding, _SALT_HEADS[item] + scope.encode(), "sha256")


def commit(item: Item, digest: str, salt: bytes) -> str:
    """``salted:<hex>`` for a ``sha256:<hex>`` digest; an absent digest (empty) stays absent."""
    if not digest:
        return ""
    committed = _COMMITMENT_HEADS[item] + salt + bound_bytes(digest)
    return SALTED + hashlib.sha256(committed).hexdigest()


class Hiding:
    """Commits to the items of one attempt. Without a blinding, digests stay as they are."""

    __slots__ = ("_answer", "_attempt", "_blinding")

    def __init__(self, blinding: str, *, answer: str, attempt: str) -> None:
        """``blinding``: 64 hex digits, or empty. Raises ``ValueError`` for other text."""
        self._blinding = bytes.fromhex(blinding)
        self._answer = answer
        self._attempt = attempt

    def bind(self, item: Item, digest: str) -> str:
        """What the receipt says for ``digest`` (``sha256:<hex>``, or empty)."""
        # Most items of most answers are absent, and a salt is half of the work.
        return commit(item, digest, self._salt(item)) if self._blinding and digest else digest

    def _salt(self, item: Item) -> bytes:
        return salt_of(self._blinding, item, answer=self._answer, attempt=self._attempt)


def salts(receipt: Receipt, blinding: bytes) -> dict[str, str]:
    """The salts (hex) of every item that ``receipt`` has and hides."""
    return {
        item: salt_of(blinding, item, answer=receipt.answer, attempt=receipt.attempt).hex()
        for item in ITEMS
        if bound(receipt, item).startswith(SALTED)
    }


def bound(receipt: Receipt, item: Item) -> str:
    """What the receipt says for an item; empty where it is absent."""
    request, response = receipt.request, receipt.response
    said: dict[Item, str] = {
        "request.client": request.client,
        "request.digest": request.digest,
        "request.prompt": request.prompt,
        "response.digest": response.digest,
        "response.prefix": response.prefix,
        "response.resumed_digest": response.resumed_digest,
        "response.tokens": response.tokens,
    }
    return said[item]


def binds(receipt: Receipt, item: Item, digest: str, opened: dict[str, str]) -> bool | None:
    """Whether the receipt binds ``digest`` (``sha256:<hex>``) as ``item``.

    ``opened``: salts by item, hex. None: it is hidden, and no salt opens it.
    """
    said = bound(receipt, item)
    if not said.startswith(SALTED):
        return said == digest
    if item not in opened:
        return None
    return said == commit(item, digest, bytes.fromhex(opened[item]))
