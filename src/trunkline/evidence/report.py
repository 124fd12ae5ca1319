"""What a verification found: numbered steps with a result each, and what they add up to.

Only ``pass`` is a pass. ``inconclusive`` means that something was not shown, ``not_applicable``
that there was nothing to show.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from trunkline.receipts import Receipt

Result: TypeAlias = Literal["pass", "fail", "inconclusive", "not_applicable"]
Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]
State: TypeAlias = Literal["provisional", "final"]

TEXT_CHARS_MAX = 160


class Finding(msgspec.Struct, frozen=True):
    """What one check of one part established, or did not."""

    result: Result
    detail: str


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One numbered step of the verification."""

    number: int
    title: str
    result: Result
    detail: str
    """What was established or not, for people. Never a prompt or an answer."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All steps, in order, and the outcome."""

    outcome: Outcome
    """``fail``: a step failed. ``pass``: all steps passed that had anything to show, inclusion in
    a witnessed log among them. ``inconclusive``: neither."""
    state: State
    """``final``: in a log, under a quorum of the policy that was used. Else ``provisional``."""
    answer: str
    """The answer's id as the file has it; empty where it did not parse."""
    steps: tuple[Step, ...]
    receipts: tuple[Receipt, ...] = ()
    """As parsed, in the order of the parts; to be believed only as far as the steps go."""


def passed(detail: str) -> Finding:
    return Finding("pass", detail)


def failed(detail: str) -> Finding:
    return Finding("fail", detail)


def inconclusive(detail: str) -> Finding:
    return Finding("inconclusive", detail)


def not_applicable(detail: str) -> Finding:
    return Finding("not_applicable", detail)


def combine(findings: Sequence[Finding]) -> Finding:
    """One finding for all parts. Something shown for some parts only is not shown: inconclusive."""
    results = {finding.result for finding in findings}
    result: Result
    if "fail" in results:
        result = "fail"
    elif len(results) == 1:
        (result,) = results
    else:
        result = "inconclusive"
    if len({finding.detail for finding in findings}) == 1:
        return Finding(result, findings[0].detail)
    details = (f"part {number}: {item.detail}" for number, item in enumerate(findings, start=1))
    return Finding(result, "; ".join(details))


def numbered(
    titles: Sequence[str], findings: Sequence[Finding], first: int = 1
) -> tuple[Step, ...]:
    """Steps out of as many titles and findings, numbered on from ``first``."""
    return tuple(
        Step(number=number, title=title, result=finding.result, detail=finding.detail)
        for number, (title, finding) in enumerate(zip(titles, findings, strict=True), start=first)
    )


def outcome_of(steps: Sequence[Step]) -> Outcome:
    """What steps add up to by themselves."""
    results = {step.result for step in steps}
    if "fail" in results:
        return "fail"
    return "inconclusive" if "inconclusive" in results else "pass"


def plain(text: str) -> str:
    """``text`` from outside, safe to print: short, and without anything that steers a terminal."""
    shown = text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
    return shown if len(shown) <= TEXT_CHARS_MAX else shown[:TEXT_CHARS_MAX] + "…"
