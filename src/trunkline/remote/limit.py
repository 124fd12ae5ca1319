"""Waits that end in time, except for the time that this process itself stood still.

A process that is stopped, starved of the processor, or on a machine that sleeps wakes with all its
timers due at once. By the clock everybody it talks to was silent for that long, and by what waits
in its sockets they were not. So a limit looks at the clock in small steps: by how much a step came
late is time that nobody used, and it is given back. What arrived meanwhile is read before anything
is given up. It refuses to move a deadline that somebody else set (``most_s``): that is real time.
"""

import asyncio
import math
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

STEP_S: Final = 0.5
"""Between two looks at the clock: no more than this of a standstill can be missed."""
LATE_S: Final = 0.1
"""A timer that is later than this is late because the loop stood still; a busy one's are less."""
GRACE_S: Final = 0.25
"""At least so long is gone on waiting after a standstill, once: to read what is there by then."""
_TICK_S: Final = 0.001
"""The loop's clock is no finer."""


class Alarm:
    """Rings once, at a time that moves with each standstill. Belongs to the loop it is made in."""

    __slots__ = (
        "_at_s", "_graced", "_loop", "_lost_s", "_most_s", "_ring", "_since_s", "_step_s", "_timer",
    )  # fmt: skip

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._at_s = self._most_s = math.inf
        self._since_s = self._step_s = self._lost_s = 0.0
        self._graced = False

    @property
    def armed(self) -> bool:
        """Whether it will ring."""
        return self._at_s < math.inf

    @property
    def lost_s(self) -> float:
        """How long the loop stood still since the alarm was set, seconds."""
        return self._lost_s + self._late_s()

    def set(self, left_s: float, most_s: float = math.inf) -> None:
        """Ring in ``left_s`` seconds, and in ``most_s`` at the latest, whatever is lost."""
        now_s = self._loop.time()
        self._since_s, self._lost_s, self._graced = now_s, 0.0, False
        self._at_s, self._most_s = now_s + min(left_s, most_s), now_s + most_s
        # A timer that is set already comes early at worst: setting it anew for each of many short
        # waits would cost more than the waits.
        if self._timer is None or self._step_s > self._at_s:
            self._step()

    def unset(self) -> None:
        """Do not ring. It may be set again, at little cost."""
        self._at_s = math.inf

    def stop(self) -> None:
        """Never ring, and hold nothing: who owns it is freed at once."""
        self.unset()
        self._ring = _nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late_s(self) -> float:
        """How late the next look is. Time before the alarm was set does not count."""
        if self._timer is None or not self.armed:
            return 0.0
        late_s = self._loop.time() - max(self._step_s, self._since_s)
        return late_s if late_s > LATE_S else 0.0

    def _step(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._step_s = min(self._at_s, self._loop.time() + STEP_S)
        self._timer = self._loop.call_at(self._step_s, self._look)

    def _look(self) -> None:
        now_s, late_s = self._loop.time(), self._late_s()
        self._timer = None
        if not self.armed:
            return
        if late_s:
            self._lost_s += late_s
            self._at_s += late_s
            if not self._graced:
                self._graced = True
                self._at_s = max(self._at_s, now_s + GRACE_S)
            self._at_s = min(self._at_s, self._most_s)
        if self._at_s - now_s <= _TICK_S:
            self.unset()
            self._ring()
        else:
            self._step()


class Limit:
    """As :func:`asyncio.timeout`, by an :class:`Alarm`: ``async with Limit(5.0): …``. It raises
    TimeoutError; without a number it has to be armed."""

    __slots__ = ("_alarm", "_left_s", "_scope")

    def __init__(self, left_s: float | None = None) -> None:
        self._left_s = left_s
        self._scope = asyncio.timeout(None)
        self._alarm = Alarm(self._end)

    @property
    def lost_s(self) -> float:
        """As :attr:`Alarm.lost_s`, since it was armed."""
        return self._alarm.lost_s

    def arm(self, left_s: float, most_s: float = math.inf) -> None:
        """As :meth:`Alarm.set`."""
        self.disarm()
        self._alarm.set(left_s, most_s)

    def disarm(self) -> None:
        """What is done now may take as long as it likes. An end that is on its way, while what was
        waited for came in the same turn of the loop, is taken back."""
        self._alarm.unset()
        if self._scope.when() is not None and not self._scope.expired():
            self._scope.reschedule(None)

    def cut(self) -> None:
        """End the wait now, if there is one."""
        if self._alarm.armed:
            self._alarm.unset()
            self._end()

    def _end(self) -> None:
        self._scope.reschedule(asyncio.get_running_loop().time())

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        if self._left_s is not None:
            self.arm(self._left_s)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._alarm.stop()
        await self._scope.__aexit__(kind, error, trace)


def _nothing() -> None:
    return None
