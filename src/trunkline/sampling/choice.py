"""Choosing the next token: which tokens survive, and which of them the keyed noise picks.

The rule, in order, all in float64 from the engine's float32 logits x:

1. *Penalties.* For each token v that occurs c > 0 times in the answer so far:
   x[v] −= frequency_penalty · c + presence_penalty. The prompt does not count.
2. *Bias.* x[v] += logit_bias[v].
3. *Greedy.* At temperature 0 the token is argmax x, and nothing below applies.
4. *Temperature.* z = x / temperature.
5. *Order.* Tokens are ordered by z descending, equal ones by id ascending. Each limit keeps a
   leading part of that order, and the survivors are the shortest such part, never empty:
   - top_k > 0: the first top_k;
   - top_p < 1: with e = exp(z − max z) over what top_k kept, the shortest part whose sum of e is at
     least top_p times the sum of all e;
   - min_p > 0: those with z ≥ max z + log(min_p).
6. *Choice.* argmax over the survivors of z + g, where g is the noise (``noise.py``) of
   (seed, position, token). Equal scores go to the lowest id.

This is the Gumbel-max trick: the token is distributed as softmax(z) restricted to the survivors.
The order in which the sums of step 5 are rounded is not part of the rule. Two implementations may
differ there only when a sum comes within 10⁻¹² of the limit; a verifier treats such a token as not
decided, rather than as wrong.

With a grammar the answer's token is the first *admitted* one of ``ranked``: the survivors by score,
then everything else by score, so that a grammar is never contradicted by a narrow top_p.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trunkline.sampling.noise import gumbels, reaching

_RANKED_FIRST = 16
_RANKED_GROWTH = 16
_NUCLEUS_FIRST = 256
_NUCLEUS_GROWTH = 8
_NUCLEUS_AT_A_GLANCE = 1024


class Params(Protocol):
    """What the rule reads of a request's sampling parameters. Ranges are checked by the service."""

    @property
    def temperature(self) -> float: ...
    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def min_p(self) -> float: ...
    @property
    def frequency_penalty(self) -> float: ...
    @property
    def presence_penalty(self) -> float: ...
    @property
    def logit_bias(self) -> Mapping[int, float]: ...


def choose(
    logits: NDArray[np.float32],
    params: Params,
    *,
    seed: bytes,
    position: int,
    counts: Mapping[int, int],
) -> int:
    """The token at ``position`` (0-based, of the answer).

    ``logits`` has shape (vocabulary,); ``counts`` says how often each token occurs in the answer
    so far. Raises ``ValueError`` if a logit is not a number.
    """
    x = adjusted(logits, params, counts)
    if params.temperature == 0.0:
        return int(np.argmax(x))
    x /= params.temperature
    tokens = survivors(x, params)
    # Ascending, so that argmax meets the lowest id among equal scores first.
    tokens = _contenders(x, seed, position) if tokens is None else np.sort(tokens)
    if tokens.size == x.size:
        return int(np.argmax(x + gumbels(seed, position, tokens)))
    return int(tokens[np.argmax(x[tokens] + gumbels(seed, position, tokens))])


def ranked(
    logits: NDArray[np.float32],
    params: Params,
    *,
    seed: bytes,
    position: int,
    counts: Mapping[int, int],
) -> Iterator[NDArray[np.int64]]:
    """Every token once, best first, in groups that grow: what a grammar walks through.

    The survivors by descending score come first, then the rest likewise. Lazy, since the first
    group almost always holds an admitted token. Arguments and errors as for ``choose``.
    """
    x = adjusted(logits, params, counts)
    everything = np.arange(x.size, dtype=np.int64)
    if params.temperature == 0.0:
        yield from _descending(everything, x)
        return
    x /= params.temperature
    kept = survivors(x, params)
    if kept is None:
        yield from _descending(everything, x + gumbels(seed, position, everything))
        return
    kept = np.sort(kept)
    yield from _descending(kept, x[kept] + gumbels(seed, position, kept))
    rest = np.setdiff1d(everything, kept, assume_unique=True)
    yield from _descending(rest, x[rest] + gumbels(seed, position, rest))


def adjusted(
    logits: NDArray[np.float32], params: Params, counts: Mapping[int, int]
) -> NDArray[np.float64]:
    """Steps 1 and 2: a float64 copy of ``logits`` with penalties and bias applied."""
    x = logits.astype(np.float64)
    if not math.isfinite(float(x.max())):
        raise ValueError("a logit is not a number, or none is finite")
    if counts and (params.frequency_penalty or params.presence_penalty):
        for token, count in counts.items():
            x[token] -= params.frequency_penalty * count + params.presence_penalty
    for token, bias in params.logit_bias.items():
        x[token] += bias
    return x


