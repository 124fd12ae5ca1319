"""Scoring from part of the logits: the likeliest tokens' log-probabilities and nothing else.

Some engines hand out only so many values a position (an API's log-probabilities). What they leave
out is not unknown: each token left out is at most as likely as the least likely one given, together
they have what is missing to one, and the noise of every token can be drawn. So this says either
which token the rule chooses, with the margin that all logits would have given, or that it is *not
decided*: never that a claim is right or wrong because of what was not seen.

- *Sure* survivors are those that the limits keep whatever the rest is; *possible* ones those that
  they may keep. Sums over what was left out are held between two bounds (:func:`_rest`).
- The choice is decided if the best sure survivor beats all possible ones at their bounds. A claim
  adds its own token's value, so it may settle what was open, and never unsettles anything.

Margins are then exact up to the rounding of the values given. The entropy takes what was not seen
to be as likely as it may be; the end probability is an upper bound, which is in an honest answer's
favour. The shortcut of ``score.py`` (``REACH``) is taken here too. Grammars are not for this: which
tokens they admit among those left out is not known.
"""

import math
from collections.abc import Collection, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.sampling.choice import Params
from trunkline.sampling.noise import GUMBEL_MAX, gumbels
from trunkline.sampling.score import MARGIN_MAX, REACH, ROUNDING, TOO_COLD, Scored

Tokens = NDArray[np.int64]
Floats = NDArray[np.float64]

MASS_SLACK = 1e-4
"""How far the sum of float32 log-probabilities' exponentials may be from what it stands for."""
_EXPONENT_MAX = 700.0


class Leading(msgspec.Struct, frozen=True, kw_only=True):
    """The likeliest tokens of one position, and the claimed one."""

    tokens: Tokens
    """The likeliest, in any order; each token that is not among them is at most as likely as the
    least likely of them. Shape (given,)."""
    logprobs: Floats
    """Logarithms of their probabilities under the model, before any rule. Shape (given,)."""
    claimed: float
    """That of the claimed token, which need not be among them."""
    vocabulary: int
    """Number of tokens that there are."""


def check(leading: Leading, token: int) -> None:
    """Raise ``ValueError`` for values that are no log-probabilities of such a vocabulary."""
    tokens, given = leading.tokens, leading.logprobs
    if not 0 < tokens.size == given.size <= leading.vocabulary:
        raise ValueError("a position has at least one token, and at most the vocabulary")
    if min(tokens.min(), token) < 0 or max(tokens.max(), token) >= leading.vocabulary:
        raise ValueError("a token is one of the vocabulary")
    if np.unique(tokens).size != tokens.size:
        raise ValueError("a token is given once")
    if not (np.isfinite(given).all() and math.isfinite(leading.claimed)):
        raise ValueError("a log-probability is a number")
    if given.max() > MASS_SLACK or float(np.exp(given).sum()) > 1.0 + MASS_SLACK:
        raise ValueError("probabilities come to at most one: these are no log-probabilities")
    if not (tokens == token).any() and leading.claimed > given.min():
        raise ValueError("a token that was left out is likelier than one given")


def score_leading(
    leading: Leading,
    params: Params,
    *,
    seed: bytes,
    position: int,
    counts: Mapping[int, int],
    token: int,
    ends: Collection[int] = (),
) -> Scored:
    """As :func:`~trunkline.sampling.score`, from part of the logits.

    Where ``decided`` is false, the margin is no evidence. Raises ``ValueError`` as :func:`check`,
    and for a temperature so low that log-probabilities over it are no numbers.
    """
    check(leading, token)
    view = _View(leading, params, counts, token)
    if params.temperature == 0.0:
        return _greedy(view, ends)
    if not (np.isfinite(view.z).all() and all(map(math.isfinite, view.lifts.values()))):
        raise ValueError(TOO_COLD)
    kept = _survivors(view, params)
    near = view.z >= view.peak - REACH
    scores = view.z + gumbels(seed, position, view.tokens)
    rivals = np.sort(scores[kept.possible & near])[::-1]
    best = float(rivals[0])
    apart = rivals.size < 2 or best - rivals[1] > ROUNDING * max(1.0, abs(best))
    entropy, end = _spread(view, kept, near, ends)
    return Scored(
        margin=_capped(params.temperature * (best - float(scores[view.place]))),
        kept=bool(kept.possible[view.place]),
        decided=bool(apart)
        and best == scores[kept.sure].max(initial=-np.inf)
        and not (kept.open and _rest_may_win(view, best, seed, position)),
        entropy=entropy,
        end=end,
    )


