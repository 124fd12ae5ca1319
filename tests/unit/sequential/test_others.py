"""Alarms step by step, e-BH, calibrators, the exact regime, bounds, and saved records."""

import itertools
import math

import numpy as np
import pytest

from trunkline.base.errors import MalformedError
from trunkline.sequential import (
    ChangeTest,
    Detector,
    MeanTest,
    Wealth,
    average,
    clean_trials_needed,
    confidence_sequence,
    decode_detector,
    decode_wealth,
    e_bh,
    e_from_p,
    e_from_p_mixed,
    encode_detector,
    encode_wealth,
    mismatch_chance_if_alike,
    mismatch_chance_max,
    mismatch_rate_max,
    p_from_e,
    run_lengths,
    trajectories,
)

WATCH = ChangeTest(mu0=0.1, run_length=1000)


def test_an_e_detector_is_the_sum_of_wealths_begun_at_every_score() -> None:
    test = MeanTest(mu0=0.2, alpha=1e-3)
    scores = (np.arange(30) * 0.61) % 1
    begun = [float(trajectories(test, scores[start:])[-1]) for start in range(30)]
    watch = ChangeTest(mu0=0.2, run_length=1e15)
    state = Detector.start(watch).observe(scores)
    assert sum(state.levels) / len(state.levels) == pytest.approx(sum(begun), rel=1e-12)


def test_the_expected_level_is_the_number_of_scores_over_every_outcome() -> None:
    watch = ChangeTest(mu0=0.3, run_length=1e15, side="either")
    total = 0.0
    for coins in itertools.product((0.0, 1.0), repeat=8):
        levels = Detector.start(watch).observe(coins).levels
        chance = 0.3 ** sum(coins) * 0.7 ** (8 - sum(coins))
        total += chance * sum(levels) / len(levels)
    assert total == pytest.approx(8, rel=1e-12)


def test_cusum_never_exceeds_the_sum() -> None:
    scores = (np.arange(300) * 0.37) % 1
    low = Detector.start(ChangeTest(mu0=0.45, run_length=1e15, kind="cusum")).observe(scores)
    high = Detector.start(ChangeTest(mu0=0.45, run_length=1e15)).observe(scores)
    assert all(a <= b for a, b in zip(low.levels, high.levels, strict=True))


def test_a_detector_stops_at_its_alarm() -> None:
    alarmed = Detector.start(WATCH).observe([0.0] * 20 + [1.0] * 30)
    assert alarmed.alarmed
    assert alarmed.alarmed_at == alarmed.samples < 50
    assert alarmed.observe([0.0] * 100) == alarmed
    assert run_lengths(WATCH, [[0.0] * 20 + [1.0] * 30])[0] == alarmed.alarmed_at


def test_a_watch_out_of_range_is_refused() -> None:
    for bad in (0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="run length"):
            ChangeTest(mu0=0.1, run_length=bad)


def by_definition(e_values: list[float], alpha: float) -> set[int]:
    """Every set R that is self-consistent, e ≥ K/(α|R|) in R, is inside the largest such."""
    found: set[int] = set()
    for size in range(1, len(e_values) + 1):
        enough = {i for i, e in enumerate(e_values) if e * alpha * size >= len(e_values)}
        if len(enough) >= size:
            found = enough
    return found


def test_e_bh_rejects_the_largest_self_consistent_set() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        values = [float(v) for v in np.exp(rng.normal(1.5, 2, 7))]
        assert set(e_bh(values, 0.2)) == by_definition(values, 0.2)


def test_e_bh_on_cases_worked_by_hand() -> None:
    assert e_bh([], 0.1) == ()
    assert e_bh([30.0, 1.0, 15.0], 0.1) == (0, 2)
    assert e_bh([29.9, 1.0, 14.9], 0.1) == ()
    # All at 1/α: each alone is not enough, together they are.
    assert e_bh([10.0, 10.0, 10.0], 0.1) == (0, 1, 2)
    assert e_bh([math.inf, 0.0], 0.1) == (0,)


@pytest.mark.parametrize("bad", [[-1.0], [math.nan]])
def test_what_is_no_e_value_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="e-value"):
        e_bh(bad, 0.1)
    with pytest.raises(ValueError, match="e-value"):
        average(bad)


