"""How many attempts may run at a deployment at once: stated, or found by trying.

It doubles while all goes well (one more for each success), until the deployment first says that it
is too much; from then on one more for each round of successes, and 15 % less for each refusal.
Where a place was refused before, it tries that place again five times as slowly. It grows only
while it is used, and not while first tokens come much later than they did.
"""

from typing import Final

START: Final = 16.0
FLOOR: Final = 1.0
MAX: Final = 4096.0
CUT: Final = 0.85
PROBE: Final = 0.2
"""Of the usual step, where the next place is one that was refused before."""
SLOW_FACTOR: Final = 3.0
SLOW_S: Final = 0.25
"""A first token later than ``SLOW_FACTOR`` times the fastest that was normal, and this, is slow."""
_DRIFT: Final = 0.002
"""By how much of the difference a slower first token moves what is taken for normal."""


class Concurrency:
    """One deployment's places."""

    __slots__ = (
        "_ceiling", "_credit", "_cut_s", "_limit", "_normal_s", "_searching", "elsewhere",
        "running", "stated",
    )  # fmt: skip

    def __init__(self) -> None:
        self.running = 0
        self.elsewhere = 0
        """Attempts that other processes run there."""
        self.stated: int | None = None
        """What its operator or provider states: taken as it is."""
        self._limit = START
        self._searching = True
        self._ceiling = MAX
        """Places that were taken when one more was refused; ``MAX``: passed since, or not known."""
        self._credit = 0
        """Successes that may still raise the limit since it was last used up."""
        self._cut_s = float("-inf")
        self._normal_s: float | None = None

    @property
    def limit(self) -> int:
        """Places now."""
        return int(self._limit) if self.stated is None else self.stated

    @property
    def free(self) -> bool:
        """Whether one more may start."""
        return self.running + self.elsewhere < self.limit

    @property
    def at_floor(self) -> bool:
        """Fewer are not possible: whatever is refused then is refused for another reason."""
        return self.running + self.elsewhere <= FLOOR

    def started(self) -> None:
        """An attempt takes a place."""
        self.running += 1
        if not self.free:
            self._credit = int(self._limit)

    def ended(self) -> None:
        """It left, whatever came of it."""
        self.running = max(self.running - 1, 0)

    def succeeded(self, first_token_s: float | None) -> None:
        """An attempt went well. Call before :meth:`ended`."""
        slow = self._slow(first_token_s)
        if slow or not self._credit:
            return
        self._credit -= 1
        step = 1.0 if self._searching else 1.0 / self._limit
        if self._limit >= self._ceiling + 1:
            self._ceiling = MAX
        if self._limit >= self._ceiling:
            step *= PROBE
        self._limit = min(self._limit + step, MAX)

    def refused(self, started_s: float, now_s: float) -> None:
        """An attempt that began at ``started_s`` was told that there are too many."""
        if started_s <= self._cut_s:
            # It is an echo of what the limit was cut for already.
            return
        self._searching = False
        self._credit = 0
        self._cut_s = now_s
        at_once = max(self.running + self.elsewhere, 1)
        self._ceiling = max(at_once - 1.0, FLOOR)
        self._limit = max(min(self._limit, at_once) * CUT, FLOOR)

    def _slow(self, first_token_s: float | None) -> bool:
        if first_token_s is None:
            return False
        normal_s = self._normal_s
        if normal_s is None or first_token_s < normal_s:
            self._normal_s = first_token_s
            return False
        self._normal_s = normal_s + _DRIFT * (first_token_s - normal_s)
        return first_token_s > max(normal_s * SLOW_FACTOR, SLOW_S)
