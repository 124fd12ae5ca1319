"""What the witness has cosigned: one row per log, durable before a cosignature leaves.

Comparing with the row and replacing it are one transaction on one writer, so no two requests can
both continue the same checkpoint, and no size is ever rolled back.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from trunkline.base.errors import ConfigError
from trunkline.crypto import note
from trunkline.crypto.signer import Cosigner
from trunkline.runtime.store import Connection, Database
from trunkline.witness.core.decide import Seen, Submission, decide

DATABASE_NAME: Final = "witness.db"

MIGRATIONS: Final = (
    """
    CREATE TABLE logs (
        origin TEXT PRIMARY KEY,
        size INTEGER NOT NULL,
        root BLOB NOT NULL,
        note BLOB NOT NULL
    ) STRICT;
    """,
)


def create_store(data: Path) -> None:
    """Make the store of a new witness in the folder ``data``, for ``trunkline init``. Blocks.

    ConfigError if there is one already.
    """
    path = data / DATABASE_NAME
    if path.exists():
        raise ConfigError(f"{path}: there is a witness here already")
    data.mkdir(parents=True, exist_ok=True)
    Database.open(path, must_exist=False, migrations=MIGRATIONS).close()


class WitnessStore:
    """The open store. The file lock is held until it is closed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, data: Path) -> "WitnessStore":
        """Open the store in ``data``. ConfigError if it is missing or in use."""
        path = data / DATABASE_NAME
        return cls(Database.open(path, must_exist=True, migrations=MIGRATIONS))

    async def cosign(
        self, submission: Submission, signer: Cosigner, now_s: Callable[[], int]
    ) -> bytes:
        """Decide, cosign and record, all or nothing; the cosignature line once that is durable.

        RequestError as :func:`decide`; nothing is recorded then. When the disk fails, the record
        may or may not be there: no cosignature left, and either is consistent.
        """

        def work(connection: Connection) -> bytes:
            origin = submission.checkpoint.origin
            now_seen = decide(submission, _seen(connection, origin))
            line = signer.cosignature(submission.text, now_s())
            signed = note.format(submission.text, (*submission.signatures, line))
            connection.execute(
                "INSERT INTO logs VALUES (?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE SET "
                "size = excluded.size, root = excluded.root, note = excluded.note",
                (origin, now_seen.size, now_seen.root, signed),
            )
            return line.line()

        return await self._database.write(work)

    async def latest(self, origin: str) -> bytes | None:
        """The latest cosigned checkpoint's note; None before the first."""

        def work(connection: Connection) -> bytes | None:
            row = connection.execute("SELECT note FROM logs WHERE origin = ?", (origin,)).fetchone()
            return None if row is None else bytes(row[0])

        return await self._database.read(work)

    async def sizes(self) -> dict[str, int]:
        """Latest cosigned size by origin."""
        return await self._database.read(
            lambda connection: dict(connection.execute("SELECT origin, size FROM logs").fetchall())
        )

    async def aclose(self) -> None:
        await self._database.aclose()


def _seen(connection: Connection, origin: str) -> Seen:
    row = connection.execute("SELECT size, root FROM logs WHERE origin = ?", (origin,)).fetchone()
    return Seen() if row is None else Seen(size=row[0], root=row[1])
