"""When an answer may be hedged: the budget, and what decides beside it."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_gateway_answer import NODES, deployment, plan_of

from trunkline.gateway.core.actions import Plan
from trunkline.gateway.core.hedge import RESERVE, HedgeBudget
from trunkline.gateway.core.normal import Timings
from trunkline.gateway.core.policy import Hedging
from trunkline.gateway.core.route import Deployment, Need
from trunkline.gateway.core.tenant import ANONYMOUS
from trunkline.gateway.core.ticket import Outcome, Ticket
from trunkline.gateway.dispatcher import Lease
from trunkline.gateway.health import Health
from trunkline.gateway.hedger import Hedger
from trunkline.runtime.clock import SystemClock
from trunkline.schema.attempt import Limits

NEED = Need(model="tiny", kind="chat")
TICKET = Ticket(answer="ans_a", tenant=ANONYMOUS, priority=0, deadline_s=9.0, tokens=0)


class Place:
    """A lease of no consequence."""

    deployment = deployment(NODES[0])

    def release(self, outcome: Outcome) -> None:
        """Nobody counts it."""


class Full:
    """A dispatcher with ``free`` places."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.asked = 0

    async def place(self, need: Need, ticket: Ticket) -> Lease:
        raise AssertionError("a hedge never waits")

    def place_now(self, need: Need, ticket: Ticket) -> Lease | None:
        self.asked += 1
        if not self.free:
            return None
        self.free -= 1
        return Place()

    def learned(self, deployment: Deployment, limits: Limits) -> None:
        raise AssertionError("nothing is learnt here")


def hedged_plan(after: str, *, share: float = 0.02) -> Plan:
    hedging = Hedging(share=share, after=after)
    return msgspec.structs.replace(plan_of(stream=True), hedging=hedging)


def hedger(free: int = 1, health: Health | None = None) -> tuple[Hedger, Full]:
    dispatcher = Full(free)
    return Hedger(dispatcher, health or Health(SystemClock())), dispatcher


@given(
    share=st.floats(0.001, 0.5),
    steps=st.lists(st.booleans(), max_size=300),
)
def test_hedges_are_a_share_of_the_answers(share: float, steps: list[bool]) -> None:
    budget, began, hedges = HedgeBudget(), 0, 0
    for answers in steps:
        if answers:
            began += 1
            budget.began(share)
        elif budget.enough:
            hedges += 1
            budget.spend()
        assert hedges <= 1 + share * began + 1e-6


def test_what_was_saved_in_a_calm_time_is_bounded() -> None:
    budget = HedgeBudget()
    for _ in range(10_000):
        budget.began(0.5)
    hedges = 0
    while budget.enough:
        budget.spend()
        hedges += 1
    assert hedges == RESERVE


def test_no_policy_no_hedge() -> None:
    assert hedger()[0].after_s(plan_of(stream=True), deployment(NODES[0])) is None


def test_a_fixed_time_needs_no_knowledge() -> None:
    assert hedger()[0].after_s(hedged_plan("0.5s"), deployment(NODES[0])) == 0.5


def test_a_quantile_needs_samples_of_that_very_deployment() -> None:
    health = Health(SystemClock())
    one, other = deployment(NODES[0]), deployment(NODES[1])
    for _ in range(40):
        health.started(one)
        health.ended(one, None, Timings(first_token_s=0.2))
    found, _ = hedger(health=health)
    after_s = found.after_s(hedged_plan("p95"), one)
    assert after_s is not None
    assert 0.18 < after_s < 0.22
    assert found.after_s(hedged_plan("p95"), other) is None


def test_nothing_is_spent_where_nothing_is_free() -> None:
    found, dispatcher = hedger(free=0)
    assert found.place(NEED, TICKET) is None
    dispatcher.free = 2
    assert found.place(NEED, TICKET) is not None
    assert found.place(NEED, TICKET) is None, "the budget is spent"
    assert dispatcher.asked == 2


def test_answers_earn_hedges_by_their_policy() -> None:
    found, _ = hedger(free=9)
    assert found.place(NEED, TICKET) is not None
    for _ in range(9):
        found.began(hedged_plan("p95", share=0.1))
    assert found.place(NEED, TICKET) is None
    found.began(hedged_plan("p95", share=0.2))
    found.began(plan_of(stream=True))
    assert found.place(NEED, TICKET) is not None
