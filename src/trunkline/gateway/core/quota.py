"""What an account allows: windows of requests and tokens, stated or learned from refusals.

Three sources: what the operator wrote (``configure``), what the provider states in its answers
(``stated``), and its refusals (``refused``). A request's cost is spent when it starts and settled
with its real usage when it ends. A refusal that no window explains is first taken for too much at
once (``concurrency.py``); when little runs and it is still refused, it teaches a rate: 85 % of what
went through, growing by its own size again each minute.

Reads no clock: ``now_s`` is monotonic seconds from the shell.
"""

from collections import deque
from typing import Final

import msgspec

from trunkline.gateway.core.window import Entry, Window
from trunkline.schema.attempt import Limits, Quota

MINUTE_S: Final = 60.0
BACKOFF_S: Final = 0.25
BACKOFF_S_MAX: Final = 30.0
"""How long a deployment that says "too many" without a word more is left alone; each refusal in a
row doubles it."""
CLOSED_S_MAX: Final = 31 * 86_400.0
PACE_CUT: Final = 0.85
PACE_GROWTH_S: Final = 60.0
PACE_GONE: Final = 8.0
"""A taught rate that has grown so many times over is no limit any more."""
SURE_SHARE: Final = 0.25
"""Of a prompt's estimate, that it will not turn out to be under."""
STARTS_KEPT: Final = 256
TAUGHT_S: Final = 10.0
"""How far back a rate is taken from."""
WINDOWS_MAX: Final = 16


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one request spends: itself, and model tokens."""

    input_tokens: int
    output_tokens: int = 0
    text_bytes: int = 0
    """What ``input_tokens`` was estimated from, if from text alone; 0: not to be learned from."""

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.input_tokens + self.output_tokens

    def of(self, unit: str) -> int:
        """In a quota's unit."""
        match unit:
            case "requests":
                return 1
            case "input_tokens":
                return self.input_tokens
            case "output_tokens":
                return self.output_tokens
            case _:
                return self.tokens