@pytest.mark.parametrize("calibrate", [e_from_p, e_from_p_mixed, lambda p: e_from_p(p, 0.1)])
def test_a_calibrator_is_expected_to_give_at_most_one(calibrate: object) -> None:
    # Integrated over honest p-values; substituting p = exp(-t) keeps the pole at 0 in view.
    t = np.linspace(0, 700, 700_001)
    values = np.array([calibrate(float(p)) for p in np.exp(-t[::10])])  # type: ignore[operator]
    integral = np.trapezoid(values * np.exp(-t[::10]), t[::10])
    assert 0.9 < integral < 1 + 1e-4
    assert np.all(np.diff(values) >= 0)
    assert calibrate(0.0) == math.inf  # type: ignore[operator]


def test_the_mixed_calibrator_is_smooth_at_one_and_bounded_at_zero() -> None:
    assert e_from_p_mixed(1.0) == 0.5
    assert e_from_p_mixed(math.exp(-1e-4)) == pytest.approx(0.5 + 1e-4 / 6, rel=1e-8)
    p = 0.01
    log = math.log(p)
    assert e_from_p_mixed(p) == pytest.approx((1 - p + p * log) / (p * log * log), rel=1e-12)
    assert 1e290 < e_from_p_mixed(5e-324) < 1e305


def test_e_and_p_and_averages() -> None:
    assert p_from_e(0.3) == 1
    assert p_from_e(50) == 0.02
    assert average([1e-9, 3.0, 1e9]) == average([1e9, 1e-9, 3.0])
    with pytest.raises(ValueError, match="no e-value"):
        average([])


def test_the_rule_of_three() -> None:
    assert mismatch_rate_max(39_000, 0.95) == pytest.approx(3 / 39_000, rel=2e-3)
    assert mismatch_rate_max(0, 0.95) == 1
    bound = mismatch_rate_max(1000, 0.99)
    assert (1 - bound) ** 1000 == pytest.approx(0.01)


def test_one_mismatch_in_fifty_is_not_proof_after_thirty_nine_thousand() -> None:
    # What the pilots had: the bound is honest about it, and two mismatches are.
    rate = mismatch_rate_max(39_000, 0.95)
    assert 3e-3 < mismatch_chance_max(1, 50, rate) < 4e-3
    assert mismatch_chance_max(2, 50, rate) < 1e-5
    needed = clean_trials_needed(50, 1e-3, 0.95)
    assert mismatch_chance_max(1, 50, mismatch_rate_max(needed, 0.95)) <= 1e-3
    assert 50 * mismatch_rate_max(needed - 1, 0.95) > 1e-3


@pytest.mark.parametrize(("checked", "rate"), [(40, 0.05), (300, 1e-4), (500, 0.3)])
def test_the_binomial_tail_is_bounded_from_above_and_nearly(checked: int, rate: float) -> None:
    chances = [
        math.comb(checked, k) * rate**k * (1 - rate) ** (checked - k) for k in range(checked + 1)
    ]
    for k in range(checked + 1):
        tail = math.fsum(chances[k:])
        assert mismatch_chance_max(k, checked, rate) >= tail * (1 - 1e-9)
        if 1e-250 < tail < 1e-3:
            assert mismatch_chance_max(k, checked, rate) < 1.5 * tail


def test_many_mismatches_are_bounded_by_chernoff() -> None:
    assert mismatch_chance_max(5000, 10_000, 0.4) < 1e-80
    assert mismatch_chance_max(3000, 10_000, 0.4) == 1
    assert mismatch_chance_max(10_000, 10_000, 0.9) == pytest.approx(0, abs=1e-300)


def test_mismatches_against_a_clean_calibration_by_exchangeability() -> None:
    assert mismatch_chance_if_alike(39_000, 50, 1) == pytest.approx(50 / 39_050)
    exact = math.comb(20, 3) / math.comb(120, 3)
    assert mismatch_chance_if_alike(100, 20, 3) == pytest.approx(exact)
    assert mismatch_chance_if_alike(100, 20, 0) == 1
    assert mismatch_chance_max(0, 5, 0.1) == mismatch_chance_max(2, 5, 1.0) == 1
    assert mismatch_chance_max(1, 5, 0.0) == 0
    assert clean_trials_needed(0, 0.1, 0.9) == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: mismatch_rate_max(-1, 0.9),
        lambda: mismatch_rate_max(5, 1.0),
        lambda: mismatch_chance_max(6, 5, 0.1),
        lambda: mismatch_chance_max(1, 5, 1.1),
        lambda: mismatch_chance_if_alike(5, 5, 6),
        lambda: clean_trials_needed(5, 0.0, 0.9),
        lambda: e_from_p(1.1),
        lambda: e_from_p(0.5, 1.0),
        lambda: e_bh([1.0], 1.0),
        lambda: confidence_sequence([[0.1]], 0.1),
        lambda: confidence_sequence([0.1], 0.0),
    ],
)
def test_arguments_out_of_range_are_refused(call: object) -> None:
    with pytest.raises(ValueError, match=r"lie|stream"):
        call()  # type: ignore[operator]


