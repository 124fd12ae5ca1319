"""The same numbers again, by anyone: from a bundle to the last digit, scores from the opening.

Two levels. *Numbers*: bundle and calibration are enough, and no key or model is needed; every
number of the verdict follows from the integers in the bundle. *Scores*: whoever also has the
receipt's opening and the model asks a scorer of their own. In the exact regime it finds the very
same integers; another engine finds nearly the same, and says so.

A draw is made again as well. What is not shown here: that the verdict was signed and logged, and
that its bundle's previous state is where the verdict before left off; for the latter see
:func:`follows`.
"""

from typing import Final

import msgspec

from trunkline.audit import bundle, calibration, logprobs, novelty, replay
from trunkline.audit import content as contents
from trunkline.audit.bundle import Bundle, Compared, replay_check
from trunkline.audit.calibration import Calibration
from trunkline.audit.findings import total
from trunkline.audit.judge import moved, trials_of
from trunkline.audit.standing import State, decode_state, encode_state
from trunkline.audit.trials import Trials
from trunkline.base.errors import VerificationError
from trunkline.crypto.digest import digest
from trunkline.crypto.keys import VerifierKey
from trunkline.inference.ports import Scorer
from trunkline.receipts import Receipt
from trunkline.schema.audit import OpenedContent
from trunkline.tlog.policy import Policy
from trunkline.verdicts import Draw, Verdict, check_draw, drawn

DIFFERS: Final = "recomputed_otherwise"
_SHARED: Final = (
    "calibration",
    "checks",
    "evidence",
    "kind",
    "receipt",
    "regime",
    "result",
    "standing",
    "subject",
)
"""Members that a verdict and its bundle have in common."""


class Recomputed(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle leads to."""

    bundle: Bundle
    calibration: Calibration
    state: State
    """After this answer."""


class Rescored(msgspec.Struct, frozen=True, kw_only=True):
    """What another look at the content found."""

    trials: Trials | None
    """None: it could not be scored here."""
    unreachable: str
    """Why not."""
    same: bool
    """The very integers of the bundle."""
    logprobs: Compared | None = None
    """None: none were asked for, or they can not be compared here."""


def numbers(bundle_bytes: bytes, calibration_bytes: bytes) -> Recomputed:
    """Recompute everything in a bundle.

    Raises :class:`MalformedError` for bytes that are none, and :class:`VerificationError` for a
    number, a result or a standing that does not follow.
    """
    said = bundle.decode(bundle_bytes)
    measure = calibration.decode(calibration_bytes)
    if measure.digest != said.calibration or measure.regime != said.regime:
        raise _differs("the calibration is not the one that the bundle names")
    trials = None if isinstance(said.trials, msgspec.UnsetType) else said.trials
    for check in said.checks:
        again = replay_check(trials, measure.regime, said.kind, check.detail)
        older = bundle.NOISE if trials is not None and measure.regime == "noisy" else again
        if check.name == bundle.REPLAY and check not in (again, older):
            raise _differs("the scores do not lead to the replay check's result")
    if not novelty.is_sound(said.checks, measure.regime, scored=trials is not None):
        raise _differs("scores are left out that count")
    if trials is not None and not any(check.name == bundle.REPLAY for check in said.checks):
        raise _differs("there are scores, and no check of them")
    _compared(said)
    if said.result != total(said.checks):
        raise _differs("the checks do not add up to the result")
    before = decode_state(said.previous.encode(), measure)
    after = moved(before, measure, trials, said.checks, picked=said.picked)
    if (after.evidence, after.standing) != (said.evidence, said.standing):
        raise _differs("the scores do not lead to the evidence or the standing")
    return Recomputed(bundle=said, calibration=measure, state=after)


def _compared(said: Bundle) -> None:
    """Raise for a check of log-probabilities that does not follow, or that is not there."""
    checks = [check for check in said.checks if check.name == bundle.LOGPROBS]
    if isinstance(said.logprobs, msgspec.UnsetType):
        wrong = any(check.result in ("pass", "fail") for check in checks)
    else:
        wrong = checks != [bundle.logprobs_check(said.logprobs)]
    if wrong:
        raise _differs("the log-probabilities do not lead to their check's result")


def verdict(said: Verdict, bundle_bytes: bytes, calibration_bytes: bytes) -> Recomputed:
    """Recompute a verdict from its bundle. Raises as :func:`numbers`."""
    if digest(bundle_bytes) != said.bundle:
        raise _differs("the bundle is not the one that the verdict names")
    found = numbers(bundle_bytes, calibration_bytes)
    made = found.bundle
    for name in _SHARED:
        if getattr(made, name) != getattr(said, name):
            raise _differs(f"verdict and bundle differ in {name}")
    if said.alpha != found.calibration.alpha:
        raise _differs("verdict and calibration differ in alpha")
    return found


def draw(said: Verdict, note: bytes, key: VerifierKey, policy: Policy) -> None:
    """Draw again what a verdict says that it was drawn by: ``note``, signed by ``key``.

    Raises :class:`MalformedError` or :class:`VerificationError`: another draw, one that is not
    sound under ``policy``, or one that had not drawn the receipt. That its chain was announced in
    time, the log shows (``trunkline.verdicts.examine``).
    """
    by = said.drawn
    if isinstance(by, msgspec.UnsetType):
        raise _differs("the verdict was asked for, and nobody drew its receipt")
    if digest(note) != by.draw or str(key) != by.by:
        raise _differs("the draw is not the one that the verdict names")
    made = Draw.open_note(note, key)
    check_draw(made, policy)
    # By its checkpoint's signatures from a node that does not know of chains.
    either = (made.chance(by.entry), made.randomness())
    inside = made.from_ <= by.entry < made.to
    if not inside or not any(drawn(one, made.rate_ppm, by.entry, by.index) for one in either):
        raise _differs("the draw has not drawn the receipt")


def follows(before: Recomputed, after: Recomputed) -> bool:
    """Whether ``after`` went on where ``before``, the verdict before on this subject, left off."""
    return (
        before.bundle.subject == after.bundle.subject
        and encode_state(before.state).decode() == after.bundle.previous
    )


async def scores(
    said: Recomputed,
    receipt: Receipt,
    content: OpenedContent,
    scorer: Scorer,
    *,
    context_tokens: int = 0,
) -> Rescored:
    """Score the content again and hold the integers against the bundle's. Raises the scorer's."""
    measured = await replay.measure(receipt, content, scorer, context_tokens=context_tokens)
    if measured.unreachable:
        return Rescored(trials=None, unreachable=measured.unreachable, same=False)
    trials = trials_of(measured, receipt, said.calibration)
    read = contents.open_(receipt, content, measured, context_tokens)
    _, compared = logprobs.check(read, contents.check(read), said.calibration.regime)
    known = (said.bundle.trials, said.bundle.logprobs)
    found = tuple(msgspec.UNSET if part is None else part for part in (trials, compared))
    return Rescored(trials=trials, unreachable="", same=found == known, logprobs=compared)


def _differs(why: str) -> VerificationError:
    return VerificationError(why, code=DIFFERS)
