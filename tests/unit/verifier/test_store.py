"""What the store finds among 200,000 entries, and what it forgets of those before."""

from collections.abc import Callable

import msgspec
import pytest
from tests.support import audit_records
from tests.support.auditing import NODE

from trunkline.crypto.signer import sign_note
from trunkline.runtime.store import Connection, Database
from trunkline.verifier import plant_store, store
from trunkline.verifier.core.entry import BatchEntry, Entry, StatementEntry, TermsEntry
from trunkline.verifier.core.tree import Frontier
from trunkline.verifier.store import Head

LEAF = "ab" * 32
ASKED: dict[str, Callable[[Connection], object]] = {
    "said": lambda c: store.said(c, "verdict", LEAF),
    "self_tests": lambda c: store.self_tests_at(c, str(NODE.vkey), 9, 1),
    "plants_waiting": plant_store.waiting,
    "plants_over": lambda c: plant_store.forget_over(c, 1, unanswered_ms=0),
    "plant_opening": lambda c: plant_store.opening(c, LEAF),
}


@pytest.mark.parametrize("work", ASKED.values(), ids=ASKED)
async def test_statements_are_found_and_not_searched_for(
    database: Database, work: Callable[[Connection], object]
) -> None:
    def planned(connection: Connection) -> list[str]:
        asked: list[str] = []
        connection.set_trace_callback(asked.append)
        try:
            work(connection)
        finally:
            connection.set_trace_callback(None)
        return [
            row[3]
            for query in asked
            if "statements" in query
            for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")
        ]

    steps = await database.write(planned)
    assert [step for step in steps if "INDEX statements_" in step]
    assert not [step for step in steps if step in ("SCAN s", "SCAN statements")]


def stated(index: int, unix_ms: int) -> list[Entry]:
    """Terms and a self-test of the node's with one date, at ``index`` and after it."""
    terms = audit_records.terms(node=NODE, keep_s=unix_ms, unix_ms=unix_ms)
    test = msgspec.structs.replace(audit_records.self_test(NODE), unix_ms=unix_ms)
    key = str(NODE.vkey)
    return [
        TermsEntry(index=index, node=key, note=sign_note(terms.text(), NODE)),
        StatementEntry(
            index=index + 1,
            kind="self_test",
            key=key,
            about="",
            note=sign_note(test.text(), NODE),
        ),
    ]


async def test_the_last_by_date_is_left_of_old_statements(database: Database) -> None:
    """Two that are delivered at once come to the log in any order."""
    old = [*stated(10, 1_000), *stated(20, 3_000), *stated(30, 500), *stated(40, 2_000)]
    size = store.HISTORY_ENTRIES + 100
    after = Head(frontier=Frontier(size=size, hashes=()), checkpoint=b"")
    recent = stated(200, 4_000)
    await database.write(lambda c: store.advance(c, None, after, [*old, *recent], now_ms=1))

    def read(connection: Connection) -> tuple[list[int], list[int]]:
        terms = connection.execute("SELECT entry FROM terms ORDER BY entry")
        tests = connection.execute("SELECT entry FROM statements ORDER BY entry")
        return [row[0] for row in terms], [row[0] for row in tests]

    assert await database.read(read) == ([20, 40, 200], [21, 41, 201])
    terms = await database.read(lambda c: store.terms_at(c, str(NODE.vkey), 150, 3_500))
    assert terms is not None
    assert terms.unix_ms == 3_000


async def test_batches_seen_before_show_no_work_since_then_whatever_their_dates(
    database: Database,
) -> None:
    """A node whose clock was ahead, and that is away now."""
    key, since_ms = str(NODE.vkey), 5_000
    ends = [Frontier.empty().grown([b""] * size) for size in (3, 6)]
    first, second = [Head(frontier=end, checkpoint=b"") for end in ends]

    def batches(begin: int, unix_ms: int) -> list[Entry]:
        return [
            BatchEntry(
                index=index, node=key, root=bytes([index]) * 32, count=1, unix_ms=unix_ms, audited=1
            )
            for index in range(begin, begin + 3)
        ]

    def work(connection: Connection) -> list[int]:
        store.advance(connection, None, first, batches(0, 9_000), now_ms=4_000)
        before = store.signed_since(connection, key, since_ms)
        store.advance(connection, first, second, batches(3, 9_000), now_ms=6_000)
        return [before, store.signed_since(connection, key, since_ms)]

    assert await database.write(work) == [0, 3]


async def test_so_many_of_a_node_s_statements_are_looked_at_and_no_more(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one that states without end would have every verifier read all of it for each answer."""
    monkeypatch.setattr(store, "STATED_MAX", 2)
    after = Head(frontier=Frontier(size=100, hashes=()), checkpoint=b"")
    said = [one for number in range(1, 9) for one in stated(10 * number, 1_000 * number)]
    await database.write(lambda c: store.advance(c, None, after, said, now_ms=1))
    found = await database.read(lambda c: store.self_tests_at(c, str(NODE.vkey), 45, 4_500))
    assert [entry for entry, _ in found] == [41, 51, 61]
