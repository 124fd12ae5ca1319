"""The lock database: which process sequences, the current checkpoint, and where each entry is.

It must exist already, so that a mistyped path can not start a second log under the same key. The
checkpoint in it is the truth about the log's size; it moves by compare-and-swap alone. An entry's
place is in ``places``, or still in ``journal`` only (:mod:`trunkline.log.core.recent`).
"""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError, ConflictError, CorruptStateError
from trunkline.crypto import merkle
from trunkline.crypto.signer import Signer, sign_note
from trunkline.log.core.recent import KEY_BYTES, Recent
from trunkline.log.files import Folder
from trunkline.log.tiles import CHECKPOINT_NAME
from trunkline.runtime.store import Connection, Database
from trunkline.tlog.checkpoint import Checkpoint

DATABASE_NAME: Final = "log.db"
LOOKUPS_PER_QUERY: Final = 500

MIGRATIONS: Final = (
    """
    CREATE TABLE log (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        vkey TEXT NOT NULL,
        size INTEGER NOT NULL,
        checkpoint BLOB NOT NULL
    ) STRICT;
    CREATE TABLE entries (
        leaf_hash BLOB PRIMARY KEY,
        entry_index INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE places (
        key BLOB PRIMARY KEY,
        entry_index INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    INSERT INTO places SELECT substr(leaf_hash, 1, 16), entry_index FROM entries ORDER BY 1;
    DROP TABLE entries;
    CREATE TABLE journal (
        round INTEGER PRIMARY KEY,
        first_index INTEGER NOT NULL,
        keys BLOB NOT NULL
    ) STRICT;
    """,
)


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """The sequenced state: the truth after any crash."""

    vkey: str
    size: int
    checkpoint: bytes
    """Signed note, with the log's signature alone."""


def create_log(data: Path, signer: Signer) -> None:
    """Make the store of a new, empty log in the folder ``data``, for ``trunkline init``.

    Blocks. ConfigError if there is one already, or what is left of one: an empty log under the
    same key would contradict every checkpoint that the old one signed.
    """
    path = data / DATABASE_NAME
    for left in (path, data / CHECKPOINT_NAME, data / "tile"):
        if left.exists():
            raise ConfigError(f"{left}: there is a log here already")
    data.mkdir(parents=True, exist_ok=True)
    empty = Checkpoint(origin=signer.name, size=0, root=merkle.EMPTY_ROOT)
    signed = sign_note(empty.text(), signer)
    folder = Folder(data)
    folder.prepare()
    folder.write_checkpoint(signed)
    # The row makes the log: a crash before it leaves a store that refuses to start.
    Database.open(path, must_exist=False, migrations=MIGRATIONS).close()
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA synchronous=FULL")
        with connection:
            connection.execute("INSERT INTO log VALUES (1, ?, 0, ?)", (str(signer.vkey), signed))
    finally:
        connection.close()


def read_current(connection: Connection, path: Path) -> Current:
    """The one row. ConfigError if the store was never completed."""
    row = connection.execute("SELECT vkey, size, checkpoint FROM log").fetchone()
    if row is None:
        raise ConfigError(f"{path}: this log was never completed; delete it and run init again")
    return Current(vkey=row[0], size=row[1], checkpoint=row[2])


class LogStore:
    """The open database. The file lock is held until it is closed."""

    def __init__(self, database: Database, path: Path) -> None:
        self._database = database
        self._path = path
        self._recent = Recent()

    @classmethod
    def open(cls, data: Path) -> "LogStore":
        """Open the store in ``data``. ConfigError if it is missing or in use."""
        path = data / DATABASE_NAME
        return cls(Database.open(path, must_exist=True, migrations=MIGRATIONS), path)

    async def load(self) -> Current:
        """The current checkpoint; for the start, before all else."""
        self._recent = await self._database.read(read_recent)
        return await self._database.read(lambda connection: read_current(connection, self._path))

    async def find(self, leaf_hashes: Sequence[bytes]) -> Mapping[bytes, int]:
        """The indexes of those entries that are in the log already."""
        recent = self._recent
        return await self._database.read(lambda connection: find(connection, recent, leaf_hashes))

    async def swap(
        self, old: bytes, size: int, checkpoint: bytes, first: int, leaf_hashes: Sequence[bytes]
    ) -> None:
        """Compare-and-swap the checkpoint ``old`` for one of ``size``, with its new entries.

        ``leaf_hashes`` are those of the entries from index ``first`` on. Durable when it returns.
        ConflictError if another process moved the log; whatever else it raises, it is unknown
        whether the swap happened.
        """
        keys = [leaf[:KEY_BYTES] for leaf in leaf_hashes]
        recent = self._recent
        due = recent.due()

        def work(connection: Connection) -> None:
            moved = connection.execute(
                "UPDATE log SET size = ?, checkpoint = ? WHERE checkpoint = ? AND size < ?",
                (size, checkpoint, old, size),
            )
            if moved.rowcount != 1:
                raise ConflictError("the log's checkpoint was moved by somebody else")
            row = (recent.round, first, b"".join(keys))
            connection.execute("INSERT INTO journal VALUES (?, ?, ?)", row)
            try:
                connection.executemany("INSERT INTO places VALUES (?, ?)", due)
            except sqlite3.IntegrityError:
                raise CorruptStateError("an entry was about to be sequenced twice") from None
            superfluous = (recent.journaled_from,)
            connection.execute("DELETE FROM journal WHERE round < ?", superfluous)

        # A crash before the commit leaves rows and memory as they were; after it, the next start
        # reads from the journal what memory would have held.
        await self._database.write(work)
        recent.advance(first, keys)

    async def aclose(self) -> None:
        await self._database.aclose()


def read_recent(connection: Connection) -> Recent:
    """The entries that only the journal holds."""
    rows = connection.execute("SELECT round, first_index, keys FROM journal ORDER BY round")
    return Recent(rows)


def find(connection: Connection, recent: Recent, leaf_hashes: Sequence[bytes]) -> dict[bytes, int]:
    """The indexes of known entries by leaf hash."""
    found: dict[bytes, int] = {}
    asked: dict[bytes, bytes] = {}
    for leaf in leaf_hashes:
        key = leaf[:KEY_BYTES]
        index = recent.get(key)
        if index is None:
            asked[key] = leaf
        else:
            found[leaf] = index
    keys = sorted(asked)
    for at in range(0, len(keys), LOOKUPS_PER_QUERY):
        some = keys[at : at + LOOKUPS_PER_QUERY]
        marks = ",".join("?" * len(some))
        query = f"SELECT key, entry_index FROM places WHERE key IN ({marks})"  # noqa: S608 - only question marks
        found.update((asked[key], index) for key, index in connection.execute(query, some))
    return found
