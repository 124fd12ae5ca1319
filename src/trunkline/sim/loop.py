"""An event loop without time or sockets: virtual seconds, and a schedule decided by a seed.

Waiting costs nothing: when no task can run, the clock jumps to the next timer. Tasks that can run
at the same moment run in an order drawn from the seed, so each seed is another interleaving, and
the same seed the same one. What would run in a thread runs here, at a later moment drawn from the
seed. Refuses a world in which nothing can ever happen again, and one that never comes to rest.

It overrides the private ``BaseEventLoop._run_once`` and reads ``_ready`` of CPython 3.11; asyncio
has no public place for either.
"""

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final, TypeVar

ROUNDS_MAX: Final = 3_000_000
"""Turns of the loop after which a simulation is taken to go in circles."""

THREAD_S_MAX: Final = 0.02

T = TypeVar("T")


class StuckError(RuntimeError):
    """The simulated world has stopped, or never stops."""


class _Silence(selectors.SelectSelector):
    """No file is ever ready; waiting moves the clock."""

    def __init__(self, wait: Callable[[float | None], None]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._wait(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. :meth:`time` is virtual seconds from 0."""

    _ready: "deque[asyncio.Handle]"

    def __init__(self, seed: str) -> None:
        self._now_s = 0.0
        self._order = Random(seed)
        self._rounds = 0
        super().__init__(_Silence(self._pass))

    def time(self) -> float:
        return self._now_s

    def stand_still(self, seconds: float) -> None:
        """The clock goes on and nothing runs, as for a process that is stopped and wakes."""
        self._now_s += seconds

    def run_in_executor(  # type: ignore[override]
        self, _executor: None, work: Callable[..., T], *args: object
    ) -> "asyncio.Future[T]":
        done: asyncio.Future[T] = self.create_future()

        def run() -> None:
            if done.cancelled():
                return
            try:
                done.set_result(work(*args))
            except OSError as error:
                done.set_exception(error)

        self.call_later(self._order.uniform(0.0, THREAD_S_MAX), run)
        return done

    def _pass(self, timeout: float | None) -> None:
        if timeout is None:
            raise StuckError("nothing can ever happen again")
        self._now_s += max(timeout, 0.0)

    def _run_once(self) -> None:
        self._rounds += 1
        if self._rounds > ROUNDS_MAX:
            raise StuckError(f"no rest after {ROUNDS_MAX} rounds")
        if len(self._ready) > 1:
            self._order.shuffle(self._ready)
        super()._run_once()  # type: ignore[misc]


def run(main: Coroutine[Any, Any, T], *, seed: str, limit_s: float) -> T:
    """Run ``main`` to its end in a loop of its own, at most ``limit_s`` virtual seconds.

    Raises :class:`StuckError`, TimeoutError, and what ``main`` raises.
    """
    loop = VirtualLoop(seed)

    async def bounded() -> T:
        async with asyncio.timeout(limit_s):
            return await main

    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(bounded())
    finally:
        try:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left, timeout=60.0))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
