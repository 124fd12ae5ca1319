"""Log-probabilities that an app asked for and was sent: are they the model's own?

``response`` binds what was sent to what was opened; here that is held against what the verifier's
model says beside the same tokens. In the exact regime both have the same logits, and what differs
was made up. In the noisy one nothing says how far honest engines are apart: ``not_applicable``,
never a pass.

Only what was sent counts. A stream that goes on with another attempt's tokens does not send what
stood beside those, and whoever brings an opening could write there what he likes: so where
something differs, the answer is made once more with the verifier's own values in its place, and
that differs from what was signed only if the app was sent it.

Values are compared to ``SLACK`` and not to the bit: the self-test speaks of logits, and their
logarithms are taken in float64 by libraries that round the last digit each in its own way.
"""

from collections.abc import Sequence
from typing import Final

from trunkline.audit import content, replay, rerun
from trunkline.audit.bundle import LOGPROBS, Compared, logprobs_check
from trunkline.audit.content import Opened
from trunkline.audit.findings import inconclusive, not_applicable
from trunkline.inference.answer import as_sent
from trunkline.inference.ports import TokenScore
from trunkline.schema.audit import OpenedLogprob
from trunkline.verdicts import Check, Regime

SLACK: Final = 1e-9
"""More than float64 loses by a sum over a vocabulary, and less than a lie is worth telling."""

NOISE: Final = not_applicable(LOGPROBS, "no calibration says how far honest ones may be apart")
CLOSED: Final = not_applicable(LOGPROBS, "they were sent, and are not opened")
UNSAID: Final = not_applicable(LOGPROBS, "this verifier's engine does not say them")
UNBOUND: Final = inconclusive(LOGPROBS, "what was opened is not what was sent")


def check(
    opened: Opened, checks: Sequence[Check], regime: Regime
) -> tuple[Check | None, Compared | None]:
    """The check, None where nothing was asked for, and the numbers that it comes from, if any.
    ``checks``: those of the opening's content."""
    if opened.request is None or opened.request.top_logprobs_wanted < 0:
        return None, None
    if why := _why_not(opened, checks, regime):
        return why, None
    compared = _compared(opened)
    return (UNSAID, None) if compared is None else (logprobs_check(compared), compared)


def _why_not(opened: Opened, checks: Sequence[Check], regime: Regime) -> Check | None:
    measured = opened.measured
    if content.LOGPROBS_CLOSED in checks:
        return CLOSED
    if measured is None:
        return inconclusive(LOGPROBS, opened.unmeasured)
    if measured.unreachable:
        return inconclusive(LOGPROBS, measured.unreachable)
    if regime != "exact":
        return NOISE
    needed = content.BINDING | {content.RESPONSE}
    if any(one.result != "pass" for one in checks if one.name in needed):
        return UNBOUND
    scored = [[score.token for score in choice] for choice in measured.scores]
    if scored != [list(choice) for choice in opened.content.tokens]:
        return inconclusive(LOGPROBS, replay.NOT_SCORABLE)
    return None


def _compared(opened: Opened) -> Compared | None:
    """None: the engine said nothing. Only for an opening that its receipt binds."""
    said = opened.content.logprobs
    own = _own(() if opened.measured is None else opened.measured.scores)
    if own is None or opened.planned is None or opened.measured is None:
        return None
    tokens = sum(map(len, own))
    differing = sum(
        not _same(mine, sent)
        for mines, sents in zip(own, said, strict=True)
        for mine, sent in zip(mines, sents, strict=True)
    )
    if differing:
        kept = [
            [sent if _same(mine, sent) else mine for mine, sent in zip(mines, sents, strict=True)]
            for mines, sents in zip(own, said, strict=True)
        ]
        again = rerun.rerun(
            opened.receipt, opened.planned, opened.content.tokens, opened.measured.pieces, kept
        )
        if content.is_response(opened, again):
            differing = 0
    return Compared(differing=differing, tokens=tokens) if tokens else None


def _own(scores: Sequence[Sequence[TokenScore]]) -> list[list[OpenedLogprob]] | None:
    """What the verifier's model says, as its node had to send it."""
    own = [
        [as_sent(one.beside.logprob, one.beside.top) for one in choice if one.beside is not None]
        for choice in scores
    ]
    return own if list(map(len, own)) == list(map(len, scores)) else None


def _same(mine: OpenedLogprob, sent: OpenedLogprob) -> bool:
    if [token for token, _ in mine.top] != [token for token, _ in sent.top]:
        return False
    pairs = [(mine.logprob, sent.logprob)]
    pairs += [(ours, theirs) for (_, ours), (_, theirs) in zip(mine.top, sent.top, strict=True)]
    return all(abs(ours - theirs) <= SLACK for ours, theirs in pairs)