def test_bounds_narrow_around_the_mean_and_never_widen() -> None:
    scores = np.tile([0.2, 0.3, 0.25, 0.25], 250)
    bounds = confidence_sequence(scores, 0.05)
    assert bounds.lower[0] < 0.01
    assert bounds.upper[0] > 0.99
    assert bounds.lower[-1] < 0.25 < bounds.upper[-1]
    assert bounds.upper[-1] - bounds.lower[-1] < 0.03
    assert np.all(np.diff(bounds.lower) >= 0)
    assert np.all(np.diff(bounds.upper) <= 0)


def test_bounds_are_what_the_tests_refute() -> None:
    scores = (np.arange(80) * 0.37) % 0.4
    bounds = confidence_sequence(scores, 0.1)
    assert bounds.lower[-1] > 0
    refuted = MeanTest(mu0=bounds.lower[-1], alpha=0.05)
    assert trajectories(refuted, scores).max() >= refuted.threshold
    kept = MeanTest(mu0=bounds.lower[-1] + 2 / 512, alpha=0.05)
    assert trajectories(kept, scores).max() < kept.threshold
    above = MeanTest(mu0=bounds.upper[-1], alpha=0.05, side="below")
    assert trajectories(above, scores).max() >= above.threshold


def test_records_come_back_and_go_on_as_if_never_saved() -> None:
    scores = (np.arange(100) * 0.37) % 1
    test = MeanTest(mu0=0.45, alpha=1e-3, side="either")
    wealth = Wealth.start(test).observe(scores[:50])
    again = decode_wealth(encode_wealth(wealth))
    assert again == wealth
    assert again.observe(scores[50:]) == Wealth.start(test).observe(scores)
    watched = Detector.start(WATCH).observe(scores[:9])
    assert decode_detector(encode_detector(watched)) == watched


WEALTH = encode_wealth(Wealth.start(MeanTest(mu0=0.1, alpha=1e-3)).observe([1.0] * 9))
ALARMED = encode_detector(Detector.start(WATCH).observe([1.0] * 9))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"samples":9', b'"samples":1'),
        (b'"samples":9', b'"samples":-9'),
        (b'"samples":9', b'"samples": 9'),
        (b'"failed_at":', b'"failed_at":1'),
        (b'"peak":"0x1.', b'"peak":"-0x1.'),
        (b'"side":"above"', b'"side":"either"'),
        (b'"side":"above"', b'"side":"beside"'),
        (b'"exponents":[', b'"exponents":[1,'),
        (b'"exponents":[', b'"exponents":[9223372036854775807,'),
        (b'"mantissas":["0x1.', b'"mantissas":["0x2.'),
        (b'"mantissas":["', b'"mantissas":["z'),
        (b'"alpha":"0x1.', b'"alpha":"-0x1.'),
        (b"wealth/v1", b"wealth/v2"),
        (b"{", b'{"more":1,'),
    ],
)
def test_a_record_that_cannot_be_is_malformed(old: bytes, new: bytes) -> None:
    assert old in WEALTH
    with pytest.raises(MalformedError):
        decode_wealth(WEALTH.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"alarmed_at":', b'"alarmed_at":1'),
        (b'"levels":["', b'"levels":["-'),
        (b'"levels":["', b'"levels":["nan","'),
        (b'"run_length":"0x1.', b'"run_length":"-0x1.'),
        (b'"kind":"shiryaev_roberts"', b'"kind":"page"'),
    ],
)
def test_a_detector_that_cannot_be_is_malformed(old: bytes, new: bytes) -> None:
    assert old in ALARMED
    with pytest.raises(MalformedError):
        decode_detector(ALARMED.replace(old, new, 1))


def test_a_record_too_long_is_not_read() -> None:
    with pytest.raises(MalformedError, match="too long"):
        decode_wealth(b" " * 20_000)
