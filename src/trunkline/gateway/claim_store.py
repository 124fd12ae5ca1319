"""Which request holds which idempotency key, and what it was answered: a table of the evidence
store's file, so that an answer is kept in the transaction that stores its evidence and its charge.

Keys and requests are there as hashes; answers as they were sent, until they are deleted. Deleted
rows are overwritten in the file.
"""

from typing import Final

import msgspec

from trunkline.base.errors import CorruptStateError, require
from trunkline.gateway.core.replay import Claim, ClaimRow, Headers, Kept, too_many
from trunkline.runtime.store import Connection, Database

CLAIMS_MAX: Final = 100_000
ROW_BYTES: Final = 512
"""What a row takes beside its body, about."""


class ClaimStore:
    """Typed access to the table. Every write is durable when its call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, id_: bytes) -> ClaimRow | None:
        """A claim, with its answer if that is whole."""

        def work(connection: Connection) -> ClaimRow | None:
            row = connection.execute(
                "SELECT id, request, answer, created_ms, status, headers, body FROM claims"
                " WHERE id = ?",
                (id_,),
            ).fetchone()
            return None if row is None else _claim_row(row)

        return await self._database.read(work)

    async def put(self, row: ClaimRow) -> None:
        """A request is accepted under its key; takes the place of an older claim to it."""
        claim = row.claim
        await self._database.execute(
            (
                "INSERT OR REPLACE INTO claims (id, request, answer, created_ms)"
                " VALUES (?, ?, ?, ?)",
                (claim.id, claim.request, row.answer, row.created_ms),
            )
        )

    async def release(self, id_: bytes, answer: str) -> None:
        """The answer failed: its key is free, unless the evidence was stored all the same."""
        await self._database.execute(
            (
                "DELETE FROM claims WHERE id = ? AND answer = ? AND status IS NULL",
                (id_, answer),
            )
        )

    async def prune(self, before_ms: int, bytes_max: int) -> int:
        """Delete what is older than ``before_ms``, and then the oldest answers beyond
        ``bytes_max``. Returns how many."""

        def work(connection: Connection) -> int:
            connection.execute("PRAGMA secure_delete = ON")
            gone = connection.execute("DELETE FROM claims WHERE created_ms <= ?", (before_ms,))
            rows = connection.execute(
                "SELECT id, length(body) FROM claims ORDER BY created_ms DESC, id"
            ).fetchall()
            sizes = [ROW_BYTES + (size or 0) for _, size in rows]
            count = max(too_many(sizes, bytes_max), len(rows) - CLAIMS_MAX)
            oldest = [(id_,) for id_, _ in rows[len(rows) - count :]] if count > 0 else []
            connection.executemany("DELETE FROM claims WHERE id = ?", oldest)
            return gone.rowcount + len(oldest)

        return await self._database.write(work)


def fill_claim(connection: Connection, kept: Kept) -> None:
    """Keep a whole answer: part of the transaction that stores its evidence."""
    done = connection.execute(
        "UPDATE claims SET status = ?, headers = ?, body = ? WHERE id = ? AND status IS NULL",
        (kept.status, msgspec.json.encode(kept.headers), kept.body, kept.claim),
    )
    # 0: it was deleted for its age while it was made. A repeated request finds nothing then.
    require(done.rowcount <= 1, "a claim is one row")


def _claim_row(row: tuple[bytes, bytes, str, int, int | None, bytes, bytes | None]) -> ClaimRow:
    id_, request, answer, created_ms, status, headers, body = row
    kept = None
    try:
        if status is not None:
            told = msgspec.json.decode(headers, type=Headers)
            kept = Kept(claim=id_, status=status, headers=told, body=body)
    except msgspec.MsgspecError:
        raise CorruptStateError("a claim in the evidence store is not readable") from None
    claim = Claim(id=id_, request=request)
    return ClaimRow(claim=claim, answer=answer, created_ms=created_ms, kept=kept)
