"""Batches: one signature over the Merkle root of up to 64 receipts, and a path for each of them.

Specified in ``docs/spec/receipt.md``, "Batches". The signed text is

    trunkline.batch/v1
    <node key name>
    <count, decimal>
    <root, base64>
    <root of the node's previous batch, base64, or ->
    <Unix milliseconds, decimal>
    <how many may be audited, decimal>

as the text of a C2SP signed note, and the log's entry for a batch is exactly that note's bytes.
The receipts that may be audited come first. Batches of before that was said lack the last line, and
say nothing of it. Nothing here signs: the node holds the key.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import msgspec

from trunkline.base.errors import MalformedError, SignatureError, VerificationError, require
from trunkline.crypto import merkle, note
from trunkline.crypto.canonical import INTEGER_MAX
from trunkline.crypto.encoding import decode_decimal, decode_hash, encode_base64
from trunkline.crypto.keys import VerifierKey, is_key_name
from trunkline.receipts.receipt import Receipt, decode, receipt_leaf
from trunkline.receipts.tree import batch_tree
from trunkline.schema.attempt import SignedReceipt

BATCH_TYPE = "trunkline.batch/v1"
BATCH_RECEIPTS_MAX = 64
BATCH_NOTE_BYTES_MAX = 8 * 1024
OPENED_MAX = 64
"""Batches remembered as verified: those whose receipts are still being handed out."""
PATH_HASHES_MAX = 6
"""log2 of ``BATCH_RECEIPTS_MAX``."""
AUDIT_CONTRADICTED = "audit_contradicted"
"""Code of the error: a node signed of one receipt that it may be audited, and that it may not."""

_NO_PREVIOUS = "-"
_LINES = 6
"""Of a batch that does not say what may be audited."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What a node signs: the root of a batch of its receipts."""

    node: str
    """The node's key name."""
    count: int
    root: bytes
    """RFC 6962 root over the receipts' leaves, 32 bytes."""
    previous: bytes | None
    """Root of the batch that this node signed before; ``None`` for its first."""
    unix_ms: int
    """When it was signed, by the node's clock."""
    audited: int | None = None
    """How many of the receipts may be audited: the first. ``None``: it is not said, as by nodes of
    before it was."""

    @property
    def drawable(self) -> int:
        """How many receipts, from the first, a draw draws from."""
        return self.count if self.audited is None else self.audited

    @classmethod
    def parse(cls, text: bytes) -> "Batch":
        """Read a batch text. Raises :class:`MalformedError` unless every byte is as written."""
        lines = _lines(text)
        batch = cls(
            node=lines[1],
            count=decode_decimal(lines[2]),
            root=decode_hash(lines[3]),
            previous=None if lines[4] == _NO_PREVIOUS else decode_hash(lines[4]),
            unix_ms=decode_decimal(lines[5]),
            audited=decode_decimal(lines[_LINES]) if len(lines) > _LINES + 1 else None,
        )
        if not 1 <= batch.count <= BATCH_RECEIPTS_MAX:
            raise MalformedError(f"a batch holds 1 to {BATCH_RECEIPTS_MAX} receipts")
        if batch.unix_ms > INTEGER_MAX:
            raise MalformedError("a batch's time is out of range")
        if batch.drawable > batch.count:
            raise MalformedError("a batch says that more may be audited than it holds")
        return batch

    def text(self) -> bytes:
        """The bytes to sign, ending in a newline."""
        return batch_text(
            node=self.node,
            count=self.count,
            root=self.root,
            previous=self.previous,
            unix_ms=self.unix_ms,
            audited=self.audited,
        )


