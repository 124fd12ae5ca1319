"""How often a slow answer may be helped along by a second attempt: a budget counted in answers.

Each answer that begins saves a share of one hedge, up to a small reserve; a hedge spends a whole
one. So hedges cost at most that share of extra calls, also when every node is slow at once, which
is when more calls would do harm.
"""

from typing import Final

RESERVE: Final = 3.0
"""Hedges that may follow each other at once after a calm time."""


class HedgeBudget:
    """What is saved, from 0 to ``RESERVE``. A new process may hedge once."""

    __slots__ = ("_saved",)

    def __init__(self) -> None:
        self._saved = 1.0

    def began(self, share: float) -> None:
        """An answer begins, of which ``share`` (0 to 1) of a hedge is saved."""
        self._saved = min(self._saved + share, RESERVE)

    @property
    def enough(self) -> bool:
        """Whether one more is paid for."""
        return self._saved >= 1.0

    def spend(self) -> None:
        """A hedge begins."""
        self._saved -= 1.0