class TooLarge(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that a request would break by itself."""

    unit: str
    limit: int
    asked: int
    """At least."""


Key = tuple[str, float | None]
"""A window's unit and its length as stated, seconds."""
Spent = tuple[tuple[Key, Entry], ...]


class Pace:
    """A rate taught by refusals, grown by time."""

    __slots__ = ("_cut_s", "_next_s", "_rate_s")

    def __init__(self, rate_s: float, now_s: float) -> None:
        self._rate_s = rate_s
        self._cut_s = now_s
        self._next_s = now_s

    def rate_s(self, now_s: float) -> float:
        """Requests a second."""
        return self._rate_s * (1 + max(now_s - self._cut_s, 0.0) / PACE_GROWTH_S)

    def gone(self, now_s: float) -> bool:
        """It has been grown out of."""
        return self.rate_s(now_s) >= self._rate_s * PACE_GONE

    @property
    def opens_s(self) -> float:
        return self._next_s

    def spend(self, now_s: float) -> None:
        self._next_s = max(self._next_s, now_s) + 1 / self.rate_s(now_s)

    def cut(self, now_s: float) -> None:
        """It was too much after all."""
        self._rate_s = self.rate_s(now_s) * PACE_CUT
        self._cut_s = now_s


class Meter:
    """All limits of one account or deployment."""

    __slots__ = (
        "_closed_s", "_pace", "_refusals", "_refused_s", "_starts", "concurrency", "windows",
    )  # fmt: skip

    def __init__(self) -> None:
        self.windows: dict[Key, Window] = {}
        self.concurrency: int | None = None
        """Stated places; None: not stated."""
        self._closed_s = float("-inf")
        self._pace: Pace | None = None
        self._refusals = 0
        """In a row."""
        self._refused_s = float("-inf")
        """When one was heard last that nothing explained."""
        self._starts: deque[float] = deque(maxlen=STARTS_KEPT)

    @property
    def closed_s(self) -> float:
        """Until when nothing may start, by the provider's own word."""
        return self._closed_s

    def rate_s(self, cost: Cost, now_s: float) -> float:
        """Requests like this one that a second allows in the long run; infinite where unknown."""
        rates = [w.rate_s / max(cost.of(unit), 1) for (unit, _), w in self.windows.items()]
        if self._pace is not None:
            rates.append(self._pace.rate_s(now_s))
        return min(rates, default=float("inf"))

    def room(self, cost: Cost, now_s: float) -> float:
        """Requests like this one that the windows would let start at once; infinite without."""
        if self._pace is not None:
            return 0.0
        rooms = [w.room(now_s) // max(cost.of(unit), 1) for (unit, _), w in self.windows.items()]
        return max(min(rooms, default=float("inf")), 0.0)

    def pace_s(self, now_s: float) -> float | None:
        """Requests a second that refusals taught; None: no such limit is known."""
        pace = self._pace
        return None if pace is None or pace.gone(now_s) else pace.rate_s(now_s)

    def opens_s(self, cost: Cost, now_s: float) -> float:
        """When the request could start if nothing else did; ``now_s``: now."""
        at_s = max(self._closed_s, now_s)
        for (unit, _), window in self.windows.items():
            at_s = max(at_s, window.opens_s(cost.of(unit), now_s))
        if self._pace is not None:
            at_s = max(at_s, self._pace.opens_s)
        return at_s

    def too_large(self, cost: Cost) -> TooLarge | None:
        """A limit that the request is surely too large for, even if its prompt was estimated at
        far too much; None: there is none."""
        sure = Cost(
            input_tokens=int(cost.input_tokens * SURE_SHARE), output_tokens=cost.output_tokens
        )
        for (unit, _), window in self.windows.items():
            if window.limit_known and sure.of(unit) > window.limit:
                return TooLarge(unit=unit, limit=window.limit, asked=sure.of(unit))
        return None

    def spend(self, cost: Cost, now_s: float) -> Spent:
        """It starts. Keep what is returned for :meth:`settle`."""
        self._starts.append(now_s)
        if self._pace is not None:
            if self._pace.gone(now_s):
                self._pace = None
            else:
                self._pace.spend(now_s)
        return tuple(
            (key, window.spend(cost.of(key[0]), now_s)) for key, window in self.windows.items()
        )

    def settle(self, spent: Spent, cost: Cost) -> None:
        """What it really cost."""
        for key, entry in spent:
            window = self.windows.get(key)
            if window is not None:
                window.settle(entry, cost.of(key[0]))

    def refund(self, spent: Spent, *, requests: bool) -> None:
        """It reached nobody (``requests``), or was refused: then only its tokens come back."""
        for key, entry in spent:
            window = self.windows.get(key)
            if window is not None and (requests or key[0] != "requests"):
                window.refund(entry, refused=not requests)

    def configure(
        self, requests_per_minute: int | None, tokens_per_minute: int | None, places: int | None
    ) -> None:
        """What the operator wrote. What was spent counts on."""
        self._configure(("requests", MINUTE_S), requests_per_minute)
        self._configure(("tokens", MINUTE_S), tokens_per_minute)
        self.concurrency = places

    def stated(self, limits: Limits, now_s: float) -> None:
        """The provider's word on its limits, in an answer or a refusal."""
        for quota in limits.quotas:
            if quota.unit == "concurrency":
                self.concurrency = quota.limit or self.concurrency
            else:
                self._stated(quota, now_s)

    def succeeded(self) -> None:
        """An attempt got through."""
        self._refusals = 0

    def refused(
        self,
        retry_after_s: float | None,
        cost: Cost,
        started_s: float,
        now_s: float,
        *,
        alone: bool,
    ) -> bool:
        """The provider said "later" to an attempt that began at ``started_s``. ``alone``: hardly
        anything else ran there then, so it is not for too much at once. Returns whether no window
        explains it: report what it said with :meth:`stated` before."""
        fits = all(w.room(now_s) >= cost.of(u) for (u, _), w in self.windows.items())
        # It began before the last refusal was heard: an echo, from which all was learned.
        echo = started_s <= self._refused_s
        if not echo:
            self._refusals += 1
        pause_s = retry_after_s
        if pause_s is None and fits and (alone or self._refusals > 1):
            # A first refusal among many costs a place there, and that is pause enough.
            pause_s = min(BACKOFF_S * 2.0 ** min(self._refusals - 1, 16), BACKOFF_S_MAX)
        self.close(now_s + min(max(pause_s or 0.0, 0.0), CLOSED_S_MAX))
        if not fits or any(w.scarce(cost.of(u), now_s) for (u, _), w in self.windows.items()):
            return False
        if echo:
            return True
        self._refused_s = now_s
        for window in self.windows.values():
            window.widen()
        if alone and retry_after_s is None:
            # Where it says when to come back, there is nothing to be found out.
            self._teach(now_s)
        return True

    def close(self, until_s: float) -> None:
        """Nothing starts before."""
        self._closed_s = max(self._closed_s, until_s)

    def _teach(self, now_s: float) -> None:
        """A rate from what went through of late, the refused one not counted."""
        if self._pace is not None:
            self._pace.cut(now_s)
            return
        recent = [at_s for at_s in self._starts if at_s >= now_s - TAUGHT_S]
        since_s = recent[0] if recent else now_s
        span_s = max(max(self._closed_s, now_s) - since_s, 1.0)
        self._pace = Pace(max(len(recent) - 1, 1) / span_s * PACE_CUT, now_s)

    def _configure(self, key: Key, limit: int | None) -> None:
        if limit is None:
            self.windows.pop(key, None)
        elif key in self.windows:
            self.windows[key].limit = limit
        else:
            self.windows[key] = Window(limit, key[1])

    def _stated(self, quota: Quota, now_s: float) -> None:
        key = (quota.unit, None if not quota.window_ms else quota.window_ms / 1000)
        window = self.windows.get(key)
        if window is None:
            # A remainder without the limit it is of binds no less.
            limit = quota.limit if quota.limit is not None else quota.remaining
            if limit is None or len(self.windows) >= WINDOWS_MAX:
                return
            window = self.windows[key] = Window(limit, key[1])
            window.limit_known = quota.limit is not None
        elif quota.limit is None and quota.remaining is not None:
            window.limit = max(window.limit, quota.remaining)
        window.stated(
            limit=quota.limit,
            remaining=quota.remaining,
            reset_s=None if quota.reset_ms is None else quota.reset_ms / 1000,
            now_s=now_s,
        )
