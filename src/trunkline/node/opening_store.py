"""What opens the node's receipts, in its store: as long as it is kept, and not a byte longer.

Tables of ``node.db``. Deleted bytes are overwritten (``secure_delete``); whoever deletes sees to
the write-ahead file. The draws that were honoured are here too, so that no verifier draws twice.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.runtime.store import Connection

SCHEMA: Final = """
CREATE TABLE openings (
    number INTEGER PRIMARY KEY,
    batch INTEGER NOT NULL,
    place INTEGER NOT NULL,
    size INTEGER NOT NULL,
    kept_ms INTEGER NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (batch, place)
) STRICT;
CREATE INDEX openings_by_time ON openings (kept_ms);
CREATE TABLE openings_kept (one INTEGER PRIMARY KEY CHECK (one = 1), bytes INTEGER NOT NULL) STRICT;
INSERT INTO openings_kept (one, bytes) VALUES (1, 0);
CREATE TRIGGER openings_more AFTER INSERT ON openings BEGIN
    UPDATE openings_kept SET bytes = bytes + new.size;
END;
CREATE TRIGGER openings_less AFTER DELETE ON openings BEGIN
    UPDATE openings_kept SET bytes = bytes - old.size;
END;
CREATE TABLE draws (
    verifier TEXT NOT NULL,
    first INTEGER NOT NULL,
    after INTEGER NOT NULL,
    digest BLOB NOT NULL,
    honoured_ms INTEGER NOT NULL,
    PRIMARY KEY (verifier, first, after)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX receipts_by_place ON receipts (batch, place);
"""
ROUND_MAX: Final = 256
"""Openings deleted in one transaction."""


class Demanded(msgspec.Struct, frozen=True, kw_only=True):
    """A receipt, found by its place in a batch."""

    log_index: int | None
    """Where the log has its batch, once it has."""
    signed_ms: int
    signed: bytes
    """The :class:`SignedReceipt` as JSON."""
    opening: int | None
    """Number of what opens it, if that is kept."""
    size: int
    """Bytes of that; 0 without."""


def keep(
    connection: Connection, batch: int, contents: Sequence[tuple[int, bytes]], now_ms: int
) -> None:
    """Keep what opens receipts, by their places in a batch; part of what stores the batch."""
    connection.executemany(
        "INSERT INTO openings (batch, place, size, kept_ms, content) VALUES (?, ?, ?, ?, ?)",
        [(batch, place, len(content), now_ms, content) for place, content in contents],
    )


def total_bytes(connection: Connection) -> int:
    """What is kept, all together."""
    return int(connection.execute("SELECT bytes FROM openings_kept").fetchone()[0])


def drop_oldest(connection: Connection, excess_bytes: int) -> int:
    """Delete the oldest until ``excess_bytes`` are gone; how many that were."""
    last = dropped = gone = 0
    rows = connection.execute("SELECT number, size FROM openings ORDER BY number")
    while gone < excess_bytes and (row := rows.fetchone()) is not None:
        last, size = row
        dropped += 1
        gone += size
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("DELETE FROM openings WHERE number <= ?", (last,))
    return dropped


def expire(connection: Connection, before_ms: int, after_ms: int) -> int:
    """Delete some of what was kept before ``before_ms``, or is from after ``after_ms`` because the
    clock stepped back; how many, none when there are none left."""
    rows = connection.execute(
        "SELECT number FROM openings WHERE kept_ms < ? OR kept_ms > ? LIMIT ?",
        (before_ms, after_ms, ROUND_MAX),
    ).fetchall()
    connection.execute("PRAGMA secure_delete = ON")
    connection.executemany("DELETE FROM openings WHERE number = ?", rows)
    connection.execute("DELETE FROM draws WHERE honoured_ms < ?", (before_ms,))
    return len(rows)


def find(connection: Connection, root: bytes, place: int) -> Demanded | None:
    """The receipt at ``place`` of the batch with this root."""
    row = connection.execute(
        "SELECT batches.log_index, batches.signed_ms, receipts.signed, openings.number, "
        "openings.size FROM batches "
        "JOIN receipts ON receipts.batch = batches.number AND receipts.place = ? "
        "LEFT JOIN openings ON openings.batch = batches.number AND openings.place = receipts.place "
        "WHERE batches.root = ?",
        (place, root),
    ).fetchone()
    if row is None:
        return None
    log_index, signed_ms, signed, opening, size = row
    return Demanded(
        log_index=log_index, signed_ms=signed_ms, signed=signed, opening=opening, size=size or 0
    )


def content(connection: Connection, opening: int) -> bytes | None:
    """What opens a receipt, if it is still kept."""
    row = connection.execute("SELECT content FROM openings WHERE number = ?", (opening,)).fetchone()
    return None if row is None else bytes(row[0])


def honour(
    connection: Connection, verifier: str, first: int, after: int, digest: bytes, now_ms: int
) -> bool:
    """Note a draw from the entries ``first`` to before ``after``. False if another one by that
    verifier was honoured from some of them."""
    rows = connection.execute(
        "SELECT digest FROM draws WHERE verifier = ? AND first < ? AND after > ?",
        (verifier, after, first),
    ).fetchall()
    if any(row[0] != digest for row in rows):
        return False
    if not rows:
        connection.execute(
            "INSERT INTO draws (verifier, first, after, digest, honoured_ms) "
            "VALUES (?, ?, ?, ?, ?)",
            (verifier, first, after, digest, now_ms),
        )
    return True
