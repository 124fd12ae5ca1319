"""A durable queue of deliveries to another service: each is made at least once, whatever crashes.

An entry is put in by the transaction that makes it necessary, and leaves in the transaction that
records its delivery, so neither can exist without the other. Delivery must therefore be safe to
repeat: a crash between the other side's yes and our commit delivers again. Refuses to drop
anything: an entry that the other side will never take is set aside, counted, and kept.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

import msgspec

from trunkline.base.errors import CorruptStateError, Error, UpstreamError
from trunkline.base.ports import Clock, Randomness
from trunkline.runtime.logger import Logger, describe
from trunkline.runtime.store import Connection, Database, SqlValue

ResultT = TypeVar("ResultT")

SCHEMA: Final = """
CREATE TABLE outbox (
    number INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    key TEXT NOT NULL,
    payload BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL DEFAULT 0,
    refused TEXT,
    UNIQUE (queue, key)
) STRICT;
CREATE INDEX outbox_due ON outbox (queue, due_ms, number) WHERE refused IS NULL;
"""
"""One migration for :meth:`Database.open`, shared by all outboxes of a store."""

ROUND_MAX: Final = 64
"""Entries taken from the store at a time."""
POLL_S_MAX: Final = 30.0
"""The store is looked at this often even if nothing was announced."""


class OutboxPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How hard to try."""

    concurrency: int = 8
    backoff_s_min: float = 0.25
    backoff_s_max: float = 30.0
    delivery_timeout_s: float = 30.0


class OutboxCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What is in the queue now, and what this process has done."""

    waiting: int
    refused: int
    """Set aside for good; somebody should look."""
    delivered: int
    """Since this process started."""
    failed: int
    """Tries that failed, since this process started."""


class _Entry(msgspec.Struct, frozen=True):
    number: int
    key: str
    payload: bytes
    attempts: int


class Outbox(Generic[ResultT]):
    """One named queue in a store.

    ``deliver`` hands one payload over and returns what came of it; ``on_delivered`` records that
    in the transaction which removes the entry. ``deliver`` raises an UpstreamError that is
    ``retryable`` (or any OSError or TimeoutError) to be called again later, and any other
    :class:`Error` to have the entry set aside.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        deliver: Callable[[str, bytes], Awaitable[ResultT]],
        *,
        clock: Clock,
        randomness: Randomness,
        logger: Logger,
        on_delivered: Callable[[Connection, str, ResultT], None] | None = None,
        policy: OutboxPolicy | None = None,
    ) -> None:
        self._database = database
        self._name = name
        self._deliver = deliver
        self._on_delivered = on_delivered
        self._clock = clock
        self._randomness = randomness
        self._logger = logger.bind(outbox=name)
        self._policy = policy or OutboxPolicy()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._announced = asyncio.Event()
        self._idle = asyncio.Event()
        self._failures_in_row = 0
        self._delivered = 0
        self._failed = 0

    def enqueue(self, connection: Connection, key: str, payload: bytes) -> bool:
        """Put ``payload`` in the queue, inside the caller's write. False if ``key`` is there
        already: then nothing changes, the first payload stands."""
        before = connection.total_changes
        connection.execute(
            "INSERT INTO outbox (queue, key, payload) VALUES (?, ?, ?) "
            "ON CONFLICT (queue, key) DO NOTHING",
            (self._name, key, payload),
        )
        if self._loop is not None:
            # This is the writer thread, before the commit; the drain loop waits for that itself.
            self._loop.call_soon_threadsafe(self._announced.set)
        return connection.total_changes > before

    def look(self) -> None:
        """Look at the store soon: another process that shares it may have put something in."""
        self._announced.set()

    async def run(self) -> None:
        """Deliver until cancelled. An entry whose delivery is cut short is delivered again."""
        self._loop = asyncio.get_running_loop()
        self._announced.set()
        while True:
            await self._wait_for_work()
            while entries := await self._due():
                before = self._failures_in_row
                await self._deliver_all(entries)
                if self._failures_in_row > before:
                    # The other side is in trouble: all entries wait, not each one in its turn.
                    await asyncio.sleep(self._backoff_s(self._failures_in_row))

    async def counts(self) -> OutboxCounts:
        """What is waiting, and what has been done."""
        waiting, refused = await self._database.read(self._count)
        return OutboxCounts(
            waiting=waiting, refused=refused, delivered=self._delivered, failed=self._failed
        )

    async def drained(self) -> None:
        """Wait until nothing is waiting for delivery. The caller bounds the wait."""
        while (await self.counts()).waiting:
            self._idle.clear()
            if (await self.counts()).waiting:
                await self._idle.wait()

    async def _wait_for_work(self) -> None:
        due_in_s = await self._next_due_s()
        try:
            async with asyncio.timeout(due_in_s):
                await self._announced.wait()
        except TimeoutError:
            return
        self._announced.clear()
        # An empty write is committed after whatever was announced.
        await self._database.write(lambda _: None)

    async def _next_due_s(self) -> float:
        def earliest(connection: Connection) -> int | None:
            row = connection.execute(
                "SELECT min(due_ms) FROM outbox WHERE queue = ? AND refused IS NULL", (self._name,)
            ).fetchone()
            return None if row[0] is None else int(row[0])

        due_ms = await self._database.read(earliest)
        if due_ms is None:
            self._idle.set()
            return POLL_S_MAX
        return min(max(due_ms - self._clock.unix_ms(), 0) / 1000, POLL_S_MAX)

    async def _due(self) -> list[_Entry]:
        now_ms = self._clock.unix_ms()
        # Wall time may have stepped back: nothing is ever due later than the longest back-off.
        horizon_ms = now_ms + int(self._policy.backoff_s_max * 1000)

        def select(connection: Connection) -> list[_Entry]:
            rows = connection.execute(
                "SELECT number, key, payload, attempts FROM outbox WHERE queue = ? "
                "AND refused IS NULL AND (due_ms <= ? OR due_ms > ?) "
                "ORDER BY due_ms, number LIMIT ?",
                (self._name, now_ms, horizon_ms, ROUND_MAX),
            )
            return [_Entry(*row) for row in rows]

        return await self._database.read(select)

    async def _deliver_all(self, entries: list[_Entry]) -> None:
        limit = asyncio.Semaphore(self._policy.concurrency)

        async def one(entry: _Entry) -> None:
            async with limit:
                await self._deliver_one(entry)

        async with asyncio.TaskGroup() as group:
            for entry in entries:
                group.create_task(one(entry))

    async def _deliver_one(self, entry: _Entry) -> None:
        try:
            async with asyncio.timeout(self._policy.delivery_timeout_s):
                result = await self._deliver(entry.key, entry.payload)
        except Exception as error:  # noqa: BLE001 - a queue must outlive whatever a delivery does
            await self._note_failure(entry, error)
            return

        def settle(connection: Connection) -> None:
            # Not by its number alone: where another process has delivered it meanwhile, that may be
            # a later entry's.
            gone = connection.execute(
                "DELETE FROM outbox WHERE number = ? AND queue = ? AND key = ?",
                (entry.number, self._name, entry.key),
            )
            if gone.rowcount and self._on_delivered is not None:
                self._on_delivered(connection, entry.key, result)

        # A crash before this commit delivers again, to a side that knows the entry already.
        if await self._recorded(settle):
            self._delivered += 1
            self._failures_in_row = 0

    async def _note_failure(self, entry: _Entry, error: Exception) -> None:
        self._failed += 1
        permanent = isinstance(error, Error) and not (
            isinstance(error, UpstreamError) and error.retryable
        )
        if permanent and isinstance(error, Error):
            self._logger.error("delivery.refused", key=entry.key, **describe(error, frames=False))
            await self._update(
                "UPDATE outbox SET refused = ?, attempts = attempts + 1 WHERE number = ? "
                "AND queue = ? AND key = ?",
                (error.error_code, entry.number, self._name, entry.key),
            )
            return
        self._failures_in_row += 1
        wait_s = self._backoff_s(entry.attempts + 1)
        if isinstance(error, UpstreamError) and error.retry_after_s is not None:
            wait_s = min(max(wait_s, error.retry_after_s), self._policy.backoff_s_max)
        self._logger.warning(
            "delivery.failed", key=entry.key, attempts=entry.attempts + 1, **describe(error)
        )
        due_ms = self._clock.unix_ms() + int(wait_s * 1000)
        await self._update(
            "UPDATE outbox SET attempts = attempts + 1, due_ms = ? WHERE number = ? "
            "AND queue = ? AND key = ?",
            (due_ms, entry.number, self._name, entry.key),
        )

    async def _update(self, statement: str, values: tuple[SqlValue, ...]) -> None:
        await self._recorded(lambda connection: connection.execute(statement, values))

    async def _recorded(self, change: Callable[[Connection], object]) -> bool:
        """Whether ``change`` was committed. If the disk refused, the entry stays as it was and is
        delivered again after a pause; a damaged store ends the process instead."""
        try:
            await self._database.write(change)
        except CorruptStateError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._failures_in_row += 1
            self._logger.crashed("delivery.unrecorded", error)
            return False
        return True

    def _backoff_s(self, failures: int) -> float:
        """Doubles with each failure up to the bound; of that, a random part from half to all, so
        that many waiters do not come back at once."""
        policy = self._policy
        full_s = min(policy.backoff_s_min * 2.0 ** min(failures - 1, 30), policy.backoff_s_max)
        part = int.from_bytes(self._randomness.token(2), "big") / 65535
        return full_s * (0.5 + 0.5 * part)

    def _count(self, connection: Connection) -> tuple[int, int]:
        row = connection.execute(
            "SELECT count(*) FILTER (WHERE refused IS NULL), "
            "count(*) FILTER (WHERE refused IS NOT NULL) FROM outbox WHERE queue = ?",
            (self._name,),
        ).fetchone()
        return int(row[0]), int(row[1])