def survivors(z: NDArray[np.float64], params: Params) -> NDArray[np.int64] | None:
    """Step 5: the surviving tokens in its order. ``None`` when no limit is set: all survive.

    ``z`` has shape (vocabulary,), already divided by the temperature.
    """
    parts = leading_parts(z, params, (0.0,))
    return None if parts is None else parts[0]


def leading_parts(
    z: NDArray[np.float64], params: Params, slacks: Sequence[float]
) -> list[NDArray[np.int64]] | None:
    """The survivors if sums came out larger by these shares: one part of the order per slack.

    Slack 0 is the rule; others show what its roundings could have kept or dropped. ``None`` when no
    limit is set.
    """
    parts = None
    if 0 < params.top_k < z.size:
        parts = [_leading(z, params.top_k)[: params.top_k]] * len(slacks)
    if params.top_p < 1.0:
        shares = [params.top_p * (1.0 + slack) for slack in slacks]
        parts = _nucleus(z, None if parts is None else parts[0], shares)
    if params.min_p > 0.0:
        floor = float(z.max()) + math.log(min(params.min_p, 1.0))
        if parts is None:
            kept = np.flatnonzero(z >= floor - max(slacks))
            parts = [kept[np.argsort(-z[kept], kind="stable")]] * len(slacks)
        parts = [part[z[part] >= floor - slack] for part, slack in zip(parts, slacks, strict=True)]
    return parts


def _leading(z: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """At least the first ``count`` tokens of the order (more where the last one has equals)."""
    if count >= z.size:
        tokens = np.arange(z.size, dtype=np.int64)
    else:
        smallest = np.partition(z, z.size - count)[z.size - count]
        tokens = np.flatnonzero(z >= smallest)
    return tokens[np.argsort(-z[tokens], kind="stable")]


def _nucleus(
    z: NDArray[np.float64], limited: NDArray[np.int64] | None, shares: Sequence[float]
) -> list[NDArray[np.int64]]:
    """Per share of the whole sum, the shortest part of the order that reaches it."""
    peak = float(z.max())
    if limited is not None:
        total = float(np.exp(z[limited] - peak).sum())
        return _shortest(z, limited, peak, [share * total for share in shares])
    weights = z - peak
    np.exp(weights, out=weights)
    total = float(weights.sum())
    # All that is lighter than this does not make up, together, what a nucleus leaves out.
    heavy = np.flatnonzero(weights >= (1.0 - max(shares)) * total / z.size)
    leading, count = None, _NUCLEUS_FIRST
    if heavy.size <= _NUCLEUS_AT_A_GLANCE:
        leading = heavy[np.argsort(-z[heavy], kind="stable")]
    while True:
        if leading is None:
            leading = _leading(z, count)
        parts = _shortest(z, leading, peak, [share * total for share in shares])
        # A shortest part that is the whole of what was sorted may be short of the target.
        if max(part.size for part in parts) < leading.size or leading.size == z.size:
            return parts
        leading, count = None, count * _NUCLEUS_GROWTH


def _shortest(
    z: NDArray[np.float64], ordered: NDArray[np.int64], peak: float, targets: Sequence[float]
) -> list[NDArray[np.int64]]:
    running = np.cumsum(np.exp(z[ordered] - peak))
    return [ordered[: int(at) + 1] for at in np.searchsorted(running, targets, side="left")]


def _contenders(z: NDArray[np.float64], seed: bytes, position: int) -> NDArray[np.int64]:
    """The tokens that can win among all: not those whose noise is too small at a glance to bring
    them to the score of the likeliest. Exact, and saves the noise of nearly the whole vocabulary.
    """
    likeliest = np.argmax(z)
    reached = float(z[likeliest]) + float(gumbels(seed, position, likeliest.reshape(1))[0])
    return reaching(seed, position, z, reached)


def _descending(
    tokens: NDArray[np.int64], scores: NDArray[np.float64]
) -> Iterator[NDArray[np.int64]]:
    """``tokens`` (ascending) by descending score, equal ones by id, in groups that grow."""
    done, size = 0, _RANKED_FIRST
    while done < tokens.size:
        # Each round re-partitions, but there are at most four, and mostly one.
        order = _leading(scores, min(done + size, tokens.size))
        yield tokens[order[done:]]
        done = order.size
        size *= _RANKED_GROWTH
