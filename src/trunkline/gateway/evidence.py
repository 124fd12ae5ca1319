"""From provisional to final: gets every stored part's batch into the log, and its proof back.

Runs beside the answers and never in their way. What is to be done is what the store holds without
a proof, so a restart goes on where it stopped and a log that was down is caught up with. A proof
counts only under the policy: inclusion in a checkpoint that the log and enough witnesses signed.
"""

import asyncio
from typing import Final, Literal, Protocol

from trunkline.base.errors import Error
from trunkline.base.ports import Clock
from trunkline.gateway.charges import Charges
from trunkline.gateway.core.actions import Plan, Store
from trunkline.gateway.core.budget import Charge
from trunkline.gateway.core.replay import Kept
from trunkline.gateway.store import AnswerRow, Bodies, EvidenceStore
from trunkline.runtime.logger import Logger

BATCHES_AT_ONCE: Final = 8
PARTS_AT_ONCE: Final = 256
PROOF_TIMEOUT_S: Final = 15.0
RETRY_S: Final = 1.0
RETRY_S_MAX: Final = 60.0
WAIT_S_MAX: Final = 60.0
"""Longest that a caller may wait for an answer to become final."""


class Prover(Protocol):
    """The log, as far as it matters here."""

    async def prove(self, entry: bytes, timeout_s: float) -> str:
        """Add ``entry`` (the same one twice is once) and return its tlog-proof text, verified
        under the policy. Raises an :class:`Error` when that was not had in time."""
        ...


class Finalizer:
    """Stores parts, and turns provisional answers final. ``start`` it, ``stop`` it."""

    def __init__(
        self,
        store: EvidenceStore,
        prover: Prover,
        charges: Charges,
        *,
        clock: Clock,
        logger: Logger,
    ) -> None:
        self._store = store
        self._prover = prover
        self._charges = charges
        self._clock = clock
        self._logger = logger
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self.log_reachable = True

    async def start(self) -> None:
        """Begin, with what an earlier process left undone first."""
        await self._store.hurry(self._clock.unix_ms())
        self._task = asyncio.create_task(self._run(), name="finalizer")

    async def stop(self) -> None:
        """Stop; what is pending stays in the store, and what is being written gets there."""
        await asyncio.gather(*self._writing, return_exceptions=True)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def keep(
        self,
        plan: Plan,
        part: Store,
        attempts: int,
        bodies: Bodies | None,
        kept: Kept | None = None,
        *,
        possible_double_work: bool = False,
    ) -> None:
        """Store a verified part. Once this returns, no crash can lose it."""
        row = AnswerRow(
            answer=plan.answer,
            created_ms=plan.created_s * 1000,
            ended_ms=self._clock.unix_ms(),
            format=plan.client_format,
            model=part.accepted.model,
            node=part.deployment.node,
            operator=part.deployment.operator,
            attempts=attempts,
            state="provisional",
            tenant=plan.tenant.id,
            possible_double_work=possible_double_work,
        )
        charge = self._charges.seal(plan.answer, part, row.ended_ms, plan.prompt_tokens)
        # A caller that leaves stops waiting for the disk, not the disk: whether the charge counts
        # is what became of the write.
        writing = asyncio.create_task(self._write(row, part, bodies, charge, kept))
        self._writing.add(writing)
        writing.add_done_callback(self._wrote)
        await asyncio.shield(writing)

    def _wrote(self, writing: asyncio.Task[None]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled():
            # Seen here for a caller that has left; one that waits is told as well.
            writing.exception()

    async def _write(
        self,
        row: AnswerRow,
        part: Store,
        bodies: Bodies | None,
        charge: Charge | None,
        kept: Kept | None,
    ) -> None:
        stored = False
        try:
            await self._store.add(row, part.signed, bodies, charge, kept)
            stored = True
            self._work.set()
        finally:
            if charge is not None:
                self._charges.written(charge, stored=stored)

    async def wait_final(self, answer: str, timeout_s: float, *until: asyncio.Event) -> None:
        """Wait until the answer is final, the time is over, or one of ``until`` is set."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(answer, set()).add(future)
        tasks = [asyncio.create_task(event.wait()) for event in until]
        waits: set[asyncio.Future[None] | asyncio.Task[Literal[True]]] = {future, *tasks}
        try:
            found = await self._store.get(answer)
            if found is not None and found[0].state == "provisional":
                await asyncio.wait(
                    waits,
                    timeout=min(timeout_s, WAIT_S_MAX),
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            for task in tasks:
                task.cancel()
            waiting = self._waiting.get(answer, set())
            waiting.discard(future)
            if not waiting:
                self._waiting.pop(answer, None)

    async def _run(self) -> None:
        while True:
            self._work.clear()
            try:
                idle_s = await self._round()
            except Exception as error:  # noqa: BLE001 - it must go on for as long as we do
                self._logger.crashed("evidence.failed", error)
                idle_s = RETRY_S
            if idle_s is None or idle_s > 0:
                try:
                    async with asyncio.timeout(idle_s):
                        await self._work.wait()
                except TimeoutError:
                    continue

    async def _round(self) -> float | None:
        """One look at the store. Returns seconds until the next is due; None: nothing pending."""
        parts = await self._store.pending(self._clock.unix_ms(), PARTS_AT_ONCE)
        if parts:
            tries: dict[bytes, int] = {}
            for part in parts:
                tries[part.entry] = max(part.tries, tries.get(part.entry, 0))
            gate = asyncio.Semaphore(BATCHES_AT_ONCE)
            async with asyncio.TaskGroup() as group:
                for entry, before in tries.items():
                    group.create_task(self._settle(entry, before, gate))
            return 0.0
        due_ms = await self._store.next_due_ms()
        return None if due_ms is None else max((due_ms - self._clock.unix_ms()) / 1000, 0.05)

    async def _settle(self, entry: bytes, tries: int, gate: asyncio.Semaphore) -> None:
        """One batch: prove it, or put it off. A failing disk is reported and tried again."""
        async with gate:
            try:
                await self._settle_one(entry, tries)
            except Exception as error:  # noqa: BLE001 - one bad batch must not stop the others
                # A failing disk, or a bug. The store still holds it as pending: tried again.
                self._logger.crashed("evidence.failed", error)
                await asyncio.sleep(RETRY_S)

    async def _settle_one(self, entry: bytes, tries: int) -> None:
        try:
            async with asyncio.timeout(PROOF_TIMEOUT_S + 1.0):
                proof = await self._prover.prove(entry, PROOF_TIMEOUT_S)
        except (Error, TimeoutError) as error:
            code = error.error_code if isinstance(error, Error) else "upstream_timeout"
            await self._put_off(entry, tries, code)
            return
        # A crash before the next line is harmless: the log knows the entry, and is asked again.
        final = await self._store.prove(entry, proof)
        if not self.log_reachable:
            self.log_reachable = True
            self._logger.info("log.found")
            await self._store.hurry(self._clock.unix_ms())
        for answer in final:
            for future in self._waiting.pop(answer, set()):
                if not future.done():
                    future.set_result(None)

    async def _put_off(self, entry: bytes, tries: int, code: str) -> None:
        if self.log_reachable:
            self._logger.warning("log.lost", error=code)
            self.log_reachable = False
        pause_s = min(RETRY_S * 2.0 ** min(tries, 10), RETRY_S_MAX)
        await self._store.postpone(entry, self._clock.unix_ms() + int(pause_s * 1000))