class _View:
    """One position after penalties and bias, over the temperature (unless that is 0)."""

    __slots__ = ("ceiling", "lifts", "mass", "peak", "place", "rest", "scale", "tokens", "usual",
                 "z")  # fmt: skip

    def __init__(
        self, leading: Leading, params: Params, counts: Mapping[int, int], token: int
    ) -> None:
        order = np.argsort(leading.tokens)
        tokens: Tokens = leading.tokens[order]
        raw: Floats = leading.logprobs[order].astype(np.float64)
        self.scale = params.temperature or 1.0
        floor = float(raw.min())
        place = int(np.searchsorted(tokens, token))
        if place == tokens.size or tokens[place] != token:
            # Its own value is known, though those of its like are not.
            tokens, raw = np.insert(tokens, place, token), np.insert(raw, place, leading.claimed)
        self.tokens = tokens
        """Whose values are known, ascending."""
        self.place = place
        """Of the claimed token among them."""
        self.rest = leading.vocabulary - tokens.size
        """How many others there are."""
        missing = max(0.0, 1.0 - float(np.exp(raw).sum()))
        self.mass = (max(0.0, missing - MASS_SLACK), missing + MASS_SLACK)
        """Least and most of the others' probability under the model."""
        self.usual = min(floor, math.log(self.mass[1])) / self.scale
        """None of the others is higher, but for what lifts it."""
        moved = _moved(params, counts)
        known = np.array([moved.pop(int(one), 0.0) for one in tokens])
        self.z: Floats = (raw + known) / self.scale
        self.lifts = {one: by / self.scale for one, by in moved.items()}
        """What penalties and bias do to others."""
        self.ceiling = self.usual + max([0.0, *self.lifts.values()]) if self.rest else -np.inf
        """No other is higher."""
        self.peak = float(self.z.max())


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What the limits keep, as far as it is known."""

    sure: NDArray[np.bool_]
    """Of the known tokens, those kept whatever the rest is."""
    possible: NDArray[np.bool_]
    """Those that may be kept. Never none."""
    open: bool
    """Tokens of the rest may be kept."""
    whole: bool
    """There are no limits: everything is kept."""


def _moved(params: Params, counts: Mapping[int, int]) -> dict[int, float]:
    """What steps 1 and 2 of the rule (``choice.py``) add, by token."""
    moved: dict[int, float] = {}
    if params.frequency_penalty or params.presence_penalty:
        for token, count in counts.items():
            moved[token] = -(params.frequency_penalty * count + params.presence_penalty)
    for token, bias in params.logit_bias.items():
        moved[token] = moved.get(token, 0.0) + bias
    return moved


def _survivors(view: _View, params: Params) -> _Kept:
    """Each limit keeps a leading part of the order. Only a token above everything in the rest has a
    place in that order that is known; any other's is no better than among the known ones."""
    order = np.argsort(-view.z, kind="stable")
    ranked: Floats = view.z[order]
    placed = int((ranked > view.ceiling).sum())
    sure = possible = ranked.size
    open_ = view.rest > 0
    limited_k = 0 < params.top_k < ranked.size + view.rest
    if limited_k:
        sure, possible = min(params.top_k, placed), min(params.top_k, possible)
        open_ = open_ and params.top_k > placed
    if params.top_p < 1.0:
        running = np.cumsum(np.exp(ranked - view.peak))
        least, most = _total(view, running, params.top_k if limited_k else 0, placed)
        least, most = params.top_p * least * (1 - ROUNDING), params.top_p * most * (1 + ROUNDING)
        sure = min(sure, placed, int(np.searchsorted(running, least)) + 1)
        possible = min(possible, int(np.searchsorted(running, most)) + 1)
        open_ = open_ and (not placed or float(running[placed - 1]) < most)
    if params.min_p > 0.0:
        depth = math.log(min(params.min_p, 1.0))
        highest = max(view.peak, view.ceiling)
        surely = int((ranked >= highest + depth + ROUNDING).sum())
        # The likeliest of all is kept by any limit.
        sure = min(sure, max(surely, min(placed, 1)))
        possible = min(possible, int((ranked >= view.peak + depth - ROUNDING).sum()))
        open_ = open_ and view.ceiling >= view.peak + depth - ROUNDING
    return _Kept(
        sure=_first(order, sure),
        possible=_first(order, possible),
        open=open_,
        whole=not limited_k and params.top_p >= 1.0 and params.min_p <= 0.0,
    )


