"""How far a token is from the one that the rule chooses: what a verifier measures of an answer.

Logits and seed fix the next token (``choice.py``). Somebody else's token is held against that: by
its *margin*, how much higher the best token's x + T·g is, x the adjusted logits, T the temperature
and g the keyed noise. The token that the rule chooses has margin 0 from the very same logits, and
under another machine's logits a small one; a token drawn in any other way does not. Greedy
decoding is the limit T = 0.

Two shortcuts, both for the verifier's time, and neither to an honest answer's harm, since a claimed
token's own noise is always drawn:
- rivals are the tokens whose z lies within ``REACH`` of the likeliest: the others together have
  a chance of at most vocabulary · e⁻²⁰ (for 49,152 tokens 10⁻⁴, in practice far less);
- entropy and end probability are those of the rivals.

It refuses nothing about the token: one that no limit let through is scored like any other, by its
own noise, and said not to be ``kept``.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.sampling.choice import Params, adjusted, leading_parts
from trunkline.sampling.noise import gumbels, reaching

Tokens: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Admits: TypeAlias = Callable[[Tokens], NDArray[np.bool_]]
"""Of token ids, which a grammar admits next. Shape as asked."""

REACH: Final = 20.0
"""Rivals' distance from the likeliest token, in units of z."""
FEW: Final = 512
"""So many rivals get their noise without ado."""
MARGIN_MAX: Final = 1e6
"""Margins are capped here, so that each is a number that can be written down."""
ROUNDING: Final = 1e-12
"""Sums this near to a limit, and scores this near to each other, may fall either way: how they are
rounded is no part of the rule."""
TOO_COLD: Final = "the temperature is too low for scores"
"""Logits over it are no numbers any more."""


class Scored(msgspec.Struct, frozen=True, kw_only=True):
    """How one claimed token stands."""

    margin: float
    """Logit units, 0 to ``MARGIN_MAX``; 0: nothing beats it."""
    kept: bool
    """The limits, and the grammar where there is one, let it through."""
    decided: bool
    """False: roundings that are no part of the rule could have changed the choice."""
    entropy: float
    """Of the distribution that the rule draws from, nats; known before the noise. 0 when greedy."""
    end: float
    """Probability in that distribution of the end tokens."""


def score(
    logits: NDArray[np.float32],
    params: Params,
    *,
    seed: bytes,
    position: int,
    counts: Mapping[int, int],
    token: int,
    ends: Collection[int] = (),
    admitted: Admits | None = None,
) -> Scored:
    """Hold ``token``, claimed for ``position`` of the answer, against the rule's choice.

    ``logits``: float32, shape (vocabulary,); ``counts``: how often each token occurs in the answer
    so far; ``ends``: the tokens that end an answer; ``admitted``: of a grammar, at this point of
    the text. For the token that :func:`~trunkline.sampling.choose` returns (with a grammar: the
    first admitted one of ``ranked``) the margin is 0 and ``kept`` is true. Raises ``ValueError``
    for logits that are no numbers, alone or over the temperature, a token outside the vocabulary,
    or a grammar that admits none.
    """
    x = adjusted(logits, params, counts)
    if not 0 <= token < x.size:
        raise ValueError("a claimed token is one of the vocabulary")
    if params.temperature == 0.0:
        return _greedy(x, token, ends, admitted)
    z = x / params.temperature
    if not math.isfinite(float(z.max())):
        raise ValueError(TOO_COLD)
    parts = leading_parts(z, params, (0.0, -ROUNDING, ROUNDING))
    draw = _Draw(z, seed, position, token, admitted)
    rivals = draw.rivals(None if parts is None else parts[0])
    entropy, end = _spread(z[rivals.tokens], rivals.tokens, ends)
    return Scored(
        margin=_capped(params.temperature * (rivals.best - draw.score)),
        kept=draw.keeps(rivals),
        decided=not rivals.tied and (parts is None or _same_choice(draw, parts[1], parts[2])),
        entropy=entropy,
        end=end,
    )


