"""Bounds on a mean that hold at every moment at once, for reports.

A mean m stays in while the test of m has not failed. Bets against "at most m" lose value as m
rises, so what was ever refuted from below is everything under one number, and likewise from above.

Source: Waudby-Smith and Ramdas (2024), arXiv 2010.09686, confidence sequences by betting.
"""

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from trunkline.sequential.betting import FRACTIONS, MEAN_MIN, Floats, Side, as_scores, blocks
from trunkline.sequential.wealth import check_alpha

CANDIDATES = 512
"""Means tried. They lie closer together near 0 and 1, where honest means live: the widest gap is
1.5/512, the first one 1.1e-5."""


class ConfidenceSequence(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds after each score; shape (time,) each. ``lower`` never falls, ``upper`` never rises.

    With many scores of a wrong kind (the mean moves, scores choose each other) they may cross: then
    no one mean explains the data.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]


def confidence_sequence(scores: ArrayLike, alpha: float) -> ConfidenceSequence:
    """Bounds that contain the mean at *all* times together with chance at least 1 - ``alpha``.

    ``scores`` has shape (time,), each in [0, 1], with one and the same mean given the past. Bounds
    lie on a fixed grid and are rounded outwards. Takes 2 · ``CANDIDATES`` tests' work. Raises
    ``ValueError`` when out of range.

    Source: Waudby-Smith and Ramdas (2024), §4, hedged, with half of ``alpha`` for each side and the
    running intersection taken.
    """
    check_alpha(alpha)
    taken = as_scores(scores)
    if taken.ndim != 1:
        raise ValueError("one stream of scores at a time")
    grid = _grid()
    lower = _refuted_below(taken, grid, alpha / 2, "above")
    # The mean of 1 - x, mirrored: the same grid, since it is symmetric.
    upper = _refuted_below(taken, grid[::-1], alpha / 2, "below")
    return ConfidenceSequence(lower=tuple(lower.tolist()), upper=tuple(upper.tolist()))


def _grid() -> Floats:
    """Candidate means in ascending order, by 3u² - 2u³."""
    u = np.arange(1, CANDIDATES) / CANDIDATES
    inner = u * u * (3 - 2 * u)
    return np.clip(inner, MEAN_MIN, 1 - MEAN_MIN)


def _refuted_below(scores: Floats, candidates: Floats, alpha: float, side: Side) -> Floats:
    """After each score, the last of ``candidates`` that has ever been refuted, in their order.

    Wealth falls along ``candidates``, so those refuted come first. Before any is, the bound is the
    trivial one.
    """
    trivial = 0.0 if side == "above" else 1.0
    bounds = np.concatenate([[trivial], candidates])
    counts = np.zeros(scores.size, dtype=np.int64)
    means = candidates[:, None]
    for start, values in blocks(scores[None, :], means, side=side, fractions=FRACTIONS):
        counts[start : start + values.shape[-1]] = (values >= 1 / alpha).sum(axis=0)
    out: Floats = bounds[np.maximum.accumulate(counts)]
    return out
