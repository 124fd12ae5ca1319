"""A check's outcome, as verdicts hold it: a stable name, a result, one sentence for people.

Details never quote a prompt or an answer, and nothing that a node wrote.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from trunkline.verdicts import Check, Result

TERMS: Final = "terms"
"""Whether the node's terms let it be verified; there only where they do not."""


def passed(name: str, detail: str) -> Check:
    return Check(name=name, result="pass", detail=detail)


def failed(name: str, detail: str) -> Check:
    return Check(name=name, result="fail", detail=detail)


def inconclusive(name: str, detail: str) -> Check:
    """Something that was needed could not be reached."""
    return Check(name=name, result="inconclusive", detail=detail)


def not_applicable(name: str, detail: str) -> Check:
    """There is nothing to check."""
    return Check(name=name, result="not_applicable", detail=detail)


def either(name: str, good: bool, *, yes: str, no: str) -> Check:
    """A check that passes or fails."""
    return passed(name, yes) if good else failed(name, no)


def total(checks: Sequence[Check]) -> Result:
    """What checks add up to: one failure fails, one gap leaves it open, and nothing is no pass."""
    results = {check.result for check in checks}
    for result in ("fail", "inconclusive", "pass"):
        if result in results:
            return result
    return "not_applicable"


def is_closed(checks: Iterable[Check]) -> bool:
    """Whether the node's terms keep it from being verified."""
    return any(check.name == TERMS and check.result == "not_applicable" for check in checks)
