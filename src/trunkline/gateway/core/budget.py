"""Budgets as double entry: what may be spent is held before an answer, then captured or voided.

    hold ──► HELD ──► SEALED ──► captured     its evidence, and the charge with it, are durable
               │         └─────► voided       the disk refused both
               └───────────────► voided       the answer failed

Holds live in memory on purpose. A charge becomes durable in the transaction that makes the answer's
evidence durable, so a process that dies takes exactly those holds with it whose answers left no
evidence: they are void, and nothing has to be cleaned up. What this promises: spent is the sum of
what was captured; no hold is given that would carry spent and held over the budget; an answer is
charged once at most. An answer that turns out dearer than its hold is charged in full.

Amounts are nano-USD, days are counted from 1970-01-01 in UTC. Pure: no clock, no I/O.
"""

from datetime import date
from typing import Final, Literal, assert_never

import msgspec

from trunkline.base.errors import BudgetError, require
from trunkline.base.money import MicroUsd
from trunkline.gateway.core.price import NANO_PER_MICRO, Tokens

DAY_MS: Final = 24 * 60 * 60 * 1000
DAYS_KEPT: Final = 32
"""Days that an account remembers one by one: the longest period, and one more."""
HELD_WAIT_S: Final = 1.0
"""When to ask again if only answers in progress stand in the way."""
_EPOCH: Final = date(1970, 1, 1).toordinal()

Period = Literal["day", "week", "month", "total"]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What one tenant may spend in a period: of days, weeks from Monday, or months, all in UTC."""

    limit: MicroUsd
    period: Period

    @property
    def limit_nusd(self) -> int:
        return int(self.limit) * NANO_PER_MICRO


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One answer's price, as it is stored beside its evidence. At most one per answer."""

    answer: str
    tenant: str
    model: str
    nusd: int
    tokens: Tokens
    day: int
    estimated: bool = False
    """Nobody said what it took: ``tokens`` are ours, by what was asked and what came."""


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """Where a tenant stands in the present period."""

    spent_nusd: int
    held_nusd: int
    left_nusd: int | None
    """None: there is no budget."""
    ends_ms: int | None
    """When the next period begins, Unix milliseconds; None: never."""


class _Hold:
    __slots__ = ("nusd", "sealed", "tenant")

    def __init__(self, tenant: str, nusd: int) -> None:
        self.tenant = tenant
        self.nusd = nusd
        self.sealed: Charge | None = None


class _Account:
    """One tenant's money."""

    __slots__ = ("days", "held", "total")

    def __init__(self) -> None:
        self.total = 0
        self.held = 0
        self.days: dict[int, int] = {}

    def add(self, day: int, nusd: int) -> None:
        self.total += nusd
        self.days[day] = self.days.get(day, 0) + nusd
        for old in [known for known in self.days if known < day - DAYS_KEPT]:
            del self.days[old]

    def spent(self, period: Period, day: int) -> int:
        if period == "total":
            return self.total
        first = first_day(period, day)
        return sum(nusd for known, nusd in self.days.items() if known >= first)


