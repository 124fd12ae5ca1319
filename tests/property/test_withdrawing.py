"""Whatever is planted, audited and opened in whatever order: a subject's evidence ends as if no
plant had ever been."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.withdrawing import Answer, Verifier, answer

from trunkline.verifier import showing, store


def played(kinds: list[str], delays: list[int]) -> tuple[bytes, int]:
    """The state after all answers and openings, and how many verdicts are public. A plant is opened
    after as many further audits as its delay says."""
    answers = [answer(number, kind) if kind else None for number, kind in enumerate(kinds)]
    return asyncio.run(_played(answers, delays))


async def _played(answers: list[Answer | None], delays: list[int]) -> tuple[bytes, int]:
    with tempfile.TemporaryDirectory() as folder:
        store.create_store(Path(folder))
        database = store.open_store(Path(folder))
        verifier, due = Verifier(database), list[tuple[int, Answer]]()
        for number, one in enumerate(answers):
            if one is None:
                continue
            await verifier.audit(one)
            if one.opening:
                due.append((number + delays[number], one))
            for late in [entry for entry in due if entry[0] <= number]:
                due.remove(late)
                await opened(verifier, late[1])
        await opened(verifier, *(late[1] for late in due))
        found = await verifier.state()
        numbers = await database.read(showing.newest)
        await database.aclose()
        return found, numbers


async def opened(verifier: Verifier, *plants: Answer) -> None:
    before = await verifier.database.read(showing.newest)
    await verifier.open(*plants)
    assert await verifier.withdraw() == 2 * len(plants)
    for _ in plants:
        # Of the two, neither is public before both are in the log.
        assert [await verifier.deliver() for _ in range(2)] == [before, before + 2]
        before += 2


kinds = st.lists(st.sampled_from(["honest", "honest", "plant", "cheat"]), min_size=1, max_size=7)


@settings(max_examples=15, deadline=None)
@given(kinds, st.lists(st.integers(0, 4), min_size=8, max_size=8))
def test_evidence_ends_as_if_no_plant_had_been(what: list[str], delays: list[int]) -> None:
    what = ["honest", *what]
    without, _ = played(["" if one == "plant" else one for one in what], delays)
    found, numbers = played(what, delays)

    assert found == without
    # Each plant's verdict and its withdrawal are public, and nothing else is.
    assert numbers == 2 * what.count("plant")
