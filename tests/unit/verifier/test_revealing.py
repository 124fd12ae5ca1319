"""When a verdict is shown: not before others are bound, nor before its plant could be opened."""

from typing import Any

import msgspec
import pytest
from tests.support.toy_network import MU

from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.crash import crash_hook
from trunkline.runtime.logger import get_logger
from trunkline.runtime.store import Connection, Database
from trunkline.verdicts import Result
from trunkline.verifier import ledger, plant_store, store
from trunkline.verifier.core.entry import StatementEntry
from trunkline.verifier.core.tree import Frontier
from trunkline.verifier.ledger import Stored
from trunkline.verifier.publishing import Publisher
from trunkline.verifier.store import Head

LEAF = "ab" * 32
JUDGED_MS = 1_000_000
AFTER_MS = 20_000
PLANT_MS = 5_000


@pytest.fixture
def publisher(database: Database, transport: HttpTransport) -> Publisher:
    """One that is never run: what is queued stays."""
    return Publisher(
        database,
        LogCaller(transport, "http://127.0.0.1:1"),
        clock=SystemClock(),
        randomness=SystemRandomness(),
        logger=get_logger("verifier"),
        reach=crash_hook(enabled=False),
        on_logged=lambda: None,
    )


class Kept:
    """One verdict that is kept back; times are milliseconds from when it was made."""

    def __init__(self, database: Database, publisher: Publisher) -> None:
        self.database = database
        self.publisher = publisher

    async def judge(
        self, result: Result, *, committed: int, judged: int = 0, **changed: Any
    ) -> None:
        made = Stored(
            leaf=LEAF, picked=False, root=b"r", position=0, subject="s", result=result,
            standing="good", note=b"n", bundle=b"", judged_ms=JUDGED_MS + judged,
        )  # fmt: skip
        made = msgspec.structs.replace(made, **changed)

        def write(connection: Connection) -> None:
            ledger.insert(connection, made, b"")
            connection.execute(
                "UPDATE verdicts SET committed_ms = ? WHERE leaf = ?",
                (JUDGED_MS + committed, made.leaf),
            )

        await self.database.write(write)

    async def see_commitment(self, at: int) -> None:
        """Another's, whatever it is dated."""
        entry = StatementEntry(index=0, kind="commitment", key=str(MU.vkey), about=LEAF, note=b"-")
        head = Head(frontier=Frontier.empty().grown([b"x"]), checkpoint=b"c")
        await self.database.write(
            lambda c: store.advance(c, None, head, [entry], now_ms=JUDGED_MS + at)
        )

    async def shown(self, now: int, *, followed: int | None = None, **changed: Any) -> bool:
        """Whether it is, by what of the log was asked for just now, or when it was ``followed``."""
        bounds = {"reveal_after_ms": AFTER_MS, "plant_wait_ms": PLANT_MS} | changed
        found = ledger.Bounds(
            now_ms=JUDGED_MS + now,
            followed_ms=JUDGED_MS + (now if followed is None else followed),
            **bounds,
        )
        return await self.database.write(lambda c: ledger.reveal_due(c, self.publisher, found) == 1)


@pytest.fixture
def kept(database: Database, publisher: Publisher) -> Kept:
    return Kept(database, publisher)


async def test_a_pass_is_shown_once_another_is_bound(kept: Kept) -> None:
    await kept.judge("pass", committed=500)
    assert not await kept.shown(900)

    await kept.see_commitment(1_000)

    assert await kept.shown(900)


async def test_a_verdict_that_nobody_else_is_bound_to_has_waited_long_enough(kept: Kept) -> None:
    await kept.judge("pass", committed=500)
    assert not await kept.shown(500 + AFTER_MS - 1)
    assert await kept.shown(500 + AFTER_MS)


async def test_a_fail_waits_from_when_the_others_commitment_was_seen(kept: Kept) -> None:
    await kept.judge("fail", committed=500)
    await kept.see_commitment(4_000)

    assert not await kept.shown(4_000 + PLANT_MS - 1)
    assert await kept.shown(4_000 + PLANT_MS)


async def test_a_fail_waits_longer_where_the_log_takes_longer(kept: Kept) -> None:
    took = 4_000
    await kept.judge("fail", committed=took)
    await kept.see_commitment(took)

    waits = ledger.OPENING_ROUNDS * took
    assert waits > PLANT_MS
    assert not await kept.shown(took + waits - 1)
    assert await kept.shown(took + waits)


@pytest.mark.parametrize("took", [AFTER_MS, 3_600_000])
async def test_it_waits_no_longer_for_a_plant_than_for_another_verdict(
    kept: Kept, took: int
) -> None:
    await kept.judge("fail", committed=took)
    await kept.see_commitment(took)

    assert not await kept.shown(took + AFTER_MS - 1)
    assert await kept.shown(took + AFTER_MS)


async def test_a_fail_that_nobody_else_is_bound_to_waits_for_both(kept: Kept) -> None:
    await kept.judge("fail", committed=500)
    assert not await kept.shown(500 + AFTER_MS + PLANT_MS - 1)
    assert await kept.shown(500 + AFTER_MS + PLANT_MS)


async def test_commitments_that_come_late_do_not_put_it_off_for_ever(kept: Kept) -> None:
    await kept.judge("fail", committed=500)
    await kept.see_commitment(500 + AFTER_MS + PLANT_MS - 1)
    assert await kept.shown(500 + AFTER_MS + PLANT_MS)


async def test_a_fail_waits_for_the_log_to_be_followed_too(kept: Kept) -> None:
    await kept.judge("fail", committed=500)
    await kept.see_commitment(1_000)
    assert not await kept.shown(10**9, followed=1_000 + PLANT_MS - 1)
    assert await kept.shown(10**9, followed=1_000 + PLANT_MS)


