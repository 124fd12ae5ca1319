"""A disk that outlives the process using it, and fails in twins.

SQLite in memory behind :class:`trunkline.runtime.store.Database`: the real statements and
transactions of the real stores, without its threads. Each write can meet a fate: it fails and is
not stored; it fails *but is stored*; the process dies before the commit, or after the commit and
before anybody was told.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from enum import Enum, auto
from random import Random
from typing import TypeVar

from trunkline.base.errors import Error
from trunkline.runtime.store import Connection, Database, DiskError
from trunkline.sim.process import Process

T = TypeVar("T")

WRITE_S_MAX = 0.02


class Fate(Enum):
    """What becomes of one write."""

    STORED = auto()
    FAILED = auto()
    FAILED_BUT_STORED = auto()
    DIED_BEFORE = auto()
    DIED_AFTER = auto()


class Disk:
    """One machine's disk. :attr:`fate` decides over each write; ``kill`` ends the process."""

    def __init__(self, name: str, migrations: Sequence[str], random: Random) -> None:
        self.name = name
        self.random = random
        self.fate: Callable[[], Fate] = lambda: Fate.STORED
        self.kill: Callable[[], None] = lambda: None
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        for script in migrations:
            self.connection.executescript(script)

    def mount(self) -> "SimDatabase":
        """Open the store for the process that runs now."""
        return SimDatabase(self)

    def close(self) -> None:
        """Throw the disk away."""
        self.connection.close()


class SimDatabase(Database):
    """:class:`Database` on a :class:`Disk`, for one process's life."""

    def __init__(self, disk: Disk) -> None:  # no files, threads or lock to hand to the parent
        self._disk = disk
        self._owner = Process.current()

    async def write(self, work: Callable[[Connection], T]) -> T:
        # As with the real writer, cancelling the caller does not take the write back.
        task = asyncio.create_task(self._write(work), name="disk.write")
        task.add_done_callback(_looked_at)
        return await asyncio.shield(task)

    async def _write(self, work: Callable[[Connection], T]) -> T:
        disk = self._disk
        fate = disk.fate()
        await asyncio.sleep(disk.random.uniform(0.0002, WRITE_S_MAX))
        await self._must_live()
        match fate:
            case Fate.FAILED:
                raise DiskError(f"{disk.name}: no space left")
            case Fate.DIED_BEFORE:
                disk.kill()
                await self._dead()
            case Fate.STORED | Fate.FAILED_BUT_STORED | Fate.DIED_AFTER:
                pass
        found = self._commit(work)
        if fate is Fate.DIED_AFTER:
            disk.kill()
            await self._dead()
        if fate is Fate.FAILED_BUT_STORED:
            raise DiskError(f"{disk.name}: the commit was not confirmed")
        await asyncio.sleep(disk.random.uniform(0.0, WRITE_S_MAX))
        return found

    async def read(self, work: Callable[[Connection], T]) -> T:
        await asyncio.sleep(self._disk.random.uniform(0.0, 0.001))
        await self._must_live()
        return work(self._disk.connection)

    def close(self) -> None:
        """Nothing to close: the disk stays."""

    async def aclose(self) -> None:
        """Nothing to close: the disk stays."""

    def _commit(self, work: Callable[[Connection], T]) -> T:
        connection = self._disk.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = work(connection)
        except (Error, sqlite3.Error):
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return found

    async def _must_live(self) -> None:
        if self._owner is not None and not self._owner.alive:
            await self._dead()

    async def _dead(self) -> None:
        """A dead process's call to its disk never returns; being cancelled ends it."""
        await asyncio.get_running_loop().create_future()


def _looked_at(task: "asyncio.Task[T]") -> None:
    """A write whose caller has left may fail unheard."""
    if not task.cancelled():
        task.exception()
