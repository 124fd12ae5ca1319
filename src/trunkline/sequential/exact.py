"""The exact regime: what one mismatch proves, said honestly.

Node and verifier share build, settings and hardware class, so an honest node should never differ.
"Never" is a belief; what a calibration with no mismatch in n scores shows is a bound on how often,
about 3/n at 95 % (the rule of three). One mismatch is then *proof* only as far as that bound, times
the number of scores checked, is small; these functions say how far. A bound of zero has to come
from elsewhere: a shared, deterministic build, which no amount of counting can show.

Scores that stand and fall together (tokens of one answer) are one trial, not many: count answers,
or whatever may be taken as independent.

To go on testing after every score, use :class:`~trunkline.sequential.MeanTest` with ``mu0`` =
:func:`mismatch_rate_max` on scores 1 (mismatch) and 0.
"""

import math

TRIALS_MAX = 10**12


def mismatch_rate_max(clean: int, confidence: float) -> float:
    """Upper bound of the mismatch rate after ``clean`` independent trials without one.

    1 - (1-confidence)^(1/n): exact; at 95 % about 3/n. Wrong with chance 1 - ``confidence``, which
    adds to the α of any test built on it. ``clean`` = 0 gives 1.

    Source: Clopper and Pearson, Biometrika 26 (1934), for no successes; rule of three: Hanley and
    Lippman-Hand, JAMA 249 (1983). Raises ``ValueError`` when out of range.
    """
    _check_trials(clean)
    if not 0 < confidence < 1:
        raise ValueError("a confidence lies in (0, 1)")
    return 1.0 if clean == 0 else -math.expm1(math.log1p(-confidence) / clean)


def mismatch_chance_max(mismatches: int, checked: int, rate_max: float) -> float:
    """Chance, at most, that an honest node shows ``mismatches`` or more in ``checked`` scores.

    ``checked`` is fixed beforehand, and each mismatch has chance at most ``rate_max`` given the
    past; a binomial tail bounds the sum of such trials. With one mismatch: at most
    checked · rate_max. It is proof at level α when this, plus the bound's own doubt, is at most α.

    Source: binomial tail; Chernoff's bound (Annals of Mathematical Statistics 23, 1952) beyond
    1,000 mismatches. Raises ``ValueError`` when out of range.
    """
    _check_trials(checked)
    if not 0 <= mismatches <= checked:
        raise ValueError("mismatches lie between 0 and the number checked")
    if not 0 <= rate_max <= 1:
        raise ValueError("a rate lies in [0, 1]")
    if mismatches == 0 or rate_max == 1:
        return 1.0
    if rate_max == 0:
        return 0.0
    if mismatches == 1:
        return -math.expm1(checked * math.log1p(-rate_max))
    if mismatches / checked <= rate_max:
        return 1.0
    return min(1.0, _tail(mismatches, checked, rate_max))


def mismatch_chance_if_alike(clean: int, checked: int, mismatches: int) -> float:
    """Chance that all ``mismatches`` fall among those checked and none in the calibration.

    C(checked, k) / C(clean + checked, k): no rate and no confidence level enters, only that the
    ``clean`` trials and the ``checked`` ones are exchangeable if the node is honest, and that both
    numbers were fixed beforehand. For one mismatch: checked / (clean + checked).

    Source: Fisher's exact test (JRSS 98, 1935), one-sided, at its extreme. Raises ``ValueError``
    when out of range.
    """
    _check_trials(clean)
    _check_trials(checked)
    if not 0 <= mismatches <= checked:
        raise ValueError("mismatches lie between 0 and the number checked")
    chance = 1.0
    for taken in range(mismatches):
        chance *= (checked - taken) / (clean + checked - taken)
        if chance == 0:
            break
    return chance


def clean_trials_needed(checked: int, alpha: float, confidence: float) -> int:
    """How many clean trials make one mismatch among ``checked`` proof at level ``alpha``.

    The smallest n for which checked · :func:`mismatch_rate_max` is at most ``alpha``; the doubt in
    the calibration, 1 - ``confidence``, is on top. Source: the union bound. Raises ``ValueError``.
    """
    _check_trials(checked)
    if not 0 < alpha < 1 or not 0 < confidence < 1:
        raise ValueError("alpha and confidence lie in (0, 1)")
    if checked == 0:
        return 0
    return math.ceil(math.log1p(-confidence) / math.log1p(-alpha / checked))


def _check_trials(count: int) -> None:
    if not 0 <= count <= TRIALS_MAX:
        raise ValueError(f"a number of trials lies in [0, {TRIALS_MAX}]")


def _tail(k: int, n: int, rate: float) -> float:
    """P(Binomial(n, rate) ≥ k) for k above the mean, from above."""
    share = k / n
    if k > 1000:
        # n times the relative entropy; the sum below would need the largest binomials.
        other = 0.0 if k == n else (1 - share) * math.log((1 - share) / (1 - rate))
        return math.exp(-n * (share * math.log(share / rate) + other))
    log_choices = math.fsum(math.log((n - i) / (k - i)) for i in range(k))
    log_first = log_choices + k * math.log(rate) + (n - k) * math.log1p(-rate)
    # Above the mean, terms fall at least as fast as this ratio: the rest of a geometric series.
    ratio = (n - k) / (k + 1) * rate / (1 - rate)
    return math.exp(log_first) / (1 - ratio)
