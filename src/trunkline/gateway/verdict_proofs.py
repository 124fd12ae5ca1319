"""Gets the proofs that verdicts are in the log, of those that would do more than demote with one.

A verifier logs what it reveals. This gateway hands the same note to the log (twice is once), and so
need not wait for the verifier, likewise the commitment to it; the proof counts only under the
policy. It refuses to fetch what
decides nothing: a verifier may reveal as much as it likes. Specified in
``docs/operate/verification.md``.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from trunkline.base.errors import Error
from trunkline.gateway.evidence import Prover
from trunkline.gateway.verdict_store import VerdictRow, VerdictStore
from trunkline.runtime.logger import Logger
from trunkline.tlog import proof as tlog_proof

AT_ONCE: Final = 4
PROVE_S: Final = 15.0
RETRY_S: Final = 0.5
"""Before the second try; doubles up to the longest."""
RETRY_S_MAX: Final = 15.0

Proved = Callable[[VerdictRow], Awaitable[None]]
"""Told of a verdict whose proof is stored."""


class VerdictProofs:
    """What is to be proved, and the tasks that do. Belongs to one event loop."""

    def __init__(
        self, store: VerdictStore, prover: Prover, proved: Proved, *, logger: Logger
    ) -> None:
        self._store = store
        self._prover = prover
        self._proved = proved
        self._logger = logger
        self._wanted: tuple[str, ...] = ()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def want(self, digests: Sequence[str]) -> None:
        """From now on prove these (SHA-256 of the notes, hex), the first ones first, and nothing
        else. A try that is under way is not given up for it."""
        self._wanted = tuple(digests)
        for digest in self._wanted:
            if len(self._tasks) >= AT_ONCE:
                return
            if digest not in self._tasks:
                task = asyncio.create_task(self._prove(digest), name=f"verdict.proof.{digest[:8]}")
                self._tasks[digest] = task

    async def stop(self) -> None:
        """Give up what is under way; it is begun again at the next start."""
        self._wanted = ()
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _prove(self, digest: str) -> None:
        pause_s = RETRY_S
        while not (done := await self._tried(digest)):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_S_MAX)
            if digest not in self._wanted[:AT_ONCE]:
                # It is no longer wanted, or others are before it: its place is theirs.
                break
        del self._tasks[digest]
        self.want([other for other in self._wanted if other != digest or not done])

    async def _tried(self, digest: str) -> bool:
        """Whether there is nothing more to do about it."""
        try:
            row = await self._store.find(digest)
            if row is None:
                return True
            async with asyncio.timeout(PROVE_S + 1.0):
                row = await self._with_proofs(row)
            await self._store.prove(row)
            await self._proved(row)
        except (Error, TimeoutError) as error:
            code = error.error_code if isinstance(error, Error) else "upstream_timeout"
            self._logger.info("verdict.unproven", verdict=digest, error=code)
            return False
        except Exception as error:  # noqa: BLE001 - one verdict must not end the others
            self._logger.crashed("verdict.unproven", error, verdict=digest)
            return False
        return True

    async def _with_proofs(self, row: VerdictRow) -> VerdictRow:
        # First what comes first: a log that had neither would else have them the wrong way round.
        if row.commitment and row.committed is None:
            proof = await self._prover.prove(row.commitment.encode(), PROVE_S)
            row = msgspec.structs.replace(row, committed=tlog_proof.parse(proof.encode()).index)
        proof = await self._prover.prove(row.note.encode(), PROVE_S)
        return msgspec.structs.replace(row, proof=proof)
