"""Hands the node's notes to its log: durably queued with what they say, delivered at least once.

Runs beside the answers and never in front of them. The log takes the same entry twice and gives the
same index, so a delivery repeated after a crash changes nothing. Notes go in any order, but for
one rule: commitments to nonces (``docs/spec/receipt.md``, "Nonces") and the node's terms are in the
log before any batch that was queued after them. A log that takes neither gets the batches all the
same.
"""

from functools import partial
from typing import Final

from trunkline.base.errors import UpstreamError
from trunkline.base.ports import Clock, Randomness
from trunkline.node import nonce_store, store
from trunkline.remote.log import LogCaller
from trunkline.runtime.logger import Logger
from trunkline.runtime.outbox import Outbox, OutboxPolicy
from trunkline.runtime.store import Connection, Database

QUEUE: Final = "log"
POLICY: Final = OutboxPolicy(concurrency=4, backoff_s_min=0.2, backoff_s_max=15.0)
SELF_TEST_KEY: Final = "self-test/"
"""Begins the outbox's key of a self-test; its digest follows."""
TERMS_KEY: Final = "terms/"
"""The same, of terms."""
_ROUND: Final = 64


def publisher(
    database: Database,
    log: LogCaller,
    *,
    clock: Clock,
    randomness: Randomness,
    logger: Logger,
) -> Outbox[int]:
    """The outbox whose deliveries are ``POST /add`` with a note; the index is kept.

    Keys: a batch's root in hex; of other notes, what they are, a slash, and a digest in hex.
    """

    async def deliver(key: str, note: bytes) -> int:
        if "/" not in key:
            for earlier in await database.read(_before_batches):
                await _add_first(log, earlier)
        return await log.add(note)

    return Outbox(
        database,
        QUEUE,
        deliver,
        clock=clock,
        randomness=randomness,
        logger=logger,
        on_delivered=_note_logged,
        policy=POLICY,
    )


async def catch_up(database: Database, outbox: Outbox[int]) -> None:
    """Queue what was signed while the node had no log."""
    for key, note in await database.read(nonce_store.not_logged):
        # One that is queued already stays as it is.
        await database.write(partial(outbox.enqueue, key=key, payload=note))
    after = 0
    while True:
        rows = await database.read(partial(store.not_logged, after=after, limit=_ROUND))
        if not rows:
            return
        for number, root_hex, note in rows:
            await database.write(partial(outbox.enqueue, key=root_hex, payload=note))
            after = number


def _before_batches(connection: Connection) -> list[bytes]:
    """Notes still to be delivered that batches come after, oldest first."""
    rows = connection.execute(
        "SELECT payload FROM outbox WHERE refused IS NULL AND "
        "(key >= ? AND key < ? OR key >= ? AND key < ?) ORDER BY number",
        (nonce_store.KEY_PREFIX, nonce_store.KEY_PREFIX + "g", TERMS_KEY, TERMS_KEY + "g"),
    )
    return [row[0] for row in rows]


async def _add_first(log: LogCaller, note: bytes) -> None:
    """Add a note before the batches that may need it. Its own delivery, which the log then
    knows already, records its index; a refusal for good is recorded there too."""
    try:
        await log.add(note)
    except UpstreamError as error:
        if error.retryable:
            raise


def _note_logged(connection: Connection, key: str, index: int) -> None:
    if key.startswith(nonce_store.KEY_PREFIX):
        nonce_store.note_logged(connection, key, index)
    elif "/" not in key:
        store.note_logged(connection, key, index)
