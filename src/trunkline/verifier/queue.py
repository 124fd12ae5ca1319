"""The audits that are to be made, shared by the processes of one verifier.

:class:`AuditQueue` is the port; :class:`SqliteQueue` keeps it in the verifier's store. A process
takes an audit for a while (a lease); if it dies, another takes it when the lease is over. Whoever
has lost its lease changes nothing any more. An audit leaves the queue in the transaction that
stores its verdict.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from trunkline.base.errors import ConflictError
from trunkline.base.ports import Clock, Randomness
from trunkline.runtime.store import Connection, Database, SqlValue

HOLDER_BYTES: Final = 16
WAITING_MAX: Final = 100_000
"""Audits that may wait; receipts drawn beyond are counted as left out, not queued."""


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """One drawn receipt on its way to a verdict."""

    number: int
    root: bytes
    """Of its batch."""
    position: int
    """Its index there."""
    entry: int
    """The log's entry that holds the batch."""
    node: str
    """The node's vkey."""
    draw: bytes
    """The draw statement, a signed note."""
    third: bool
    """Others disagree about it."""
    asked_ms: int
    """When it was first demanded; 0 before."""
    refused: str
    """What the node said the last time; empty where it said nothing."""
    opening: bytes | None
    attempts: int
    holder: bytes
    """Which taking of it this is."""


class AuditQueue(Protocol):
    """Where audits wait. All times Unix milliseconds."""

    async def take(self) -> Audit | None:
        """The next one that is due and nobody holds; None: nothing to do now."""
        ...

    async def keep(self, audit: Audit) -> None:
        """Hold it for another lease. ConflictError if it was lost."""
        ...

    async def opened(self, audit: Audit, opening: bytes) -> None:
        """The node has opened it: it need not be asked again. ConflictError as above."""
        ...

    async def put_off(self, audit: Audit, *, due_ms: int, asked_ms: int, refused: str) -> None:
        """Let go of it until ``due_ms``. ConflictError as above."""
        ...

    async def drop(self, audit: Audit) -> None:
        """It is not this verifier's to make. ConflictError as above."""
        ...


class SqliteQueue:
    """:class:`AuditQueue` in the verifier's store."""

    def __init__(
        self, database: Database, *, clock: Clock, randomness: Randomness, lease_ms: int
    ) -> None:
        """``lease_ms``: how long an audit is held, unless it is kept."""
        self._database = database
        self._lease_ms = lease_ms
        self._clock = clock
        self._randomness = randomness

    async def take(self) -> Audit | None:
        holder = self._randomness.token(HOLDER_BYTES)
        now_ms = self._clock.unix_ms()
        lease_ms = now_ms + self._lease_ms
        return await self._database.write(lambda c: _take(c, holder, now_ms, lease_ms))

    async def keep(self, audit: Audit) -> None:
        await self._change(audit, "lease_ms = ?", self._clock.unix_ms() + self._lease_ms)

    async def opened(self, audit: Audit, opening: bytes) -> None:
        await self._change(audit, "opening = ?, attempts = 0, refused = ''", opening)

    async def put_off(self, audit: Audit, *, due_ms: int, asked_ms: int, refused: str) -> None:
        await self._change(
            audit,
            "due_ms = ?, asked_ms = ?, refused = ?, attempts = attempts + 1, holder = NULL, "
            "lease_ms = 0",
            due_ms,
            asked_ms,
            refused,
        )

    async def drop(self, audit: Audit) -> None:
        await self._database.write(lambda c: leave(c, audit))

    async def _change(self, audit: Audit, what: str, *values: SqlValue) -> None:
        def change(connection: Connection) -> None:
            changed = connection.execute(
                f"UPDATE jobs SET {what} WHERE number = ? AND holder = ?",  # noqa: S608 - ours
                (*values, audit.number, audit.holder),
            )
            if changed.rowcount != 1:
                raise _lost()

        await self._database.write(change)


def enqueue(
    connection: Connection,
    *,
    root: bytes,
    positions: Sequence[int],
    entry: int,
    node: str,
    draw: int,
    third: bool = False,
) -> int:
    """Put receipts of one batch in the queue, inside the caller's transaction, unless they are
    there or have a verdict. How many found no place."""
    waiting = int(connection.execute("SELECT count(*) FROM jobs").fetchone()[0])
    room = max(0, WAITING_MAX - waiting)
    connection.executemany(
        "INSERT INTO jobs (root, position, entry, node, draw, third) "
        "SELECT ?, ?, ?, ?, ?, ? WHERE NOT EXISTS "
        "(SELECT 1 FROM verdicts WHERE root = ? AND position = ? AND picked = 0) "
        "ON CONFLICT DO NOTHING",
        [
            (root, position, entry, node, draw, int(third), root, position)
            for position in positions[:room]
        ],
    )
    return max(0, len(positions) - room)


def leave(connection: Connection, audit: Audit) -> None:
    """Take an audit out of the queue, inside the caller's transaction. ConflictError if it was
    lost."""
    gone = connection.execute(
        "DELETE FROM jobs WHERE number = ? AND holder = ?", (audit.number, audit.holder)
    )
    if gone.rowcount != 1:
        raise _lost()


def is_there(connection: Connection, root: bytes, position: int) -> bool:
    """Whether the receipt at a place of a batch waits for its audit, or is being audited."""
    row = connection.execute(
        "SELECT 1 FROM jobs WHERE root = ? AND position = ?", (root, position)
    ).fetchone()
    return row is not None


def count(connection: Connection) -> int:
    """Audits that wait or are being made."""
    return int(connection.execute("SELECT count(*) FROM jobs").fetchone()[0])


def _take(connection: Connection, holder: bytes, now_ms: int, lease_ms: int) -> Audit | None:
    # A draw is in the log before anything is demanded under it (draws.entry).
    row = connection.execute(
        "SELECT jobs.number, root, position, jobs.entry, node, draws.note, third, asked_ms, "
        "refused, opening, attempts FROM jobs JOIN draws ON draws.number = jobs.draw "
        "WHERE due_ms <= ? AND lease_ms <= ? AND draws.entry IS NOT NULL "
        "ORDER BY due_ms, jobs.number LIMIT 1",
        (now_ms, now_ms),
    ).fetchone()
    if row is None:
        return None
    connection.execute(
        "UPDATE jobs SET holder = ?, lease_ms = ? WHERE number = ?",
        (holder, lease_ms, row[0]),
    )
    return Audit(
        number=row[0], root=row[1], position=row[2], entry=row[3], node=row[4], draw=row[5],
        third=bool(row[6]), asked_ms=row[7], refused=row[8], opening=row[9], attempts=row[10],
        holder=holder,
    )  # fmt: skip


def _lost() -> ConflictError:
    return ConflictError("another process of this verifier has taken this audit")
