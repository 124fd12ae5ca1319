"""One limit over time, as a provider counts it: so many requests or tokens in so many seconds.

What was spent is kept for one window and a little longer, and never more than the limit is planned
into that: so no window of that length, wherever the provider lets its windows begin, holds more
than the limit (each unit arrives between when it was sent and ``skew_s`` later). What the provider
itself said last stands beside that, because others may spend from the same account.

Reads no clock: ``now_s`` is monotonic seconds from the shell and never goes back.
"""

from collections import deque
from typing import Final

SKEW_SHARE: Final = 0.02
"""Of a window: how much later than it was sent a request may be counted by its provider."""
SKEW_S_MAX: Final = 0.5
SKEW_S_MIN: Final = 0.1
SKEW_SHARE_MAX: Final = 0.1
"""What :meth:`Window.widen` may make of it."""
WINDOW_S_DEFAULT: Final = 60.0
_LENGTHS_S: Final = (WINDOW_S_DEFAULT, 3600.0, 86_400.0, 31 * 86_400.0)
"""Windows that providers have. One that was not stated is the shortest that fits what was."""
SLACK: Final = 1.1
"""A reset may be a little later than the window is long, said late and rounded up."""
ENTRIES_MAX: Final = 4096
"""Entries kept apart. Beyond, neighbours are counted as one, at the later one's time."""


class Entry:
    """Something that was spent."""

    __slots__ = ("amount", "asked", "at_s", "live")

    def __init__(self, amount: int, at_s: float) -> None:
        self.asked = amount
        """As estimated."""
        self.amount = amount
        """As settled."""
        self.at_s = at_s
        self.live = True
        """Still within the window."""

    @property
    def unused(self) -> int:
        """What it asked for and did not use."""
        return max(self.asked - self.amount, 0)


