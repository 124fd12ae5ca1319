"""Which of the stored answers are listed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from trunkline.gateway.store import AnswerRow, EvidenceStore, Wanted, create_store
from trunkline.schema.attempt import SignedReceipt


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EvidenceStore]:
    """Four answers, the newest last; the proof of one is there."""
    create_store(tmp_path)
    store = EvidenceStore.open(tmp_path)
    for number, (model, node) in enumerate((("m", "a"), ("m", "b"), ("n", "a"), ("n", "b"))):
        row = AnswerRow(
            answer=f"ans_{number}", created_ms=number * 1000, ended_ms=number, format="openai.chat",
            model=model, node=node, operator="o", attempts=1, state="provisional",
        )  # fmt: skip
        signed = SignedReceipt(receipt="{}", batch=f"batch {number}", index=0, path=())
        await store.add(row, signed, None)
    await store.prove(b"batch 1", "proof")
    yield store
    await store.close()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(), "3210"),
        (Wanted(model="m"), "10"),
        (Wanted(node="b"), "31"),
        (Wanted(model="n", node="a"), "2"),
        (Wanted(model="' OR 1"), ""),
        (Wanted(state="final"), "1"),
        (Wanted(state="provisional"), "320"),
        (Wanted(since_ms=1000), "321"),
        (Wanted(until_ms=1000), "0"),
        (Wanted(since_ms=1000, until_ms=3000), "21"),
    ],
)
async def test_filters_say_which(store: EvidenceStore, wanted: Wanted, found: str) -> None:
    assert "".join(row.answer[-1] for row in await store.newest(10, wanted)) == found


async def test_the_limit_is_of_those_that_are_wanted(store: EvidenceStore) -> None:
    assert [row.answer for row in await store.newest(1, Wanted(model="m"))] == ["ans_1"]
