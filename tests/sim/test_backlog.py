"""A backlog of batches and statements, brought to a log by rounds, in virtual time."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final

import pytest

from trunkline.base.errors import ConnectError
from trunkline.node import nonce_store, publish, store
from trunkline.remote.log import LogCaller
from trunkline.runtime.logger import get_logger
from trunkline.runtime.outbox import Outbox, OutboxCounts
from trunkline.runtime.store import Connection
from trunkline.sim.disk import Disk
from trunkline.sim.loop import run
from trunkline.sim.ports import SimClock, SimRandomness

ROUND_S: Final = 1.0
STATEMENTS: Final = (nonce_store.KEY_PREFIX, publish.TERMS_KEY, publish.SELF_TEST_KEY)


class RoundsLog(LogCaller):
    """Sequences what has come once a round, as the log does; and may be away."""

    __slots__ = ("away", "entries", "pending")

    def __init__(self) -> None:  # no transport to hand to the parent
        self.entries: list[bytes] = []
        self.pending: dict[bytes, asyncio.Future[int]] = {}
        self.away = False

    async def sequence(self) -> None:
        while True:
            await asyncio.sleep(ROUND_S)
            taken, self.pending = self.pending, {}
            for entry, index in taken.items():
                if entry not in self.entries:
                    self.entries.append(entry)
                index.set_result(self.entries.index(entry))

    async def add(self, entry: bytes) -> int:
        if self.away:
            raise ConnectError("away")
        if entry not in self.pending:
            self.pending[entry] = asyncio.get_running_loop().create_future()
        return await asyncio.shield(self.pending[entry])


def batch(number: int) -> tuple[str, bytes]:
    return f"{number:064x}", b"batch %d" % number


def statement(prefix: str, number: int) -> tuple[str, bytes]:
    return f"{prefix}{number:064x}", f"{prefix} {number}".encode()


def queued(*notes: tuple[str, bytes]) -> Callable[[Outbox[int]], Callable[[Connection], None]]:
    def within(outbox: Outbox[int]) -> Callable[[Connection], None]:
        def put(connection: Connection) -> None:
            for key, note in notes:
                outbox.enqueue(connection, key, note)

        return put

    return within


def made(disk: Disk, log: RoundsLog) -> Outbox[int]:
    return publish.publisher(
        disk.mount(),
        log,
        clock=SimClock(),
        randomness=SimRandomness("backlog"),
        logger=get_logger("test"),
    )


async def _fresh(backlog: int) -> tuple[float, OutboxCounts]:
    """Seconds until a batch is in the log that was signed with a backlog before it, and what was
    stated in the middle of that."""
    log, disk = RoundsLog(), Disk("node", store.MIGRATIONS, Random("backlog"))  # noqa: S311
    outbox = made(disk, log)
    half = backlog // 2
    await disk.mount().write(
        queued(
            *map(batch, range(half)),
            *(statement(prefix, 1) for prefix in STATEMENTS),
            *map(batch, range(half, backlog)),
        )(outbox)
    )
    tasks = [asyncio.create_task(work) for work in (log.sequence(), outbox.run())]
    await asyncio.sleep(ROUND_S / 10)
    key, note = batch(backlog)
    await disk.mount().write(queued((key, note))(outbox))
    began_s = asyncio.get_running_loop().time()
    await outbox.drained()
    took_s = asyncio.get_running_loop().time() - began_s
    for task in tasks:
        task.cancel()
    for prefix in STATEMENTS:
        stated = log.entries.index(statement(prefix, 1)[1])
        assert all(log.entries.index(batch(one)[1]) > stated for one in range(half, backlog + 1))
    return took_s, await outbox.counts()


@pytest.mark.parametrize("backlog", [2, 20, 64, 200])
def test_a_batch_is_in_the_log_after_as_many_rounds_as_the_batches_before_it_take(
    backlog: int,
) -> None:
    """The standstill of before: a statement that added all batches before it one by one, a round of
    the log each, while every new batch waited for the statement."""
    took_s, counts = run(_fresh(backlog), seed="0", limit_s=600.0)
    rounds = backlog / 16 + 6
    assert took_s <= rounds * ROUND_S
    assert counts.failed == 0


def test_keys_of_batches_are_apart_from_all_others() -> None:
    assert all(key < publish._AFTER_ROOTS for key, _ in map(batch, (0, 2**256 - 1)))
    assert all(prefix > publish._AFTER_ROOTS for prefix in STATEMENTS)
