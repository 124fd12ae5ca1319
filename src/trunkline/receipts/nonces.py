"""Nonces that a node committed to before it used any: its half of a seed that nobody could choose.

Specified in ``docs/spec/receipt.md``, "Nonces". The signed text is

    trunkline.nonces/v1
    <node key name>
    <count, decimal>
    <root, base64>
    <Unix milliseconds, decimal>

as the text of a C2SP signed note, which is also the log's entry. The root is that of an RFC 6962
tree over the nonces' leaves. A nonce is told when it is used, and until then nothing here tells it.
Nothing here signs, and nothing here draws randomness.
"""

import hmac
from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto import merkle, note
from trunkline.crypto.canonical import INTEGER_MAX
from trunkline.crypto.encoding import decode_decimal, decode_hash, encode_base64
from trunkline.crypto.keys import VerifierKey, is_key_name

NONCES_TYPE: Final = "trunkline.nonces/v1"
NONCE_DOMAIN: Final = b"trunkline.nonce/v1\n"
NONCE_BYTES: Final = 32
NONCES_COUNT_MAX: Final = 65_536
NONCES_NOTE_BYTES_MAX: Final = 8 * 1024
PATH_HASHES_MAX: Final = 16
"""log2 of ``NONCES_COUNT_MAX``."""


class Nonce(msgspec.Struct, frozen=True, kw_only=True):
    """One nonce, and where its node committed to it."""

    value: bytes
    """32 bytes."""
    root: bytes
    """Of the commitment, 32 bytes."""
    index: int


class NonceCommitment(msgspec.Struct, frozen=True, kw_only=True):
    """What a node signs before it uses the first of these nonces."""

    node: str
    """The node's key name."""
    count: int
    root: bytes
    """32 bytes."""
    unix_ms: int
    """When it was signed, by the node's clock."""

    @classmethod
    def parse(cls, text: bytes) -> "NonceCommitment":
        """Read a text. Raises :class:`MalformedError` unless every byte is as written."""
        try:
            lines = text.decode().split("\n")
        except UnicodeDecodeError as error:
            raise MalformedError("a commitment to nonces is not UTF-8") from error
        if len(lines) != 6 or lines[0] != NONCES_TYPE or lines[5]:
            raise MalformedError("not a commitment to nonces of version 1")
        commitment = cls(
            node=lines[1],
            count=decode_decimal(lines[2]),
            root=decode_hash(lines[3]),
            unix_ms=decode_decimal(lines[4]),
        )
        commitment._check()
        return commitment

    def text(self) -> bytes:
        """The text to sign. Raises :class:`MalformedError` for what could not be read back."""
        self._check()
        root = encode_base64(self.root)
        lines = (NONCES_TYPE, self.node, self.count, root, self.unix_ms)
        return "".join(f"{line}\n" for line in lines).encode()

    def _check(self) -> None:
        if not is_key_name(self.node):
            raise MalformedError("a commitment to nonces names no node")
        if not 1 <= self.count <= NONCES_COUNT_MAX:
            raise MalformedError(f"a commitment is to 1 to {NONCES_COUNT_MAX} nonces")
        if len(self.root) != merkle.HASH_BYTES:
            raise MalformedError(f"a root has {merkle.HASH_BYTES} bytes")
        if not 0 <= self.unix_ms <= INTEGER_MAX:
            raise MalformedError("a commitment's time is out of range")


def nonce_at(secret: bytes, index: int) -> bytes:
    """Nonce ``index`` of the set that comes from ``secret``, 32 random bytes."""
    return hmac.digest(secret, index.to_bytes(4, "big"), "sha256")


def nonce_leaf(nonce: bytes) -> bytes:
    """The 32-byte leaf hash of a nonce, in a domain of its own."""
    return merkle.leaf_hash(NONCE_DOMAIN + nonce)


def nonce_leaves(secret: bytes, count: int) -> list[bytes]:
    """The leaves of the whole set, in order: 2 µs each."""
    return [nonce_leaf(nonce_at(secret, index)) for index in range(count)]


def open_nonces(note_bytes: bytes, key: VerifierKey) -> NonceCommitment:
    """The commitment that ``key``, a node's, signed.

    Raises :class:`MalformedError`, or :class:`SignatureError` when ``key`` did not sign it or it
    names another node.
    """
    commitment = note.open_sole(
        note_bytes,
        key,
        NonceCommitment.parse,
        what="a commitment to nonces",
        bytes_max=NONCES_NOTE_BYTES_MAX,
    )
    if commitment.node != key.name:
        raise SignatureError("the commitment names another node than its key", code="wrong_node")
    return commitment


def verify_nonce(
    commitment: NonceCommitment, index: int, nonce: bytes, path: Sequence[bytes]
) -> None:
    """Check that ``nonce`` is number ``index`` of the commitment; ``path`` from leaf to root.

    Raises :class:`MalformedError` or :class:`InclusionError`.
    """
    if len(nonce) != NONCE_BYTES:
        raise MalformedError(f"a nonce has {NONCE_BYTES} bytes")
    verify_nonce_leaf(commitment, index, nonce_leaf(nonce), path)


def verify_nonce_leaf(
    commitment: NonceCommitment, index: int, leaf: bytes, path: Sequence[bytes]
) -> None:
    """As :func:`verify_nonce`, of a nonce whose leaf hash alone is known."""
    if len(path) > PATH_HASHES_MAX:
        raise MalformedError("a nonce's path is too long")
    merkle.verify_inclusion(leaf, index, commitment.count, path, commitment.root)
