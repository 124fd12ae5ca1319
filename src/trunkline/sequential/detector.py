"""Alarms for change: someone who was honest for long, and then is not.

A test's wealth shrinks while all is well, and has to be won back when that ends. An e-detector bets
anew from every moment on: it adds up (``shiryaev_roberts``), or takes the best of (``cusum``), the
wealths that were started at each score so far. If every score's mean, given the past, is at most
μ₀, the expected number of scores until an alarm is at least ``run_length``.

That is a promise about how often, not whether: an alarm comes in the end, also for the honest. It
asks for a closer look; it is no proof. What proves is :class:`~trunkline.sequential.MeanTest`.

Source: Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change
detection" (New England Journal of Statistics in Data Science 2, 2023; arXiv 2203.03532).
"""

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from trunkline.sequential.betting import (
    FRACTIONS,
    Floats,
    Integers,
    Side,
    as_scores,
    bettors,
    check_fractions,
    check_mean,
    factors,
)

RUN_LENGTH_MAX = 1e15


class ChangeTest(msgspec.Struct, frozen=True, kw_only=True):
    """What is watched for. Source: Shin, Ramdas and Rinaldo (2023), e-SR and e-CUSUM, mixed.

    Raises ``ValueError`` when out of range.
    """

    mu0: float
    run_length: float
    """Scores until an alarm that someone honest can expect, at least (1/α')."""
    side: Side = "above"
    kind: Literal["shiryaev_roberts", "cusum"] = "shiryaev_roberts"
    fractions: tuple[float, ...] = FRACTIONS

    def __post_init__(self) -> None:
        check_mean(self.mu0)
        check_fractions(self.fractions)
        if not 1 < self.run_length <= RUN_LENGTH_MAX:
            raise ValueError(f"a run length lies in (1, {RUN_LENGTH_MAX}]")

    def step(self, levels: Floats, scores: Floats) -> tuple[Floats, Floats]:
        """Levels (..., bettors) after one score per stream (...), and their average (...).

        M ← factor · (M + 1), or factor · max(M, 1). The first is expected to be at most the number
        of scores, at any stopping time; the second is never above it. Source: Shin, Ramdas and
        Rinaldo (2023).
        """
        factor = factors(scores[..., None], self.mu0, side=self.side, fractions=self.fractions)
        before = np.maximum(levels, 1) if self.kind == "cusum" else levels + 1
        after = factor[..., 0, :] * before
        return after, np.add.accumulate(after, axis=-1)[..., -1] / after.shape[-1]

    def fresh(self, shape: tuple[int, ...] = ()) -> Floats:
        """Levels before any score."""
        return np.zeros((*shape, bettors(self.side, self.fractions)))


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """An e-detector after ``samples`` scores; a frozen record. Make one with :meth:`start`."""

    test: ChangeTest
    samples: int
    """Scores taken since the start; none is taken after an alarm."""
    levels: tuple[float, ...]
    alarmed_at: int | None

    @classmethod
    def start(cls, test: ChangeTest) -> "Detector":
        """Before any score; also how to go on after an alarm, once it was looked into."""
        levels = tuple(test.fresh().tolist())
        return cls(test=test, samples=0, levels=levels, alarmed_at=None)

    def observe(self, scores: ArrayLike) -> "Detector":
        """The record after ``scores``, shape (time,), each in [0, 1]; else ``ValueError``.

        Scores that follow an alarm are not taken. Source: Shin, Ramdas and Rinaldo (2023).
        """
        taken = as_scores(scores)
        if taken.ndim != 1:
            raise ValueError("one stream of scores at a time")
        levels = np.array(self.levels)
        samples, alarmed_at = self.samples, self.alarmed_at
        for score in taken:
            if alarmed_at is not None:
                break
            levels, level = self.test.step(levels, score)
            samples += 1
            if level >= self.test.run_length:
                alarmed_at = samples
        return Detector(
            test=self.test,
            samples=samples,
            levels=tuple(levels.tolist()),
            alarmed_at=alarmed_at,
        )

    @property
    def alarmed(self) -> bool:
        return self.alarmed_at is not None


def run_lengths(test: ChangeTest, scores: ArrayLike) -> Integers:
    """Per stream, how many scores it took to alarm, 0 for never; shape (...) of (..., time).

    Bit for bit what :class:`Detector` finds; for proofs by simulation. Source: Shin, Ramdas and
    Rinaldo (2023).
    """
    taken = as_scores(scores)
    found = np.zeros(taken.shape[:-1], dtype=np.int64)
    levels = test.fresh(taken.shape[:-1])
    for at in range(taken.shape[-1]):
        levels, level = test.step(levels, taken[..., at])
        found[(found == 0) & (level >= test.run_length)] = at + 1
        # A stream that has alarmed is left alone; this only keeps its levels finite.
        levels[found > 0] = 0
    return found