class Books:
    """Every tenant's account and every answer's hold."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._holds: dict[str, _Hold] = {}

    @property
    def holding(self) -> int:
        """Answers that hold something or are being charged."""
        return len(self._holds)

    def load(self, tenant: str, day: int, nusd: int) -> None:
        """What an earlier process captured. Days in order."""
        self._account(tenant).add(day, nusd)

    def hold(self, answer: str, tenant: str, nusd: int, budget: Budget | None, now_ms: int) -> None:
        """Set ``nusd`` aside for an answer. Raises :class:`BudgetError` if that is too much."""
        require(answer not in self._holds, "an answer is held for once")
        require(nusd >= 0, "a hold is not negative")
        account = self._account(tenant)
        if budget is not None:
            _admit(account, nusd, budget, now_ms)
        account.held += nusd
        self._holds[answer] = _Hold(tenant, nusd)

    def seal(self, answer: str, charge: Charge | None) -> None:
        """The answer's evidence, and its charge, are on their way to the disk: from here only
        :meth:`settle` ends the hold. ``charge``: None where nothing is to be charged."""
        hold = self._holds[answer]
        require(hold.sealed is None, "an answer is charged once")
        require(charge is None or charge.tenant == hold.tenant, "who held is charged")
        hold.sealed = charge
        if charge is None:
            self._end(answer)

    def settle(self, answer: str, *, stored: bool) -> None:
        """The disk has answered for a sealed hold: capture it, or void it."""
        hold = self._holds.get(answer)
        if hold is None:
            return
        charge = hold.sealed
        if charge is None:
            raise AssertionError("only a sealed hold is settled")
        self._end(answer)
        if stored:
            self._account(charge.tenant).add(charge.day, charge.nusd)

    def release(self, answer: str) -> None:
        """The answer is over. Voids its hold, unless its charge is on the way to the disk."""
        hold = self._holds.get(answer)
        if hold is not None and hold.sealed is None:
            self._end(answer)

    def position(self, tenant: str, budget: Budget | None, now_ms: int) -> Position:
        """Where the tenant stands; without a budget over all time."""
        account = self._accounts.get(tenant) or _Account()
        day = now_ms // DAY_MS
        period: Period = "total" if budget is None else budget.period
        spent = account.spent(period, day)
        left = None if budget is None else max(budget.limit_nusd - spent - account.held, 0)
        end = end_day(period, day)
        return Position(
            spent_nusd=spent,
            held_nusd=account.held,
            left_nusd=left,
            ends_ms=None if end is None else end * DAY_MS,
        )

    def _account(self, tenant: str) -> _Account:
        return self._accounts.setdefault(tenant, _Account())

    def _end(self, answer: str) -> None:
        hold = self._holds.pop(answer)
        account = self._account(hold.tenant)
        account.held -= hold.nusd
        require(account.held >= 0, "no more is given back than was held")


def _admit(account: _Account, nusd: int, budget: Budget, now_ms: int) -> None:
    """Raise unless ``nusd`` more fits into the budget."""
    spent = account.spent(budget.period, now_ms // DAY_MS)
    if spent + account.held + nusd <= budget.limit_nusd:
        return
    if spent + nusd <= budget.limit_nusd:
        raise BudgetError(
            "the rest of this key's budget is set aside for its answers in progress",
            code="budget_held",
            retry_after_s=HELD_WAIT_S,
        )
    end = end_day(budget.period, now_ms // DAY_MS)
    period = "" if budget.period == "total" else f" of this {budget.period} (UTC)"
    left = usd_text(max(budget.limit_nusd - spent, 0))
    raise BudgetError(
        f"this key's budget{period} has {left} USD left, and the call may cost "
        f"{usd_text(nusd)} USD; a smaller max_tokens holds less",
        retry_after_s=None if end is None else (end * DAY_MS - now_ms) / 1000,
    )


def first_day(period: Period, day: int) -> int:
    """First day of the period that ``day`` lies in; ``total`` began with the first of all days."""
    match period:
        case "day":
            return day
        case "week":
            # 1970-01-01 was a Thursday.
            return day - (day + 3) % 7
        case "month":
            return _date(day).replace(day=1).toordinal() - _EPOCH
        case "total":
            return 0
        case _:
            assert_never(period)


def end_day(period: Period, day: int) -> int | None:
    """First day of the next period; None: there is none."""
    match period:
        case "day":
            return day + 1
        case "week":
            return first_day("week", day) + 7
        case "month":
            # Some day of the next month, and back to its first.
            return first_day("month", first_day("month", day) + 31)
        case "total":
            return None
        case _:
            assert_never(period)


def usd_text(nusd: int) -> str:
    """An amount of nano-USD as decimal dollars, without trailing zeros."""
    whole, fraction = divmod(nusd, NANO_PER_MICRO * 1_000_000)
    places = f"{fraction:09d}".rstrip("0")
    return f"{whole}.{places}" if places else str(whole)


def _date(day: int) -> date:
    return date.fromordinal(_EPOCH + day)