def batch_text(
    *,
    node: str,
    count: int,
    root: bytes,
    previous: bytes | None,
    unix_ms: int,
    audited: int | None = None,
) -> bytes:
    """The text that a node signs for a batch; ``root`` and ``previous`` are 32 bytes. ``audited``:
    how many of the receipts may be, the first; None: it is not said.

    Raises ``ValueError`` for what :meth:`Batch.parse` would refuse.
    """
    if not is_key_name(node):
        raise ValueError("a node's name is not a key name")
    if not 1 <= count <= BATCH_RECEIPTS_MAX:
        raise ValueError(f"a batch holds 1 to {BATCH_RECEIPTS_MAX} receipts")
    if any(
        len(value) != merkle.HASH_BYTES for value in (root, root if previous is None else previous)
    ):
        raise ValueError(f"a root has {merkle.HASH_BYTES} bytes")
    if not 0 <= unix_ms <= INTEGER_MAX:
        raise ValueError("a batch's time is out of range")
    if audited is not None and not 0 <= audited <= count:
        raise ValueError("a batch says that more may be audited than it holds")
    before = _NO_PREVIOUS if previous is None else encode_base64(previous)
    text = f"{BATCH_TYPE}\n{node}\n{count}\n{encode_base64(root)}\n{before}\n{unix_ms}\n"
    return (text if audited is None else f"{text}{audited}\n").encode()


class SealedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch ready to be signed: its text, and every receipt's place in it."""

    root: bytes
    text: bytes
    """What to sign as a note."""
    receipts: tuple[bytes, ...]
    leaves: tuple[bytes, ...]
    paths: tuple[tuple[bytes, ...], ...]
    """Audit path per receipt, from leaf to root."""

    def signed(self, note_bytes: bytes) -> tuple[SignedReceipt, ...]:
        """What each caller is handed, given the signed note over ``text``, in order."""
        batch = note_bytes.decode()
        # Most hashes are in several paths.
        spelt = {hash_: encode_base64(hash_) for hash_ in set(chain.from_iterable(self.paths))}
        return tuple(
            SignedReceipt(
                receipt=data.decode(),
                batch=batch,
                index=index,
                path=tuple([spelt[hash_] for hash_ in path]),
            )
            for index, (data, path) in enumerate(zip(self.receipts, self.paths, strict=True))
        )


class BatchBuilder:
    """Collects encoded receipts until they are sealed: at most ``BATCH_RECEIPTS_MAX``, never none.

    ``node`` is the node's key name. One builder makes one batch.
    """

    __slots__ = ("_leaves", "_node", "_receipts")

    def __init__(self, node: str) -> None:
        self._node = node
        self._receipts: list[bytes] = []
        self._leaves: list[bytes] = []

    def __len__(self) -> int:
        return len(self._receipts)

    @property
    def full(self) -> bool:
        return len(self._receipts) == BATCH_RECEIPTS_MAX

    def add(self, receipt: bytes) -> bytes:
        """Take an encoded receipt; returns its 32-byte leaf hash. Ask ``full`` first."""
        require(not self.full, f"a batch holds at most {BATCH_RECEIPTS_MAX} receipts")
        leaf = receipt_leaf(receipt)
        self._receipts.append(receipt)
        self._leaves.append(leaf)
        return leaf

    def seal(
        self, *, previous: bytes | None, unix_ms: int, audited: int | None = None
    ) -> SealedBatch:
        """Close the batch: its root, the text to sign, and the path of every receipt.

        ``previous`` is the root of the node's batch before this one, ``None`` for its first.
        ``audited``: how many of the receipts may be, which were added first; None: not to say so.
        """
        require(bool(self._leaves), "a batch holds at least one receipt")
        root, paths = root_and_paths(self._leaves)
        text = batch_text(
            node=self._node,
            count=len(self._leaves),
            root=root,
            previous=previous,
            unix_ms=unix_ms,
            audited=audited,
        )
        return SealedBatch(
            root=root,
            text=text,
            receipts=tuple(self._receipts),
            leaves=tuple(self._leaves),
            paths=paths,
        )


class VerifiedReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt that its node's key signed."""

    receipt: Receipt
    leaf: bytes
    batch: Batch


