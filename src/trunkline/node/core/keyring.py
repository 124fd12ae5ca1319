"""Which of a provider account's keys takes the next call: health and room of each, pure.

A key that the provider refuses is benched, longer each time; one that reached a limit rests until
its reset; of the others, the one with the most room left, then the fewest calls under way, then the
longest unused takes the call. It holds labels, never keys.
"""

from collections.abc import Collection
from typing import Final, Literal

import msgspec

from trunkline.schema.attempt import Limits, Quota

REFUSED_S: Final = 60.0
REFUSED_S_MAX: Final = 3600.0
RESTED_S: Final = 5.0
"""Rest after a limit whose reset is not known."""
SPENT_S: Final = 600.0
"""Rest of a key whose money is spent."""
_STEPS: Final = 10
"""Rooms within a tenth of each other count as equal."""

State = Literal["ready", "resting", "refused"]


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """One key, as ``/healthz`` shows it."""

    label: str
    state: State
    """``resting``: it reached a limit; ``refused``: the provider does not take it."""
    wait_ms: int
    """Until it is tried again; 0 when ready."""
    running: int


class _Key:
    __slots__ = ("heard_s", "label", "limits", "refusals", "running", "state", "until_s", "used")

    def __init__(self, label: str) -> None:
        self.label = label
        self.state: State = "ready"
        self.until_s = 0.0
        self.refusals = 0
        self.running = 0
        self.used = 0
        self.limits: Limits | None = None
        self.heard_s = 0.0


class KeyRing:
    """The keys of one account, by their index. Times are seconds of a clock that never steps."""

    __slots__ = ("_calls", "_keys")

    def __init__(self, labels: Collection[str]) -> None:
        self._keys = [_Key(label) for label in labels]
        self._calls = 0

    def pick(self, now_s: float, tried: Collection[int] = ()) -> int | None:
        """The key for the next call, none of ``tried``. None: no other can be used now. Where all
        keys are refused, the first try gets the one benched for the least time. Follow it by
        :meth:`ended`."""
        usable = [
            index
            for index, key in enumerate(self._keys)
            if index not in tried and now_s >= key.until_s
        ]
        if not usable and not tried and all(key.state == "refused" for key in self._keys):
            # Whoever asks has a breaker of its own: its probe shall find out, and soon.
            usable = [min(range(len(self._keys)), key=lambda index: self._keys[index].until_s)]
        if not usable:
            return None
        best = min(usable, key=lambda index: self._rank(self._keys[index], now_s))
        chosen = self._keys[best]
        self._calls += 1
        chosen.used = self._calls
        chosen.running += 1
        return best

    def ended(self, index: int) -> None:
        """A call of the key is over."""
        self._keys[index].running -= 1

    def heard(self, index: int, limits: Limits | None, now_s: float) -> None:
        """A call was accepted, with what the provider said of the key's limits."""
        key = self._keys[index]
        key.state, key.until_s, key.refusals = "ready", 0.0, 0
        self._note(key, limits, now_s)

    def refused(self, index: int, now_s: float) -> None:
        """The provider does not take the key."""
        key = self._keys[index]
        key.state = "refused"
        key.until_s = now_s + min(REFUSED_S * 2.0**key.refusals, REFUSED_S_MAX)
        key.refusals = min(key.refusals + 1, 16)

    def limited(
        self, index: int, wait_s: float | None, limits: Limits | None, now_s: float
    ) -> None:
        """The key reached a limit, for ``wait_s`` if the provider said so."""
        key = self._keys[index]
        key.state = "resting"
        key.until_s = now_s + (RESTED_S if wait_s is None else wait_s)
        self._note(key, limits, now_s)

    def wait_s(self, now_s: float) -> float | None:
        """Until the first resting key may be used again; None if none rests."""
        waits = [key.until_s - now_s for key in self._keys if key.state == "resting"]
        return max(0.0, min(waits)) if waits else None

    def states(self, now_s: float) -> tuple[KeyState, ...]:
        return tuple(
            KeyState(
                label=key.label,
                state=key.state if now_s < key.until_s else "ready",
                wait_ms=max(0, round((key.until_s - now_s) * 1000)),
                running=key.running,
            )
            for key in self._keys
        )

    def limits(self, now_s: float) -> Limits | None:
        """What the keys allow together, as far as they said. None if none said anything."""
        sums: dict[tuple[str, int | None], Quota] = {}
        for key in self._keys:
            if key.state == "refused" and now_s < key.until_s:
                continue
            for quota in _now(key, now_s):
                place = (quota.unit, quota.window_ms)
                sums[place] = _sum(sums[place], quota) if place in sums else quota
        return Limits(quotas=tuple(sums.values())) if sums else None

    def _note(self, key: _Key, limits: Limits | None, now_s: float) -> None:
        if limits is not None:
            key.limits, key.heard_s = limits, now_s

    def _rank(self, key: _Key, now_s: float) -> tuple[int, int, int]:
        room = min((_room(quota, key.running) for quota in _now(key, now_s)), default=1.0)
        return -round(room * _STEPS), key.running, key.used


def _now(key: _Key, now_s: float) -> tuple[Quota, ...]:
    """The key's quotas, brought up to the present."""
    if key.limits is None:
        return ()
    passed_ms = round((now_s - key.heard_s) * 1000)
    return tuple(_later(quota, passed_ms) for quota in key.limits.quotas)


def _later(quota: Quota, passed_ms: int) -> Quota:
    if quota.reset_ms is None:
        return quota
    left_ms = quota.reset_ms - passed_ms
    if left_ms > 0:
        return msgspec.structs.replace(quota, reset_ms=left_ms)
    return msgspec.structs.replace(quota, reset_ms=0, remaining=quota.limit)


def _room(quota: Quota, running: int) -> float:
    """The share of a quota that is left; 1 where that is not known."""
    if quota.remaining is None:
        return 1.0
    left = quota.remaining - (running if quota.unit == "requests" else 0)
    if quota.limit:
        return min(max(left / quota.limit, 0.0), 1.0)
    return 1.0 if left > 0 else 0.0


def _sum(one: Quota, other: Quota) -> Quota:
    """Both together; what only one of them states stays that one's."""
    return Quota(
        unit=one.unit,
        window_ms=one.window_ms,
        limit=_plus(one.limit, other.limit),
        remaining=_plus(one.remaining, other.remaining),
        reset_ms=max((x for x in (one.reset_ms, other.reset_ms) if x is not None), default=None),
    )


def _plus(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other
