"""Scoring from the likeliest tokens against scoring from all: what is decided is the same, whatever
the rest was; what the rest could have changed is not decided."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_sampling import Rule, levels, positions, rules, seeds
from tests.property.test_sampling_score import any_rules, counts, logits_of

from trunkline.sampling import LogProbabilities, choose, score
from trunkline.sampling.leading import Leading, score_leading
from trunkline.sampling.score import Scored

wide = levels.filter(lambda values: len(values) >= 10)
biases = st.dictionaries(st.integers(0, 9), st.sampled_from([-8.0, -0.5, 0.5, 8.0]), max_size=3)


def leading_of(logits: np.ndarray, count: int, token: int) -> Leading:
    known = LogProbabilities(logits)
    pairs = known.top(count)
    return Leading(
        tokens=np.array([one for one, _ in pairs], dtype=np.int64),
        logprobs=np.array([value for _, value in pairs]),
        claimed=known.of(token),
        vocabulary=logits.size,
    )


def both(
    logits: np.ndarray, rule: Rule, count: int, token: int, **place: object
) -> tuple[Scored, Scored]:
    arguments = {"seed": bytes(32), "position": 0, "counts": {}, "ends": (0, 3)} | place
    whole = score(logits, rule, token=token, **arguments)
    return whole, score_leading(leading_of(logits, count, token), rule, token=token, **arguments)


@given(wide, any_rules, biases, seeds, positions, counts, st.data())
def test_what_is_decided_is_what_all_logits_say(
    quarters: list[int],
    rule: Rule,
    bias: dict[int, float],
    seed: bytes,
    position: int,
    said: dict[int, int],
    data: st.DataObject,
) -> None:
    logits = logits_of(quarters)
    rule = replace(rule, logit_bias=bias)
    count = data.draw(st.integers(1, logits.size))
    token = data.draw(st.integers(0, logits.size - 1))
    place = {"seed": seed, "position": position, "counts": said}
    whole, part = both(logits, rule, count, token, **place)
    assert part.end >= whole.end - 1e-9
    if not (rule.top_k or rule.top_p < 1.0 or rule.min_p):
        assert part.entropy <= whole.entropy + 1e-3
    if part.decided and whole.decided:
        assert part.margin == pytest.approx(whole.margin, abs=1e-9)
        assert part.kept or not whole.kept
        chosen = choose(logits, rule, seed=seed, position=position, counts=said)
        assert (token == chosen) <= (part.kept and part.margin <= 1e-9)
    if whole.kept:
        assert part.kept


@given(wide, any_rules, seeds, positions, counts, st.data())
def test_all_of_the_tokens_decide_as_all_logits_do(
    quarters: list[int],
    rule: Rule,
    seed: bytes,
    position: int,
    said: dict[int, int],
    data: st.DataObject,
) -> None:
    logits = logits_of(quarters)
    token = data.draw(st.integers(0, logits.size - 1))
    place = {"seed": seed, "position": position, "counts": said}
    whole, part = both(logits, rule, logits.size, token, **place)
    assert (part.kept, part.decided) == (whole.kept, whole.decided)
    assert part.margin == pytest.approx(whole.margin, abs=1e-9)
    assert part.entropy == pytest.approx(whole.entropy, abs=1e-9)
    assert part.end == pytest.approx(whole.end, abs=1e-6)


@given(rules, seeds, positions, st.data())
def test_the_rest_may_be_anything_that_fits_and_changes_nothing_decided(
    rule: Rule, seed: bytes, position: int, data: st.DataObject
) -> None:
    """Two vocabularies with the same likeliest tokens and as much in the rest, spread otherwise."""
    top = np.array(data.draw(st.lists(st.integers(0, 40), min_size=3, max_size=8))) / 8.0
    top += np.arange(top.size) / 2**14
    floor = top.min() - 0.5
    size = data.draw(st.integers(4, 40))
    even = np.full(size, floor - 1.0)
    # As much in a few tokens near the floor, and hardly anything in the others.
    heaped = np.full(size, floor - 30.0)
    full = int(size / np.e)
    heaped[:full] = floor
    heaped[full] = floor + np.log(size / np.e - full + 1e-9)
    worlds = [
        np.concatenate([top, rest]).astype(np.float32) for rest in (even, heaped, heaped[::-1])
    ]
    part = both(worlds[0], rule, top.size, 0, seed=seed, position=position)[1]
    chosen = {choose(one, rule, seed=seed, position=position, counts={}) for one in worlds}
    assert not part.decided or len(chosen) == 1
