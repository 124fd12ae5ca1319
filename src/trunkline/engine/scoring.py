"""One answer to be scored inside the engine: a prefill over prompt and answer, each token held
against what the rule would have chosen.

The logits stay in the child process; per token six numbers leave it, and what was to be said beside
it where log-probabilities were asked for. Penalties and grammar follow
the answer as claimed, not as it should have been: each token is judged given the ones before it.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from trunkline.base.errors import UpstreamError
from trunkline.engine.sequence import Constraint, beside
from trunkline.inference.ports import Beside, Score, TokenScore
from trunkline.sampling import Scored, score


@contextlib.contextmanager
def may_have_none(at: int) -> Iterator[None]:
    """Say of an answer's token ``at`` that it has no score, where the rule refuses to give one:
    raises ``UpstreamError`` (``score_impossible``) for its ``ValueError``."""
    try:
        yield
    except ValueError as error:
        raise UpstreamError(
            f"token {at} of the answer has no score: {error}",
            code="score_impossible",
            retryable=False,
        ) from None


def token_score(
    token: int, at: int, found: Scored, *, kept: bool, said: Beside | None = None
) -> TokenScore:
    """What is said of an answer's token ``at``."""
    return TokenScore(
        token=token,
        position=at,
        margin=found.margin,
        kept=kept,
        decided=found.decided,
        entropy=found.entropy,
        end=found.end,
        beside=said,
    )


class Scoring:
    """``batcher.Job``: scores come in order, one a token of ``Score.tokens`` (not empty)."""

    def __init__(
        self, id_: int, job: Score, *, ends: Collection[int], constraint: Constraint | None
    ) -> None:
        """Takes over ``constraint``."""
        self.id = id_
        self.sharing = job.sharing
        self._sampling = job.sampling
        self._answer = job.tokens
        self._ends = ends
        self._constraint = constraint
        self._contradicted = False
        self._first_wanted = len(job.prompt) - 1
        self._counts: Counter[int] = Counter()
        # Nothing follows the last token, so it need not be computed.
        self.tokens = [*job.prompt, *job.tokens[:-1]]
        self.ended = False

    @property
    def reusable(self) -> int:
        return self._first_wanted

    def wants_logits(self, position: int) -> bool:
        return position >= self._first_wanted

    def take(self, position: int, logits: NDArray[np.float32]) -> list[TokenScore]:
        """The score of the answer's token after ``position``."""
        at = position - self._first_wanted
        token = self._answer[at]
        found = self._score(token, at, logits)
        self._counts[token] += 1
        kept = found.kept and not self._contradicted
        self._advance(token)
        self.ended = at + 1 == len(self._answer)
        top = self._sampling.top_logprobs
        said = None if top < 0 else beside(token, logits, top)
        return [token_score(token, at, found, kept=kept, said=said)]

    def _score(self, token: int, at: int, logits: NDArray[np.float32]) -> Scored:
        with may_have_none(at):
            return score(
                logits,
                self._sampling,
                seed=self._sampling.seed,
                position=at,
                counts=self._counts,
                token=token,
                ends=self._ends,
                admitted=self._constraint.admitted if self._constraint else None,
            )

    def _advance(self, token: int) -> None:
        if self._constraint is None or token in self._ends:
            return
        # The library aborts the process on a token that its grammar does not admit.
        if self._constraint.admitted(np.array([token], dtype=np.int64))[0]:
            self._constraint.accept(token)
        else:
            # A text that left the grammar is nowhere in it: no later token is admitted either.
            self._contradicted = True
            self.close()

    def close(self) -> None:
        if self._constraint:
            self._constraint.close()
            self._constraint = None
