"""Calibrations: how honest answers score, on traffic held out for it, and the limits drawn from it.

One artefact per weights, verifier's engine, node's engine and regime. It is canonical JSON without
floats (decimals as text), named by its digest, signed and logged before the first verdict that uses
it (``trunkline.verdicts.calibration``), so that no threshold can be chosen after the scores.

*Noisy*: per entropy bin an upper bound of the mean of clipped margins. Answers are the clusters:
answers, not tokens, are drawn again in the bootstrap, since tokens of one answer go together. The
bound is the 95 % quantile of the bootstrapped means, and on top what a bin could hide that showed
nothing, -ln(0.05) / tokens. Bounds for few samples (bets on whole answers) would have to allow for
the longest answer being wholly wrong, and cost several times the mean. A bin that too few answers
reach has no mean, and its tokens are no evidence. Then all bounds are raised together until no bet
gains on a whole honest answer, on average and at that quantile: an answer may be noisier throughout
than its entropies tell, and a bet that stays on it from token to token would compound that.

*None*: there is nothing to score with; only faults count.

*Exact*: no honest answer may mismatch at all; their number bounds the rate
(``trunkline.sequential.exact``). It refuses to build from answers that do mismatch.

Pure. The bootstrap's randomness is seeded, so the same scores give the same artefact.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.audit.trials import BINS, EDGES, LEVELS, Trials
from trunkline.base.errors import MalformedError
from trunkline.crypto.canonical import decode_canonical
from trunkline.crypto.digest import digest as digest_of
from trunkline.sequential import FRACTIONS, mismatch_rate_max
from trunkline.sequential.betting import MEAN_MIN
from trunkline.sequential.wealth import ALPHA_MIN
from trunkline.verdicts import Regime
from trunkline.verdicts.record import Count, Decimal, Digest, Name, OptionalDigest, Text, decimal

CALIBRATION_BYTES_MAX: Final = 48 * 1024
ANSWERS_MIN: Final = 30
"""Answers that must reach a bin before it says anything."""
DOUBT: Final = 0.05
"""Chance that a bound drawn from the calibration is too low, of a bin or of the exact regime."""
RESAMPLES: Final = 2_000
RESAMPLED_MAX: Final = 20_000
"""Answers that a bootstrap takes, by the memory for it."""
RAISE: Final = 1.1
RAISES_MAX: Final = 40
"""Steps of ``RAISE`` at most: a factor of 41."""
SURPLUS_TOKENS: Final = 4
"""Tokens more than the canonical ones that any answer may have."""


class Bin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Honest margins where entropy lies in one bin."""

    answers: Count
    mean: Decimal
    """As measured, of scores in [0, 1]."""
    mu: str
    """Its upper bound, a decimal; empty: too few answers to say."""
    tokens: Count


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it was made from, for whoever wants to make it again."""

    answers: Count
    prompts: Digest
    """Of the prompts' file."""
    seeds: Text
    """How the seeds were drawn."""
    tokens: Count


