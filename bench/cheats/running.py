"""Jobs that do not choose as the rule says, in the place of the engine's own ``Running``."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trunkline.engine.sequence import Running
from trunkline.inference.ports import Token

WATERMARK_BIAS = 2.0
LATE = 24
"""Tokens that are honest before a cheat that begins late."""
REPLACED = 10
"""Place of the one token that is another than it should be."""
SURE = 0.7
"""Probability from which a token is taken without a draw."""
LIKELY_ENOUGH = 0.1
"""A guessed token is kept from this probability on."""

Logits = NDArray[np.float32]
Job = Callable[..., Running]


class Watermarked(Running):
    """Half of the vocabulary, by the token before, is liked a little better."""

    def take(self, position: int, logits: Logits) -> list[Token]:
        green = np.random.default_rng(self.tokens[position]).random(logits.size) < 0.5
        biased = logits + np.where(green, np.float32(WATERMARK_BIAS), np.float32(0))
        return super().take(position, biased)


class LateGreedy(Running):
    """Draws as it should at first, and then no longer."""

    def take(self, position: int, logits: Logits) -> list[Token]:
        late = position + 1 - self._prompt_tokens >= LATE
        return super().take(position, _only(logits, int(logits.argmax())) if late else logits)


class Undrawn(Running):
    """What is likely is taken without a draw; only the rest is drawn."""

    def take(self, position: int, logits: Logits) -> list[Token]:
        likeliest = int(logits.argmax())
        sure = _probability(logits, likeliest) >= SURE
        return super().take(position, _only(logits, likeliest) if sure else logits)


class Guessed(Running):
    """Speculation that is lax: what followed the same token before is a guess for what follows now,
    and a guess that is merely likely enough stands."""

    def take(self, position: int, logits: Logits) -> list[Token]:
        guess = self._guess(position)
        if guess is None or _probability(logits, guess) < LIKELY_ENOUGH:
            return super().take(position, logits)
        return super().take(position, _only(logits, guess))

    def _guess(self, position: int) -> int | None:
        last = self.tokens[position]
        before = (at for at in range(position - 1, -1, -1) if self.tokens[at] == last)
        at = next(before, None)
        return None if at is None else self.tokens[at + 1]


class OneReplaced(Running):
    """One token is the second best: a word that somebody pays for. All others follow honestly."""

    def take(self, position: int, logits: Logits) -> list[Token]:
        if position + 1 - self._prompt_tokens != REPLACED:
            return super().take(position, logits)
        second = int(np.argpartition(logits, -2)[-2])
        return super().take(position, _only(logits, second))


def _probability(logits: Logits, token: int) -> float:
    return float(1 / np.exp(logits - logits[token]).sum(dtype=np.float64))


def _only(logits: Logits, token: int) -> Logits:
    """Logits under which any draw takes ``token``."""
    alone = np.full_like(logits, -1e4)
    alone[token] = 1e4
    return alone
