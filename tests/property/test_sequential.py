"""Wealth under any scores: never negative, ordered as it must be, the same bits, and readable."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError
from trunkline.sequential import (
    ChangeTest,
    Detector,
    MeanTest,
    Wealth,
    decode_detector,
    decode_wealth,
    e_bh,
    encode_detector,
    encode_wealth,
    trajectories,
)

SCORES = st.lists(st.floats(0, 1), max_size=80)
MEANS = st.floats(1e-5, 1 - 1e-5)
SIDES = st.sampled_from(["above", "below", "either"])
TESTS = st.builds(MeanTest, mu0=MEANS, alpha=st.floats(1e-9, 0.5), side=SIDES)
WATCHES = st.builds(
    ChangeTest,
    mu0=MEANS,
    run_length=st.floats(2, 1e6),
    side=SIDES,
    kind=st.sampled_from(["shiryaev_roberts", "cusum"]),
)


@given(TESTS, SCORES)
def test_wealth_is_positive_and_no_bettor_is_ever_ruined(
    test: MeanTest, scores: list[float]
) -> None:
    wealth = Wealth.start(test).observe(scores)
    assert wealth.e_value > 0
    assert all(mantissa >= 0.5 for mantissa in wealth.mantissas)
    assert wealth.peak >= max(1.0, wealth.e_value)
    assert wealth.failed == (wealth.peak >= test.threshold)
    assert math.isclose(wealth.log10, math.log10(wealth.e_value), rel_tol=1e-9, abs_tol=1e-9)


@given(TESTS, SCORES, st.data())
def test_where_scores_are_cut_changes_no_bit(
    test: MeanTest, scores: list[float], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(scores)))
    whole = Wealth.start(test).observe(scores)
    assert Wealth.start(test).observe(scores[:cut]).observe(scores[cut:]) == whole
    if scores:
        assert trajectories(test, [scores])[0, -1] == whole.e_value


@given(MEANS, MEANS, SCORES)
def test_a_stricter_null_never_has_less_wealth_against_it(
    one: float, other: float, scores: list[float]
) -> None:
    low, high = sorted((one, other))
    above = [trajectories(MeanTest(mu0=mu0, alpha=0.01), scores) for mu0 in (low, high)]
    assert np.all(above[0] >= above[1])
    below = [
        trajectories(MeanTest(mu0=mu0, alpha=0.01, side="below"), scores) for mu0 in (low, high)
    ]
    assert np.all(below[0] <= below[1])


@given(TESTS, st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40))
def test_higher_scores_never_help_against_above(
    test: MeanTest, pairs: list[tuple[float, float]]
) -> None:
    plain = MeanTest(mu0=test.mu0, alpha=test.alpha)
    low = trajectories(plain, [min(pair) for pair in pairs])
    assert np.all(trajectories(plain, [max(pair) for pair in pairs]) >= low)


@given(st.integers(1, 63), st.lists(st.integers(0, 64), max_size=60))
def test_mirroring_scores_and_mean_swaps_the_sides_to_the_bit(
    sixty_fourths: int, scores: list[int]
) -> None:
    # Multiples of 1/64, of which 1 minus them is exact.
    taken = np.array(scores) / 64
    mu0 = sixty_fourths / 64
    above = trajectories(MeanTest(mu0=mu0, alpha=0.01), taken)
    below = trajectories(MeanTest(mu0=1 - mu0, alpha=0.01, side="below"), 1 - taken)
    assert np.array_equal(above, below)


@given(TESTS, SCORES, st.randoms())
def test_order_does_not_matter_up_to_rounding(
    test: MeanTest, scores: list[float], random: object
) -> None:
    shuffled = list(scores)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one = Wealth.start(test).observe(scores).log10
    assert math.isclose(one, Wealth.start(test).observe(shuffled).log10, abs_tol=1e-10)


@given(TESTS, SCORES, SCORES)
def test_merging_is_commutative_and_near_reading_on(
    test: MeanTest, one: list[float], other: list[float]
) -> None:
    first, second = Wealth.start(test).observe(one), Wealth.start(test).observe(other)
    merged = first.merged(second)
    assert merged == second.merged(first)
    assert math.isclose(merged.log10, first.observe(other).log10, abs_tol=1e-10)
    assert decode_wealth(encode_wealth(merged)) == merged


@given(TESTS, SCORES)
def test_saved_wealth_comes_back(test: MeanTest, scores: list[float]) -> None:
    wealth = Wealth.start(test).observe(scores)
    assert decode_wealth(encode_wealth(wealth)) == wealth


@given(WATCHES, SCORES, st.data())
def test_detectors_come_back_and_go_on(
    watch: ChangeTest, scores: list[float], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(scores)))
    whole = Detector.start(watch).observe(scores)
    half = decode_detector(encode_detector(Detector.start(watch).observe(scores[:cut])))
    assert half.observe(scores[cut:]) == whole
    assert whole.alarmed or whole.samples == len(scores)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_record_or_malformed(data: bytes) -> None:
    for decode in (decode_wealth, decode_detector):
        try:
            decode(data)
        except MalformedError:
            continue
        raise AssertionError("random bytes are no record")


@given(TESTS, SCORES, st.data())
def test_a_changed_byte_is_malformed_or_another_record(
    test: MeanTest, scores: list[float], data: st.DataObject
) -> None:
    wealth = Wealth.start(test).observe(scores)
    saved = bytearray(encode_wealth(wealth))
    at = data.draw(st.integers(0, len(saved) - 1))
    saved[at] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_wealth(bytes(saved))
    except MalformedError:
        return
    assert found != wealth
    assert encode_wealth(found) == bytes(saved)


@given(st.lists(st.floats(0, 1e6), max_size=12), st.floats(0.001, 0.5), st.floats(1, 10), st.data())
def test_e_bh_grows_with_evidence_and_with_alpha(
    values: list[float], alpha: float, factor: float, data: st.DataObject
) -> None:
    rejected = set(e_bh(values, alpha))
    assert rejected <= set(e_bh(values, min(0.9, alpha * factor)))
    if values:
        at = data.draw(st.integers(0, len(values) - 1))
        more = [value * factor if i == at else value for i, value in enumerate(values)]
        assert rejected <= set(e_bh(more, alpha))
        # Each one rejected has at least K/(α·number rejected); none left out has as much as those.
        assert all(values[i] * alpha * len(rejected) >= len(values) for i in rejected)
