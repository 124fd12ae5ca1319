"""Whatever is planted, audited and opened in whatever order: a subject's evidence ends as if no
plant had ever been."""

import asyncio
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import planting
from tests.support.auditing import NODE, Made, ToyNode, exact
from tests.support.toy_network import LAMBDA

from trunkline.audit.judge import Case
from trunkline.base.ports import Clock, Randomness
from trunkline.crypto.digest import digest
from trunkline.receipts import verify_signed
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.store import Connection, Database
from trunkline.verdicts import Drawn
from trunkline.verifier import showing, store
from trunkline.verifier.judging import Judge, Place
from trunkline.verifier.withdrawing import Withdrawer

CALIBRATION = exact()
DRAW = digest(b"a draw")


class Answer(NamedTuple):
    """One to be audited."""

    made: Made
    opening: bytes
    """Empty: it is no plant."""
    case: Case
    root: bytes


@cache
def answer(number: int, kind: str) -> Answer:
    """Number ``number``: ``honest``, a ``cheat``, or a ``plant``."""
    note = planting.plant(LAMBDA, number)
    if kind == "plant":
        made = planting.answered(note, number)
    else:
        made = ToyNode(seed=planting.WRONG if kind == "cheat" else None).serve(
            number, temperature=1.0
        )
    signed = planting.signed(made)
    return Answer(
        made=made,
        opening=planting.opening(LAMBDA, note, made, signed) if kind == "plant" else b"",
        case=asyncio.run(made.case(CALIBRATION)),
        root=verify_signed(signed, NODE.vkey).batch.root,
    )


class LastFirst:
    """A publisher that brings what was queued last to the log first."""

    def __init__(self) -> None:
        self.queued = list[tuple[str, bool]]()

    def commitment(self, connection: Connection, leaf: str, note: bytes) -> None: ...
    def statement(self, connection: Connection, note: bytes) -> None: ...

    def verdict(self, connection: Connection, leaf: str, note: bytes, *, picked: bool) -> None:
        self.queued.append((leaf, picked))

    def deliver(self, connection: Connection, entry: int) -> None:
        leaf, picked = self.queued.pop()
        showing.logged(connection, leaf, entry, picked=picked)


class Verifier:
    """What judges and withdraws, without anything around it."""

    def __init__(self, database: Database) -> None:
        clock: Clock = SystemClock()
        randomness: Randomness = SystemRandomness()
        self.database = database
        self.log = LastFirst()
        self.judge = Judge(
            database, LAMBDA, self.log, operator="lambda.example", clock=clock,  # type: ignore[arg-type]
            randomness=randomness, reach=lambda _: None,
        )  # fmt: skip
        self.withdrawer = Withdrawer(
            database, self.judge, self.log,  # type: ignore[arg-type]
            nodes={str(NODE.vkey): (NODE.vkey, "alpha.example")},
            verifiers={str(LAMBDA.vkey): (LAMBDA.vkey, "lambda.example")},
            clock=clock, randomness=randomness,
        )  # fmt: skip
        self.entries = 0

    async def audit(self, one: Answer) -> None:
        self.entries += 1
        drawn = Drawn(by=str(LAMBDA.vkey), draw=DRAW, entry=self.entries, index=0)
        await self.judge.settle(one.case, Place(root=one.root, position=0, drawn=drawn), None)
        await self.database.execute(("UPDATE verdicts SET committed_ms = 1", ()))

    async def open(self, one: Answer) -> None:
        self.entries += 1
        await self.database.execute(
            (
                "INSERT INTO statements (entry, kind, key, about, note) VALUES (?, ?, ?, ?, ?)",
                (self.entries, "plant", str(LAMBDA.vkey), one.made.leaf.hex(), one.opening),
            )
        )
        before = await self.database.read(showing.newest)
        await self.withdrawer.step()
        # Of the two, neither is public before both are in the log.
        for public in (before, before + 2):
            self.entries += 1
            await self.database.write(lambda c: self.log.deliver(c, self.entries))
            assert await self.database.read(showing.newest) == public

    async def state(self) -> bytes:
        """Of the one subject."""
        row = await self.database.read(lambda c: c.execute("SELECT state FROM subjects").fetchone())
        return bytes(row[0])


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
                await verifier.open(late[1])
        for late in due:
            await verifier.open(late[1])
        found = await verifier.state()
        numbers = await database.read(showing.newest)
        await database.aclose()
        return found, numbers


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
