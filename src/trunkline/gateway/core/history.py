"""An answer's attempts that are over, and what follows from them for the next one."""

from typing import Final

from trunkline.gateway.core.actions import Failure
from trunkline.schema.attempt import PreviousAttempt

BACKOFF_S: Final = 0.1
BACKOFF_S_MAX: Final = 2.0
PREVIOUS_MAX: Final = 64
"""Attempts at one answer, however well they went in between: bounds the receipt."""


class History:
    """Grows by one record with each attempt that ends without the answer."""

    __slots__ = ("_barren", "_previous", "banned", "failures")

    def __init__(self) -> None:
        self._previous: list[PreviousAttempt] = []
        self.failures: list[Failure] = []
        """Why each one ended, in the order of ``previous``."""
        self.banned: set[str] = set()
        """Nodes that must not be asked again."""
        self._barren = 0
        """Attempts in a row without a new token."""

    @property
    def previous(self) -> tuple[PreviousAttempt, ...]:
        """As the next attempt's node is told."""
        return tuple(self._previous)

    @property
    def tried(self) -> tuple[str, ...]:
        """Nodes asked so far, one entry per attempt."""
        return tuple(past.node for past in self._previous)

    def add(self, past: PreviousAttempt, failure: Failure, *, barren: bool) -> None:
        """An attempt is over. ``barren``: it added no token."""
        self._barren = self._barren + 1 if barren else 0
        self._previous.append(past)
        self.failures.append(failure)

    def disown_tokens(self) -> None:
        """Nothing of what they produced stands any more."""
        self._previous = [
            PreviousAttempt(attempt=past.attempt, node=past.node, error=past.error)
            for past in self._previous
        ]

    def spent(self, attempts_max: int) -> bool:
        """Whether enough was tried. ``attempts_max``: attempts in a row without a new token."""
        return self._barren >= attempts_max or len(self._previous) >= PREVIOUS_MAX

    def resting(self) -> frozenset[str]:
        """Nodes that want to be left alone for longer than a back-off would take."""
        last = {node: failure.retry_after_s or 0.0 for node, failure in self._pairs()}
        return frozenset(node for node, wait_s in last.items() if wait_s > BACKOFF_S_MAX)

    def delay_s(self, node: str) -> float:
        """No wait for a node not tried yet; back-off, or its own word, for one that was."""
        told = [failure.retry_after_s or 0.0 for name, failure in self._pairs() if name == node]
        if not told:
            return 0.0
        return max(min(BACKOFF_S * 2.0 ** (len(told) - 1), BACKOFF_S_MAX), told[-1])

    def _pairs(self) -> list[tuple[str, Failure]]:
        return list(zip(self.tried, self.failures, strict=True))
