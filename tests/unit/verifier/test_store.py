"""What the store is asked all the time reads none of the 200,000 entries that it is not about."""

from collections.abc import Callable

import pytest
from tests.support.auditing import NODE

from trunkline.runtime.store import Connection, Database
from trunkline.verifier import plant_store, store

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
