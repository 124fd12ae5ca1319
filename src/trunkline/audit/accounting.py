"""Does the account add up: usage, ends, tokenisation.

What can be counted is exact: usage is the number of token ids, and the rules for stop strings,
limits and ends are run again, so that a choice that stops where none of them says so was cut, and
one that goes on was padded. How text falls into tokens is not exact: a model may spell a word in
pieces that its tokeniser would not have used. Honest answers do so now and then; an answer that is
paid by the token and does so far oftener than any in the calibration is at fault, unless its tokens
are proven otherwise. An end that the node made up is no matter of one answer: see the end trials.
"""

from typing import Final

from trunkline.audit.calibration import SURPLUS_TOKENS, Calibration
from trunkline.audit.content import NO_MODEL, Opened
from trunkline.audit.findings import either, failed, inconclusive, not_applicable, passed
from trunkline.verdicts import Check

USAGE: Final = "usage"
FINISH: Final = "finish"
CANONICAL: Final = "canonical"

TEMPERATURE_MAX: Final = 1.0
"""Hotter answers are spelt in unlikely ways."""


def check(opened: Opened, calibration: Calibration, *, proven: bool) -> list[Check]:
    """All checks of the account. ``proven``: every token is the one that the model chose."""
    return [_usage(opened), _finish(opened), _canonical(opened, calibration, proven=proven)]


def _usage(opened: Opened) -> Check:
    said, content = opened.receipt.usage, opened.content
    completion = sum(len(choice) for choice in content.tokens)
    # What was read from a cache has a price of its own, and an engine of ours bills none.
    billed = (said.prompt, said.completion, said.cached)
    good = said.counted and billed == (len(content.prompt), completion, 0)
    return either(
        USAGE, good, yes="as many tokens as billed", no="not as many tokens as were billed"
    )


def _finish(opened: Opened) -> Check:
    again = opened.rerun
    if again is None:
        return inconclusive(FINISH, opened.unmeasured if opened.measured is None else NO_MODEL)
    if again.problem:
        return failed(FINISH, again.problem)
    return either(
        FINISH,
        again.finish == opened.receipt.response.finish,
        yes="ends where the rules say so",
        no="not the finish reasons that these tokens lead to",
    )


def _canonical(opened: Opened, calibration: Calibration, *, proven: bool) -> Check:
    measured, planned = opened.measured, opened.planned
    if measured is None or planned is None or len(measured.canonical) != len(opened.content.tokens):
        why = opened.unmeasured if measured is None else measured.unreachable
        return inconclusive(CANONICAL, why)
    if proven:
        return passed(CANONICAL, "each token is the one that the model chose")
    if any(opened.receipt.response.resumed):
        return not_applicable(CANONICAL, "some of its tokens were another attempt's choice")
    sampling = planned.sampling
    if sampling.temperature > TEMPERATURE_MAX or sampling.grammar or sampling.logit_bias:
        return not_applicable(CANONICAL, "the request itself leads to unusual tokens")
    spelled = (
        sum(bool(measured.pieces[token]) for token in choice) for choice in opened.content.tokens
    )
    most = max(
        count - needed * (1.0 + float(calibration.surplus))
        for count, needed in zip(spelled, measured.canonical, strict=True)
    )
    return either(
        CANONICAL,
        most <= SURPLUS_TOKENS,
        yes="about as many tokens as its text takes",
        no="far more tokens than its text takes",
    )