class Parties(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose noise it is."""

    configuration: Text
    """Name of this pairing, and what else noise depends on; part of a verdict's subject."""
    model: Name
    node: Text
    """The node's numerics, or the class of them that this holds for."""
    verifier: Text
    """The verifier's numerics, likewise."""
    weights: OptionalDigest
    """Empty: none are known."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """The artefact. Field order is key order; keep it so."""

    alpha: Decimal
    """Chance, at most, that an honest subject is ever failed by its wealth."""
    bins: Annotated[tuple[Bin, ...], msgspec.Meta(max_length=BINS)]
    """``trunkline.audit.trials.EDGES``; none in the exact regime."""
    clip: Decimal
    """Margins are clipped here, logit units."""
    edges: Annotated[tuple[Decimal, ...], msgspec.Meta(max_length=BINS)]
    inflation: Decimal
    """What the bins' bounds were multiplied by, because answers differ by more than entropy."""
    parties: Parties
    regime: Regime
    run_length: Decimal
    """Trials until an alarm that someone honest can expect, at least."""
    source: Source
    surplus: Decimal
    """Most that an honest answer's tokens outnumbered its canonical ones, as a share of these."""
    trust_alpha: Decimal
    """Chance, at most, that trust is given (back) to a node that cheats at ``trust_rate``."""
    trust_rate: Decimal
    """Share of answers at fault that trust has to refute."""
    type: Literal["trunkline.calibration-artefact/v1"] = "trunkline.calibration-artefact/v1"

    @cached_property
    def means(self) -> tuple[float | None, ...]:
        """Upper bound of the honest mean per bin; None where there is none."""
        return tuple(float(one.mu) if one.mu else None for one in self.bins)

    @cached_property
    def mu0(self) -> float:
        """The null's mean: of scaled scores (noisy), or of mismatching answers (exact)."""
        if self.regime == "exact":
            return mismatch_rate_max(self.source.answers, 1 - DOUBT)
        return min((mean for mean in self.means if mean is not None), default=0.5)

    @cached_property
    def digest(self) -> str:
        """``sha256:…`` of its bytes."""
        return digest_of(encode(self))

    def scores(self, trials: Trials) -> NDArray[np.float64]:
        """The bounded scores of an answer, shape (trials,): mean at most :attr:`mu0` if honest.

        Noisy: y · mu0 / mu of the bin, per token of a bin that has a mean. Exact: one, 0 or 1.
        None: none.
        """
        if self.regime == "none":
            return np.zeros(0)
        if self.regime == "exact":
            return np.array([float(trials.mismatches > 0)])
        # 0 stands for a bin without a mean; only +, × and ÷, so that every machine agrees.
        means = np.array([mean or 0.0 for mean in self.means])
        at = means[np.array(trials.bins, dtype=np.int64)]
        levels = np.array(trials.margins, dtype=np.float64)[at > 0]
        scaled: NDArray[np.float64] = (levels / LEVELS) * (self.mu0 / at[at > 0])
        return scaled


def encode(calibration: Calibration) -> bytes:
    """Its bytes: canonical JSON."""
    return msgspec.json.encode(calibration)


def decode(data: bytes) -> Calibration:
    """The artefact that ``data`` spells. Raises :class:`MalformedError`."""
    bytes_max = CALIBRATION_BYTES_MAX
    found = decode_canonical(data, Calibration, bytes_max=bytes_max, what="a calibration")
    if encode(found) != data or not _possible(found):
        raise MalformedError("a calibration whose parts can not stand together")
    return found


def build(
    answers: Sequence[Trials],
    *,
    parties: Parties,
    regime: Literal["exact", "noisy"],
    prompts: str,
    seeds: str,
    surplus: float = 0.0,
    clip: float = 0.25,
    alpha: float = 0.001,
    run_length: float | None = None,
    trust_alpha: float = 0.01,
    trust_rate: float = 0.1,
) -> Calibration:
    """The calibration that honest ``answers`` give, quantised with the same ``clip``.

    A small ``clip`` makes up for few answers: what a bin could hide is counted as whole scores, so
    it weighs less beside a mean that is larger. ``surplus``: the largest share by which an honest
    answer's tokens outnumbered its canonical ones. ``run_length``: 1/alpha answers (exact) or 10⁶
    tokens (noisy) unless said. Raises ``ValueError`` for answers that are no calibration: none,
    mismatching ones (exact), or too few in every bin (noisy).
    """
    if not answers:
        raise ValueError("a calibration is made from answers")
    if regime == "exact" and any(one.mismatches for one in answers):
        raise ValueError("honest answers mismatch: the exact regime does not hold here")
    if regime == "noisy" and len(answers) > RESAMPLED_MAX:
        raise ValueError(f"a calibration is made from at most {RESAMPLED_MAX} answers")
    default = 1 / alpha if regime == "exact" else 1e6
    bins, inflation = ((), 1.0) if regime == "exact" else _raised(_bins(answers), answers)
    made = Calibration(
        alpha=decimal(alpha),
        bins=bins,
        clip=decimal(clip),
        edges=() if regime == "exact" else tuple(decimal(edge) for edge in EDGES),
        inflation=decimal(inflation),
        parties=parties,
        regime=regime,
        run_length=decimal(run_length or default),
        source=Source(
            answers=len(answers),
            prompts=prompts,
            seeds=seeds,
            tokens=sum(one.tokens for one in answers),
        ),
        surplus=decimal(surplus),
        trust_alpha=decimal(trust_alpha),
        trust_rate=decimal(trust_rate),
    )
    if not _possible(made):
        raise ValueError("no bin has enough answers, or a parameter is out of range")
    return made


def unmeasured(parties: Parties, *, alpha: float = 0.001) -> Calibration:
    """For what has no scores: its faults count, and trust is given by answers without one."""
    return Calibration(
        alpha=decimal(alpha),
        bins=(),
        clip="1",
        edges=(),
        inflation="1",
        parties=parties,
        regime="none",
        run_length=decimal(1 / alpha),
        source=Source(answers=0, prompts=digest_of(b""), seeds="", tokens=0),
        surplus="0",
        trust_alpha="0.01",
        trust_rate="0.1",
    )


def _bins(answers: Sequence[Trials]) -> tuple[Bin, ...]:
    sums, counts = np.zeros((len(answers), BINS)), np.zeros((len(answers), BINS))
    for row, one in enumerate(answers):
        bins = np.array(one.bins, dtype=np.int64)
        margins = np.array(one.margins, dtype=np.float64) / LEVELS
        sums[row] = np.bincount(bins, weights=margins, minlength=BINS)
        counts[row] = np.bincount(bins, minlength=BINS)
    drawn = _resampled(len(answers))
    again, sizes = drawn @ sums, drawn @ counts
    return tuple(
        _bin(
            sums[:, at],
            counts[:, at],
            np.divide(again[:, at], sizes[:, at], out=np.zeros(RESAMPLES), where=sizes[:, at] > 0),
        )
        for at in range(BINS)
    )


def _bin(
    sums: NDArray[np.float64], counts: NDArray[np.float64], resampled: NDArray[np.float64]
) -> Bin:
    reached, tokens = int((counts > 0).sum()), int(counts.sum())
    mean = float(sums.sum()) / tokens if tokens else 0.0
    mu = ""
    if reached >= ANSWERS_MIN:
        bound = max(mean, float(np.quantile(resampled, 1 - DOUBT))) - math.log(DOUBT) / tokens
        mu = _bound(bound)
    return Bin(answers=reached, mean=decimal(float(f"{mean:.6g}")), mu=mu, tokens=tokens)


def _raised(bins: tuple[Bin, ...], answers: Sequence[Trials]) -> tuple[tuple[Bin, ...], float]:
    """The bins with bounds high enough for whole answers, and what they were multiplied by."""
    scores = [_ratios(bins, one) for one in answers]
    ratios = np.concatenate(scores)[:, None]
    # Where each answer's scores begin and end among all.
    cuts = np.cumsum([0, *(len(one) for one in scores)])
    drawn = _resampled(len(answers)) / len(answers)
    bets = np.array(FRACTIONS)
    for step in range(RAISES_MAX):
        inflation = round(RAISE**step, 6)
        factors = np.log((1 - bets) + bets * ratios / inflation)
        grown = np.diff(np.cumsum(np.vstack([np.zeros(bets.size), factors]), axis=0)[cuts], axis=0)
        # Capped, so that one answer can not make the others' part of the average unreadable.
        means = drawn @ np.exp(np.minimum(grown, 50.0))
        if float(np.quantile(means, 1 - DOUBT, axis=0).max()) <= 1.0:
            return tuple(_multiplied(one, inflation) for one in bins), inflation
    raise ValueError("honest answers differ so much that no bound holds for each of them")


def _ratios(bins: tuple[Bin, ...], one: Trials) -> NDArray[np.float64]:
    """y / mu of the bin, per token of a bin that has a mean."""
    means = np.array([float(at.mu or 0) for at in bins])[np.array(one.bins, dtype=np.int64)]
    levels = np.array(one.margins, dtype=np.float64)[means > 0] / LEVELS
    ratios: NDArray[np.float64] = levels / means[means > 0]
    return ratios


def _multiplied(one: Bin, factor: float) -> Bin:
    return msgspec.structs.replace(one, mu=_bound(float(one.mu) * factor)) if one.mu else one


def _bound(value: float) -> str:
    # Six digits: whoever makes it again on another machine gets the same text.
    return decimal(float(f"{min(max(value, MEAN_MIN), 1 - MEAN_MIN):.6g}"))


def _resampled(answers: int) -> NDArray[np.int64]:
    """How often each answer is drawn, per resample."""
    generator = np.random.default_rng(0)
    drawn: NDArray[np.int64] = generator.multinomial(
        answers, np.full(answers, 1 / answers), RESAMPLES
    )
    return drawn


def _possible(made: Calibration) -> bool:
    try:
        means = made.means
        inflation = float(made.inflation)
        numbers = (float(made.alpha), float(made.trust_alpha), float(made.trust_rate))
        clip, run_length = float(made.clip), float(made.run_length)
    except ValueError:
        return False
    if not (ALPHA_MIN <= numbers[0] < 1 and ALPHA_MIN <= numbers[1] < 1 and clip > 0):
        return False
    if not (MEAN_MIN <= numbers[2] <= 0.5 and 1 < run_length <= 1e15 and inflation >= 1):
        return False
    if made.regime == "none":
        return not made.bins and not made.edges
    if made.regime == "exact":
        # One answer bounds a rate by 0.95: below that nothing can be bet on.
        return not made.bins and not made.edges and 1 <= made.source.answers <= 10**6
    return (
        len(made.bins) == BINS
        and made.edges == tuple(decimal(edge) for edge in EDGES)
        and any(mean is not None for mean in means)
        and all(mean is None or MEAN_MIN <= mean <= 1 - MEAN_MIN for mean in means)
    )
