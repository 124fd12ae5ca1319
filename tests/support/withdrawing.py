"""A verifier's judge and what withdraws its verdicts on plants, with nothing around them."""

from functools import cache
from typing import NamedTuple

from tests.support import planting
from tests.support.auditing import NODE, Made, ToyNode, exact
from tests.support.toy_network import LAMBDA, MU

from trunkline.audit import bundle as bundles
from trunkline.audit.bundle import Bundle
from trunkline.base.ports import Clock, Randomness
from trunkline.crypto.digest import digest
from trunkline.receipts import verify_signed
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.store import Connection, Database
from trunkline.verdicts import Drawn
from trunkline.verifier import ledger, showing
from trunkline.verifier.judging import Judge, Place
from trunkline.verifier.withdrawing import Withdrawer

CALIBRATION = exact()
DRAW = digest(b"a draw")


class Answer(NamedTuple):
    """One to be audited."""

    made: Made
    opening: bytes
    """Empty: it is no plant."""
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
        case = await one.made.case(CALIBRATION)
        await self.judge.settle(case, Place(root=one.root, position=0, drawn=drawn), None)
        await self.database.execute(
            ("UPDATE verdicts SET committed_ms = judged_ms WHERE committed_ms IS NULL", ())
        )

    async def open(self, *plants: Answer) -> None:
        """The log has them opened, and they were seen there just now."""
        for one in plants:
            self.entries += 1
            await self.database.execute(
                (
                    "INSERT INTO statements (entry, kind, key, about, note, seen_ms) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        self.entries, "plant", str(LAMBDA.vkey), one.made.leaf.hex(), one.opening,
                        SystemClock().unix_ms(),
                    ),
                )
            )  # fmt: skip

    async def withdraw(self, after_ms: int = 0, *, reveal_after_ms: int = 0) -> int:
        """Conclude what can be, ``after_ms`` from now; how many verdicts the log is given."""
        before, now_ms = len(self.log.queued), SystemClock().unix_ms() + after_ms
        await self.withdrawer.step(
            ledger.Bounds(now_ms=now_ms, followed_ms=now_ms, reveal_after_ms=reveal_after_ms)
        )
        return len(self.log.queued) - before

    async def deliver(self) -> int:
        """The log takes what was queued last. How many verdicts are public then."""
        self.entries += 1
        await self.database.write(lambda c: self.log.deliver(c, self.entries))
        return await self.database.read(showing.newest)

    async def withdrawals(self) -> list[Bundle]:
        """Bundles of the verdicts that withdraw others, in their order."""
        rows = await self.database.read(
            lambda c: c.execute(
                "SELECT bundle FROM verdicts WHERE picked = 1 ORDER BY judged_ms, leaf"
            ).fetchall()
        )
        return [bundles.decode(bytes(row[0])) for row in rows]

    async def see_commitment(self, one: Answer) -> None:
        """Another's to a verdict on it was seen in the log."""
        self.entries += 1
        await self.database.execute(
            (
                "INSERT INTO statements (entry, kind, key, about, note, seen_ms) "
                "VALUES (?, 'commitment', ?, ?, x'', 0)",
                (self.entries, str(MU.vkey), one.made.leaf.hex()),
            )
        )

    async def state(self) -> bytes:
        """Of the one subject."""
        row = await self.database.read(lambda c: c.execute("SELECT state FROM subjects").fetchone())
        return bytes(row[0])
