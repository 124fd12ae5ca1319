"""Honest nodes whose answers are not alike: how many are failed, held against what was promised."""

import math

import numpy as np
import pytest
from tests.support.auditing import PARTIES, PROMPTS

from trunkline.audit import standing
from trunkline.audit.calibration import build
from trunkline.audit.standing import State, update
from trunkline.audit.trials import LEVELS, Trials
from trunkline.sequential.exact import mismatch_chance_max

STREAMS, ANSWERS, TOKENS, CALIBRATION = 30, 80, 60, 110
CLIP = 0.1
NULLS = {
    "noisier throughout than others": (0.0, 1.0, 0.7),
    "seldom ten times as noisy": (0.01, 10.0, 0.3),
}
"""Share of heavy answers, how much noisier these are, and the spread of the others' logarithms."""


def answer(random: np.random.Generator, null: tuple[float, float, float]) -> Trials:
    """Tokens of one answer share its noise, whatever their entropy."""
    share, factor, spread = null
    scale = 0.01 * math.exp(random.normal(0, spread)) * (factor if random.random() < share else 1)
    margins = random.exponential(scale, TOKENS) * (random.random(TOKENS) < 0.3)
    levels = (np.minimum(margins, CLIP) / CLIP * LEVELS).astype(int)
    return Trials(
        bins=(4,) * TOKENS,
        ends=(int(random.random() * LEVELS),),
        margins=tuple(levels.tolist()),
        mismatches=int((margins > 0).sum()),
        tokens=TOKENS,
    )


def failed(null: tuple[float, float, float]) -> int:
    """How many of the streams ever fail; each has its own calibration."""
    count = 0
    for stream in range(STREAMS):
        random = np.random.default_rng((7, stream))
        made = build(
            [answer(random, null) for _ in range(CALIBRATION)],
            parties=PARTIES, regime="noisy", prompts=PROMPTS, seeds="", clip=CLIP,
        )  # fmt: skip
        state = State.start(made)
        for _ in range(ANSWERS):
            state = update(state, made, answer(random, null), fault=False)
        count += bool(state.failures)
    return count


@pytest.mark.parametrize("null", NULLS.values(), ids=NULLS)
def test_honest_nodes_are_failed_no_oftener_than_promised(
    null: tuple[float, float, float],
) -> None:
    # One in a thousand: so many or more would come of it by chance in one of a thousand runs.
    assert mismatch_chance_max(failed(null), STREAMS, 0.001) > 0.001


def test_a_detector_that_took_tokens_would_fail_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "_averaged", lambda scores: scores)
    found = failed(NULLS["seldom ten times as noisy"])
    assert mismatch_chance_max(found, STREAMS, 0.001) < 0.001
