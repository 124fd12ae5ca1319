"""The node's durable state: signed receipts, their batches, the head of both chains, the outbox.

One SQLite file, ``node.db`` in the node's data folder; ``nonce_store``, ``opening_store``,
``terms_store`` and ``dates`` have tables of their own in it. It is made by :func:`create_store` and
by nothing else: a node whose chain silently began anew would contradict its own earlier receipts.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError, CorruptStateError
from trunkline.node import dates, nonce_store, opening_store, terms_store
from trunkline.receipts import SealedBatch, decode
from trunkline.runtime import outbox
from trunkline.runtime.store import Connection, Database
from trunkline.schema.attempt import SignedReceipt

FILE_NAME: Final = "node.db"

_SCHEMA: Final = """
CREATE TABLE batches (
    number INTEGER PRIMARY KEY,
    root BLOB NOT NULL UNIQUE,
    note BLOB NOT NULL,
    signed_ms INTEGER NOT NULL,
    log_index INTEGER
) STRICT;
CREATE INDEX batches_not_logged ON batches (number) WHERE log_index IS NULL;
CREATE TABLE receipts (
    attempt TEXT PRIMARY KEY,
    batch INTEGER NOT NULL REFERENCES batches (number),
    place INTEGER NOT NULL,
    signed BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    batch INTEGER NOT NULL,
    leaf BLOB NOT NULL
) STRICT;
"""
MIGRATIONS: Final = (
    _SCHEMA,
    outbox.SCHEMA,
    nonce_store.SCHEMA,
    opening_store.SCHEMA,
    terms_store.SCHEMA,
    dates.SCHEMA,
)


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Where the node's two chains end."""

    batch: int = 0
    """Number of the last batch; 0 before the first."""
    root: bytes | None = None
    """Its root."""
    leaf: bytes = b""
    """Leaf hash of the last receipt; empty before the first."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A stored receipt."""

    signed: bytes
    """The :class:`SignedReceipt` as JSON, as it was sent."""
    log_index: int | None
    """Where the log has its batch, once it has."""

    @property
    def private(self) -> bool:
        """Whether the receipt is for its caller alone, who had it with the answer."""
        signed = msgspec.json.decode(self.signed, type=SignedReceipt)
        return decode(signed.receipt.encode()).policy.mode == "private"


def create_store(data: Path) -> None:
    """Make the node's store in its data folder. Raises :class:`ConfigError` if there is one."""
    path = data / FILE_NAME
    if path.exists():
        raise ConfigError(f"{path}: there is a store already; it is kept as it is")
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    Database.open(path, must_exist=False, migrations=MIGRATIONS).close()
    # The name of a new file is durable only once its folder is.
    folder = os.open(data, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_store(data: Path) -> Database:
    """Open it. Raises :class:`ConfigError` if it was never made."""
    return Database.open(data / FILE_NAME, must_exist=True, migrations=MIGRATIONS)


def read_head(connection: Connection) -> Head:
    row = connection.execute(
        "SELECT head.batch, batches.root, head.leaf FROM head "
        "LEFT JOIN batches ON batches.number = head.batch"
    ).fetchone()
    if row is None:
        return Head()
    batch, root, leaf = row
    if root is None:
        raise CorruptStateError("the node's store has lost the batch that its chain ends with")
    return Head(batch=batch, root=root, leaf=leaf)


def insert_batch(
    connection: Connection,
    before: Head,
    sealed: SealedBatch,
    note: bytes,
    *,
    attempts: Sequence[str],
    signed: Sequence[bytes],
    signed_ms: int,
) -> Head:
    """Store a signed batch after ``before``; returns the new head.

    Raises :class:`CorruptStateError` if the chain has another end: two processes with one key, or
    a store from a backup, would else sign two histories.
    """
    if read_head(connection) != before:
        raise CorruptStateError("the node's chain of receipts has moved without this process")
    head = Head(batch=before.batch + 1, root=sealed.root, leaf=sealed.leaves[-1])
    connection.execute(
        "INSERT INTO batches (number, root, note, signed_ms) VALUES (?, ?, ?, ?)",
        (head.batch, head.root, note, signed_ms),
    )
    connection.executemany(
        "INSERT INTO receipts (attempt, batch, place, signed) VALUES (?, ?, ?, ?)",
        [
            (attempt, head.batch, place, data)
            for place, (attempt, data) in enumerate(zip(attempts, signed, strict=True))
        ],
    )
    connection.execute(
        "INSERT INTO head (one, batch, leaf) VALUES (1, ?, ?) "
        "ON CONFLICT (one) DO UPDATE SET batch = excluded.batch, leaf = excluded.leaf",
        (head.batch, head.leaf),
    )
    return head


def encode_signed(signed: SignedReceipt) -> bytes:
    """The receipt event's data, which is also what the store keeps."""
    return msgspec.json.encode(signed)


def find_receipt(connection: Connection, attempt: str) -> Found | None:
    """The receipt of an attempt."""
    row = connection.execute(
        "SELECT receipts.signed, batches.log_index FROM receipts "
        "JOIN batches ON batches.number = receipts.batch WHERE receipts.attempt = ?",
        (attempt,),
    ).fetchone()
    return None if row is None else Found(signed=row[0], log_index=row[1])


def note_logged(connection: Connection, root_hex: str, index: int) -> None:
    """Record where the log has the batch with this root."""
    connection.execute(
        "UPDATE batches SET log_index = ? WHERE root = ?", (index, bytes.fromhex(root_hex))
    )


def unlogged(connection: Connection) -> int:
    """How many batches the log is not known to have."""
    row = connection.execute("SELECT count(*) FROM batches WHERE log_index IS NULL").fetchone()
    return int(row[0])


def not_logged(connection: Connection, after: int, limit: int) -> list[tuple[int, str, bytes]]:
    """``(number, root in hex, note)`` of batches that the log is not known to have, in order."""
    rows = connection.execute(
        "SELECT number, root, note FROM batches WHERE log_index IS NULL AND number > ? "
        "ORDER BY number LIMIT ?",
        (after, limit),
    )
    return [(int(number), root.hex(), note) for number, root, note in rows]
