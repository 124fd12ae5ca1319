"""Hands the node's notes to its log: durably queued with what they say, delivered at least once.

Runs beside the answers and never in front of them. The log takes the same entry twice and gives the
same index, so a delivery repeated after a crash changes nothing. Notes go in any order, but for
one rule: commitments to nonces (``docs/spec/receipt.md``, "Nonces") and what the node states, terms
and self-tests, are in the log before any batch that was queued after them. A log that takes none of
these gets the batches all the same. Nothing waits for a batch: which statement holds for one that
comes late is told by their dates (``dates``).
"""

import asyncio
from functools import partial
from typing import Final

from trunkline.base.errors import UpstreamError
from trunkline.base.ports import Clock, Randomness
from trunkline.crypto import note as notes
from trunkline.node import nonce_store, store
from trunkline.remote.log import LogCaller
from trunkline.runtime.logger import Logger
from trunkline.runtime.outbox import Outbox, OutboxPolicy
from trunkline.runtime.store import Connection, Database
from trunkline.tlog.checkpoint import Checkpoint

QUEUE: Final = "log"
POLICY: Final = OutboxPolicy(concurrency=16, backoff_s_min=0.2, backoff_s_max=15.0)
"""What is delivered at once shares a round of the log, which takes as long for many entries as for
one: so this is how many batches a node brings there in a round."""
SHOWN_S: Final = 0.1
"""Between two looks at whether the log shows an entry: it takes a round, and its witnesses."""
SELF_TEST_KEY: Final = "self-test/"
"""Begins the outbox's key of a self-test; its digest follows."""
TERMS_KEY: Final = "terms/"
"""The same, of terms."""
_AFTER_ROOTS: Final = "g"
"""Keys of batches are below it, all others above, so that of a long queue only those are read."""
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

    earlier = _Earlier(database, log)

    async def deliver(key: str, note: bytes) -> int:
        if key < _AFTER_ROOTS:
            await earlier.add()
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


async def show(log: LogCaller, note: bytes) -> None:
    """Have the log take an entry, and wait until everybody can see it there. Raises the log's
    failures; the caller bounds the wait."""
    index = await log.add(note)
    while True:
        if Checkpoint.parse(notes.parse(await log.checkpoint()).text).size > index:
            return
        await asyncio.sleep(SHOWN_S)


class _Earlier:
    """What batches come after, brought to the log once for all batches that are on their way."""

    def __init__(self, database: Database, log: LogCaller) -> None:
        self._database = database
        self._log = log
        self._lock = asyncio.Lock()
        self._there: set[str] = set()

    async def add(self) -> None:
        """Have the log take what is still to be delivered. Raises its failures."""
        rows = await self._database.read(_before_batches)
        async with self._lock:
            self._there.intersection_update(key for key, _ in rows)
            missing = [row for row in rows if row[0] not in self._there]
            for begin in range(0, len(missing), POLICY.concurrency):
                some = missing[begin : begin + POLICY.concurrency]
                await asyncio.gather(*(self._add(key, note) for key, note in some))

    async def _add(self, key: str, note: bytes) -> None:
        """Its own delivery, which the log then knows already, records its index; a refusal for
        good is recorded there too."""
        try:
            await self._log.add(note)
        except UpstreamError as error:
            if error.retryable:
                raise
        self._there.add(key)


def _before_batches(connection: Connection) -> list[tuple[str, bytes]]:
    """Notes still to be delivered that batches come after, oldest first."""
    return connection.execute(
        "SELECT key, payload FROM outbox WHERE queue = ? AND key >= ? AND refused IS NULL "
        "ORDER BY number",
        (QUEUE, _AFTER_ROOTS),
    ).fetchall()


def _note_logged(connection: Connection, key: str, index: int) -> None:
    if key.startswith(nonce_store.KEY_PREFIX):
        nonce_store.note_logged(connection, key, index)
    elif "/" not in key:
        store.note_logged(connection, key, index)
