"""Scoring against choosing: what the rule chooses has margin 0, and nothing else does."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_sampling import Rule, levels, positions, rules, seeds

from trunkline.sampling import choose, gumbels, ranked, score
from trunkline.sampling.choice import survivors
from trunkline.sampling.score import REACH

any_rules = st.one_of(rules, st.builds(Rule), st.builds(Rule, temperature=st.just(0.0)))
counts = st.dictionaries(st.integers(0, 9), st.integers(1, 5), max_size=4)


def logits_of(quarters: list[int]) -> np.ndarray:
    # A slope of float32 steps: equal logits would be equal choices.
    return np.array(quarters, dtype=np.float32) / 4 + np.arange(len(quarters), dtype=np.float32) / (
        2**14
    )


@given(levels.filter(lambda values: len(values) >= 10), any_rules, seeds, positions, counts)
def test_the_chosen_token_has_no_margin_and_is_kept(
    quarters: list[int], rule: Rule, seed: bytes, position: int, said: dict[int, int]
) -> None:
    logits = logits_of(quarters)
    chosen = choose(logits, rule, seed=seed, position=position, counts=said)
    scored = score(logits, rule, seed=seed, position=position, counts=said, token=chosen)
    assert (scored.margin, scored.kept) == (0.0, True)
    assert 0.0 <= scored.entropy <= np.log(logits.size) + 1e-9


@given(levels, any_rules, seeds, positions, st.data())
def test_another_token_has_a_margin_or_is_not_kept(
    quarters: list[int], rule: Rule, seed: bytes, position: int, data: st.DataObject
) -> None:
    logits = logits_of(quarters)
    token = data.draw(st.integers(0, logits.size - 1))
    chosen = choose(logits, rule, seed=seed, position=position, counts={})
    scored = score(logits, rule, seed=seed, position=position, counts={}, token=token)
    if token != chosen and scored.decided:
        assert scored.margin > 0.0 or not scored.kept
    if rule.temperature:
        z = logits.astype(np.float64) / rule.temperature
        kept = survivors(z, rule)
        everything = np.arange(z.size)
        own = everything if kept is None else np.sort(kept)
        close = own[z[own] >= z.max() - REACH]
        noisy = z + gumbels(seed, position, everything)
        expected = rule.temperature * max(0.0, noisy[close].max() - noisy[token])
        assert abs(scored.margin - expected) <= 1e-9
        assert scored.kept == (token in own) or not scored.decided


@given(levels, any_rules, seeds, positions, st.data())
def test_with_a_grammar_the_first_admitted_token_has_no_margin(
    quarters: list[int], rule: Rule, seed: bytes, position: int, data: st.DataObject
) -> None:
    logits = logits_of(quarters)
    let = data.draw(st.sets(st.integers(0, logits.size - 1), min_size=1, max_size=20))
    mask = np.isin(np.arange(logits.size), list(let))
    order = np.concatenate(
        list(ranked(logits, rule, seed=seed, position=position, counts={}))
    ).tolist()
    chosen = next(token for token in order if mask[token])
    arguments = {"seed": seed, "position": position, "counts": {}}
    scored = score(logits, rule, **arguments, token=chosen, admitted=lambda asked: mask[asked])
    assert (scored.margin, scored.kept) == (0.0, True)
    if len(let) < logits.size:
        other = next(token for token in order if not mask[token])
        refused = score(logits, rule, **arguments, token=other, admitted=lambda asked: mask[asked])
        assert not refused.kept


@given(levels, any_rules, seeds, positions)
def test_entropy_and_end_are_those_of_the_distribution_drawn_from(
    quarters: list[int], rule: Rule, seed: bytes, position: int
) -> None:
    logits = logits_of(quarters)
    scored = score(logits, rule, seed=seed, position=position, counts={}, token=0, ends={0})
    if rule.temperature == 0.0:
        assert (scored.entropy, scored.end) == (0.0, float(np.argmax(logits) == 0))
        return
    z = logits.astype(np.float64) / rule.temperature
    kept = survivors(z, rule)
    own = np.arange(z.size) if kept is None else kept
    chances = np.exp(z[own] - z.max())
    chances /= chances.sum()
    entropy = -float((chances * np.log(np.maximum(chances, 1e-300))).sum())
    assert abs(scored.entropy - entropy) < 1e-4
    assert abs(scored.end - float(chances[own == 0].sum())) < 1e-4
