"""Many tests at once, and passing between p-values and e-values.

An e-value is a number that is at most 1 in expectation when the null holds: wealth at any stopping
time is one. It may be averaged and ranked whatever the dependence, which p-values may not.

Sources: Wang and Ramdas, "False discovery rate control with e-values" (JRSS-B 84, 2022; arXiv
2009.02824); Vovk and Wang, "E-values: calibration, combination and applications" (Annals of
Statistics 49, 2021; arXiv 1912.06116).
"""

import math
from collections.abc import Sequence


def e_bh(e_values: Sequence[float], alpha: float) -> tuple[int, ...]:
    """Which nulls to reject, as ascending indices, so that the false share is at most ``alpha``.

    The k largest are rejected, for the largest k with k · e₍ₖ₎ / K ≥ 1/α. The expected share of
    honest ones among those rejected is at most ``alpha`` (times the share of the honest), whatever
    the dependence between nodes. It bounds a *share*: to hold one named node to account, its own
    test at α stands. Raises ``ValueError`` for a negative or undefined e-value.

    Source: Wang and Ramdas (2022), the e-BH procedure and its main theorem.
    """
    _check_alpha(alpha)
    _check_e_values(e_values)
    order = sorted(range(len(e_values)), key=lambda index: (-e_values[index], index))
    count = len(order)
    rejected = 0
    for k, index in enumerate(order, start=1):
        if k * alpha * e_values[index] >= count:
            rejected = k
    return tuple(sorted(order[:rejected]))


def average(e_values: Sequence[float]) -> float:
    """One e-value out of several about the same null, whatever their dependence.

    The sum is rounded once, so order does not matter. Source: Vovk and Wang (2021), §3, where it is
    shown to be the only symmetric way, up to domination. Raises ``ValueError`` when there is none.
    """
    if not e_values:
        raise ValueError("no e-value to average")
    _check_e_values(e_values)
    return math.fsum(value / len(e_values) for value in e_values)


def e_from_p(p_value: float, kappa: float = 0.5) -> float:
    """κ · p^(κ-1): an e-value from a p-value, with κ in (0, 1).

    Fixed before p is seen. Infinite at p = 0, which an honest p-value never is.
    Source: Vovk and Wang (2021), §2.
    """
    _check_p_value(p_value)
    if not 0 < kappa < 1:
        raise ValueError("kappa lies in (0, 1)")
    return math.inf if p_value == 0 else kappa * p_value ** (kappa - 1)


def e_from_p_mixed(p_value: float) -> float:
    """The average of :func:`e_from_p` over all κ: (1 - p + p·ln p) / (p·ln²p); nothing to choose.

    Source: Vovk and Wang (2021), §2.
    """
    _check_p_value(p_value)
    if p_value == 0:
        return math.inf
    # With t = -ln p it reads (eᵗ - 1 - t)/t². Rounding down stays valid: t is capped where eᵗ would
    # overflow, and near p = 1, where the quotient is 0/0, its series is cut off.
    t = min(-math.log(p_value), 700.0)
    return 0.5 + t / 6 if t < 1e-4 else (math.expm1(t) - t) / (t * t)


def p_from_e(e_value: float) -> float:
    """min(1, 1/e). Source: Markov's inequality; Vovk and Wang (2021), §2, the only admissible."""
    _check_e_values([e_value])
    return 1.0 if e_value <= 1 else 1 / e_value


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError("alpha lies in (0, 1)")


def _check_p_value(p_value: float) -> None:
    if not 0 <= p_value <= 1:
        raise ValueError("a p-value lies in [0, 1]")


def _check_e_values(e_values: Sequence[float]) -> None:
    if not all(value >= 0 for value in e_values):
        raise ValueError("an e-value is a number of at least 0")
