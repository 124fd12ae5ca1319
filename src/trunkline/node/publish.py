"""Hands the node's batches to its log: durably queued with the receipts, delivered at least once.

Runs beside the answers and never in front of them. The log takes the same entry twice and gives the
same index, so a delivery repeated after a crash changes nothing.
"""

from functools import partial
from typing import Final

from trunkline.base.ports import Clock, Randomness
from trunkline.node import store
from trunkline.remote.log import LogCaller
from trunkline.runtime.logger import Logger
from trunkline.runtime.outbox import Outbox, OutboxPolicy
from trunkline.runtime.store import Database

QUEUE: Final = "log"
POLICY: Final = OutboxPolicy(concurrency=4, backoff_s_min=0.2, backoff_s_max=15.0)
_ROUND: Final = 64


def publisher(
    database: Database,
    log: LogCaller,
    *,
    clock: Clock,
    randomness: Randomness,
    logger: Logger,
) -> Outbox[int]:
    """The outbox whose deliveries are ``POST /add`` with a batch's note; the index is kept."""

    async def deliver(root_hex: str, note: bytes) -> int:
        return await log.add(note)

    return Outbox(
        database,
        QUEUE,
        deliver,
        clock=clock,
        randomness=randomness,
        logger=logger,
        on_delivered=store.note_logged,
        policy=POLICY,
    )


async def catch_up(database: Database, outbox: Outbox[int]) -> None:
    """Queue batches that were signed while the node had no log."""
    after = 0
    while True:
        rows = await database.read(partial(store.not_logged, after=after, limit=_ROUND))
        if not rows:
            return
        for number, root_hex, note in rows:
            # One that is queued already stays as it is.
            await database.write(partial(outbox.enqueue, key=root_hex, payload=note))
            after = number
