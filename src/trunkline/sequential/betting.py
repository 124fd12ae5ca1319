"""Bets against "the mean is at most μ₀": how a score in [0, 1] multiplies wealth.

Before each score, every bettor puts a fixed fraction f of its wealth on tickets that cost one unit
and pay x/μ₀ (or (1-x)/(1-μ₀), against a mean that is too low). If the mean is what is claimed, a
ticket is worth at most its price, so no bettor can expect to gain, whatever the scores depend on.
Many bettors with different fractions start with equal shares, and their average is the wealth.

Wealth is kept as mantissa · 2^exponent and touched only by +, -, ×, ÷ and powers of two, in a fixed
order. IEEE 754 fixes each of those results, so that another machine finds the same number to the
last bit; logarithms, which libraries round differently, are for reading only. Scores that come
together or one by one give the same bits too.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"
(JRSS-B 86, 2024; arXiv 2010.09686), with λ = f/μ₀. Pure: no clock, no randomness, no I/O.
"""

from collections.abc import Iterator
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Side: TypeAlias = Literal["above", "below", "either"]
"""Where the alternative's mean lies, seen from μ₀."""

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

FRACTIONS = (0.9375, 0.75, *(2.0**-j for j in range(1, 9)))
"""Default bets. Halving loses at most a ninth of the best bet's growth between two of them; more
bets cost more in shares than they win (docs/adr/0009-sequential-tests.md has the table)."""

FRACTION_MIN = 2.0**-20
FRACTION_MAX = 1 - 2.0**-10
FRACTIONS_MAX = 64
MEAN_MIN = 2.0**-20
"""μ₀ lies in [MEAN_MIN, 1 - MEAN_MIN]: one score then multiplies wealth by 2⁻¹⁰ to 2²⁰."""

STEPS = 32
"""Scores multiplied between two normalisations: 32 factors of at most 2²⁰ stay far from overflow,
and of at least 2⁻¹⁰ from subnormal numbers, so where the cuts fall changes no bit."""

_EXPONENT_READ = 1000


def check_fractions(fractions: tuple[float, ...]) -> None:
    """Raise ``ValueError`` unless these can be bets."""
    if not 1 <= len(fractions) <= FRACTIONS_MAX:
        raise ValueError(f"1 to {FRACTIONS_MAX} bets are made")
    if not all(FRACTION_MIN <= f <= FRACTION_MAX for f in fractions):
        raise ValueError(f"a bet lies in [{FRACTION_MIN}, {FRACTION_MAX}]")


def check_mean(mu0: float) -> None:
    """Raise ``ValueError`` unless this can be the null's mean."""
    if not MEAN_MIN <= mu0 <= 1 - MEAN_MIN:
        raise ValueError("the null's mean lies in (0, 1), at least 2^-20 from either end")


def as_scores(scores: ArrayLike) -> Floats:
    """``scores`` as float64, last axis time. Raises ``ValueError`` for one outside [0, 1]."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim == 0:
        raise ValueError("scores are a sequence")
    if not bool(np.all((array >= 0) & (array <= 1))):
        # Also refuses NaN. A score out of bounds would void the guarantee without a trace.
        raise ValueError("a score lies in [0, 1]")
    return array


def bettors(side: Side, fractions: tuple[float, ...]) -> int:
    """How many wealths there are to keep: both sides' bettors for ``either``."""
    return len(fractions) * (2 if side == "either" else 1)


def factors(
    scores: Floats, mu0: float | Floats, *, side: Side, fractions: tuple[float, ...]
) -> Floats:
    """What each score multiplies each bettor's wealth by, shape (..., time, bettors).

    (1-f) + f·x/μ₀ and (1-f) + f·(1-x)/(1-μ₀): never negative, and at most 1 in expectation under
    the null. Rounding is monotone, so the first falls and the second rises with μ₀, to the bit.
    Source: Waudby-Smith and Ramdas (2024), the capital process of §4 and its hedged form.
    """
    bets = np.array(fractions, dtype=np.float64)
    parts = []
    if side != "below":
        parts.append((1 - bets) + bets * (scores / mu0)[..., None])
    if side != "above":
        parts.append((1 - bets) + bets * ((1 - scores) / (1 - mu0))[..., None])
    return np.concatenate(parts, axis=-1)


def fresh(shape: tuple[int, ...]) -> tuple[Floats, Integers]:
    """Wealth 1 for each: mantissas and exponents."""
    return np.full(shape, 0.5), np.ones(shape, dtype=np.int64)


def grow(mantissas: Floats, exponents: Integers, multipliers: Floats) -> tuple[Floats, Integers]:
    """Every bettor's wealth after each of at most ``STEPS`` scores, shape (..., time, bettors).

    ``mantissas`` and ``exponents`` have shape (..., bettors), ``multipliers`` (..., time, bettors).
    """
    # accumulate multiplies strictly from first to last, unlike a product, which may regroup.
    products = np.multiply.accumulate(
        np.concatenate([mantissas[..., None, :], multipliers], axis=-2), axis=-2
    )[..., 1:, :]
    grown, shifts = np.frexp(products)
    return grown, exponents[..., None, :] + shifts


def pooled(mantissas: Floats, exponents: Integers) -> tuple[Floats, Integers]:
    """The average over the last axis, as mantissa and exponent."""
    largest = exponents.max(axis=-1)
    aligned = np.ldexp(mantissas, np.maximum(exponents - largest[..., None], -_EXPONENT_READ))
    # Again strictly in order; a sum may add in pairs, by the width of the machine's registers.
    total = np.add.accumulate(aligned, axis=-1)[..., -1] / mantissas.shape[-1]
    mantissa, shift = np.frexp(total)
    return mantissa, largest + shift


def readable(mantissas: Floats, exponents: Integers) -> Floats:
    """As plain floats, clipped to about 2^±1000. Exact in between, and in order throughout."""
    inside = abs(exponents) <= _EXPONENT_READ
    bounded = np.clip(exponents, -_EXPONENT_READ, _EXPONENT_READ + 1)
    out: Floats = np.ldexp(np.where(inside, mantissas, 0.5), bounded)
    return out


def blocks(
    scores: Floats, mu0: float | Floats, *, side: Side, fractions: tuple[float, ...]
) -> Iterator[tuple[int, Floats]]:
    """Wealth along streams that all begin at 1: pairs of (scores before the block, values).

    ``scores`` has shape (..., time); a ``mu0`` array must broadcast against it. Values have the
    broadcast shape, cut into blocks of ``STEPS`` scores.
    """
    shape = np.broadcast_shapes((*scores.shape[:-1], 1), np.shape(mu0))[:-1]
    mantissas, exponents = fresh((*shape, bettors(side, fractions)))
    for start in range(0, scores.shape[-1], STEPS):
        piece = scores[..., start : start + STEPS]
        grown, at = grow(mantissas, exponents, factors(piece, mu0, side=side, fractions=fractions))
        mantissas, exponents = grown[..., -1, :], at[..., -1, :]
        yield start, readable(*pooled(grown, at))
