"""A test of a mean that may be looked at after every score, and stopped at any time.

:class:`MeanTest` says what is tested; :class:`Wealth` is all that has to be kept between scores. It
is a frozen record: the same scores in the same order give the same record to the last bit, on any
machine, so a verdict's number can be recomputed by anyone who has the scores.

What it promises: if every score's mean, given all that came before, is at most μ₀, then the chance
that wealth *ever* reaches 1/α is at most α (Ville). Nothing is asked of independence or of shape.
What it does not: it never says that a mean is as claimed, only that the data do not speak against
it; and it fails whoever's μ₀ was calibrated too low. "Given all that came before" is meant: tokens
of one hard answer foretell each other, so score answers, or choose μ₀ by what was seen before.

Sources: Waudby-Smith and Ramdas (2024), arXiv 2010.09686; Ville, "Étude critique de la notion de
collectif" (1939).
"""

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from trunkline.sequential.betting import (
    FRACTIONS,
    STEPS,
    Floats,
    Integers,
    Side,
    as_scores,
    bettors,
    blocks,
    check_fractions,
    check_mean,
    factors,
    fresh,
    grow,
    pooled,
    readable,
)

ALPHA_MIN = 1e-30


def check_alpha(alpha: float) -> None:
    """Raise ``ValueError`` unless this can be an error probability."""
    if not ALPHA_MIN <= alpha < 1:
        raise ValueError(f"alpha lies in [{ALPHA_MIN}, 1)")


class MeanTest(msgspec.Struct, frozen=True, kw_only=True):
    """The null "each score's mean, given the past, is at most ``mu0``", and how it is bet against.

    ``side="below"`` tests "at least", ``"either"`` tests "exactly" with half the wealth on each
    side. Source: Waudby-Smith and Ramdas (2024), §4. Raises ``ValueError`` when out of range.
    """

    mu0: float
    alpha: float
    """Chance of ever failing someone honest, at most."""
    side: Side = "above"
    fractions: tuple[float, ...] = FRACTIONS
    """One bettor each, equal shares: a fraction named twice weighs double."""

    def __post_init__(self) -> None:
        check_mean(self.mu0)
        check_alpha(self.alpha)
        check_fractions(self.fractions)

    @property
    def threshold(self) -> float:
        """Wealth that fails: 1/α."""
        return 1 / self.alpha

    @property
    def bettors(self) -> int:
        return bettors(self.side, self.fractions)


