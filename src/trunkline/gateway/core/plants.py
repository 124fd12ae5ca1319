"""Whose verdicts do not count here any more, by the plants that verifiers showed.

The rules are everybody's (``trunkline.verdicts.planted``); here is what they are applied to: the
verdicts that this gateway heard on drawn receipts, the first of each verifier, and the plants that
verifiers of its policy opened. A verifier that is silenced stays so while what shows it is kept.
Who runs a node is the first part of its pinned key's name.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import UnsetType

from trunkline.verdicts import Known, Said, Tried, Verdict, hold_against

RECEIPTS_MAX: Final = 4096
"""Receipts with verdicts that may yet turn out to be plants."""
PLANTS_MAX: Final = 1024
"""Opened plants; the oldest go first."""


class PlantBook:
    """What was heard, in any order."""

    def __init__(self) -> None:
        self._plants: dict[str, Known] = {}
        """By receipt; ``_said`` likewise."""
        self._said: dict[str, dict[str, tuple[str, Said]]] = {}

    def hear(self, verdict: Verdict, digest: str) -> None:
        """A verdict, verified. ``digest``: SHA-256 of its signed note, hex."""
        if isinstance(verdict.drawn, UnsetType):
            return
        said = self._said.setdefault(verdict.receipt, {})
        said.setdefault(verdict.key, (digest, Said.of(verdict)))
        if len(self._said) > RECEIPTS_MAX + len(self._plants):
            del self._said[next(one for one in self._said if one not in self._plants)]

    def open(self, plant: Known) -> None:
        """A plant that one of the policy's verifiers opened, verified."""
        self._plants.setdefault(plant.receipt, plant)
        if len(self._plants) > PLANTS_MAX:
            oldest = next(iter(self._plants))
            del self._plants[oldest]
            self._said.pop(oldest, None)

    def support(self) -> frozenset[str]:
        """Digests of the verdicts on plants: what must be kept of all that was heard."""
        return frozenset(
            digest for receipt in self._plants for digest, _ in self._said.get(receipt, {}).values()
        )

    def silenced(
        self, verifiers: Mapping[str, str], is_node: Callable[[str], bool]
    ) -> dict[str, Tried]:
        """The verifiers that do not count, by vkey, and why. ``verifiers``: their operators by
        vkey; ``is_node``: whether a vkey is one of this gateway's nodes', or was."""
        planted_at = {plant.node for plant in self._plants.values()}
        nodes = {vkey: operator_of(vkey) for vkey in planted_at if is_node(vkey)}
        operators = nodes | dict(verifiers)
        said = {
            receipt: {vkey: one for vkey, (_, one) in self._said.get(receipt, {}).items()}
            for receipt in self._plants
        }
        tried = hold_against(self._plants.values(), said, operators)
        return {vkey: one for vkey, one in tried.items() if not one.counts}


def operator_of(vkey: str) -> str:
    """Who runs a node, by its key's name."""
    return vkey.partition("+")[0].partition("/")[0]
