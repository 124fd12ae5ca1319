"""Brings a verifier's statements to the log: queued with what they state, delivered at least once.

The log takes the same bytes twice and gives the same index, so a delivery repeated after a crash
changes nothing. What is signed is stored before it is published, so no second, different statement
can follow a crash.
"""

from collections.abc import Callable
from typing import Final

from trunkline.base.ports import Clock, Randomness
from trunkline.crypto.digest import digest
from trunkline.remote.log import LogCaller
from trunkline.runtime.crash import CrashHook
from trunkline.runtime.logger import Logger
from trunkline.runtime.outbox import Outbox, OutboxCounts, OutboxPolicy
from trunkline.runtime.store import Connection, Database
from trunkline.verifier import crash, showing

QUEUE: Final = "log"
POLICY: Final = OutboxPolicy(concurrency=4, backoff_s_min=0.2, backoff_s_max=15.0)


class Publisher:
    """What goes to the log, and what is noted once it is there."""

    def __init__(
        self,
        database: Database,
        log: LogCaller,
        *,
        clock: Clock,
        randomness: Randomness,
        logger: Logger,
        reach: CrashHook,
        on_logged: Callable[[], None],
    ) -> None:
        """``on_logged`` is called, in whatever thread, when a statement has reached the log."""
        self._clock = clock
        self._reach = reach
        self._on_logged = on_logged

        async def deliver(_key: str, note: bytes) -> int:
            return await log.add(note)

        self._outbox: Outbox[int] = Outbox(
            database,
            QUEUE,
            deliver,
            clock=clock,
            randomness=randomness,
            logger=logger,
            on_delivered=self._note,
            policy=POLICY,
        )

    async def run(self) -> None:
        """Deliver until cancelled."""
        await self._outbox.run()

    def look(self) -> None:
        """Deliver what other processes of this verifier have left too."""
        self._outbox.look()

    async def counts(self) -> OutboxCounts:
        """What waits."""
        return await self._outbox.counts()

    def draw(self, connection: Connection, note: bytes) -> None:
        """Queue a draw, inside the caller's transaction; likewise the others."""
        self._outbox.enqueue(connection, f"draw {digest(note)}", note)

    def commitment(self, connection: Connection, leaf: str, note: bytes) -> None:
        self._outbox.enqueue(connection, f"commitment {leaf}", note)

    def verdict(self, connection: Connection, leaf: str, note: bytes, *, picked: bool) -> None:
        self._outbox.enqueue(connection, f"{'picked' if picked else 'verdict'} {leaf}", note)

    def statement(self, connection: Connection, note: bytes) -> None:
        """Anything else that is to be in the log: a calibration, a self-test."""
        self._outbox.enqueue(connection, f"statement {digest(note)}", note)

    def _note(self, connection: Connection, key: str, index: int) -> None:
        # A crash before this commit: the log has it, and is given it again.
        self._reach(crash.STATEMENT_LOGGED)
        kind, _, what = key.partition(" ")
        match kind:
            case "draw":
                connection.execute("UPDATE draws SET entry = ? WHERE digest = ?", (index, what))
            case "commitment":
                connection.execute(
                    "UPDATE verdicts SET committed_ms = ? WHERE leaf = ? AND picked = 0 "
                    "AND committed_ms IS NULL",
                    (self._clock.unix_ms(), what),
                )
            case "verdict" | "picked":
                showing.logged(connection, what, index, picked=kind == "picked")
            case _:
                pass
        self._on_logged()
