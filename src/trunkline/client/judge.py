"""Is this the answer to that call? The evidence file's own steps, and four more that only the app
that made the call can take. Pure: it asks nobody.

The steps of :func:`trunkline.verify` say what a file shows to anyone. An app knows more: which
bytes it sent and received, when, and under which nonce. So a gateway that it does not trust can
neither change nor swap nor repeat an answer without a step that fails.
"""

from typing import Literal, TypeAlias

import msgspec

from trunkline.base.errors import Error
from trunkline.client import translated
from trunkline.client.exchange import Exchange
from trunkline.client.trust import Trust
from trunkline.evidence import Evidence, Outcome, Report, State, Step, decode, verify
from trunkline.evidence.content import VERBATIM
from trunkline.evidence.report import (
    Finding,
    combine,
    failed,
    inconclusive,
    not_applicable,
    numbered,
    outcome_of,
    passed,
)
from trunkline.evidence.response import PassingResponse
from trunkline.receipts import Receipt, binds, request_digest

CLOCK_SKEW_MS = 10 * 60 * 1000
"""How much a node's clock may be behind the app's."""

Fault: TypeAlias = Literal[
    "answer_changed",
    "request_changed",
    "other_answer",
    "answer_replayed",
    "evidence_false",
    "answer_unread",
]

# The steps that are added, numbered on from those of the file:
#
#    answer  it is the evidence of the answer that the response named
#    call    nodes signed this very call's nonce, and not before it was sent
#    asked   nodes were given what the app asked, translated or not
#    shown   the app was shown what nodes sent, translated or not
OWN_TITLES = ("answer", "call", "asked", "shown")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What is established of one call's answer."""

    outcome: Outcome
    """As in :class:`trunkline.Report`, over all steps."""
    state: State
    """``final``: in a log, under a quorum of the policy. Else ``provisional``."""
    answer: str
    trust: Literal["reader", "file"]
    """Whose keys and policy: the app's own, or the evidence file's at its word."""
    steps: tuple[Step, ...]
    receipts: tuple[Receipt, ...]
    fault: Fault | None = None
    """What is wrong, where a step failed."""


def judge(exchange: Exchange, evidence: bytes, trust: Trust) -> Result:
    """Hold ``evidence`` against the call. Any bytes give a result.

    Raises :class:`MalformedError` only for a policy of the app's that does not parse.
    """
    policy, keys = trust.of(evidence)
    # Looked at first: more may pass while this goes on, in another thread.
    ended = exchange.ended
    report = verify(
        evidence,
        policy=policy,
        trusted_keys=keys,
        request=exchange.request,
        response=_comparable(exchange),
    )
    own = _own_steps(exchange, evidence, report)
    steps = report.steps + numbered(OWN_TITLES, own, first=len(report.steps) + 1)
    outcome = outcome_of(steps)
    if outcome == "pass":
        # What the file shows may be less than its steps by themselves: it need not be in a log.
        outcome = report.outcome
    return Result(
        outcome=outcome,
        state=report.state,
        answer=report.answer,
        trust="file" if trust.at_its_word else "reader",
        steps=steps,
        receipts=report.receipts,
        fault=_fault(steps, ended=ended) if outcome == "fail" else None,
    )


def _comparable(exchange: Exchange) -> PassingResponse | None:
    """The response, if it is the bytes that were signed, and something is known of them."""
    response = exchange.response
    if exchange.encoded or not isinstance(response, PassingResponse) or response.overflowed:
        return None
    return response


def _own_steps(exchange: Exchange, evidence: bytes, report: Report) -> list[Finding]:
    try:
        file = decode(evidence)
    except Error:
        return [inconclusive("not checked: the file can not be read")] * len(OWN_TITLES)
    receipts = report.receipts
    if len(receipts) != len(file.parts):
        return [_answer(exchange, file), *[inconclusive("not checked: there is no receipt")] * 3]
    return [
        _answer(exchange, file),
        combine([_call(exchange, receipt) for receipt in receipts]),
        _asked(exchange, file, receipts),
        _shown(exchange, file, receipts),
    ]


def _answer(exchange: Exchange, file: Evidence) -> Finding:
    if file.answer != exchange.answer:
        return failed("the evidence is of another answer than the response named")
    return passed("the evidence is of the answer that the response named")


def _call(exchange: Exchange, receipt: Receipt) -> Finding:
    if receipt.sampling.caller_nonce != exchange.nonce:
        return failed("the nonce that was signed is not this call's")
    if receipt.times.arrived_ms < exchange.sent_ms - CLOCK_SKEW_MS:
        return failed("it was signed before this call was made")
    return passed("the nonce that was signed is this call's")


def _asked(exchange: Exchange, file: Evidence, receipts: tuple[Receipt, ...]) -> Finding:
    expected = translated.asked(exchange)
    if expected is None:
        return inconclusive("what nodes were asked depends on what is not part of this call")
    digest = request_digest(expected)
    agree = {
        binds(receipt, "request.digest", digest, part.salts)
        for receipt, part in zip(receipts, file.parts, strict=True)
    }
    if agree == {True}:
        return passed("nodes were given the app's request")
    if None in agree:
        return inconclusive("the receipt hides what nodes were asked, and no salt opens it")
    if exchange.format in VERBATIM:
        return failed("nodes were given another request than the app sent")
    return inconclusive("nodes were given another translation than this version makes")


def _shown(exchange: Exchange, file: Evidence, receipts: tuple[Receipt, ...]) -> Finding:
    response = exchange.response
    if exchange.encoded:
        return inconclusive("the answer came compressed: not the bytes that were signed")
    if response.overflowed:
        return inconclusive("the answer is too long to be checked")
    if isinstance(response, PassingResponse):
        return not_applicable("the answer is the nodes' own bytes: see the step on the response")
    kept = [None if part.bodies is None else part.bodies.chunks for part in file.parts]
    if any(chunks is None for chunks in kept):
        return inconclusive("translated, and the gateway did not keep what nodes sent")
    if receipts[0].response.resumed or receipts[0].response.prefix:
        return inconclusive("translated, and the answer began with what left no receipt")
    chunks = [chunk.encode() for part in kept for chunk in part or ()]
    try:
        expected = translated.shown(exchange, chunks, streamed=response.streamed)
    except (Error, ValueError):
        return inconclusive("what nodes sent can not be translated by this version")
    if response.shows(expected):
        return passed("the app was shown what nodes sent, translated")
    return failed("the app was shown something else than what nodes sent, translated")


def _fault(steps: tuple[Step, ...], *, ended: bool) -> Fault:
    """What the steps that failed come to, the most telling first."""
    bad = {step.title for step in steps if step.result == "fail"}
    content = bad & {"request", "response", "asked", "shown"}
    if "answer" in bad:
        return "other_answer"
    if "call" in bad:
        # All else agrees: it is an answer to the same words, given before.
        return "other_answer" if content else "answer_replayed"
    if bad & {"response", "shown"}:
        return "answer_changed" if ended else "answer_unread"
    if bad & {"request", "asked"}:
        return "request_changed"
    return "evidence_false"
