"""A node that dies between any two steps, with a log that is away for minutes: every receipt that a
caller has is logged in the end, and read by what the process that signed it had stated."""

import asyncio
from contextvars import Context
from random import Random

import msgspec
import pytest
from tests.sim.test_backlog import ROUND_S, RoundsLog
from tests.unit.node.harness import KEY, SIGNER
from tests.unit.node.test_signing import receipt

from trunkline.node import publish, store
from trunkline.node.config import AuditsConfig, AuditVerifier
from trunkline.node.dates import Dates, last_dated
from trunkline.node.signing import ReceiptSigner
from trunkline.node.terms import StatedTerms
from trunkline.receipts.batch import open_batch
from trunkline.runtime.logger import get_logger
from trunkline.runtime.outbox import Outbox
from trunkline.runtime.store import Database
from trunkline.schema.attempt import SignedReceipt
from trunkline.sim.disk import Disk, Fate
from trunkline.sim.loop import run
from trunkline.sim.ports import SimClock, SimRandomness
from trunkline.sim.process import Process, install
from trunkline.verdicts import Terms
from trunkline.verifier import store as verifier_store

LIVES = 6
ANSWERS = 12
CLOCK_OFF_MS = 60_000


class Scene:
    """One node's machine, and its log."""

    def __init__(self, seed: str) -> None:
        self.random = Random(seed)  # noqa: S311 - to be repeated
        self.disk = Disk("node", store.MIGRATIONS, Random(seed))  # noqa: S311 - as above
        self.log = RoundsLog()
        self.held: dict[bytes, int] = {}
        """Notes of the batches whose receipts callers have, and in which life they were signed."""

    async def live(self, life: int, *, last: bool) -> None:
        """Begin, answer, and die at a write; the last life answers, and brings all to the log."""
        process = Process(f"life {life}")
        deaths: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        self.disk.kill = lambda: deaths.append(loop.create_task(process.kill(), context=Context()))
        writes = self.random.randrange(1, 40)
        fates = iter([Fate.STORED] * writes + [self.random.choice(tuple(Fate)[3:])])
        self.disk.fate = lambda: Fate.STORED if last else next(fates, Fate.STORED)
        self.log.away = not last and self.random.random() < 0.5
        task = process.spawn(self._serve(life, last=last))
        await asyncio.wait([task], timeout=None if last else 120)
        await process.kill()
        await asyncio.gather(*deaths)
        if last:
            task.result()

    async def _serve(self, life: int, *, last: bool) -> None:
        clock = SimClock(skew_ms=self.random.randrange(-CLOCK_OFF_MS, CLOCK_OFF_MS))
        database = self.disk.mount()
        outbox = publish.publisher(
            database,
            self.log,
            clock=clock,
            randomness=SimRandomness(str(life)),
            logger=get_logger("test"),
        )
        dates = Dates(clock, await database.read(last_dated))
        terms = StatedTerms(
            AuditsConfig(verifiers=(AuditVerifier(vkey=str(KEY)),), keep_s=keep_s(life)),
            SIGNER,
            database,
            operator="alpha.example",
            clock=clock,
            dates=dates,
            enqueue=outbox.enqueue,
        )
        await terms.state()
        delivering = asyncio.create_task(self._deliver(database, outbox))
        signer = ReceiptSigner(SIGNER, database, clock=dates, enqueue=outbox.enqueue)
        for number in range(ANSWERS):
            data = await signer.sign(receipt(life * ANSWERS + number))
            self.held[msgspec.json.decode(data, type=SignedReceipt).batch.encode()] = life
            await asyncio.sleep(self.random.uniform(0, ROUND_S))
        if last:
            await outbox.drained()
            delivering.cancel()
        else:
            await delivering

    async def _deliver(self, database: Database, outbox: Outbox[int]) -> None:
        await publish.catch_up(database, outbox)
        await outbox.run()

    def stated(self) -> dict[bytes, Terms | None]:
        """By the verifiers' rule, what the node had stated for each batch that callers hold."""
        seen = Disk("verifier", verifier_store.MIGRATIONS, self.random)
        for index, entry in enumerate(self.log.entries):
            if entry.startswith(b"trunkline.terms/"):
                Terms.open_note(entry, KEY)
                row = (str(KEY), index, entry)
                seen.connection.execute("INSERT INTO terms VALUES (?, ?, ?)", row)
        try:
            return {batch: self._stated(seen, batch) for batch in self.held}
        finally:
            seen.close()

    def _stated(self, seen: Disk, batch: bytes) -> Terms | None:
        entry, signed_ms = self.log.entries.index(batch), open_batch(batch, KEY).unix_ms
        return verifier_store.terms_at(seen.connection, str(KEY), entry, signed_ms)


def keep_s(life: int) -> float:
    """By which terms of one life are told from another's."""
    return 1000.0 + life


async def _play(seed: str) -> Scene:
    install(asyncio.get_running_loop())
    scene = Scene(seed)
    sequencing = asyncio.create_task(scene.log.sequence())
    for life in range(LIVES):
        await scene.live(life, last=life == LIVES - 1)
    sequencing.cancel()
    return scene


@pytest.mark.parametrize("seed", range(8))
def test_what_callers_hold_is_logged_and_read_by_what_was_stated_when_it_was_signed(
    seed: int,
) -> None:
    scene = run(_play(str(seed)), seed=str(seed), limit_s=36_000.0)
    try:
        assert len(set(scene.held.values())) > 1
        waiting = scene.disk.connection.execute("SELECT count(*) FROM outbox").fetchone()
        assert waiting == (0,)
        for batch, terms in scene.stated().items():
            assert terms is not None
            assert terms.keep_s == keep_s(scene.held[batch])
    finally:
        scene.disk.close()
