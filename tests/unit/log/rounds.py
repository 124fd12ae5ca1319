"""A log that is played in rounds while what it writes to fails, and started again when it stops."""

import asyncio

from tests.unit.log.conftest import LOG, make_entry

from trunkline.base.errors import CorruptStateError, Error
from trunkline.log.app import LogService
from trunkline.log.config import LogConfig
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.logger import get_logger
from trunkline.runtime.store import DiskError

BEFORE = 250
ROUNDS = ((250, 252), (252, 258), (258, 259), (259, 262))
"""The second one finishes a tile, so that every kind of file or object is written."""
STARTS_MAX = 4


def service(data, tiles, **config):
    return LogService(
        config=LogConfig(origin=LOG.name, checkpoint_interval_ms=0, **config),
        data=data,
        signer=LOG,
        transport=HttpTransport(),
        clock=SystemClock(),
        logger=get_logger("log"),
        tiles=tiles,
        on_fatal=lambda: None,
    )


async def add(log, numbers):
    """Indexes by number, of those that were acknowledged; every other one got an Error."""
    results = await asyncio.gather(
        *(log._sequencer.add(make_entry(number)) for number in numbers), return_exceptions=True
    )
    assert all(isinstance(one, int | Error) for one in results), results
    return {n: one for n, one in zip(numbers, results, strict=True) if isinstance(one, int)}


async def run_rounds(log, rounds):
    """Start the log, play rounds until it stops by itself; what was acknowledged."""
    acknowledged = {}
    try:
        await log.startup()
        for begin, end in rounds:
            acknowledged |= await add(log, range(begin, end))
            if log.fatal is not None:
                break
    except (DiskError, CorruptStateError):
        # It could not even start: a person looks, and starts it again.
        pass
    finally:
        await log.shutdown()
    return acknowledged


async def play_and_recover(run, faulty, check):
    """Play the rounds with ``run`` on what is ``faulty``, starting again after each stop; then play
    everything on the same healed: nothing that was acknowledged is lost, nothing is there twice,
    and ``check`` finds nothing wrong."""
    acknowledged = {}
    for _ in range(STARTS_MAX):
        acknowledged |= await run(ROUNDS)
    faulty.plan = {}
    size = ROUNDS[-1][1]
    again = await run([(0, size)])
    assert sorted(again.values()) == list(range(size))
    assert acknowledged.items() <= again.items()
    report = await check()
    assert (report.size, report.problems, report.leftovers) == (size, [], 0)
