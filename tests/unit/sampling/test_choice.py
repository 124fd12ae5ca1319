"""The choice rule, step by step, on vocabularies small enough to read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from trunkline.sampling import LogProbabilities, choose, gumbels, ranked
from trunkline.sampling.choice import survivors

SEED = bytes(32)


@dataclass(frozen=True, kw_only=True)
class Rule:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)


def row(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def pick(logits: np.ndarray, rule: Rule, counts: Mapping[int, int] | None = None) -> int:
    return choose(logits, rule, seed=SEED, position=0, counts=counts or {})


def test_greedy_takes_the_likeliest_and_the_lowest_of_equals() -> None:
    assert pick(row(1, 5, 5, 0), Rule(temperature=0)) == 1


def test_sampling_adds_the_noise_of_seed_position_and_token() -> None:
    logits = np.linspace(-1, 1, 50, dtype=np.float32)
    for position in range(20):
        scores = logits.astype(np.float64) / 0.8 + gumbels(SEED, position, np.arange(50))
        token = choose(logits, Rule(temperature=0.8), seed=SEED, position=position, counts={})
        assert token == int(scores.argmax())


def test_penalties_count_the_answer_only_and_then_bias_applies() -> None:
    logits = row(3.0, 2.5, 2.0)
    greedy = Rule(temperature=0, frequency_penalty=0.4, presence_penalty=0.2)
    assert pick(logits, greedy) == 0
    assert pick(logits, greedy, {0: 1}) == 1
    assert pick(logits, greedy, {0: 1, 1: 1}) == 0
    assert pick(logits, greedy, {0: 3, 1: 2}) == 2
    assert pick(logits, Rule(temperature=0, logit_bias={2: 100.0})) == 2
    assert pick(logits, Rule(temperature=0, logit_bias={0: -100.0})) == 1


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(top_k=2), [1, 2]),
        (Rule(top_k=3), [1, 2, 0]),
        (Rule(top_p=0.0), [1]),
        (Rule(top_p=0.69), [1, 2]),
        (Rule(min_p=0.6), [1, 2]),
        (Rule(min_p=1.0), [1, 2]),
        (Rule(top_k=3, top_p=0.99, min_p=0.3), [1, 2, 0]),
        (Rule(top_k=9, min_p=1e-9), [1, 2, 0, 3]),
    ],
)
def test_survivors(rule: Rule, expected: list[int]) -> None:
    # Probabilities 0.2, 0.35, 0.35, 0.1: two equals, of which the lower id goes first.
    kept = survivors(np.log(np.array([0.2, 0.35, 0.35, 0.1])), rule)
    assert kept is not None
    assert kept.tolist() == expected


def test_no_limit_keeps_all() -> None:
    assert survivors(np.zeros(4), Rule()) is None


def test_ranked_lists_every_token_once_survivors_first() -> None:
    logits = np.random.default_rng(1).standard_normal(5000).astype(np.float32) * 3
    rule = Rule(top_p=0.6)
    kept = survivors(logits.astype(np.float64), rule)
    assert kept is not None
    order = np.concatenate(list(ranked(logits, rule, seed=SEED, position=4, counts={})))
    assert sorted(order.tolist()) == list(range(5000))
    assert set(order[: kept.size].tolist()) == set(kept.tolist())
    assert order[0] == choose(logits, rule, seed=SEED, position=4, counts={})
    scores = logits.astype(np.float64) + gumbels(SEED, 4, np.arange(5000))
    for part in (order[: kept.size], order[kept.size :]):
        assert (np.diff(scores[part]) <= 0).all()


def test_ranked_at_temperature_zero_is_by_logit_then_id() -> None:
    order = np.concatenate(
        list(ranked(row(1, 3, 3, 2), Rule(temperature=0), seed=SEED, position=0, counts={}))
    )
    assert order.tolist() == [1, 2, 3, 0]


def test_refuses_logits_that_are_not_numbers() -> None:
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not a number"):
            pick(row(1, bad), Rule())
    assert pick(row(float("-inf"), 1), Rule()) == 1


def test_log_probabilities() -> None:
    scores = LogProbabilities(np.log(row(0.2, 0.35, 0.35, 0.1)))
    assert scores.of(3) == pytest.approx(np.log(0.1), abs=1e-6)
    assert [token for token, _ in scores.top(3)] == [1, 2, 0]
    assert scores.top(0) == []
    assert len(scores.top(9)) == 4