def _first(order: Tokens, count: int) -> NDArray[np.bool_]:
    mask = np.zeros(order.size, dtype=bool)
    mask[order[:count]] = True
    return mask


def _total(view: _View, running: Floats, top_k: int, placed: int) -> tuple[float, float]:
    """Least and most of the sum that top_p takes its share of, e to the z over the likeliest's."""
    least, most = _rest(view)
    if not top_k:
        return float(running[-1]) + least, float(running[-1]) + most
    inside = float(running[min(top_k, running.size) - 1])
    if top_k <= placed or not view.rest:
        return inside, inside
    above = float(running[placed - 1]) if placed else 0.0
    height = _exp(view.ceiling - view.peak)
    return inside, min(above + (top_k - placed) * height, float(running[-1]) + most)


def _rest(view: _View) -> tuple[float, float]:
    """Least and most of what the rest adds to the sum of e to the z over the likeliest's.

    Under the model the rest's probabilities come to ``mass``, and none is over the floor. Of their
    powers (1 over the temperature), the sum is extreme where all are equal, and where as many as
    the mass allows are at the floor.
    """
    if not view.rest:
        return 0.0, 0.0
    log_rest = math.log(view.rest)
    bounds: list[float] = []
    for mass, pick in zip(view.mass, (min, max), strict=True):
        log_mass = math.log(mass) if mass > 0.0 else -math.inf
        level = log_rest + (log_mass - log_rest) / view.scale
        heaped = log_mass + view.usual * (1.0 - view.scale)
        lift = pick([0.0, *view.lifts.values()])
        bounds.append(pick(level, heaped) + lift)
    return _exp(bounds[0] - view.peak), _exp(min(bounds[1], log_rest + view.ceiling) - view.peak)


def _rest_may_win(view: _View, best: float, seed: bytes, position: int) -> bool:
    """Whether a token of the rest could have as high a score as ``best`` of the known ones."""
    if view.ceiling < max(view.peak - REACH, best - GUMBEL_MAX - ROUNDING):
        return False
    highest = view.usual + gumbels(
        seed, position, np.arange(view.tokens.size + view.rest, dtype=np.int64)
    )
    for token, lift in view.lifts.items():
        highest[token] += lift
    highest[view.tokens] = -np.inf
    return bool(highest.max() >= best - ROUNDING * max(1.0, abs(best)))


def _spread(
    view: _View, kept: _Kept, near: NDArray[np.bool_], ends: Collection[int]
) -> tuple[float, float]:
    """Least entropy (nats) of the distribution, and the most that end tokens may have of it."""
    inside = kept.possible & near
    below = view.z[inside] - view.peak
    weights = np.exp(below)
    rest = _rest(view)[0] if kept.whole else 0.0
    total = float(weights.sum()) + rest
    depth = float((weights * below).sum()) + (rest * (view.ceiling - view.peak) if rest else 0.0)
    entropy = max(0.0, math.log(total) - depth / total)
    least = float(np.exp(view.z[kept.sure] - view.peak).sum()) + rest
    share = 0.0
    for end in ends:
        place = int(np.searchsorted(view.tokens, end))
        if place < view.tokens.size and view.tokens[place] == end:
            share += _exp(view.z[place] - view.peak) if kept.possible[place] else 0.0
        elif kept.open:
            share += _exp(view.usual + max(view.lifts.get(end, 0.0), 0.0) - view.peak)
    return entropy, min(1.0, share / least) if share and least else float(share > 0.0)


def _greedy(view: _View, ends: Collection[int]) -> Scored:
    best = int(np.argmax(view.z))
    return Scored(
        margin=_capped(float(view.z[best] - view.z[view.place])),
        kept=True,
        decided=bool(view.z[best] > view.ceiling),
        entropy=0.0,
        end=float(int(view.tokens[best]) in ends or bool(view.z[best] <= view.ceiling)),
    )


def _exp(exponent: float) -> float:
    return math.exp(min(exponent, _EXPONENT_MAX))


def _capped(margin: float) -> float:
    return min(max(margin, 0.0), MARGIN_MAX)
