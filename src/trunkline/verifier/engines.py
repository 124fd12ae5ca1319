"""The models that answers are replayed with: started when needed, stopped when idle, shared.

An engine is a child process of several hundred megabytes. It starts with the first audit of its
weights and goes after some time without work. What its owner states of it (the self-test) is asked
of the engine itself, once per start. It refuses to stand in for weights that it does not have.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import msgspec

from trunkline.base.errors import ConfigError, UpstreamError
from trunkline.base.ports import Clock
from trunkline.inference.ports import NOT_SHARED, ModelInfo, Score, Scorer, Sharing, TokenScore

IDLE_POLL_S_MAX: Final = 5.0
DRAWN: Final = Sharing(scope="drawn")


class ScoringEngine(Scorer, Protocol):
    """A scorer that is a process."""

    @property
    def pid(self) -> int | None: ...


class Work(msgspec.Struct, kw_only=True):
    """What checking has cost so far in this process. Counters."""

    tokens: int = 0
    """Answer tokens scored."""
    prompt_tokens: int = 0
    scored_s: float = 0.0
    """Time that scores were waited for, queues included."""
    cpu_s: float = 0.0
    """CPU time of engines that are gone; :meth:`Engines.cpu_s` adds those that run."""


class _Engine:
    """One configured model."""

    __slots__ = ("idle_since_s", "info", "make", "running", "self_test", "starting", "users")

    def __init__(self, make: Callable[[], ScoringEngine]) -> None:
        self.make = make
        self.running: ScoringEngine | None = None
        self.info: ModelInfo | None = None
        """As it was when it last ran: remembered, so that it need not run to be known."""
        self.self_test = ""
        self.users = 0
        self.idle_since_s = 0.0
        self.starting = asyncio.Lock()


class Engines:
    """All models of one verifier process."""

    def __init__(
        self, makers: Sequence[Callable[[], ScoringEngine]], *, clock: Clock, idle_s: float
    ) -> None:
        """``makers``: make an engine that starts with its first call."""
        self._engines = [_Engine(make) for make in makers]
        self._clock = clock
        self._idle_s = idle_s
        self.work = Work()

    def models(self) -> tuple[ModelInfo, ...]:
        """Those that have run in this process."""
        return tuple(engine.info for engine in self._engines if engine.info is not None)

    @asynccontextmanager
    async def of(self, weights: str, *, drawn: bool = False) -> AsyncIterator["Measuring | None"]:
        """The engine of these weights for the duration of the block; None: there is none.

        ``drawn``: for what the verifier drew. These take over from each other what prompts begin
        with alike; who brings an audit and waits for it could tell by the time what was asked.

        Raises ``UpstreamError`` where one can not be started, ``ConfigError`` where never.
        """
        found = await self._find(weights)
        if found is None:
            yield None
            return
        found.users += 1
        try:
            sharing = DRAWN if drawn else NOT_SHARED
            engine = await self._started(found)
            yield Measuring(engine, found, self.work, self._clock, sharing)
        finally:
            found.users -= 1
            found.idle_since_s = self._clock.monotonic_s()

    async def tend(self) -> None:
        """Stop what is idle, until cancelled."""
        while True:
            await asyncio.sleep(min(self._idle_s, IDLE_POLL_S_MAX))
            await self.stop_idle()

    async def stop_idle(self) -> None:
        """Stop what nobody has used for long enough."""
        for engine in self._engines:
            idle_s = self._clock.monotonic_s() - engine.idle_since_s
            if engine.running is not None and not engine.users and idle_s >= self._idle_s:
                await self._stop(engine)

    async def close(self) -> None:
        """Stop all, those that are still starting too."""
        for engine in self._engines:
            running, engine.running = engine.running, None
            if running is not None:
                await running.close()

    def cpu_s(self) -> float:
        """CPU seconds that the engines' processes have used."""
        running = (engine.running for engine in self._engines if engine.running is not None)
        return self.work.cpu_s + sum(_cpu_s(engine.pid) for engine in running)

    async def _find(self, weights: str) -> _Engine | None:
        failed: UpstreamError | ConfigError | None = None
        for engine in self._engines:
            try:
                if engine.info is None:
                    await self._started(engine)
            except (UpstreamError, ConfigError) as error:
                # One that can not start now may be the one; another's weights do not wait for it.
                failed = failed or error
            if engine.info is not None and engine.info.weights_digest == weights:
                return engine
        if failed is not None:
            raise failed
        return None

    async def _started(self, engine: _Engine) -> ScoringEngine:
        async with engine.starting:
            if engine.running is None:
                engine.running = engine.make()
                engine.self_test = ""
            engine.idle_since_s = self._clock.monotonic_s()
            engine.info = await engine.running.model()
            return engine.running

    async def _stop(self, engine: _Engine) -> None:
        async with engine.starting:
            running, engine.running = engine.running, None
            if running is not None:
                self.work.cpu_s += _cpu_s(running.pid)
                await running.close()


class Measuring:
    """A :class:`Scorer` that counts what it is asked for."""

    def __init__(
        self, engine: Scorer, state: _Engine, work: Work, clock: Clock, sharing: Sharing
    ) -> None:
        self._sharing = sharing
        self._engine = engine
        self._state = state
        self._work = work
        self._clock = clock

    async def model(self) -> ModelInfo:
        return await self._engine.model()

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        return await self._engine.tokenize(text, parse_special=parse_special)

    def pieces(self) -> Sequence[bytes]:
        return self._engine.pieces()

    async def score(self, job: Score) -> tuple[TokenScore, ...]:
        begun_s = self._clock.monotonic_s()
        try:
            return await self._engine.score(msgspec.structs.replace(job, sharing=self._sharing))
        finally:
            self._work.scored_s += self._clock.monotonic_s() - begun_s
            self._work.tokens += len(job.tokens)
            self._work.prompt_tokens += len(job.prompt)

    async def self_test(self) -> str:
        """As the engine says; asked once as long as it runs."""
        if not self._state.self_test:
            self._state.self_test = await self._engine.self_test()
        return self._state.self_test

    async def close(self) -> None:
        """Nothing: the engine is its pool's."""


def _cpu_s(pid: int | None) -> float:
    """User and system time of a process, from ``/proc``; 0 where that can not be read."""
    if pid is None:
        return 0.0
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
