"""What a verifier has counted it knows again: for each subject, and only what was drawn."""

import pytest
from tests.support.auditing import Made, Toy
from tests.support.toy_network import LAMBDA
from tests.support.withdrawing import DRAW, Verifier
from tests.unit.audit.test_novelty import asked, noisy

from trunkline.audit import novelty
from trunkline.runtime.store import Database
from trunkline.verdicts import Drawn, Verdict
from trunkline.verifier import ledger
from trunkline.verifier.judging import Place


@pytest.fixture
def verifier(database: Database) -> Verifier:
    return Verifier(database)


async def audited(verifier: Verifier, made: Made, *, picked: bool = False) -> Verdict:
    drawn = Drawn(by=str(LAMBDA.vkey), draw=DRAW, entry=verifier.entries, index=0)
    verifier.entries += 1
    root = verifier.entries.to_bytes(32, "big")
    place = Place(root=root, position=0, drawn=None if picked else drawn, picked=picked)
    note, _ = await verifier.judge.settle(await made.case(noisy()), place, None)
    return Verdict.open_note(note, LAMBDA.vkey)


def says_again(verdict: Verdict) -> bool:
    return novelty.COUNTED in verdict.checks


async def test_the_same_greedy_answer_counts_once(verifier: Verifier) -> None:
    first, again, other = [
        await audited(verifier, asked(text, number, temperature=0))
        for number, text in enumerate(("the same", "the same", "another"))
    ]
    assert [says_again(one) for one in (first, again, other)] == [False, True, False]
    assert again.evidence == first.evidence
    assert other.evidence.tokens > first.evidence.tokens


async def test_what_somebody_picked_counts_when_it_is_drawn(verifier: Verifier) -> None:
    await audited(verifier, asked("the same", 1, temperature=0), picked=True)
    assert not says_again(await audited(verifier, asked("the same", 2, temperature=0)))


async def test_what_is_withdrawn_counts_no_more(verifier: Verifier) -> None:
    found = await audited(verifier, asked("the same", 1, temperature=0))
    await verifier.database.write(lambda c: ledger.uncount(c, found.receipt))
    assert not says_again(await audited(verifier, asked("the same", 2, temperature=0)))


async def test_after_a_failure_evidence_begins_anew(verifier: Verifier) -> None:
    first = await audited(verifier, asked("the same", 1, temperature=0))
    number = 2
    while (await audited(verifier, asked(f"{number}", number, temperature=0))).standing != "failed":
        number += 1
    again = await audited(verifier, asked("the same", number + 1, temperature=0))
    assert first.standing == "open"
    assert not says_again(again)


async def test_only_the_newest_are_known_again(
    verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "COUNTED_MAX", 2)
    texts = ("one", "two", "three", "three", "two", "one")
    found = [
        says_again(await audited(verifier, asked(text, number, toy=Toy(), temperature=0)))
        for number, text in enumerate(texts)
    ]
    assert found == [False, False, False, True, True, False]