async def test_alone_it_waits_for_nothing(kept: Kept) -> None:
    await kept.judge("fail", committed=500)
    assert await kept.shown(500, reveal_after_ms=0, plant_wait_ms=0)


LATER = "cd" * 32


async def judge_two(database: Database, first: Result, **later: Any) -> None:
    """Two verdicts, one a second after the other, on one subject."""
    for leaf, result, at, changed in ((LEAF, first, 0, {}), (LATER, "pass", 1_000, later)):
        made = Stored(
            leaf=leaf, picked=False, root=leaf.encode(), position=0, subject="s", result=result,
            standing="good", note=leaf.encode(), bundle=b"", judged_ms=JUDGED_MS + at,
        )  # fmt: skip
        made = msgspec.structs.replace(made, **changed)

        def write(connection: Connection, made: Stored = made) -> None:
            ledger.insert(connection, made, b"")
            connection.execute(
                "UPDATE verdicts SET committed_ms = judged_ms + 100 WHERE leaf = ?", (made.leaf,)
            )

        await database.write(write)


async def given(kept: Kept, now: int, **bounds: Any) -> set[str]:
    """What has been given to the log by then."""
    await kept.shown(now, **bounds)

    def read(connection: Connection) -> set[str]:
        return {row[0] for row in connection.execute("SELECT leaf FROM verdicts WHERE given = 1")}

    return await kept.database.read(read)


async def test_what_a_verdict_comes_to_is_not_told_by_a_later_one(kept: Kept) -> None:
    """Its standing has what all before it came to, and it would be shown first."""
    await judge_two(kept.database, "fail")
    now = 1_000 + 100 + AFTER_MS
    assert await given(kept, now, followed=PLANT_MS) == set()
    assert await given(kept, now + PLANT_MS) == {LEAF, LATER}


async def test_a_later_one_on_something_else_is_shown(kept: Kept) -> None:
    await judge_two(kept.database, "fail", subject="another")
    assert await given(kept, 1_000 + 100 + AFTER_MS, followed=PLANT_MS) == {LATER}


async def test_one_that_the_log_never_takes_keeps_no_other_back_for_ever(kept: Kept) -> None:
    await judge_two(kept.database, "pass")
    await kept.database.write(
        lambda c: c.execute("UPDATE verdicts SET committed_ms = NULL WHERE leaf = ?", (LEAF,))
    )
    assert await given(kept, ledger.KEPT_BACK_MS_MAX - 1) == set()
    assert await given(kept, ledger.KEPT_BACK_MS_MAX) == {LATER}


async def test_a_later_one_waits_for_what_withdraws_the_first(kept: Kept) -> None:
    await judge_two(kept.database, "fail")

    def withdraw(connection: Connection) -> None:
        plant_store.settle(connection, LEAF, planter="p", node="n", withdrawn=True, now_ms=1)
        ledger.reveal(connection, kept.publisher, LEAF, picked=False)

    await kept.database.write(withdraw)
    assert await given(kept, 1_100 + AFTER_MS) == {LEAF}

    def number(connection: Connection) -> None:
        connection.execute("UPDATE verdicts SET number = 1 WHERE leaf = ?", (LEAF,))

    await kept.database.write(number)
    assert await given(kept, 1_100 + AFTER_MS) == {LEAF, LATER}


async def test_what_waits_for_one_node_keeps_no_other_waiting(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "REVEALED_AT_ONCE", 1)
    await judge_two(kept.database, "fail")
    await kept.judge("pass", committed=2_000, leaf="ef" * 32, subject="another", judged=1_500)
    assert await given(kept, 2_000 + AFTER_MS, followed=PLANT_MS) == {"ef" * 32}


@pytest.mark.parametrize("undrawn", [True, False])
async def test_who_asked_is_not_told_before_the_log_has_what_it_waited_for(
    kept: Kept, undrawn: bool
) -> None:
    await kept.judge("pass", committed=0, picked=True)

    def run(connection: Connection) -> None:
        if undrawn:
            ledger.keep_back(connection, LEAF, picked=True)
        ledger.reveal(connection, kept.publisher, LEAF, picked=True)
        found = ledger.at_place(connection, b"r", 0, picked=True)
        assert found == (b"n", not undrawn)
        connection.execute("UPDATE verdicts SET number = 1")
        assert ledger.on_receipt(connection, LEAF, picked=True) == (b"n", True)

    await kept.database.write(run)


async def test_what_the_log_is_given_is_kept_back_until_it_has_it(kept: Kept) -> None:
    await judge_two(kept.database, "fail")

    def run(connection: Connection) -> None:
        now_ms = JUDGED_MS + 2_000
        ledger.reveal(connection, kept.publisher, LEAF, picked=False)
        assert ledger.keeps_back(connection, "s", now_ms, failed=True)
        connection.execute("UPDATE verdicts SET number = 1 WHERE leaf = ?", (LEAF,))
        assert not ledger.keeps_back(connection, "s", now_ms, failed=True)
        assert ledger.keeps_back(connection, "s", now_ms, failed=False)
        assert not ledger.keeps_back(connection, "another", now_ms, failed=False)

    await kept.database.write(run)


async def test_what_somebody_who_asked_was_told_is_not_kept_back(kept: Kept) -> None:
    await kept.judge("fail", committed=0, picked=True, standing="failed")

    def run(connection: Connection) -> None:
        assert ledger.keeps_back(connection, "s", JUDGED_MS, failed=True)
        ledger.reveal(connection, kept.publisher, LEAF, picked=True)
        assert not ledger.keeps_back(connection, "s", JUDGED_MS, failed=True)

    await kept.database.write(run)
