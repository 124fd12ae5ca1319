"""The node's sets of nonces in its store: their secrets, and up to where each may have been used.

Tables of ``node.db``. A range is reserved before any of it is used, so that after a crash whatever
may have been used is not used again.
"""

from typing import Final

import msgspec

from trunkline.base.errors import CorruptStateError
from trunkline.runtime.store import Connection

SCHEMA: Final = """
CREATE TABLE nonces (
    number INTEGER PRIMARY KEY,
    root BLOB NOT NULL UNIQUE,
    secret BLOB NOT NULL,
    count INTEGER NOT NULL,
    note BLOB NOT NULL,
    reserved INTEGER NOT NULL DEFAULT 0,
    log_index INTEGER
) STRICT;
CREATE INDEX nonces_not_logged ON nonces (number) WHERE log_index IS NULL;
"""
KEY_PREFIX: Final = "nonces/"
"""Of the outbox's keys; the root in hex follows."""


class NonceSet(msgspec.Struct, frozen=True, kw_only=True):
    """One set, all of which comes from one secret. Its nonces before ``reserved`` may be used."""

    root: bytes
    secret: bytes
    count: int
    note: bytes
    """The signed commitment."""
    reserved: int = 0

    def __repr__(self) -> str:
        return f"NonceSet({self.root.hex()}, {self.reserved} of {self.count})"

    @property
    def key(self) -> str:
        """Its key in the outbox."""
        return KEY_PREFIX + self.root.hex()


def insert(connection: Connection, made: NonceSet) -> None:
    connection.execute(
        "INSERT INTO nonces (root, secret, count, note, reserved) VALUES (?, ?, ?, ?, ?)",
        (made.root, made.secret, made.count, made.note, made.reserved),
    )


def reserve(connection: Connection, root: bytes, before: int, until: int) -> None:
    """From now on, what is before ``until`` may have been used.

    Raises :class:`CorruptStateError` if another process has reserved meanwhile.
    """
    changed = connection.execute(
        "UPDATE nonces SET reserved = ? WHERE root = ? AND reserved = ? AND ? <= count",
        (until, root, before, until),
    ).rowcount
    if changed != 1:
        raise CorruptStateError("the node's nonces were used without this process")


def unused(connection: Connection) -> list[NonceSet]:
    """The sets of which something is left, oldest first."""
    rows = connection.execute(
        "SELECT root, secret, count, note, reserved FROM nonces WHERE reserved < count "
        "ORDER BY number"
    )
    return [
        NonceSet(root=root, secret=secret, count=count, note=note, reserved=reserved)
        for root, secret, count, note, reserved in rows
    ]


def find(connection: Connection, root: bytes) -> NonceSet | None:
    """The set with this root."""
    row = connection.execute(
        "SELECT secret, count, note, reserved FROM nonces WHERE root = ?", (root,)
    ).fetchone()
    if row is None:
        return None
    secret, count, note, reserved = row
    return NonceSet(root=root, secret=secret, count=count, note=note, reserved=reserved)


def note_logged(connection: Connection, key: str, index: int) -> None:
    """Record where the log has the commitment with this key of the outbox."""
    root = bytes.fromhex(key.removeprefix(KEY_PREFIX))
    connection.execute("UPDATE nonces SET log_index = ? WHERE root = ?", (index, root))


def not_logged(connection: Connection) -> list[tuple[str, bytes]]:
    """``(key, note)`` of the commitments that the log is not known to have, oldest first."""
    rows = connection.execute(
        "SELECT root, note FROM nonces WHERE log_index IS NULL ORDER BY number"
    )
    return [(KEY_PREFIX + root.hex(), note) for root, note in rows]
