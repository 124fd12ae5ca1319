"""Repeated requests: one answer per idempotency key, however often it is asked for.

A thin shell over ``core.replay``. The first request under a key is accepted durably before any node
hears of it, and its answer is made in a task of its own, so that it outlives a broken connection; a
repetition follows it, or is shown what was kept. A failed answer frees its key. It refuses to keep
anything for those who send no key.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from trunkline.base.errors import Error, StoppingError
from trunkline.base.ports import Clock
from trunkline.gateway.claim_store import ClaimStore
from trunkline.gateway.core import replay
from trunkline.gateway.core.replay import Claim, ClaimRow
from trunkline.gateway.recording import Memory, Recording
from trunkline.runtime.http import Call
from trunkline.runtime.logger import Logger

PRUNE_S: Final = 60.0
"""Between two looks for what is kept no longer."""

Make = Callable[[Recording, str, bool], Awaitable[bool]]
"""Makes an answer: where it is written, its id, and whether a gateway died over it before. Returns
whether it is whole. Raises an :class:`Error` where it did not begin."""


class _Running(NamedTuple):
    """An answer that is being made."""

    claim: Claim
    recording: Recording
    task: asyncio.Task[None]


class Replays:
    """What is kept, and what is being made. ``start`` it, ``stop`` it."""

    def __init__(
        self,
        claims: ClaimStore,
        *,
        keep_s: float,
        bytes_max: int,
        linger_s: float,
        clock: Clock,
        logger: Logger,
    ) -> None:
        """``keep_s``, ``bytes_max``: bounds of what is kept on disk; the second one holds for
        what is being made, in memory, too. ``linger_s``: how long an answer goes on for a caller
        that is gone."""
        self._claims = claims
        self._keep_ms = int(keep_s * 1000)
        self._bytes_max = bytes_max
        self._linger_s = linger_s
        self._clock = clock
        self._logger = logger
        self._memory = Memory(bytes_max)
        self._running: dict[bytes, _Running] = {}
        self._pruning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to delete what is kept no longer."""
        self._pruning = asyncio.create_task(self._prune_forever(), name="replays.prune")

    async def stop(self) -> None:
        """Stop. An answer that is not whole keeps its key: a repetition makes it anew."""
        tasks = [running.task for running in self._running.values()]
        if self._pruning is not None:
            tasks.append(self._pruning)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def prune(self) -> int:
        """Delete what is too old, and the oldest of what is too much. Returns how many."""
        before_ms = self._clock.unix_ms() - self._keep_ms
        return await self._claims.prune(before_ms, self._bytes_max)

    async def serve(
        self, call: Call, claim: Claim, answer: str, make: Make, done: Callable[[], None]
    ) -> None:
        """Show ``call`` the answer to its request. ``answer``: the id for it if it is new. ``done``
        is called once the request itself is not needed any more.

        Raises :class:`RequestError`: 422 for a key of another request, 409 for an answer that was
        too long to be kept; and whatever ``make`` raises.
        """
        while (found := self._running.get(claim.id)) and found.recording.failing:
            # It takes no more than a write, and then the key is free.
            await asyncio.wait([found.task])
        if found is not None:
            done()
            replay.require_same(found.claim, claim)
            await found.recording.follow(call, first=False)
            return
        recording = Recording(claim.id, self._memory, call.stopping, self._linger_s)
        task = asyncio.create_task(self._run(claim, recording, answer, make), name="replay")
        self._running[claim.id] = _Running(claim, recording, task)
        task.add_done_callback(self._ran)
        task.add_done_callback(lambda _: done())
        await recording.follow(call, first=True)

    def _ran(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._logger.crashed("replay.failed", error)

    async def _run(self, claim: Claim, recording: Recording, answer: str, make: Make) -> None:
        try:
            await self._settle(claim, recording, answer, make)
        except Error as error:
            recording.fail(error)
        except asyncio.CancelledError:
            # The process stops, or nobody is there any more.
            recording.fail(StoppingError())
            raise
        except BaseException:
            recording.fail(Error("the answer could not be made"))
            raise
        finally:
            # From here on a repetition looks at the store, which knows all there is to know.
            del self._running[claim.id]
            recording.close()

    async def _settle(self, claim: Claim, recording: Recording, answer: str, make: Make) -> None:
        now_ms = self._clock.unix_ms()
        row = await self._claims.get(claim.id)
        again = row is not None and not replay.expired(row, now_ms, self._keep_ms)
        if row is not None and again:
            answer = row.answer
            kept = replay.whole(row, claim)
            if kept is not None:
                self._logger.info("answer.replayed", answer=answer)
                recording.load(answer, kept)
                return
        else:
            row = ClaimRow(claim=claim, answer=answer, created_ms=now_ms, kept=None)
            # A crash before this line: nobody has heard of the request. After it: a repetition
            # has the same answer's id, under which evidence and charge can be written only once.
            await self._claims.put(row)
        recording.answer = answer
        whole = False
        try:
            whole = await make(recording, answer, again)
        finally:
            cancelled = (task := asyncio.current_task()) is not None and task.cancelling()
            if not whole and not cancelled:
                await self._release(claim.id, answer)

    async def _release(self, claim: bytes, answer: str) -> None:
        """Free a failed answer's key. Not done, by a crash or a failing disk: it stays with the
        answer's id, under which a repetition makes it anew."""
        try:
            await self._claims.release(claim, answer)
        except Error as error:
            self._logger.crashed("replay.not_released", error)

    async def _prune_forever(self) -> None:
        while True:
            try:
                await self.prune()
            except Exception as error:  # noqa: BLE001 - a full disk now may have room later
                self._logger.crashed("replays.prune_failed", error)
            await asyncio.sleep(PRUNE_S)
