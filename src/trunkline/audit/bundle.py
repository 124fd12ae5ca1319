"""Bundles: a verdict's numbers and all that they are made from, without a word of the content.

Public: quantised scores with their entropy bins, the state before, the checks' results. From
it and the calibration anyone recomputes the numbers (``recompute``); a verdict names its digest.
What a bundle shows of an answer is its length and, in the noisy regime, how surprising its tokens
were, in ten steps: who guesses a whole answer can tell by it that the guess is right.

Canonical JSON, floats as decimals or hexadecimal. It proves nothing about the scores themselves:
that takes the opening and the model.
"""

from typing import Annotated, Final, Literal

import msgspec

from trunkline.audit.findings import failed, inconclusive, not_applicable, passed
from trunkline.audit.standing import SavedState
from trunkline.audit.trials import LEVELS, TOKENS_MAX, Trials
from trunkline.base.errors import MalformedError
from trunkline.crypto.canonical import decode_canonical
from trunkline.verdicts import Check, Kind, Regime, Result, Standing, StandingEvidence, Subject
from trunkline.verdicts.record import Digest, Hex32
from trunkline.verdicts.verdict import CHECKS_MAX

BUNDLE_BYTES_MAX: Final = 16 * 1024 * 1024
REPLAY: Final = "replay"
NOISE: Final = not_applicable(REPLAY, "another engine's noise: it counts for the standing alone")
"""What the scores of one answer's tokens say in the noisy regime; once, of its vectors too."""


LOGPROBS: Final = "logprobs"
"""Whether log-probabilities are the model's; there only where they were asked for."""


class Compared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What comparing an answer's log-probabilities came to. Field order is key order."""

    differing: Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
    """Tokens beside which something else was sent than the verifier's model says."""
    tokens: Annotated[int, msgspec.Meta(ge=1, le=TOKENS_MAX)]
    """The answer's."""


class Bundle(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file. Field order is key order; keep it so."""

    calibration: Digest
    checks: Annotated[tuple[Check, ...], msgspec.Meta(max_length=CHECKS_MAX)]
    evidence: StandingEvidence
    kind: Kind
    logprobs: Compared | msgspec.UnsetType = msgspec.UNSET
    """Absent: none were sent, or they could not be compared."""
    picked: bool
    """Somebody chose this receipt: its scores count for nothing but ``result``."""
    previous: SavedState
    """The subject's state before (``trunkline.audit.standing``), as text."""
    receipt: Hex32
    """By its leaf alone: an answer's id opens its evidence to a caller, and bundles are public."""
    regime: Regime
    result: Result
    standing: Standing
    subject: Subject
    trials: Trials | msgspec.UnsetType = msgspec.UNSET
    """Absent: the answer could not be scored."""
    type: Literal["trunkline.audit-bundle/v1"] = "trunkline.audit-bundle/v1"


def encode(bundle: Bundle) -> bytes:
    """Its bytes."""
    return msgspec.json.encode(bundle)


def decode(data: bytes) -> Bundle:
    """The bundle that ``data`` spells; nothing in it is verified. Raises MalformedError."""
    what = "a bundle of an audit"
    bundle = decode_canonical(data, Bundle, bytes_max=BUNDLE_BYTES_MAX, what=what)
    if encode(bundle) != data or not _consistent(bundle):
        raise MalformedError("a bundle whose parts can not stand together")
    return bundle


def _consistent(bundle: Bundle) -> bool:
    trials, compared = bundle.trials, bundle.logprobs
    if not isinstance(compared, msgspec.UnsetType) and (
        bundle.regime != "exact" or compared.differing > compared.tokens
    ):
        return False
    return isinstance(trials, msgspec.UnsetType) or trials.consistent()


def replay_check(trials: Trials | None, regime: Regime, kind: Kind, unreachable: str) -> Check:
    """What scores say of one answer by itself: of its tokens, or of its vectors."""
    if trials is None:
        return inconclusive(REPLAY, unreachable)
    if regime == "none":
        return inconclusive(REPLAY, "no calibration says what its scores mean")
    if regime == "noisy":
        return _near(trials) if kind == "embedding" else NOISE
    count, what = trials.tokens, "vectors" if kind == "embedding" else "tokens"
    if trials.mismatches:
        return failed(REPLAY, f"{trials.mismatches} of {count} {what} are not the model's")
    return passed(REPLAY, f"all of {count} {what} are the model's")


def logprobs_check(compared: Compared) -> Check:
    """What comparing log-probabilities says. They are a function of logits that both have alike, so
    one that differs was made up, or is another model's."""
    if compared.differing:
        what = f"beside {compared.differing} of {compared.tokens} tokens"
        return failed(LOGPROBS, f"{what} other log-probabilities were sent than the model's")
    return passed(LOGPROBS, f"beside all of {compared.tokens} tokens they are the model's")


def _near(trials: Trials) -> Check:
    """Of vectors by other kernels. A distance at the calibration's clip counts as wholly wrong: no
    rounding leads there, and another text, prefix or model does."""
    wrong = sum(level >= LEVELS for level in trials.margins)
    if wrong:
        return failed(REPLAY, f"{wrong} of {trials.tokens} vectors are not the model's")
    return passed(REPLAY, f"all of {trials.tokens} vectors are the model's, but for rounding")
