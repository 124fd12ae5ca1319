"""Scoring a claimed token, on vocabularies small enough to read."""

import numpy as np
import pytest
from tests.unit.sampling.test_choice import SEED, Rule, row

from trunkline.sampling import choose, gumbels, score
from trunkline.sampling.score import MARGIN_MAX, Admits, Scored


def hold(
    logits: np.ndarray, token: int, rule: Rule, *, ends: tuple[int, ...] = (), position: int = 0
) -> Scored:
    return score(logits, rule, seed=SEED, position=position, counts={}, token=token, ends=ends)


def test_greedy_margins_are_distances_of_logits() -> None:
    logits = row(1, 5, 3)
    assert [hold(logits, token, Rule(temperature=0)).margin for token in range(3)] == [4, 0, 2]
    assert hold(logits, 0, Rule(temperature=0), ends=(1,)).end == 1.0


def test_a_margin_is_in_units_of_logits_at_every_temperature() -> None:
    logits = row(0, 2, 1, -1)
    noise = gumbels(SEED, 0, np.arange(4))
    for temperature in (0.01, 0.5, 1.0, 3.0):
        reached = logits + temperature * noise
        for token in range(4):
            margin = hold(logits, token, Rule(temperature=temperature)).margin
            assert margin == pytest.approx(reached.max() - reached[token], abs=1e-9)


def test_greedy_is_the_limit_of_falling_temperature() -> None:
    logits = row(0, 2, 1, -1)
    for token in range(4):
        cold = hold(logits, token, Rule(temperature=1e-9))
        assert cold.margin == pytest.approx(hold(logits, token, Rule(temperature=0)).margin)
        assert cold.entropy == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("likeliest", "winner"), [(9.0, 7), (-0.5, 0)])
def test_where_logits_over_the_temperature_are_no_numbers_there_is_a_choice_and_no_score(
    likeliest: float, winner: int
) -> None:
    logits = np.full(2000, -3, dtype=np.float32)
    logits[7:9] = likeliest
    rule = Rule(temperature=1e-310)
    with np.errstate(over="ignore"):
        assert choose(logits, rule, seed=SEED, position=0, counts={}) == winner
        with pytest.raises(ValueError, match="too low"):
            hold(logits, 7, rule)


def test_a_token_beyond_a_limit_is_scored_by_its_own_noise_and_not_kept() -> None:
    logits = row(5, 4.9, 4.8)
    beyond = hold(logits, 2, Rule(top_k=1))
    assert not beyond.kept
    noise = gumbels(SEED, 0, np.arange(3))
    assert beyond.margin == pytest.approx(max(0, 5 + noise[0] - 4.8 - noise[2]), abs=1e-6)


def test_a_token_out_of_reach_is_no_rival_but_keeps_its_own_noise() -> None:
    logits = np.full(2000, -30, dtype=np.float32)
    logits[0] = 0
    chosen = choose(logits, Rule(), seed=SEED, position=0, counts={})
    assert chosen == 0
    far = hold(logits, 7, Rule())
    noise = gumbels(SEED, 0, np.array([0, 7]))
    assert far.margin == pytest.approx(30 + noise[0] - noise[1])
    assert far.kept


def test_a_sum_that_meets_its_limit_leaves_the_choice_undecided() -> None:
    # Four equal tokens and half the sum: two survive, or three, as the sum happens to round.
    logits = row(1, 1, 1, 1)
    decided = [hold(logits, 0, Rule(top_p=0.5), position=at).decided for at in range(64)]
    third = [int(np.argmax(gumbels(SEED, at, np.arange(3)))) == 2 for at in range(64)]
    assert decided == [not wins for wins in third]
    assert all(hold(logits, 0, Rule(top_p=0.6), position=at).decided for at in range(64))


def test_a_grammar_that_admits_no_survivor_hands_the_choice_to_the_others() -> None:
    logits = row(9, 1, 0.5, -100)
    only: Admits = lambda asked: asked >= 1  # noqa: E731
    arguments = {"seed": SEED, "position": 0, "counts": {}, "admitted": only}
    noise = gumbels(SEED, 0, np.arange(4))
    best = 1 + int(np.argmax(logits[1:] + noise[1:]))
    scored = score(logits, Rule(top_k=1), token=best, **arguments)
    assert (scored.margin, scored.kept) == (0.0, True)
    assert not score(logits, Rule(top_k=1), token=0, **arguments).kept


def test_a_grammar_is_asked_only_about_what_may_be_chosen() -> None:
    logits = np.full(5000, -60, dtype=np.float32)
    logits[:10] = 0
    asked: list[int] = []

    def admitted(tokens: np.ndarray) -> np.ndarray:
        asked.extend(tokens.tolist())
        return tokens < 5

    score(logits, Rule(), seed=SEED, position=0, counts={}, token=1, admitted=admitted)
    assert max(asked) < 10


def test_a_margin_can_always_be_written_down() -> None:
    logits = row(0, -np.inf)
    assert hold(logits, 1, Rule()).margin == MARGIN_MAX


@pytest.mark.parametrize("token", [-1, 3])
def test_a_token_that_is_none_is_refused(token: int) -> None:
    with pytest.raises(ValueError, match="vocabulary"):
        hold(row(1, 2, 3), token, Rule())


def test_a_grammar_without_a_token_is_refused() -> None:
    for temperature in (0.0, 1.0):
        with pytest.raises(ValueError, match="at least one"):
            score(
                row(1, 2), Rule(temperature=temperature), seed=SEED, position=0, counts={},
                token=0, admitted=lambda asked: asked < 0,
            )  # fmt: skip


@pytest.mark.parametrize("rule", [Rule(), Rule(top_p=0.999), Rule(top_k=3000), Rule(temperature=2)])
def test_of_many_rivals_the_best_is_found_as_among_few(rule: Rule) -> None:
    # More than get their noise at once; the rule as it is written, over everything.
    logits = np.random.default_rng(3).normal(scale=1.5, size=5000).astype(np.float32)
    z = logits.astype(np.float64) / rule.temperature
    order = np.argsort(-z, kind="stable")
    kept = order[: rule.top_k or z.size]
    sums = np.cumsum(np.exp(z[kept]))
    kept = kept[: 1 + int(np.searchsorted(sums, rule.top_p * sums[-1]))]
    for position in range(20):
        scores = z + gumbels(SEED, position, np.arange(z.size))
        best = kept[np.argmax(scores[kept])]
        chosen = choose(logits, rule, seed=SEED, position=position, counts={})
        assert chosen == best
        for token in (int(best), int(order[0]), int(order[-1]), 17):
            found = hold(logits, token, rule, position=position)
            margin = rule.temperature * max(0.0, scores[best] - scores[token])
            assert (found.margin, found.kept) == (margin, token in kept)