class Window:
    """What may be spent, and what was."""

    __slots__ = (
        "_assumed", "_foreign", "_keeps", "_log", "_longest_s", "_said_at_s", "_said_left",
        "_said_until_s", "_skew_s", "_surplus", "_unused", "limit", "limit_known", "used",
        "window_s",
    )  # fmt: skip

    def __init__(self, limit: int, window_s: float | None = None) -> None:
        """``window_s``: None where nobody said how long the window is."""
        self.limit = max(limit, 1)
        self.limit_known = True
        """Not: the most that was ever left, where the limit itself was not stated."""
        self._assumed = window_s is None
        self.window_s = WINDOW_S_DEFAULT if window_s is None else window_s
        self._skew_s = _skew_s(self.window_s)
        self._log: deque[Entry] = deque()
        self.used = 0
        """In the log, as settled."""
        self._unused = 0
        """In the log, beside that: asked for and not used."""
        self._keeps = False
        """The provider counts what was asked for, and gives nothing back."""
        self._foreign = 0
        """What others spent, by the provider's last word."""
        self._longest_s = 0.0
        """Until all was there again, at most, as the provider said."""
        self._surplus = 0
        """What we had counted beyond that word when it came."""
        self._said_left: int | None = None
        self._said_at_s = float("-inf")
        self._said_until_s = float("inf")
        """When all is there again, by that word; infinite: it is past, or nothing was said."""

    @property
    def rate_s(self) -> float:
        """What a second brings, in the long run."""
        told = self._assumed and self._longest_s > 0
        return self.limit / (min(self._longest_s, self.window_s) if told else self.window_s)

    def room(self, now_s: float) -> int:
        """What may be spent now."""
        self._forget(now_s)
        return max(self.limit - self._counted - self._foreign, 0)

    @property
    def _counted(self) -> int:
        """In the log, as the provider counts."""
        return self.used + (self._unused if self._keeps else 0)

    def opens_s(self, amount: int, now_s: float) -> float:
        """The earliest time at which ``amount`` fits if nothing else is spent; ``now_s`` if it
        fits now. What is larger than the limit fits where nothing at all was spent."""
        self._forget(now_s)
        excess = self._counted + self._foreign + min(amount, self.limit) - self.limit
        if excess <= 0:
            return now_s
        if self._assumed:
            # Then everything is there again, whoever spent it.
            return min(self._log_opens_s(excess), self._said_until_s)
        later_s = max(self._log_opens_s(excess - self._foreign), self._said_until_s)
        return min(self._log_opens_s(excess), later_s if self._foreign else float("inf"))

    def spend(self, amount: int, now_s: float) -> Entry:
        """Spend it, fitting or not. ``now_s`` may lie back: what another process spent."""
        at_s = max(now_s, self._log[-1].at_s) if self._log else now_s
        entry = Entry(min(amount, self.limit), at_s)
        if len(self._log) >= ENTRIES_MAX:
            self._fold()
        self._log.append(entry)
        self.used += entry.amount
        return entry

    def settle(self, entry: Entry, amount: int) -> int:
        """What it really was. Returns by how much the log changed."""
        if not entry.live:
            return 0
        change = min(max(amount, 0), self.limit) - entry.amount
        self._unused -= entry.unused
        entry.amount += change
        self._unused += entry.unused
        self.used += change
        return change

    def refund(self, entry: Entry, *, refused: bool) -> None:
        """It was not spent at all. ``refused``: by the provider, whose last word did not count
        it."""
        if not entry.live:
            return
        if refused and entry.at_s <= self._said_at_s:
            kept = max(entry.amount - self._surplus, 0)
            self._surplus -= entry.amount - kept
            self._foreign += kept if self._said_until_s < float("inf") else 0
        self._unused -= entry.unused
        self.used -= entry.amount
        entry.asked = entry.amount = 0

    def scarce(self, amount: int, now_s: float) -> bool:
        """The provider itself said just now that there is hardly anything left for it: less than
        twice as much, since it may count otherwise, and others are on their way."""
        fresh = now_s - self._said_at_s <= self._skew_s
        return fresh and self._said_left is not None and self._said_left < 2 * amount

    def stated(
        self,
        *,
        limit: int | None,
        remaining: int | None,
        reset_s: float | None,
        now_s: float,
    ) -> None:
        """The provider's own word, just received. ``reset_s``: until all of it is there again."""
        self._forget(now_s)
        if limit is not None and limit >= 1:
            self.limit, self.limit_known = limit, True
        if reset_s is not None and reset_s > self._longest_s:
            self._longest_s = reset_s
            if self._assumed:
                self._skew_s = min(self._skew_s, _skew_s(reset_s))
        if self._assumed and reset_s is not None and reset_s > self.window_s * SLACK:
            fitting = (s for s in _LENGTHS_S if reset_s <= s * SLACK)
            self.window_s = next(fitting, _LENGTHS_S[-1])
        if remaining is None:
            return
        spent = self.limit - min(remaining, self.limit)
        if self._assumed:
            # Its window is shorter than we believe, or fills up as it goes.
            doubt = self._in_doubt(now_s)
            while self._log and self._counted - self._weight(self._log[0]) >= spent + doubt:
                self._drop()
        self._judge(spent, now_s)
        self._foreign = max(spent - self._counted, 0)
        self._surplus = max(self._counted - spent, 0)
        self._said_left = remaining
        self._said_at_s = now_s
        until_s = self.window_s if reset_s is None else min(reset_s, _LENGTHS_S[-1])
        self._said_until_s = now_s + max(until_s, 0.0)

    def widen(self) -> None:
        """A request was refused although it fitted: the provider counts it later than believed."""
        self._skew_s = min(self._skew_s * 2, self.window_s * SKEW_SHARE_MAX)

    def _judge(self, spent: int, now_s: float) -> None:
        """Whether what was asked for and not used comes back, by how much the provider counts."""
        beyond = spent - self.used
        if 2 * beyond >= self._unused > 0:
            self._keeps = True
        elif 4 * (beyond + self._in_doubt(now_s)) < self._unused:
            self._keeps = False

    def _weight(self, entry: Entry) -> int:
        return entry.amount + (entry.unused if self._keeps else 0)

    def _in_doubt(self, now_s: float) -> int:
        """Spent so lately that the provider may not have counted it when it spoke."""
        doubt = 0
        for entry in reversed(self._log):
            if entry.at_s <= now_s - self._skew_s:
                break
            doubt += entry.amount
        return doubt

    def _forget(self, now_s: float) -> None:
        log = self._log
        if now_s >= self._said_until_s:
            self._foreign = 0
            # All was to be there again: what was spent before that word, and arrived before that
            # time, weighs no more. A stated window is believed before a stated reset, which some
            # providers mean otherwise.
            before_s = min(self._said_at_s, self._said_until_s - self._skew_s)
            while self._assumed and log and log[0].at_s <= before_s:
                self._drop()
            self._said_until_s = float("inf")
        while log and log[0].at_s + self.window_s + self._skew_s <= now_s:
            self._drop()

    def _drop(self) -> None:
        entry = self._log.popleft()
        entry.live = False
        self.used -= entry.amount
        self._unused -= entry.unused

    def _fold(self) -> None:
        """Halve the log: each pair becomes its later one."""
        folded: deque[Entry] = deque()
        entries = iter(self._log)
        for earlier in entries:
            later = next(entries, None)
            if later is None:
                folded.append(earlier)
                break
            later.asked = later.amount + earlier.amount + later.unused + earlier.unused
            later.amount += earlier.amount
            earlier.live = False
            folded.append(later)
        self._log = folded

    def _log_opens_s(self, excess: int) -> float:
        """When ``excess`` will have left the log; infinite if there is not so much in it."""
        freed = 0
        for entry in self._log if excess > 0 else ():
            freed += self._weight(entry)
            if freed >= excess:
                return entry.at_s + self.window_s + self._skew_s
        return float("inf") if excess > 0 else 0.0


def _skew_s(window_s: float) -> float:
    share_s = min(max(window_s * SKEW_SHARE, SKEW_S_MIN), SKEW_S_MAX)
    return min(share_s, window_s * SKEW_SHARE_MAX)
