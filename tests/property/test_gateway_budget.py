"""Whatever happens in whatever order: spent is the sum of the captured, and holds fit the budget.

The machine plays a gateway that is killed at any point. What the disk kept is a dictionary; what
the process knew is thrown away and read back from it.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from trunkline.base.errors import BudgetError
from trunkline.base.money import MicroUsd
from trunkline.gateway.core.budget import DAY_MS, Books, Budget, Charge, Period, first_day
from trunkline.gateway.core.price import Tokens

PERIODS: tuple[Period, ...] = ("day", "week", "month", "total")
TENANTS = ("t", "u")


class Ledger(RuleBasedStateMachine):
    held = Bundle("held")
    sealed = Bundle("sealed")

    @initialize(limit=st.integers(0, 50), period=st.sampled_from(PERIODS))
    def begin(self, limit: int, period: Period) -> None:
        self.budget = Budget(limit=MicroUsd(limit), period=period)
        self.books = Books()
        self.disk: dict[str, Charge] = {}
        self.open: dict[str, tuple[str, int]] = {}
        self.now_ms = 20_000 * DAY_MS
        self.count = 0
        self.life = 0
        """Answers of an earlier process are gone with it."""

    @rule(target=held, tenant=st.sampled_from(TENANTS), nusd=st.integers(0, 20_000))
    def hold(self, tenant: str, nusd: int) -> tuple[int, str, str]:
        self.count += 1
        answer = f"a{self.count}"
        fits = self._spent(tenant) + self._held(tenant) + nusd <= self.budget.limit_nusd
        try:
            self.books.hold(answer, tenant, nusd, self.budget, self.now_ms)
        except BudgetError:
            assert not fits
            return (-1, answer, tenant)
        assert fits
        self.open[answer] = (tenant, nusd)
        return (self.life, answer, tenant)

    @rule(target=sealed, hold=consumes(held), nusd=st.integers(0, 25_000))
    def seal(self, hold: tuple[int, str, str], nusd: int) -> tuple[int, Charge]:
        life, answer, tenant = hold
        tokens = Tokens(prompt=1, completion=1)
        day = self.now_ms // DAY_MS
        made = Charge(answer=answer, tenant=tenant, model="m", nusd=nusd, tokens=tokens, day=day)
        if life == self.life:
            self.books.seal(answer, made)
            self.books.release(answer)
        return (life, made)

    @rule(hold=consumes(held))
    def fail(self, hold: tuple[int, str, str]) -> None:
        if hold[0] == self.life:
            self.books.release(hold[1])
            self.books.release(hold[1])
            del self.open[hold[1]]

    @rule(writing=consumes(sealed), stored=st.booleans(), told=st.booleans())
    def write(self, writing: tuple[int, Charge], stored: bool, told: bool) -> None:
        life, made = writing
        if life != self.life:
            return
        if stored:
            assert made.answer not in self.disk
            self.disk[made.answer] = made
        if not told:
            self.crash()
            return
        self.books.settle(made.answer, stored=stored)
        self.books.settle(made.answer, stored=stored)
        del self.open[made.answer]

    @rule()
    def crash(self) -> None:
        self.life += 1
        self.open.clear()
        self.books = Books()
        days: dict[tuple[str, int], int] = {}
        for made in self.disk.values():
            key = (made.tenant, made.day)
            days[key] = days.get(key, 0) + made.nusd
        for (tenant, day), nusd in sorted(days.items(), key=lambda found: found[0][1]):
            self.books.load(tenant, day, nusd)

    @rule(days=st.integers(0, 40))
    def time_passes(self, days: int) -> None:
        self.now_ms += days * DAY_MS + 1

    @invariant()
    def balanced(self) -> None:
        for tenant in TENANTS:
            found = self.books.position(tenant, self.budget, self.now_ms)
            assert found.spent_nusd == self._spent(tenant)
            assert found.held_nusd == self._held(tenant)
            left = self.budget.limit_nusd - found.spent_nusd - found.held_nusd
            assert found.left_nusd == max(left, 0)
        assert self.books.holding == len(self.open)

    def _spent(self, tenant: str) -> int:
        first = first_day(self.budget.period, self.now_ms // DAY_MS)
        mine = (made for made in self.disk.values() if made.tenant == tenant)
        return sum(made.nusd for made in mine if made.day >= first)

    def _held(self, tenant: str) -> int:
        return sum(nusd for owner, nusd in self.open.values() if owner == tenant)


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
