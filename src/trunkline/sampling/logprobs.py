"""Log-probabilities as callers are shown them: of the model's raw logits, before any sampling rule.

Float64 throughout. They are for reading; no token is ever chosen by them.
"""

import numpy as np
from numpy.typing import NDArray


class LogProbabilities:
    """log softmax of one position's logits, shape (vocabulary,)."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        self._x = logits.astype(np.float64)
        peak = float(self._x.max())
        self._log_total = peak + float(np.log(np.exp(self._x - peak).sum()))

    def of(self, token: int) -> float:
        """Natural logarithm of ``token``'s probability."""
        return float(self._x[token]) - self._log_total

    def top(self, count: int) -> list[tuple[int, float]]:
        """The ``count`` likeliest tokens and their values, equal ones by ascending id."""
        count = min(count, self._x.size)
        if count <= 0:
            return []
        smallest = np.partition(self._x, self._x.size - count)[self._x.size - count]
        tokens = np.flatnonzero(self._x >= smallest)
        order = tokens[np.argsort(-self._x[tokens], kind="stable")][:count]
        return [(int(token), self.of(int(token))) for token in order]
