"""The virtual loop, and what processes and disks in it must be for the rest to mean anything."""

import asyncio
import threading
import time
from contextvars import Context
from pathlib import Path
from random import Random

import pytest

from trunkline.runtime.store import DiskError
from trunkline.sim.disk import Disk, Fate
from trunkline.sim.loop import run
from trunkline.sim.process import Process, install


async def _order() -> tuple[int, ...]:
    came: list[int] = []

    async def one(number: int) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        came.append(number)

    await asyncio.gather(*(one(number) for number in range(8)))
    return tuple(came)


def test_a_seed_is_an_order_and_the_same_seed_the_same() -> None:
    orders = {run(_order(), seed=str(seed), limit_s=1.0) for seed in range(20)}
    again = {run(_order(), seed="7", limit_s=1.0) for _ in range(20)}
    assert len(orders) == 20
    assert len(again) == 1


def test_hours_pass_in_no_time() -> None:
    async def wait() -> float:
        await asyncio.sleep(10 * 3600)
        return asyncio.get_running_loop().time()

    begun = time.monotonic()
    assert run(wait(), seed="0", limit_s=1e6) == pytest.approx(36_000)
    assert time.monotonic() - begun < 5


def test_a_world_that_stands_still_is_an_error() -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        run(forever(), seed="0", limit_s=10.0)


def test_a_threads_work_takes_place_here_at_a_moment_of_the_seeds() -> None:
    async def use_two() -> tuple[str, ...]:
        came: list[str] = []
        here = threading.get_ident()

        def work(name: str) -> None:
            assert threading.get_ident() == here
            came.append(name)

        await asyncio.gather(*(asyncio.to_thread(work, name) for name in "ab"))
        return tuple(came)

    assert len({run(use_two(), seed=str(seed), limit_s=1.0) for seed in range(20)}) == 2

    async def fail() -> None:
        await asyncio.to_thread(Path("/nowhere/at/all").read_bytes)

    with pytest.raises(OSError, match="No such file"):
        run(fail(), seed="0", limit_s=1.0)


def test_a_killed_process_takes_all_its_tasks_along() -> None:
    async def scene() -> tuple[list[str], bool]:
        install(asyncio.get_running_loop())
        said: list[str] = []

        async def child() -> None:
            await asyncio.sleep(5)
            said.append("child")

        async def parent() -> None:
            task = asyncio.create_task(child())
            await asyncio.sleep(1)
            said.append("parent")
            await task

        process, other = Process("one"), Process("other")
        process.spawn(parent())
        other.spawn(child())
        await asyncio.sleep(2)
        await process.kill()
        await asyncio.sleep(10)
        return said, process.alive

    assert run(scene(), seed="0", limit_s=60.0) == (["parent", "child"], False)


@pytest.mark.parametrize(
    ("fate", "told", "stored"),
    [
        (Fate.STORED, True, 1),
        (Fate.FAILED, False, 0),
        (Fate.FAILED_BUT_STORED, False, 1),
        (Fate.DIED_BEFORE, False, 0),
        (Fate.DIED_AFTER, False, 1),
    ],
)
def test_writes_fail_in_twins(fate: Fate, told: bool, stored: int) -> None:
    disk = Disk("disk", ("CREATE TABLE t (x INTEGER) STRICT",), Random(1))  # noqa: S311
    disk.fate = lambda: fate

    async def scene() -> bool:
        install(asyncio.get_running_loop())
        process = Process("one")
        deaths: list[asyncio.Task[None]] = []
        disk.kill = lambda: deaths.append(
            asyncio.get_running_loop().create_task(process.kill(), context=Context())
        )

        async def write() -> None:
            await disk.mount().execute("INSERT INTO t VALUES (1)")

        task = process.spawn(write())
        await asyncio.wait([task])
        if task.cancelled():
            await asyncio.gather(*deaths)
            assert not process.alive
            return False
        error = task.exception()
        assert error is None or isinstance(error, DiskError)
        return error is None

    try:
        assert run(scene(), seed="0", limit_s=60.0) is told
        assert disk.connection.execute("SELECT COUNT(*) FROM t").fetchone()[0] == stored
    finally:
        disk.close()
