"""What plants do at a gateway: nothing to nodes, and a verifier that misses them is silenced."""

from pathlib import Path

import msgspec
import pytest
from tests.e2e.test_gateway_verdicts import NOW_MS, alerts, policy, stands, until
from tests.support import planting
from tests.support.fake_node import FakeNode
from tests.support.fake_verifier import FakeVerifier
from tests.support.gateway import Stack, gateway_over

from trunkline.crypto.signer import Signer
from trunkline.gateway.alerts import AlertList
from trunkline.verdicts import PLANT_CHECK, Check, Drawn, Verdict

pytestmark = pytest.mark.usefixtures("looks_often")

DRAWN = Drawn(by="", draw="sha256:" + "0" * 64, entry=1, index=0)


class Plant:
    """A plant by a verifier at a node, and what may be said of it."""

    def __init__(self, by: FakeVerifier, node: FakeNode, number: int) -> None:
        note = planting.plant(by.signer, number, node=node.signer)
        made = planting.answered(note, number, node=node.signer)
        signed = planting.signed(made, node.signer)
        self.receipt = made.leaf.hex()
        self.node = node.signer.vkey
        self.opening = planting.opening(by.signer, note, made, signed, node=node.signer).decode()

    def found(self, by: FakeVerifier, *, passes: bool) -> Verdict:
        """On its receipt, which was drawn."""
        verdict = by.verdict(
            self.node,
            NOW_MS,
            standing="open" if passes else "failed",
            result="pass" if passes else "fail",
            receipt=self.receipt,
        )
        return msgspec.structs.replace(
            verdict, drawn=msgspec.structs.replace(DRAWN, by=str(by.key))
        )

    def withdrawn(self, by: FakeVerifier) -> Verdict:
        verdict = by.verdict(self.node, NOW_MS + 1, result="not_applicable", receipt=self.receipt)
        check = Check(detail="planted", name=PLANT_CHECK, result="not_applicable")
        return msgspec.structs.replace(verdict, checks=(check,))

    def reveal(self, by: FakeVerifier) -> None:
        """What an honest verifier reveals of it, at once."""
        number = len(by.notes) + 2
        by.plants[number] = self.opening
        by.reveal(self.found(by, passes=False), self.withdrawn(by))


async def heard(stack: Stack, *verifiers: FakeVerifier) -> AlertList:
    """Wait until the gateway has heard all that these have revealed."""
    wanted = {verifier.name: len(verifier.notes) for verifier in verifiers}

    async def look() -> bool:
        found = {one.name: one.heard for one in (await alerts(stack)).verifiers}
        return all(found.get(name) == count for name, count in wanted.items())

    await until(look)
    return await alerts(stack)


async def test_a_plant_changes_nothing_for_its_node(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    plant = Plant(verifiers[0], nodes[0], 1)
    async with gateway_over(nodes, tmp_path, routing=policy(tmp_path, verifiers)) as stack:
        for verifier in verifiers:
            plant.reveal(verifier)
        found = await heard(stack, *verifiers)
        assert (found.standings, found.alerts) == ((), ())
        # What it really does is held against it as before.
        one = verifiers[0]
        one.reveal(one.verdict(plant.node, NOW_MS + 2, standing="failed", result="fail"))
        await stands(stack, nodes[0], "demoted")


async def test_who_misses_plants_of_two_operators_does_not_count_any_more(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    one, lazy = verifiers
    file = policy(tmp_path, verifiers)
    async with gateway_over(nodes, tmp_path, routing=file) as stack:
        for number, node in enumerate(nodes):
            found = await heard(stack, one, lazy)
            assert {each.counts for each in found.verifiers} == {True}
            plant = Plant(one, node, number)
            lazy.reveal(plant.found(lazy, passes=True))
            plant.reveal(one)
        found = await heard(stack, one, lazy)
        assert {each.name: each.counts for each in found.verifiers} == {
            one.name: True, lazy.name: False,
        }  # fmt: skip
        (alert,) = found.alerts
        assert (alert.code, alert.node, alert.by) == ("verifier_silenced", lazy.name, (one.name,))
        lazy.reveal(lazy.verdict(nodes[1].signer.vkey, NOW_MS, standing="failed", result="fail"))
        assert (await heard(stack, lazy)).standings == ()

    # It stays so, and is not said again; nor is it over when a node has another key.
    for _ in range(2):
        async with gateway_over(nodes, tmp_path, routing=file) as stack:
            found = await heard(stack, one, lazy)
            assert {each.name: each.counts for each in found.verifiers} == {
                one.name: True, lazy.name: False,
            }  # fmt: skip
            assert (len(found.alerts), found.standings) == (1, ())
        nodes[0].signer = Signer.generate(nodes[0].name, b"\x08" * 32)
        nodes[0].vkey_shown = str(nodes[0].signer.vkey)


async def test_a_plant_that_its_node_did_not_agree_to_silences_nobody(
    nodes: list[FakeNode], verifiers: list[FakeVerifier], tmp_path: Path
) -> None:
    """One verifier alone makes up what it likes."""
    liar, honest = verifiers
    async with gateway_over(nodes, tmp_path, routing=policy(tmp_path, verifiers)) as stack:
        for number, node in enumerate(nodes):
            plant = Plant(liar, node, number)
            other = planting.plant(liar.signer, number, node=liar.signer)
            made = planting.answered(other, number, node=liar.signer)
            plant.opening = planting.opening(
                liar.signer, other, made, planting.signed(made, liar.signer), node=liar.signer
            ).decode()
            honest.reveal(plant.found(honest, passes=True))
            plant.reveal(liar)
        found = await heard(stack, liar, honest)
        assert {each.counts for each in found.verifiers} == {True}
