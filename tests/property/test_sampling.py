"""Sampling against a naive reference, and against the distribution that it claims."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sampling import choose, gumbels
from trunkline.sampling.choice import survivors

seeds = st.binary(min_size=32, max_size=32)
positions = st.integers(0, 2**32 - 1)
# Multiples of a quarter: sums of few of them are exact, and ties are frequent.
levels = st.lists(st.integers(-24, 24), min_size=1, max_size=600)


@dataclass(frozen=True, kw_only=True)
class Rule:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)


rules = st.builds(
    Rule,
    temperature=st.floats(0.1, 5),
    top_p=st.floats(0, 1),
    top_k=st.integers(0, 700),
    min_p=st.floats(0, 1),
)


@given(seeds, positions, st.lists(st.integers(0, 60_000), min_size=1, max_size=200))
def test_noise_does_not_depend_on_which_tokens_are_asked_for(
    seed: bytes, position: int, tokens: list[int]
) -> None:
    together = gumbels(seed, position, np.array(tokens))
    assert together.tolist() == [gumbels(seed, position, np.array([t]))[0] for t in tokens]
    dense = gumbels(seed, position, np.arange(max(tokens) + 1))
    assert together.tolist() == dense[tokens].tolist()


def naive_survivors(z: list[float], rule: Rule) -> tuple[list[int], float]:
    """The rule as its docstring says it, and how near a sum came to the top_p limit."""
    order = sorted(range(len(z)), key=lambda token: (-z[token], token))
    peak = z[order[0]]
    if rule.top_k > 0:
        order = order[: rule.top_k]
    margin = 1.0
    if rule.top_p < 1:
        weights = [float(np.exp(z[token] - peak)) for token in order]
        kept, running = 0, 0.0
        for weight in weights:
            margin = min(margin, abs(running / sum(weights) - rule.top_p))
            if kept and running >= rule.top_p * sum(weights):
                break
            running += weight
            kept += 1
        margin = min(margin, abs(running / sum(weights) - rule.top_p))
        order = order[:kept]
    if rule.min_p > 0:
        order = [token for token in order if z[token] >= peak + np.log(rule.min_p)]
    return order, margin


@given(levels, rules)
def test_survivors_equal_the_naive_reference(quarters: list[int], rule: Rule) -> None:
    z = np.array(quarters) / 4
    kept = survivors(z, rule)
    expected, margin = naive_survivors(z.tolist(), rule)
    if margin < 1e-12:
        return  # The rule leaves open how sums round.
    assert (list(range(z.size)) if kept is None else kept.tolist()) == (
        sorted(expected) if kept is None else expected
    )


@given(levels, rules, seeds, positions)
def test_choice_is_the_best_survivor(
    quarters: list[int], rule: Rule, seed: bytes, position: int
) -> None:
    logits = (np.array(quarters) / 4).astype(np.float32)
    z = logits.astype(np.float64) / rule.temperature
    kept = survivors(z, rule)
    tokens = np.arange(z.size) if kept is None else np.sort(kept)
    scores = z[tokens] + gumbels(seed, position, tokens)
    chosen = choose(logits, rule, seed=seed, position=position, counts={})
    assert chosen == tokens[scores.argmax()]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
def test_choices_are_distributed_as_softmax(temperature: float) -> None:
    # One fixed seed, so the outcome is fixed too: this is arithmetic, not luck.
    logits = np.array([2.0, 1.0, 0.5, 0.0, -0.5, -1.0], dtype=np.float32)
    draws = 6000
    counts = np.zeros(logits.size)
    for position in range(draws):
        token = choose(
            logits, Rule(temperature=temperature), seed=b"\x07" * 32, position=position, counts={}
        )
        counts[token] += 1
    weights = np.exp(logits.astype(np.float64) / temperature)
    expected = draws * weights / weights.sum()
    # 99.9th percentile of chi-square with five degrees of freedom.
    assert float(((counts - expected) ** 2 / expected).sum()) < 20.5


def test_a_narrow_nucleus_is_distributed_as_its_renormalised_part() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.2, 0.1], dtype=np.float32))
    counts = np.zeros(4)
    for position in range(4000):
        counts[
            choose(logits, Rule(top_p=0.65), seed=b"\x09" * 32, position=position, counts={})
        ] += 1
    assert counts[2] == counts[3] == 0
    assert abs(counts[0] / counts.sum() - 4 / 7) < 0.03
