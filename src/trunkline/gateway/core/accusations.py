"""Who failed what, and whether they could know that another had: which voices are others' echo.

Verifiers that say the same of a receipt are two voices only if neither could know the other's
verdict when it was bound to its own. A verifier counts beside another where there is a receipt
that it failed so; else it may have copied every word. Places in the log decide, and a verdict whose
place is not proved yet decides nothing. It refuses to say who copied: one that comes late may only
be slow. Specified in ``docs/spec/verdict.md``, "Commit, then reveal".
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from trunkline.verdicts import Logged, Subject, Verdict, may_know

CHARGES_MAX: Final = 1024
"""Of one verifier. What it said beyond is known to the others still, and no voice of its own."""
ON_RECEIPT_MAX: Final = 4
"""Of one verifier on one receipt: an honest one gives two at most."""
NEWEST: Final = 16
"""Verdicts of a verifier on a subject that are proved, one by one, until one is its own."""
WITHHELD: Final = "opening"
"""Kind of a verdict on a node that did not open a receipt."""


class Mark(NamedTuple):
    """When a verdict was signed, and which it is. The later one counts."""

    unix_ms: int
    digest: str


@dataclass(slots=True)
class Charge:
    """A verdict by which its subject has failed: on an answer that does, or by noisy scores."""

    verifier: str
    """Vkey."""
    mark: Mark
    receipt: str
    subject: Subject
    withheld: bool
    logged: Logged | None = None
    """Its places, once they are proved."""
    forgotten: bool = False
    """Of too many: others may have copied it, and it says nothing by itself."""


class Accusations:
    """All charges that were heard, in any order."""

    def __init__(self) -> None:
        self._receipts: dict[str, dict[str, dict[Mark, Charge]]] = {}
        """By receipt, then by the verifier's vkey."""
        self._verifiers: dict[str, dict[Mark, Charge]] = {}
        """By vkey; those that are not forgotten. ``_subjects`` likewise."""
        self._subjects: dict[tuple[str, Subject, bool], dict[Mark, Charge]] = {}

    def hear(self, verdict: Verdict, mark: Mark, logged: Logged | None) -> None:
        """A verdict, verified; once more, when its places are proved."""
        if verdict.standing != "failed" or (verdict.result != "fail" and verdict.regime != "noisy"):
            # What failed before stays so on answers that pass: that is no new finding of its own.
            return
        said = self._receipts.setdefault(verdict.receipt, {}).setdefault(verdict.key, {})
        charge = said.get(mark)
        if charge is None:
            charge = said[mark] = Charge(
                verifier=verdict.key,
                mark=mark,
                receipt=verdict.receipt,
                subject=verdict.subject,
                withheld=verdict.kind == WITHHELD,
            )
            self._add(charge)
        charge.logged = logged or charge.logged

    def _add(self, charge: Charge) -> None:
        own = self._verifiers.setdefault(charge.verifier, {})
        own[charge.mark] = charge
        self._subjects.setdefault(_about(charge), {})[charge.mark] = charge
        said = self._receipts[charge.receipt][charge.verifier]
        if len(said) > ON_RECEIPT_MAX:
            self._forget(said.pop(min(said)))
        if len(own) > CHARGES_MAX:
            oldest = own[min(own)]
            self._forget(oldest)
            beside = self._receipts[oldest.receipt].values()
            if all(one.forgotten for said in beside for one in said.values()):
                del self._receipts[oldest.receipt]

    def _forget(self, charge: Charge) -> None:
        charge.forgotten = True
        self._verifiers[charge.verifier].pop(charge.mark, None)
        about = self._subjects.get(_about(charge), {})
        about.pop(charge.mark, None)
        if not about:
            self._subjects.pop(_about(charge), None)

    def of(self, verifier: str, subject: Subject, *, withheld: bool) -> list[Charge]:
        """A verifier's charges against a subject, the newest first."""
        found = self._subjects.get((verifier, subject, withheld), {})
        return sorted(found.values(), key=lambda charge: charge.mark, reverse=True)

    def support(self) -> frozenset[str]:
        """Digests of the verdicts that must be kept of all that was heard."""
        return frozenset(
            mark.digest
            for verifiers in self._receipts.values()
            for said in verifiers.values()
            for mark in said
        )

    def agree(
        self, voices: Mapping[str, Sequence[Charge]], operators: Mapping[str, str], quorum: int
    ) -> bool:
        """Whether verifiers of so many operators fail something, each two of them by charges of
        their own. ``voices``: what stands of each, by vkey; ``operators`` likewise."""
        apart = {
            (vkey, other)
            for vkey, charges in voices.items()
            for other in voices
            if any(self._own(charge, (other,)) for charge in charges)
        }

        def grows(chosen: tuple[str, ...], left: Sequence[str]) -> bool:
            if len(chosen) == quorum:
                return True
            return any(
                grows((*chosen, one), left[place:])
                for place, one in enumerate(left, start=1)
                if all(
                    operators[one] != operators[other] and {(one, other), (other, one)} <= apart
                    for other in chosen
                )
            )

        # One that has nothing proved is no voice even where nobody else is needed.
        return grows((), [vkey for vkey in voices if (vkey, vkey) in apart])

    def unproved(self, charges: Sequence[Charge], others: Collection[str]) -> list[Charge]:
        """The charges whose places are still to be proved, so that those of one verifier on one
        subject (the newest first) count beside each of ``others`` (vkeys), if they can. None:
        they do, or they cannot."""
        proved = [charge for charge in charges if charge.logged is not None]
        if proved and all(any(self._own(one, (other,)) for one in proved) for other in others):
            return []
        next_one = [charge for charge in charges[:NEWEST] if charge.logged is None][:1]
        beside = (said for one in (*proved, *next_one) for said in self._beside(one, others))
        return [*next_one, *(said for said in beside if said.logged is None)]

    def _own(self, charge: Charge, others: Collection[str]) -> bool:
        """Whether it is proved that a charge was bound before any of ``others`` had shown the
        same, its own verifier left out."""
        if charge.logged is None:
            return False
        return all(
            said.logged is not None and not may_know(charge.logged, said.logged)
            for said in self._beside(charge, others)
        )

    def _beside(self, charge: Charge, others: Collection[str]) -> Iterable[Charge]:
        """What others say like it of the same receipt."""
        verifiers = self._receipts.get(charge.receipt, {})
        return (
            said
            for vkey in others
            if vkey != charge.verifier
            for said in verifiers.get(vkey, {}).values()
            if said.withheld == charge.withheld
        )


def _about(charge: Charge) -> tuple[str, Subject, bool]:
    return charge.verifier, charge.subject, charge.withheld
