"""From token scores to trials: the integers that evidence is made of, and that a bundle publishes.

A verifier's floats stay with it; what counts is quantised once, rounded in the node's favour, and
everything after that is exact arithmetic that anyone repeats. Tokens that were taken over from
another attempt are no trials: whoever goes on with them has not chosen them.

Two regimes (design §8). *Noisy*: each token is a trial, its margin clipped and put beside the
mean that honest noise has in its entropy bin; the entropy is known before the noise is drawn, so
the mean holds given the past, which tokens of a hard answer otherwise violate. *Exact*: the
answer is one trial, a mismatch or none, since its tokens stand and fall together.

Besides, each choice has one *end* trial. With p the probability of an end at each of its tokens,
G = Π(1 - p) is the chance that it had not ended by where it did. An honest end makes G uniform or
smaller; a choice that was cut by a limit or a stop string counts G/2, which keeps the mean at most
1/2 whatever the limit. A node that pretends ends has G near 1.

It judges nothing, and publishes no more than is bet on: entropies and margins are a fingerprint of
the text, by which a guess of it can be tried out, so the exact regime, which needs only their
count, keeps none (:meth:`Trials.counted`).
Tokens whose choice roundings could have changed are no trials at all.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Annotated, Final

import msgspec

from trunkline.inference.ports import TokenScore

LEVELS: Final = 65_535
"""A score of 1, quantised."""
TOKENS_MAX: Final = 1_000_000
"""Trials of one answer."""
CHOICES_MAX: Final = 1_024

EDGES: Final = (0.0, 0.05, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Upper edges of the entropy bins, nats; one more bin lies above. The first is greedy decoding."""
BINS: Final = len(EDGES) + 1

Level = Annotated[int, msgspec.Meta(ge=0, le=LEVELS)]
BinNumber = Annotated[int, msgspec.Meta(ge=0, lt=BINS)]


class Trials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one answer contributes. Field order is key order."""

    bins: Annotated[tuple[BinNumber, ...], msgspec.Meta(max_length=TOKENS_MAX)]
    """Entropy bin per decided token, all choices one after the other."""
    ends: Annotated[tuple[Level, ...], msgspec.Meta(max_length=CHOICES_MAX)]
    """End trial per choice."""
    margins: Annotated[tuple[Level, ...], msgspec.Meta(max_length=TOKENS_MAX)]
    """Clipped margin per decided token; ``LEVELS`` for one that no limit let through."""
    mismatches: Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
    """Decided tokens that are not the ones that the rule chooses."""
    tokens: Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
    """Scored, undecided ones included."""

    def consistent(self) -> bool:
        """Whether the parts can belong together."""
        return len(self.bins) == len(self.margins) <= self.tokens >= self.mismatches

    def counted(self) -> "Trials":
        """All that the exact regime needs of them."""
        return msgspec.structs.replace(self, bins=(), ends=(), margins=())


def quantise(
    scores: Sequence[Sequence[TokenScore]],
    *,
    clip: float,
    end_tokens: Collection[int],
    given: Sequence[int] = (),
) -> Trials:
    """The trials of one answer, from its scores per choice. ``clip``: logit units, over 0;
    ``given``: how many tokens of each choice were taken over, if any were."""
    if given:
        scores = [choice[count:] for choice, count in zip(scores, given, strict=True)]
    decided = [score for choice in scores for score in choice if score.decided]
    return Trials(
        bins=tuple(bin_of(score.entropy) for score in decided),
        ends=tuple(_end(choice, end_tokens) for choice in scores if choice),
        margins=tuple(_level(score, clip) for score in decided),
        mismatches=sum(score.margin > 0.0 or not score.kept for score in decided),
        tokens=sum(len(choice) for choice in scores),
    )


def bin_of(entropy: float) -> int:
    """The number of the entropy bin, from 0."""
    return bisect_left(EDGES, entropy)


def _level(score: TokenScore, clip: float) -> int:
    return LEVELS if not score.kept else int(min(score.margin, clip) / clip * LEVELS)


def _end(choice: Sequence[TokenScore], end_tokens: Collection[int]) -> int:
    going_on = math.prod(1.0 - min(max(score.end, 0.0), 1.0) for score in choice)
    ended = choice[-1].token in end_tokens
    return int((going_on if ended else going_on / 2) * LEVELS)
