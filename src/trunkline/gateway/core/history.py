"""An answer's attempts that are over, and what follows from them for the next one."""

from typing import Final

import msgspec

from trunkline.gateway.core.actions import Failure
from trunkline.gateway.core.route import Place
from trunkline.schema.attempt import PreviousAttempt

BACKOFF_S: Final = 0.1
BACKOFF_S_MAX: Final = 2.0
FEW_PLACES: Final = 3
"""More of them are each waited for longer, so that ``PREVIOUS_MAX`` outlasts a restart."""
PREVIOUS_MAX: Final = 64
"""Attempts at one answer, however well they went in between: bounds the receipt."""
AWAY_CODES: Final = frozenset(
    {
        "upstream_refused",
        "upstream_dns_failed",
        "upstream_connect_timeout",
        "upstream_unavailable",
    }
)
"""After these nobody was there to be asked, or what stands before them said so: nothing was done,
and nothing can have been charged."""


class History:
    """Grows by one record with each attempt that ends without the answer."""

    __slots__ = (
        "_asked", "_barren", "_barren_s", "_last_s", "_previous", "banned", "failures", "refused",
        "tried", "unfit",
    )  # fmt: skip

    def __init__(self) -> None:
        self._previous: list[PreviousAttempt] = []
        self.failures: list[Failure] = []
        """Why each one ended, in the order of ``previous``."""
        self.banned: set[str] = set()
        """Nodes that must not be asked again."""
        self.tried: tuple[Place, ...] = ()
        """Where they went, one entry per attempt."""
        self.unfit: set[Place] = set()
        """Deployments that can not honour the request."""
        self.refused: set[str] = set()
        """Models that the request is wrong for, wherever they run."""
        self._barren = 0
        """Attempts in a row without a new token."""
        self._asked = 0
        """Those of them that somebody was there for."""
        self._barren_s: float | None = None
        """When the first of them was seen to have ended."""
        self._last_s: dict[Place, float] = {}
        """When the last attempt at a place was seen to have ended."""

    def told(self, *, text: bool) -> tuple[PreviousAttempt, ...]:
        """As the next attempt's node is told. ``text``: it goes on after the text that they left
        behind, so that counts."""
        if text:
            return tuple(self._previous)
        return tuple(msgspec.structs.replace(past, characters=0) for past in self._previous)

    def add(self, past: PreviousAttempt, model: str, failure: Failure, *, barren: bool) -> None:
        """An attempt is over. ``model``: as its node names it; ``barren``: it added no token."""
        self.tried = (*self.tried, (past.node, model))
        if not barren:
            self._barren, self._asked, self._barren_s = 0, 0, None
        else:
            self._barren += 1
            self._asked += failure.code not in AWAY_CODES
        self._previous.append(past)
        self.failures.append(failure)

    def refuse(self, model: str) -> None:
        """The last attempt's node says that the request is wrong for its model; another may do."""
        self.refused.add(model)
        self.failures[-1] = msgspec.structs.replace(self.failures[-1], unfit=True)

    @property
    def refusal(self) -> Failure:
        """What the first model said that the request is wrong for."""
        return next(failure for failure in self.failures if not failure.retryable)

    def disown_tokens(self) -> None:
        """Nothing of what they produced stands any more."""
        self._previous = [
            PreviousAttempt(attempt=past.attempt, node=past.node, error=past.error)
            for past in self._previous
        ]

    def spent(self, attempts_max: int, away_s: float, now_s: float) -> bool:
        """Whether enough was tried. ``attempts_max``: attempts in a row without a new token. Those
        that found nobody there count only when they went on for ``away_s``."""
        if self.tried:
            self._last_s[self.tried[-1]] = now_s
        if self._barren_s is None:
            self._barren_s = now_s
        if len(self._previous) >= PREVIOUS_MAX or self._asked >= attempts_max:
            return True
        return self._barren >= attempts_max and now_s >= self._barren_s + away_s

    def resting(self) -> frozenset[Place]:
        """Those that want to be left alone for longer than a back-off would take."""
        last = {place: failure.retry_after_s or 0.0 for place, failure in self._pairs()}
        return frozenset(place for place, wait_s in last.items() if wait_s > BACKOFF_S_MAX)

    def delay_s(self, place: Place, now_s: float) -> float:
        """No wait for one not tried yet; back-off for one that was, since it failed. Its own word
        was kept to before it was given as a place."""
        times = self.tried.count(place)
        if not times:
            return 0.0
        rest_s = min(BACKOFF_S * 2.0 ** (times - 1), BACKOFF_S_MAX)
        rest_s *= max(len(self._last_s) / FEW_PLACES, 1.0)
        return max(self._last_s.get(place, now_s) + rest_s - now_s, 0.0)

    def _pairs(self) -> list[tuple[Place, Failure]]:
        return list(zip(self.tried, self.failures, strict=True))
