"""Holds, captures, voids and periods."""

from datetime import UTC, datetime

import pytest

from trunkline.base.errors import BudgetError, CorruptStateError
from trunkline.base.money import MicroUsd
from trunkline.gateway.core.budget import (
    DAY_MS,
    Books,
    Budget,
    Charge,
    Period,
    end_day,
    first_day,
    usd_text,
)
from trunkline.gateway.core.price import Tokens

NOW_MS = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp() * 1000)
TODAY = NOW_MS // DAY_MS
MONTH = Budget(limit=MicroUsd.parse("1"), period="month")
USD = 1_000_000_000


def charge(answer: str, nusd: int, day: int = TODAY) -> Charge:
    tokens = Tokens(prompt=1, completion=1)
    return Charge(answer=answer, tenant="t", model="m", nusd=nusd, tokens=tokens, day=day)


def day_of(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) // 86_400


def spend(books: Books, answer: str, nusd: int, day: int = TODAY) -> None:
    books.hold(answer, "t", nusd, None, NOW_MS)
    books.seal(answer, charge(answer, nusd, day))
    books.settle(answer, stored=True)


def test_what_is_held_is_not_spent_twice() -> None:
    books = Books()
    books.hold("a", "t", 6 * USD // 10, MONTH, NOW_MS)
    with pytest.raises(BudgetError) as refused:
        books.hold("b", "t", 6 * USD // 10, MONTH, NOW_MS)
    assert (refused.value.error_code, refused.value.retry_after_s) == ("budget_held", 1.0)
    books.release("a")
    books.hold("b", "t", 6 * USD // 10, MONTH, NOW_MS)
    assert books.position("t", MONTH, NOW_MS).left_nusd == 4 * USD // 10


def test_another_tenant_has_its_own() -> None:
    books = Books()
    books.hold("a", "t", USD, MONTH, NOW_MS)
    books.hold("b", "u", USD, MONTH, NOW_MS)
    assert books.holding == 2


def test_a_capture_takes_the_real_cost_and_gives_back_the_rest() -> None:
    books = Books()
    books.hold("a", "t", USD, MONTH, NOW_MS)
    books.seal("a", charge("a", 3))
    books.release("a")
    assert books.position("t", MONTH, NOW_MS).held_nusd == USD
    books.settle("a", stored=True)
    books.settle("a", stored=True)
    found = books.position("t", MONTH, NOW_MS)
    assert (found.spent_nusd, found.held_nusd, found.left_nusd) == (3, 0, USD - 3)


def test_what_the_disk_refused_is_void() -> None:
    books = Books()
    books.hold("a", "t", USD, MONTH, NOW_MS)
    books.seal("a", charge("a", USD))
    books.settle("a", stored=False)
    found = books.position("t", MONTH, NOW_MS)
    assert (found.spent_nusd, found.held_nusd) == (0, 0)


def test_an_answer_without_a_price_is_void() -> None:
    books = Books()
    books.hold("a", "t", 0, MONTH, NOW_MS)
    books.seal("a", None)
    books.settle("a", stored=True)
    books.release("a")
    assert books.holding == 0


def test_an_answer_is_held_for_and_charged_once() -> None:
    books = Books()
    books.hold("a", "t", 1, None, NOW_MS)
    with pytest.raises(CorruptStateError):
        books.hold("a", "t", 1, None, NOW_MS)
    books.seal("a", charge("a", 1))
    with pytest.raises(CorruptStateError):
        books.seal("a", charge("a", 1))


def test_a_spent_budget_says_when_the_next_begins() -> None:
    books = Books()
    spend(books, "a", USD)
    with pytest.raises(BudgetError) as refused:
        books.hold("b", "t", 1, MONTH, NOW_MS)
    first_of_december = day_of("2026-12-01") * DAY_MS
    assert refused.value.error_code == "budget_exhausted"
    assert refused.value.retry_after_s == (first_of_december - NOW_MS) / 1000
    later_ms = first_of_december
    books.hold("b", "t", USD, MONTH, later_ms)
    assert books.position("t", MONTH, later_ms).spent_nusd == 0


def test_a_budget_for_all_time_never_comes_back() -> None:
    books = Books()
    spend(books, "a", USD, day=TODAY - 4000)
    total = Budget(limit=MicroUsd.parse("1"), period="total")
    with pytest.raises(BudgetError) as refused:
        books.hold("b", "t", 1, total, NOW_MS)
    assert refused.value.retry_after_s is None
    assert books.position("t", total, NOW_MS).ends_ms is None


def test_holds_survive_the_end_of_a_period() -> None:
    books = Books()
    books.hold("a", "t", USD, MONTH, NOW_MS)
    later_ms = end_ms = day_of("2026-12-01") * DAY_MS
    with pytest.raises(BudgetError, match="in progress"):
        books.hold("b", "t", 1, MONTH, later_ms)
    books.seal("a", charge("a", USD, day=end_ms // DAY_MS))
    books.settle("a", stored=True)
    assert books.position("t", MONTH, NOW_MS).spent_nusd == USD


def test_days_long_gone_count_for_the_total_only() -> None:
    books = Books()
    for ago in range(100, -1, -1):
        spend(books, f"a{ago}", 1, day=TODAY - ago)
    total = Budget(limit=MicroUsd.parse("1"), period="total")
    assert books.position("t", total, NOW_MS).spent_nusd == 101
    assert books.position("t", MONTH, NOW_MS).spent_nusd == 21


@pytest.mark.parametrize(
    ("period", "day", "first", "end"),
    [
        ("day", "2026-11-21", "2026-11-21", "2026-11-22"),
        ("week", "2026-11-21", "2026-11-16", "2026-11-23"),
        ("week", "2026-11-23", "2026-11-23", "2026-11-30"),
        ("month", "2026-11-21", "2026-11-01", "2026-12-01"),
        ("month", "2026-12-31", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29", "2028-02-01", "2028-03-01"),
    ],
)
def test_periods(period: Period, day: str, first: str, end: str) -> None:
    assert first_day(period, day_of(day)) == day_of(first)
    assert end_day(period, day_of(day)) == day_of(end)


def test_amounts_as_text() -> None:
    assert [usd_text(n) for n in (0, 1, USD, 1_250_000_000)] == ["0", "0.000000001", "1", "1.25"]
