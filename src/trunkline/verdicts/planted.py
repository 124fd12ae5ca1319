"""What plants show of the verifiers that were tried by them: who found, who missed, who does not
count any more.

Specified in ``docs/spec/verdict.md``, "Plants". Pure rules over plants that were opened and
verdicts that were signed: whoever has both comes to the same. Nobody's word alone is enough: a
planter and a node that plot could call a right answer wrong, and so try to be rid of an honest
verifier. So a miss is held against a verifier where another one of another operator found what it
missed; and its verdicts stop to count once it has missed plants at nodes of two operators.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from trunkline.verdicts.plant import Expected, Planted
from trunkline.verdicts.verdict import Regime, Result, Verdict

PLANT_CHECK: Final = "plant"
"""The check of a verdict that withdraws its verifier's verdict on a known-bad plant."""
OPERATORS_MIN: Final = 2
"""Operators of nodes at which a verifier has missed plants before its verdicts do not count."""


def is_withdrawal(verdict: Verdict) -> bool:
    """Whether it withdraws what its verifier held against a node for a plant: the standing that it
    states is as if that answer had not been audited."""
    return isinstance(verdict.drawn, msgspec.UnsetType) and any(
        check.name == PLANT_CHECK and check.result == "not_applicable" for check in verdict.checks
    )


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """An opened plant, as far as verdicts are held against it."""

    receipt: str
    """Leaf, hex."""
    expect: Expected
    planter: str
    """Vkey; ``node`` likewise."""
    node: str

    @classmethod
    def of(cls, planted: Planted) -> "Known":
        plant = planted.plant
        return cls(receipt=planted.leaf, expect=plant.expect, planter=plant.key, node=plant.node)


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What one verifier said of a receipt that was drawn."""

    result: Result
    regime: Regime

    @classmethod
    def of(cls, verdict: Verdict) -> "Said":
        return cls(result=verdict.result, regime=verdict.regime)


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """A plant that a verifier said the contrary of."""

    receipt: str
    expect: Expected
    node: str
    """Vkey."""
    operator: str
    """Who runs that node."""
    found_by: tuple[str, ...]
    """Vkeys of the verifiers that found what it missed."""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """What came of all plants that one verifier gave a verdict on, without knowing of them."""

    found: int = 0
    missed: tuple[Missed, ...] = ()
    undecided: int = 0
    """It said neither, or nothing but its own word is against the others'."""

    @property
    def counts(self) -> bool:
        """Whether its verdicts count."""
        return len({one.operator for one in self.missed}) < OPERATORS_MIN


NOT_TRIED: Final = Tried()


def hold_against(
    plants: Iterable[Known],
    said: Mapping[str, Mapping[str, Said]],
    operators: Mapping[str, str],
) -> dict[str, Tried]:
    """Every verifier that a plant tried, by its vkey.

    ``said``: verdicts on drawn receipts, by leaf and verifier. ``operators``: by vkey, of verifiers
    and nodes, as the reader knows them; who is not there neither plants, nor is tried, nor counts.
    Of two plants on one receipt the first counts.
    """
    tried: dict[str, Tried] = {}
    seen: set[str] = set()
    for plant in plants:
        if plant.receipt in seen or not _is_fair(plant, operators):
            continue
        seen.add(plant.receipt)
        parties = {operators[plant.node], operators[plant.planter]}
        voices = {
            vkey: one
            for vkey, one in said.get(plant.receipt, {}).items()
            if vkey in operators and operators[vkey] != operators[plant.node]
        }
        for vkey in voices:
            if operators[vkey] in parties:
                # It knew.
                continue
            before = tried.get(vkey, NOT_TRIED)
            tried[vkey] = _with(before, plant, vkey, voices, operators)
    return tried


def _is_fair(plant: Known, operators: Mapping[str, str]) -> bool:
    """Whether the planter and the node are known, and of different operators: one alone could
    make any number of plants up."""
    if plant.planter not in operators or plant.node not in operators:
        return False
    return operators[plant.planter] != operators[plant.node]


def _with(
    before: Tried,
    plant: Known,
    vkey: str,
    voices: Mapping[str, Said],
    operators: Mapping[str, str],
) -> Tried:
    own = voices[vkey]
    if own.result == plant.expect:
        return msgspec.structs.replace(before, found=before.found + 1)
    found_by = _found_by(plant, vkey, voices, operators)
    if not found_by or not _is_contrary(own, plant.expect):
        return msgspec.structs.replace(before, undecided=before.undecided + 1)
    missed = Missed(
        receipt=plant.receipt,
        expect=plant.expect,
        node=plant.node,
        operator=operators[plant.node],
        found_by=found_by,
    )
    return msgspec.structs.replace(before, missed=(*before.missed, missed))


def _is_contrary(own: Said, expect: Expected) -> bool:
    """A pass by another engine's noise says nothing of single tokens, so it misses nothing."""
    if expect == "fail":
        return own.result == "pass" and own.regime == "exact"
    return own.result == "fail"


def _found_by(
    plant: Known, vkey: str, voices: Mapping[str, Said], operators: Mapping[str, str]
) -> tuple[str, ...]:
    """Who of other operators found what ``vkey`` missed; nobody, if that is not enough.

    Of a known-bad plant one is: the node that answered says so too. That a node did right by a
    known-good one is the verifiers' word alone, so more operators must say so than say the
    contrary.
    """
    agree = [
        other
        for other, one in voices.items()
        if one.result == plant.expect
        and one.regime == "exact"
        and operators[other] != operators[vkey]
    ]
    if plant.expect == "pass":
        against = {operators[other] for other, one in voices.items() if one.result == "fail"}
        if len({operators[other] for other in agree}) <= len(against):
            return ()
    return tuple(sorted(agree))