class _Rivals(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens that the choice is among."""

    tokens: Tokens
    """Ascending."""
    group: Tokens | None
    """What they are taken from, before ``REACH`` and grammar; None: everything."""
    leading: Tokens
    """Of ``tokens`` those that can have the best score or one as good as equal, and perhaps others.
    Ascending, so that the lowest id among equal scores is met first."""
    scores: Floats
    """z + g of those."""

    @property
    def best(self) -> float:
        return float(self.scores.max())

    @property
    def choice(self) -> int:
        return int(self.leading[np.argmax(self.scores)])

    @property
    def tied(self) -> bool:
        """The two best scores are as good as equal."""
        if self.scores.size < 2:
            return False
        second, first = np.partition(self.scores, self.scores.size - 2)[-2:]
        return bool(first - second <= ROUNDING * max(1.0, abs(float(first))))


class _Draw:
    """One position's draw from z, with its noise, its grammar and the token that is claimed."""

    __slots__ = ("_admitted", "_position", "_seed", "_token", "_z")

    def __init__(
        self, z: Floats, seed: bytes, position: int, token: int, admitted: Admits | None
    ) -> None:
        self._z = z
        self._seed = seed
        self._position = position
        self._token = token
        self._admitted = admitted

    def rivals(self, survivors: Tokens | None) -> _Rivals:
        """Who the choice is among: survivors, or everybody else if a grammar admits none."""
        group = None if survivors is None else np.sort(survivors)
        tokens = _near(self._z, group, self._admitted)
        if tokens.size == 0 and group is not None:
            group = np.setdiff1d(_everything(self._z), group, assume_unique=True)
            tokens = _near(self._z, group, self._admitted)
        if tokens.size == 0:
            raise ValueError("a grammar admits at least one token")
        leading = self._leading(tokens)
        return _Rivals(tokens=tokens, group=group, leading=leading, scores=self._scores(leading))

    def _leading(self, tokens: Tokens) -> Tokens:
        """Of ``tokens`` those worth their noise, which is what scoring costs: two of them say where
        the best score is at least."""
        if tokens.size <= FEW:
            return tokens
        two = tokens[[int(np.argmax(self._z[tokens])), _place(tokens, self._token) or 0]]
        floor = float(self._scores(two).max())
        found = reaching(self._seed, self._position, self._z, floor)
        return tokens[_places(tokens, found)]

    def _scores(self, tokens: Tokens) -> Floats:
        scores: Floats = self._z[tokens] + gumbels(self._seed, self._position, tokens)
        return scores

    @property
    def score(self) -> float:
        """Of the token that is claimed."""
        return float(self._scores(np.array([self._token], dtype=np.int64))[0])

    def keeps(self, rivals: _Rivals) -> bool:
        """Whether limits and grammar let the claimed token through."""
        inside = rivals.group is None or _place(rivals.group, self._token) is not None
        return inside and (self._admitted is None or _admits(self._admitted, self._token))


def _same_choice(draw: _Draw, narrow: Tokens, wide: Tokens) -> bool:
    """Whether the choice is the same however the limits' sums are rounded."""
    return narrow.size == wide.size or draw.rivals(narrow).choice == draw.rivals(wide).choice


def _greedy(x: Floats, token: int, ends: Collection[int], admitted: Admits | None) -> Scored:
    if admitted is None:
        best = int(np.argmax(x))
    else:
        rivals = _near(x, None, admitted)
        if rivals.size == 0:
            raise ValueError("a grammar admits at least one token")
        best = int(rivals[np.argmax(x[rivals])])
    return Scored(
        margin=_capped(float(x[best]) - float(x[token])),
        kept=admitted is None or _admits(admitted, token),
        decided=True,
        entropy=0.0,
        end=float(best in ends),
    )


def _near(z: Floats, group: Tokens | None, admitted: Admits | None) -> Tokens:
    """Of ``group`` (ascending; None: of all), the tokens admitted that lie within ``REACH`` of the
    best admitted one. Ascending."""
    heights = z if group is None else z[group]
    close = heights >= heights.max(initial=-np.inf) - REACH
    near: Tokens = np.flatnonzero(close) if group is None else group[close]
    if admitted is None:
        return near
    group = _everything(z) if group is None else group
    # Grammars are asked about as few tokens as will do: mostly only those near the likeliest.
    near = near[admitted(near)]
    rest: Tokens = group[~close]
    if near.size:
        rest = rest[z[rest] >= z[near].max() - REACH]
    if rest.size:
        near = np.sort(np.concatenate([near, rest[admitted(rest)]]))
    best = z[near].max(initial=-np.inf)
    return np.extract(z[near] >= best - REACH, near)


def _everything(z: Floats) -> Tokens:
    return np.arange(z.size, dtype=np.int64)


def _admits(admitted: Admits, token: int) -> bool:
    return bool(admitted(np.array([token], dtype=np.int64))[0])


def _capped(margin: float) -> float:
    return min(max(margin, 0.0), MARGIN_MAX)


def _place(tokens: Tokens, token: int) -> int | None:
    """Where ``token`` is among ``tokens`` (ascending), if it is."""
    at = int(np.searchsorted(tokens, token))
    return at if at < tokens.size and tokens[at] == token else None


def _places(tokens: Tokens, some: Tokens) -> Tokens:
    """Where those of ``some`` that are among ``tokens`` (ascending, not empty) are."""
    at = np.minimum(np.searchsorted(tokens, some), tokens.size - 1)
    return np.extract(tokens[at] == some, at)


def _spread(z: Floats, tokens: Tokens, ends: Collection[int]) -> tuple[float, float]:
    """Entropy (nats) of the distribution over ``tokens`` (ascending) alone, and its share of the
    end tokens. ``z``: theirs."""
    below = z - z.max()
    weights = np.exp(below)
    total = float(weights.sum())
    entropy = max(0.0, float(np.log(total)) - float((weights * below).sum()) / total)
    places = [at for end in ends if (at := _place(tokens, end)) is not None]
    return entropy, float(weights[places].sum()) / total
