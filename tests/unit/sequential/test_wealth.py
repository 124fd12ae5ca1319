"""Wealth: a martingale by enumeration, the same to the last bit however it is found."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from trunkline.sequential import MeanTest, Side, Wealth, first_failures, trajectories

TEST = MeanTest(mu0=0.1, alpha=1e-3)
SCORES = (np.arange(400) * 0.37) % 1
KNOWN_ABOVE = "0x1.381489d87735ap+177"
KNOWN_EITHER = "0x1.141cc75fdac53p+27"


def outcomes(length: int) -> np.ndarray:
    return np.array(list(itertools.product((0.0, 1.0), repeat=length)))


@pytest.mark.parametrize("side", ["above", "below", "either"])
@pytest.mark.parametrize("mu0", [0.003, 0.3, 0.5, 0.92])
def test_expected_wealth_is_one_over_every_outcome_of_twelve_coins(mu0: float, side: Side) -> None:
    coins = outcomes(12)
    heads = coins.sum(axis=1)
    chances = mu0**heads * (1 - mu0) ** (12 - heads)
    values = trajectories(MeanTest(mu0=mu0, alpha=1e-3, side=side), coins)
    assert values.min() > 0
    assert np.abs(chances @ values - 1).max() < 1e-12


def test_expected_wealth_is_one_where_a_greedy_observer_stops() -> None:
    coins = outcomes(12)
    heads = coins.sum(axis=1)
    chances = 0.3**heads * 0.7 ** (12 - heads)
    values = trajectories(MeanTest(mu0=0.3, alpha=1e-3), coins)
    reached = values >= 2
    stops = np.where(reached.any(axis=1), reached.argmax(axis=1), 11)
    assert abs(chances @ values[np.arange(len(coins)), stops] - 1) < 1e-12
    # And so no more than one half of the chances can double: Ville's inequality, exactly.
    assert chances @ reached.any(axis=1) <= 0.5


def test_a_mean_below_the_null_is_expected_to_lose() -> None:
    coins = outcomes(8)
    heads = coins.sum(axis=1)
    chances = 0.2**heads * 0.8 ** (8 - heads)
    expected = chances @ trajectories(MeanTest(mu0=0.3, alpha=1e-3), coins)
    assert np.all(np.diff(expected) < 0)


def test_wealth_is_what_exact_arithmetic_says() -> None:
    test = MeanTest(mu0=0.25, alpha=1e-3, side="either", fractions=(0.5, 0.125, 0.75))
    scores = [1.0, 0.5, 0.0, 0.25, 1.0, 1.0, 0.125]
    shares = []
    for bet in map(Fraction, test.fractions):
        above = below = Fraction(1)
        for score in map(Fraction, scores):
            above *= 1 - bet + bet * score / Fraction(1, 4)
            below *= 1 - bet + bet * (1 - score) / Fraction(3, 4)
        shares += [above, below]
    exact = sum(shares) / len(shares)
    found = Wealth.start(test).observe(scores).e_value
    assert abs(Fraction(found) / exact - 1) < 1e-14


def test_a_known_answer_to_the_last_bit() -> None:
    # Pinned: another machine, library or order of operations that changes a bit changes verdicts.
    wealth = Wealth.start(MeanTest(mu0=0.1, alpha=1e-3)).observe(SCORES[:100])
    assert wealth.e_value.hex() == KNOWN_ABOVE
    both = Wealth.start(MeanTest(mu0=0.4, alpha=1e-3, side="either")).observe(SCORES)
    assert both.e_value.hex() == KNOWN_EITHER


def test_one_by_one_at_once_and_vectorised_agree_to_the_bit() -> None:
    whole = Wealth.start(TEST).observe(SCORES)
    single = Wealth.start(TEST)
    for score in SCORES:
        single = single.observe([score])
    assert single == whole
    assert trajectories(TEST, np.stack([SCORES[::-1], SCORES]))[1, -1] == whole.e_value
    assert first_failures(TEST, SCORES[None])[0] == whole.failed_at


def test_it_fails_at_the_first_score_that_reaches_the_threshold_and_stays_failed() -> None:
    failed = Wealth.start(TEST).observe([1.0] * 6)
    values = trajectories(TEST, np.ones(6))
    assert failed.failed_at == int(np.argmax(values >= 1000)) + 1
    later = failed.observe([0.0] * 2000)
    assert later.failed
    assert later.e_value < 1
    assert later.p_value == 1 / failed.peak


def test_wealth_beyond_any_float_is_kept() -> None:
    rich = Wealth.start(TEST).observe(np.ones(5000))
    assert rich.log10 > 4000
    assert rich.e_value == rich.peak
    poor = Wealth.start(TEST).observe(np.zeros(2_000_000))
    assert poor.log10 < -3000
    assert 0 < poor.e_value < 1e-300
    # Thousands of lost powers of ten are not won back by wealth that was rounded to nothing.
    assert poor.observe(np.ones(100)).log10 < poor.log10 + 100


def test_merging_shards_is_reading_them_in_turn() -> None:
    shards = [Wealth.start(TEST).observe(part) for part in np.array_split(SCORES, 4)]
    merged = shards[0]
    for shard in shards[1:]:
        merged = merged.merged(shard)
    whole = Wealth.start(TEST).observe(SCORES)
    assert merged.samples == whole.samples
    assert merged.log10 == pytest.approx(whole.log10, rel=1e-12)
    assert merged.failed


def test_merging_does_not_pick_the_best_shard() -> None:
    lucky = Wealth.start(TEST).observe([1.0] * 6)
    merged = lucky.merged(Wealth.start(TEST).observe([0.0] * 500))
    assert lucky.failed
    assert not merged.failed


def test_only_one_test_is_merged() -> None:
    with pytest.raises(ValueError, match="one and the same"):
        Wealth.start(TEST).merged(Wealth.start(MeanTest(mu0=0.2, alpha=1e-3)))


@pytest.mark.parametrize("scores", [[1.5], [-0.1], [float("nan")], 0.5, [[0.1]]])
def test_scores_out_of_bounds_are_refused(scores: object) -> None:
    with pytest.raises(ValueError, match="score"):
        Wealth.start(TEST).observe(scores)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"mu0": 0.0},
        {"mu0": 1.0},
        {"mu0": float("nan")},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"fractions": ()},
        {"fractions": (1.0,)},
        {"fractions": (0.0,)},
        {"fractions": (0.5,) * 65},
    ],
)
def test_tests_that_promise_nothing_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"lies in|bets"):
        MeanTest(**{"mu0": 0.1, "alpha": 1e-3} | change)
