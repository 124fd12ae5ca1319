"""Verdicts on plants that are in flight together: what withdraws one tells of no other."""

import pytest
from tests.support.withdrawing import Answer, Verifier, answer

from trunkline.runtime.store import Database

WAITS_MS = 20_000


@pytest.fixture
def verifier(database: Database) -> Verifier:
    return Verifier(database)


async def audited(verifier: Verifier, *answers: Answer) -> None:
    for one in answers:
        await verifier.audit(one)


async def test_two_plants_in_flight_are_withdrawn_together(verifier: Verifier) -> None:
    first, second = answer(1, "plant"), answer(2, "plant")
    await audited(verifier, answer(0, "honest"), first, second)
    before = await verifier.state()

    await verifier.open(first)
    assert await verifier.withdraw(reveal_after_ms=WAITS_MS) == 0
    assert await verifier.state() == before
    await verifier.open(second)
    assert await verifier.withdraw(reveal_after_ms=WAITS_MS) == 4

    # Neither says anything of the other.
    found = await verifier.withdrawals()
    assert [(one.standing, one.evidence.samples) for one in found] == [("open", 1)] * 2
    assert await verifier.withdraw(reveal_after_ms=WAITS_MS) == 0


async def test_a_plant_waits_no_longer_than_verdicts_wait_for_each_other(
    verifier: Verifier,
) -> None:
    plant = answer(1, "plant")
    await audited(verifier, plant, answer(2, "cheat"))
    await verifier.open(plant)

    assert await verifier.withdraw(reveal_after_ms=WAITS_MS) == 0
    assert await verifier.withdraw(WAITS_MS, reveal_after_ms=WAITS_MS) == 2
    (found,) = await verifier.withdrawals()
    assert found.standing == "failed"


async def test_it_waits_for_nothing_that_was_made_after_it_was_opened(verifier: Verifier) -> None:
    plant = answer(1, "plant")
    await audited(verifier, plant)
    await verifier.open(plant)
    await verifier.database.execute(("UPDATE statements SET seen_ms = seen_ms - 1", ()))
    await audited(verifier, answer(2, "cheat"))

    assert await verifier.withdraw(reveal_after_ms=WAITS_MS) == 2


async def test_what_is_shown_already_is_withdrawn_at_once(verifier: Verifier) -> None:
    plant = answer(1, "plant")
    await audited(verifier, plant, answer(2, "cheat"))
    await verifier.database.execute(
        ("UPDATE verdicts SET given = 1 WHERE leaf = ?", (plant.made.leaf.hex(),))
    )
    await verifier.open(plant)

    assert await verifier.withdraw(reveal_after_ms=WAITS_MS) == 1


async def test_it_waits_for_nothing_that_need_not_be_kept_back(verifier: Verifier) -> None:
    """Its order alone keeps the other back."""
    plant, cheat = answer(1, "plant"), answer(2, "cheat")
    await audited(verifier, plant, cheat)
    await verifier.open(plant)
    assert await verifier.withdraw(reveal_after_ms=WAITS_MS) == 0

    await verifier.see_commitment(cheat)

    assert await verifier.withdraw(reveal_after_ms=WAITS_MS) == 2
