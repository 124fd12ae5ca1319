"""One job inside the engine: which tokens it has, and what its next one is.

Continuing with a ``prefix`` must give exactly the tail that an undisturbed run would have given, so
a prefix goes the same way as generated tokens: it advances the grammar and the penalties' counts,
and is scored again if log-probabilities were asked for.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trunkline.base.errors import RequestError, UpstreamError
from trunkline.inference.ports import Beside, Generate, Token, TokenLogprob
from trunkline.sampling import LogProbabilities, choose, ranked

_ADMISSION_CHUNK = 4096


class Constraint(Protocol):
    """What generation needs of ``llama.Grammar``."""

    def admitted(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]: ...

    def accept(self, token: int) -> None: ...

    def close(self) -> None: ...


class Running:
    """A job and its state. ``tokens`` is prompt plus answer so far; it grows by one a choice."""

    def __init__(
        self,
        id_: int,
        job: Generate,
        *,
        end_tokens: frozenset[int],
        vocabulary_size: int,
        constraint: Constraint | None,
    ) -> None:
        """Takes over ``constraint``. Raises ``RequestError`` for a prefix that can not be
        continued: it holds an end token, or the grammar does not admit it."""
        self.id = id_
        self.sharing = job.sharing
        self._sampling = job.sampling
        self._max_tokens = job.max_tokens
        self._end_tokens = end_tokens
        self._ends = np.array(sorted(end_tokens), dtype=np.int64)
        self._vocabulary_size = vocabulary_size
        self._constraint = constraint
        self._prompt_tokens = len(job.prompt)
        self._replayed = len(job.prefix)
        self.tokens = [*job.prompt, *job.prefix]
        self.ended = False
        self._counts: Counter[int] = Counter()
        try:
            for token in job.prefix:
                self._replay(token)
            if job.prefix and self._grammar_ended():
                raise _not_continuable("the grammar admits nothing after it")
        except RequestError:
            self.close()
            raise

    def close(self) -> None:
        if self._constraint:
            self._constraint.close()
            self._constraint = None

    @property
    def reusable(self) -> int:
        """Most tokens whose cache may be taken over: those whose logits are not needed."""
        return self._first_wanted

    @property
    def _first_wanted(self) -> int:
        return self._prompt_tokens - 1 if self._scores else len(self.tokens) - 1

    @property
    def _scores(self) -> bool:
        return self._sampling.top_logprobs >= 0

    def wants_logits(self, position: int) -> bool:
        """Whether the logits after the token at ``position`` of ``tokens`` are needed."""
        return position >= self._first_wanted

    def take(self, position: int, logits: NDArray[np.float32]) -> list[Token]:
        """The answer's token after ``position``: scored if it is a prefix's, chosen if new."""
        answer_position = position + 1 - self._prompt_tokens
        if position + 1 < len(self.tokens):
            token = self.tokens[position + 1]
            return [self._event(token, answer_position, logits, replayed=True)]
        token = self._next(answer_position, logits)
        finish = self._note(token, answer_position)
        self.ended = bool(finish)
        return [self._event(token, answer_position, logits, finish=finish)]

    def _next(self, position: int, logits: NDArray[np.float32]) -> int:
        if self._constraint is None:
            return choose(
                logits,
                self._sampling,
                seed=self._sampling.seed,
                position=position,
                counts=self._counts,
            )
        groups = ranked(
            logits,
            self._sampling,
            seed=self._sampling.seed,
            position=position,
            counts=self._counts,
        )
        for group in groups:
            admitted = self._constraint.admitted(group)
            if admitted.any():
                return int(group[np.argmax(admitted)])
        raise UpstreamError(
            "the grammar admits no token of the vocabulary here",
            code="grammar_dead_end",
            retryable=False,
        )

    def _note(self, token: int, position: int) -> str:
        """Record the chosen ``token``; returns how the answer ends with it, if it does."""
        self.tokens.append(token)
        self._counts[token] += 1
        if token in self._end_tokens:
            return "stop"
        if self._constraint is not None:
            self._constraint.accept(token)
            if self._grammar_ended():
                return "grammar"
        return "length" if position + 1 >= self._max_tokens else ""

    def _replay(self, token: int) -> None:
        if token in self._end_tokens:
            raise _not_continuable("it holds an end-of-turn token")
        self._counts[token] += 1
        if self._constraint is not None:
            # The library aborts the process on a token that its grammar does not admit.
            if not self._constraint.admitted(np.array([token], dtype=np.int64))[0]:
                raise _not_continuable("the grammar does not admit it")
            self._constraint.accept(token)

    def _grammar_ended(self) -> bool:
        """Whether the text so far is a complete document to which nothing can be added."""
        if self._constraint is None or not self._admits(self._ends):
            return False
        others = np.setdiff1d(
            np.arange(self._vocabulary_size, dtype=np.int64), self._ends, assume_unique=True
        )
        chunks: Iterator[NDArray[np.int64]] = (
            others[at : at + _ADMISSION_CHUNK] for at in range(0, others.size, _ADMISSION_CHUNK)
        )
        return not any(self._admits(chunk) for chunk in chunks)

    def _admits(self, tokens: NDArray[np.int64]) -> bool:
        return self._constraint is not None and bool(self._constraint.admitted(tokens).any())

    def _event(
        self,
        token: int,
        position: int,
        logits: NDArray[np.float32],
        *,
        replayed: bool = False,
        finish: str = "",
    ) -> Token:
        if not self._scores:
            return Token(token=token, position=position, replayed=replayed, finish=finish)
        said = beside(token, logits, self._sampling.top_logprobs)
        return Token(
            token=token,
            position=position,
            replayed=replayed,
            logprob=said.logprob,
            top=said.top,
            finish=finish,
        )


def beside(token: int, logits: NDArray[np.float32], top: int) -> Beside:
    """The log-probabilities of ``token`` and of the ``top`` likeliest: for who answers with them
    and for who checks them."""
    scores = LogProbabilities(logits)
    likeliest = scores.top(top)
    return Beside(
        logprob=scores.of(token),
        top=tuple(TokenLogprob(token=one, logprob=logprob) for one, logprob in likeliest),
    )


def _not_continuable(why: str) -> RequestError:
    return RequestError(
        f"the answer so far can not be continued: {why}", code="prefix_invalid", param="prefix"
    )
