"""From stored scores to a report's numbers: AUC over windows of tokens, tokens to a verdict.

A window's statistic is what the regime looks at: in the noisy one the sum of the calibrated scores,
in the exact one whether any token mismatches. Answers are drawn by prompt, whole, in a random order
and put one behind the other: the interval is over prompts, since answers to one prompt go together.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from cheats.phases import trials
from cheats.store import Scores
from trunkline.audit.calibration import Calibration
from trunkline.audit.standing import State, update
from trunkline.audit.trials import Trials
from trunkline.sequential import MeanTest, first_failures

WINDOWS = (30, 100, 300, 1000)
RESAMPLES = 100
ORDERS = 4
STREAMS = 21
STREAM_TOKENS = 10_000
"""No verdict by then: none is said."""

Floats = NDArray[np.float64]


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    prompt: int
    tokens: int
    trials: Trials
    statistic: NDArray[np.float64]
    """Per token."""


class Pool:
    """An arm's scored answers under one calibration."""

    def __init__(self, found: Sequence[Scores], calibration: Calibration) -> None:
        self.calibration = calibration
        self.answers = [_scored(one, calibration) for one in found]
        self.prompts = sorted({one.prompt for one in self.answers})
        self._of = {p: [o for o in self.answers if o.prompt == p] for p in self.prompts}

    @property
    def tokens(self) -> int:
        return sum(one.tokens for one in self.answers)

    def drawn(self, rng: np.random.Generator) -> list[Scored]:
        """As many prompts as there are, with replacement, and all their answers, reordered."""
        chosen = rng.choice(self.prompts, len(self.prompts))
        answers = [one for prompt in chosen for one in self._of[int(prompt)]]
        return [answers[at] for at in rng.permutation(len(answers))]

    def windows(self, answers: Sequence[Scored], size: int, rng: np.random.Generator) -> Floats:
        """The statistic of windows of ``size`` tokens."""
        found = []
        for _ in range(ORDERS):
            order = rng.permutation(len(answers))
            line = np.concatenate([answers[at].statistic for at in order])
            if line.size < size:
                line = np.tile(line, -(-size // line.size))
            whole = line.size // size
            found.append(line[: whole * size].reshape(whole, size).sum(axis=1))
        sums = np.concatenate(found)
        return np.minimum(sums, 1.0) if self.calibration.regime == "exact" else sums

    def verdict(self, rng: np.random.Generator, share: float, honest: "Pool") -> float:
        """Tokens until the standing fails, where ``share`` of answers are this arm's; inf: never
        within ``STREAM_TOKENS``."""
        state, tokens = State.start(self.calibration), 0
        while tokens < STREAM_TOKENS:
            pool = self if rng.random() < share else honest
            answer = pool.answers[rng.integers(len(pool.answers))]
            state = update(state, self.calibration, answer.trials, fault=False)
            tokens += answer.tokens
            if state.failed:
                return float(tokens)
        return float("inf")

    def tokenwise(self, rng: np.random.Generator) -> float:
        """Tokens until wealth reaches 1/α in one stream, looking after each; exact: until the first
        mismatch."""
        order = rng.permutation(len(self.answers))
        line = np.concatenate([self.answers[at].statistic for at in order])
        if self.calibration.regime == "exact":
            return float(np.argmax(line > 0) + 1) if line.any() else float("inf")
        test = MeanTest(mu0=self.calibration.mu0, alpha=float(self.calibration.alpha))
        failed = int(first_failures(test, line[:STREAM_TOKENS]))
        return float(failed) if failed else float("inf")


def auc(honest: Floats, cheats: Floats) -> float:
    """Chance that a cheat's statistic is above an honest one's; ties count half."""
    ordered = np.sort(honest)
    below = np.searchsorted(ordered, cheats, side="left")
    upto = np.searchsorted(ordered, cheats, side="right")
    return float((below + upto).mean() / 2 / honest.size)


def auc_with_interval(honest: Pool, cheats: Pool, size: int) -> tuple[float, float, float]:
    """The AUC, and the 2.5 % and 97.5 % quantiles over prompts drawn again."""
    rng = np.random.default_rng(size)
    point = auc(
        honest.windows(honest.answers, size, rng), cheats.windows(cheats.answers, size, rng)
    )
    again = [
        auc(
            honest.windows(honest.drawn(rng), size, rng),
            cheats.windows(cheats.drawn(rng), size, rng),
        )
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(again, (0.025, 0.975))
    return point, float(low), float(high)


def median_tokens(cheats: Pool, honest: Pool, share: float) -> float:
    rng = np.random.default_rng(round(share * 1000))
    return float(np.median([cheats.verdict(rng, share, honest) for _ in range(STREAMS)]))


def median_tokenwise(cheats: Pool) -> float:
    rng = np.random.default_rng(1)
    return float(np.median([cheats.tokenwise(rng) for _ in range(STREAMS)]))


def false_alarms(honest: Pool) -> tuple[int, int, float]:
    """Failures, tokens and the largest wealth, along each honest answer once, in stored order."""
    state, failures, largest = State.start(honest.calibration), 0, 0.0
    for answer in honest.answers:
        state = update(state, honest.calibration, answer.trials, fault=False)
        largest = max(largest, state.wealth)
        if state.failed:
            failures += 1
            state = State.start(honest.calibration)
    return failures, honest.tokens, largest


def mismatches(pool: Pool) -> int:
    """Decided tokens that are not the verifier's choice."""
    return sum(one.trials.mismatches for one in pool.answers)


def _scored(one: Scores, calibration: Calibration) -> Scored:
    found = trials(one)
    if calibration.regime == "exact":
        statistic = np.array(
            [float(s.decided and (s.margin > 0 or not s.kept)) for s in one.scores]
        )
    else:
        statistic = calibration.scores(found)
    return Scored(prompt=one.prompt, tokens=len(one.scores), trials=found, statistic=statistic)
