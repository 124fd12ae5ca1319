"""Scoring from the likeliest tokens, on vocabularies small enough to read."""

import numpy as np
import pytest
from tests.unit.sampling.test_choice import SEED, Rule

from trunkline.sampling import gumbels
from trunkline.sampling.leading import Leading, score_leading
from trunkline.sampling.score import Scored


def given(*chances: float, tokens: tuple[int, ...] = (), claimed: float = 0.0, of: int) -> Leading:
    values = np.log(np.array(chances))
    return Leading(
        tokens=np.array(tokens or range(len(chances)), dtype=np.int64),
        logprobs=values,
        claimed=np.log(claimed) if claimed else float(values[0]),
        vocabulary=of,
    )


def hold(leading: Leading, rule: Rule, token: int = 0, **said: object) -> Scored:
    arguments = {"seed": SEED, "position": 0, "counts": {}} | said
    return score_leading(leading, rule, token=token, **arguments)


def test_a_greedy_choice_is_decided_by_the_likeliest() -> None:
    found = hold(given(0.7, 0.2, of=1000), Rule(temperature=0), token=1)
    assert found.decided
    assert found.margin == pytest.approx(np.log(0.7 / 0.2))
    # What is left to the others is less, or could be more.
    assert hold(given(0.6, of=1000), Rule(temperature=0)).decided
    assert not hold(given(0.4, of=1000), Rule(temperature=0)).decided


def test_a_greedy_choice_that_a_bias_may_have_moved_is_not_decided() -> None:
    leading = given(0.7, 0.2, of=1000)
    assert not hold(leading, Rule(temperature=0, logit_bias={500: 3.0})).decided
    assert hold(leading, Rule(temperature=0, logit_bias={500: 1.0})).decided
    assert hold(leading, Rule(temperature=0, logit_bias={500: -3.0, 1: 1.0})).decided


@pytest.mark.parametrize(("chances", "bias"), [((0.7, 0.2), {}), ((1.0,), {500: 3.0})])
def test_at_a_temperature_next_to_0_there_is_no_score(
    chances: tuple[float, ...], bias: dict[int, float]
) -> None:
    rule = Rule(temperature=1e-310, logit_bias=bias)
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="too low"):
        hold(given(*chances, of=1000), rule)


def test_a_nucleus_within_what_is_given_decides() -> None:
    leading = given(0.6, 0.3, 0.05, of=50_000)
    assert hold(leading, Rule(top_p=0.8)).decided
    # The nucleus ends among tokens that are not given, one of which may have the higher noise.
    assert not hold(leading, Rule(top_p=0.97)).decided


def test_without_limits_it_depends_on_the_noise_of_all_others() -> None:
    leading = given(0.9, 0.0999, 1e-9, of=1000)
    noise = gumbels(SEED, 0, np.arange(1000))
    assert np.log(0.9) + noise[0] > np.log(1e-9) + noise[3:].max()
    assert hold(leading, Rule()).decided
    assert not hold(given(0.9, 0.05, of=1000), Rule()).decided


def test_a_claim_far_from_what_is_given_is_scored_by_its_own_value() -> None:
    leading = given(0.6, 0.3999, 1e-6, claimed=1e-12, of=50_000)
    found = hold(leading, Rule(top_p=0.5), token=40_000)
    noise = gumbels(SEED, 0, np.array([0, 40_000]))
    expected = np.log(0.6) + noise[0] - np.log(1e-12) - noise[1]
    assert (found.decided, found.kept) == (True, False)
    assert found.margin == pytest.approx(max(0.0, expected))


def test_a_penalised_token_has_no_known_place_in_the_order() -> None:
    # Token 1 falls from 0.4 to below tokens that were not given: they come before it, or do not.
    leading = given(0.5, 0.4, 0.02, 0.02, of=8)
    rule = Rule(frequency_penalty=4.0, top_p=0.93)
    known = hold(leading, rule, token=1, counts={1: 1})
    assert known.kept
    # Its noise would have to win for it to matter here: whether it is a survivor is what is open.
    decided = [hold(leading, rule, counts={1: 1}, position=at).decided for at in range(200)]
    noise = [gumbels(SEED, at, np.arange(8)) for at in range(200)]
    lowest = np.log([0.5, 0.4 * np.exp(-4.0), 0.02, 0.02, 0.02, 0.02, 0.01, 0.01])
    second = [int(np.argmax(lowest + one)) == 1 for one in noise]
    assert any(second)
    assert not any(sure for sure, wins in zip(decided, second, strict=True) if wins)


def test_the_chance_of_an_end_is_never_said_too_small() -> None:
    leading = given(0.6, 0.3, of=1000)
    assert hold(leading, Rule(), ends=(1,)).end == pytest.approx(0.3, abs=1e-3)
    # Not given, so it may have all that is left.
    assert hold(leading, Rule(), ends=(7,)).end == pytest.approx(0.1, abs=1e-3)
    assert hold(leading, Rule(top_p=0.5), ends=(7,)).end == 0.0


@pytest.mark.parametrize(
    ("leading", "token"),
    [
        (given(0.9, 0.3, of=10), 0),
        (given(0.5, tokens=(10,), of=10), 0),
        (given(0.5, tokens=(-1,), of=10), 0),
        (given(0.5, 0.2, tokens=(3, 3), of=10), 3),
        (given(0.5, 0.2, of=10), 10),
        (given(0.5, 0.2, of=1), 0),
        (given(0.5, 0.2, claimed=0.3, of=10), 5),
        (given(0.5, float("nan"), of=10), 0),
        (Leading(tokens=np.zeros(0, np.int64), logprobs=np.zeros(0), claimed=0.0, vocabulary=9), 0),
    ],
)
def test_what_are_no_log_probabilities_is_refused(leading: Leading, token: int) -> None:
    with pytest.raises(ValueError, match=r"token|vocabulary|probabilit"):
        hold(leading, Rule(), token=token)