@lru_cache(maxsize=OPENED_MAX)
def open_batch(note_bytes: bytes, key: VerifierKey) -> Batch:
    """The batch that ``key`` signed. The receipts of one batch share its signature's check: what
    the very same bytes and key were shown to be is remembered, and a failure never is.

    Raises :class:`MalformedError`, or :class:`SignatureError` when ``key`` did not sign it or it
    names another node.
    """
    batch = note.open_sole(
        note_bytes, key, Batch.parse, what="a batch note", bytes_max=BATCH_NOTE_BYTES_MAX
    )
    if batch.node != key.name:
        raise SignatureError("the batch names another node than its key", code="wrong_node")
    return batch


def verify_path(data: bytes, signed: SignedReceipt, batch: Batch) -> bytes:
    """The leaf hash of receipt bytes ``data``, shown to be in ``batch`` at its index.

    Raises :class:`MalformedError` or :class:`InclusionError`.
    """
    if len(signed.path) > PATH_HASHES_MAX:
        raise MalformedError("a batch path is too long")
    leaf = receipt_leaf(data)
    batch_tree(batch.root, batch.count).verify(leaf, signed.index, signed.path)
    return leaf


def check_signer(receipt: Receipt, key: VerifierKey) -> None:
    """Raise :class:`SignatureError` unless the receipt names ``key`` and its node."""
    if receipt.key != str(key):
        raise SignatureError("the receipt names another key", code="wrong_key")
    if receipt.node != key.name:
        raise SignatureError("the receipt names another node", code="wrong_node")


def check_audited(receipt: Receipt, index: int, batch: Batch) -> None:
    """Raise :class:`VerificationError` ``audit_contradicted`` unless ``receipt``, which is at
    ``index`` of ``batch``, says of audits what the batch says of it, where that says anything.

    Whoever holds the two can show that their node signed both.
    """
    if batch.audited is not None and receipt.policy.audit != (index < batch.audited):
        raise VerificationError(
            "receipt and batch contradict each other on whether it may be audited",
            code=AUDIT_CONTRADICTED,
        )


def verify_signed(signed: SignedReceipt, key: VerifierKey) -> VerifiedReceipt:
    """The receipt, once it is shown that ``key`` signed a batch that holds it.

    Raises :class:`MalformedError`, :class:`SignatureError`, :class:`InclusionError`, or as
    :func:`check_audited` does.
    """
    data = receipt_bytes(signed)
    receipt = decode(data)
    batch = open_batch(note_bytes(signed), key)
    leaf = verify_path(data, signed, batch)
    check_signer(receipt, key)
    check_audited(receipt, signed.index, batch)
    return VerifiedReceipt(receipt=receipt, leaf=leaf, batch=batch)


def receipt_bytes(signed: SignedReceipt) -> bytes:
    """The receipt's bytes as hashed. Raises :class:`MalformedError` for what is not Unicode."""
    return _utf8(signed.receipt)


def note_bytes(signed: SignedReceipt) -> bytes:
    """The batch's note as signed, which is also the log's entry. Raises :class:`MalformedError`."""
    return _utf8(signed.batch)


def root_and_paths(leaves: Sequence[bytes]) -> tuple[bytes, tuple[tuple[bytes, ...], ...]]:
    """Root and every audit path of an RFC 6962 tree, hashing each inner node once.

    ``merkle.audit_path`` hashes the whole tree for each path: 30 times the work for a full batch.
    """
    level = list(leaves)
    paths: list[list[bytes]] = [[] for _ in level]
    below = 1
    while len(level) > 1:
        # All leaves below a hash have its sibling in their path; a last one without any rises.
        for index in range(len(level) & ~1):
            sibling = level[index ^ 1]
            for path in paths[index * below : (index + 1) * below]:
                path.append(sibling)
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [merkle.node_hash(left, right) for left, right in pairs] + odd
        below *= 2
    return level[0], tuple(map(tuple, paths))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise MalformedError("text that is not Unicode") from error


def _lines(text: bytes) -> Sequence[str]:
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise MalformedError("a batch is not UTF-8") from error
    # The last one is what follows the last line's end: nothing.
    if not _LINES < len(lines) <= _LINES + 2 or lines[0] != BATCH_TYPE or lines[-1]:
        raise MalformedError("not a batch of version 1")
    if not is_key_name(lines[1]):
        raise MalformedError("a batch names no node")
    return lines