class Wealth(msgspec.Struct, frozen=True, kw_only=True):
    """The wealth of every bettor after ``samples`` scores. Make one with :meth:`start`."""

    test: MeanTest
    samples: int
    mantissas: tuple[float, ...]
    """In [0.5, 1), one per bettor."""
    exponents: tuple[int, ...]
    """Powers of two."""
    peak: float
    """The largest wealth so far, clipped at 2^1000."""
    failed_at: int | None
    """Scores taken when wealth first reached 1/α. It stays failed."""

    @classmethod
    def start(cls, test: MeanTest) -> "Wealth":
        """Wealth 1, before any score."""
        mantissas, exponents = fresh((test.bettors,))
        return cls(
            test=test,
            samples=0,
            mantissas=tuple(mantissas.tolist()),
            exponents=tuple(exponents.tolist()),
            peak=1.0,
            failed_at=None,
        )

    def observe(self, scores: ArrayLike) -> "Wealth":
        """The record after ``scores``, shape (time,), each in [0, 1]; else ``ValueError``.

        How scores are cut into calls changes nothing. Wealth is looked at after every score.
        Source: Waudby-Smith and Ramdas (2024), §4; failing at 1/α: Ville (1939).
        """
        taken = as_scores(scores)
        if taken.ndim != 1:
            raise ValueError("one stream of scores at a time")
        mantissas, exponents = self._arrays()
        peak, failed_at = self.peak, self.failed_at
        for start in range(0, taken.size, STEPS):
            grown, at = grow(mantissas, exponents, self._factors(taken[start : start + STEPS]))
            mantissas, exponents = grown[-1], at[-1]
            values = readable(*pooled(grown, at))
            peak = max(peak, float(values.max()))
            if failed_at is None and peak >= self.test.threshold:
                crossed = int(np.argmax(values >= self.test.threshold))
                failed_at = self.samples + start + crossed + 1
        return Wealth(
            test=self.test,
            samples=self.samples + taken.size,
            mantissas=tuple(mantissas.tolist()),
            exponents=tuple(exponents.tolist()),
            peak=peak,
            failed_at=failed_at,
        )

    @property
    def failed(self) -> bool:
        """Whether wealth ever reached 1/α: the null is refuted at level α. Source: Ville (1939)."""
        return self.failed_at is not None

    @property
    def e_value(self) -> float:
        """Wealth now, clipped to 2^±1000: an e-value at any stopping time.

        For e-BH and averages; the peak is none. Source: Waudby-Smith and Ramdas (2024), §4.
        """
        return float(readable(*pooled(*self._arrays())))

    @property
    def p_value(self) -> float:
        """min(1, 1/peak), valid at any time. Source: Ville (1939)."""
        return 1 / self.peak

    @property
    def log10(self) -> float:
        """log₁₀ of wealth, never clipped, for reading: the last digit may differ by machine."""
        mantissa, exponent = pooled(*self._arrays())
        return math.log10(float(mantissa)) + int(exponent) * math.log10(2)

    def merged(self, other: "Wealth") -> "Wealth":
        """The wealth of both streams together, as if one had followed the other.

        Valid only for *disjoint* scores, each with mean at most μ₀ given every earlier score of
        *either* stream: audits shared out among verifiers beforehand are; two looks at one answer,
        or audits drawn because of what the other stream showed, are not. Bets are fixed, so order
        does not matter, up to rounding. What each stream reached alone is not carried over: taking
        the best of three processes would be three chances to err.

        Source: products of sequential e-values, Vovk and Wang, "E-values: calibration, combination
        and applications" (Annals of Statistics 49, 2021), §4. Raises ``ValueError`` for different
        tests.
        """
        if other.test != self.test:
            raise ValueError("only wealth of one and the same test is merged")
        ours, theirs = self._arrays(), other._arrays()
        mantissas, shifts = np.frexp(ours[0] * theirs[0])
        exponents = ours[1] + theirs[1] + shifts
        value = float(readable(*pooled(mantissas, exponents)))
        samples = self.samples + other.samples
        return Wealth(
            test=self.test,
            samples=samples,
            mantissas=tuple(mantissas.tolist()),
            exponents=tuple(exponents.tolist()),
            peak=max(1.0, value),
            failed_at=samples if value >= self.test.threshold else None,
        )

    def _arrays(self) -> tuple[Floats, Integers]:
        return np.array(self.mantissas), np.array(self.exponents, dtype=np.int64)

    def _factors(self, scores: Floats) -> Floats:
        test = self.test
        return factors(scores, test.mu0, side=test.side, fractions=test.fractions)


def trajectories(test: MeanTest, scores: ArrayLike) -> Floats:
    """Wealth after each score of many streams at once, same shape as ``scores``: (..., time).

    Bit for bit what :class:`Wealth` finds one stream at a time; for calibration, plots and proofs
    by simulation. Source: Waudby-Smith and Ramdas (2024), §4.
    """
    taken = as_scores(scores)
    out = np.empty(taken.shape)
    for start, values in blocks(taken, test.mu0, side=test.side, fractions=test.fractions):
        out[..., start : start + values.shape[-1]] = values
    return out


def first_failures(test: MeanTest, scores: ArrayLike) -> Integers:
    """Per stream, how many scores it took to fail, 0 for never; shape (...) of (..., time).

    Source: Ville (1939).
    """
    crossed = trajectories(test, scores) >= test.threshold
    found: Integers = np.where(crossed.any(axis=-1), crossed.argmax(axis=-1) + 1, 0)
    return found
