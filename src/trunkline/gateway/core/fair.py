"""Whose turn it is: start-time fair queueing between tenants, and classes that do not starve.

Each tenant of a *domain* (what compete for the same: a model's callers) has a virtual time that
moves on by what its requests cost, divided by its weight, but only while somebody else waits: what
nobody wanted is free. The tenant furthest behind is next. Within one tenant the earliest deadline
is next, where a deadline further off than ``HORIZON_S`` counts as that: so nobody is overtaken for
longer. An interactive call goes before every batch call, except that each ``AGED_EVERY``-th start,
of all that this gateway makes, is kept for a batch call that has waited for ``AGED_S``.
"""

import heapq
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from trunkline.gateway.core.quota import Cost
from trunkline.gateway.core.route import Need
from trunkline.gateway.core.tenant import INTERACTIVE

HORIZON_S: Final = 60.0
AGED: Final = -1
"""The class of an aged batch call when its turn has come."""
AGED_S: Final = 15.0
AGED_EVERY: Final = 8
REQUEST_TOKENS: Final = 256
"""What a request weighs besides its tokens: it takes a place and a call of a limit too."""
TENANTS_KEPT: Final = 4096
RUN_WEIGHT: Final = 0.1
RUN_SPREADS: Final = 4.0
QUEUE_SLACK: Final = 64


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request that looks for a place."""

    number: int
    """Unique among those waiting and running."""
    need: Need
    tenant: str
    weight: int = 1
    priority: int = 0
    """0 before 1; nothing in between is needed, but any numbers do."""
    deadline_s: float
    cost: Cost
    body_bytes: int = 0
    first: bool = True
    """Not an attempt that follows another: it counts against its tenant's own limits."""


class Waiting:
    """A request in a line."""

    __slots__ = ("arrived_s", "give_up_s", "left", "order", "request")

    def __init__(self, request: Request, arrived_s: float, give_up_s: float) -> None:
        """``give_up_s``: from when on a start would be too late."""
        self.request = request
        self.arrived_s = arrived_s
        self.give_up_s = give_up_s
        self.order = (min(request.deadline_s, arrived_s + HORIZON_S), request.number)
        self.left = False

    def __lt__(self, other: "Waiting") -> bool:
        return self.order < other.order


class Turn(NamedTuple):
    """Who is next in a line, and how that compares with others': compare the first two within one
    domain, the first and ``head.order`` between domains."""

    priority: int
    at: float
    """The tenant's virtual time."""
    head: Waiting


class Ageing:
    """Counts starts, so that batch calls have their turn whoever else waits, and in whatever
    line: one that was tried elsewhere before waits in another than its like."""

    __slots__ = ("_others",)

    def __init__(self) -> None:
        self._others = 0

    def turn(self, waiting: Waiting, now_s: float) -> bool:
        """Whether it is this batch call's turn, before every interactive call."""
        batch = waiting.request.priority > INTERACTIVE
        due = self._others >= AGED_EVERY - 1
        return due and batch and now_s - waiting.arrived_s >= AGED_S

    def started(self, waiting: Waiting, now_s: float) -> None:
        """It starts."""
        self._others = 0 if self.turn(waiting, now_s) else self._others + 1


class Shares:
    """One domain's virtual times."""

    __slots__ = ("_now", "_run_s", "_run_spread_s", "_spent", "waiting")

    def __init__(self) -> None:
        self._run_s = 0.0
        self._run_spread_s = 0.0
        """Moving averages of how long requests take once they have a place, and of how far from
        that they are."""
        self._now = 0.0
        """Virtual time: where the tenant served last began."""
        self._spent: dict[str, float] = {}
        self.waiting: dict[str, int] = {}
        """Requests waiting, by tenant."""

    def at(self, tenant: str) -> float:
        """The tenant's virtual time."""
        return self._spent.get(tenant, self._now)

    def came(self, tenant: str) -> None:
        """A request of the tenant waits."""
        if tenant not in self.waiting:
            # Whoever comes back has no claim to what was shared out while it was away.
            self._spent[tenant] = max(self.at(tenant), self._now)
            if len(self._spent) > TENANTS_KEPT:
                self._prune()
        self.waiting[tenant] = self.waiting.get(tenant, 0) + 1

    def left(self, tenant: str) -> None:
        """It waits no more."""
        count = self.waiting[tenant] - 1
        if count:
            self.waiting[tenant] = count
        else:
            del self.waiting[tenant]
        if not self.waiting:
            # Everybody had what they wanted: nobody owes anything to whoever comes next. A debt
            # made when calls were thought to cost more would else keep its tenant out for long.
            self._spent.clear()

    def served(self, request: Request) -> None:
        """A request of the tenant starts. Call before :meth:`left`."""
        began = self.at(request.tenant)
        self._now = max(self._now, began)
        if len(self.waiting) > 1:
            self._spent[request.tenant] = began + _weighed(request.cost, request.weight)

    def served_elsewhere(self, tenant: str, weight: int, cost: Cost) -> None:
        """Another gateway started a request of the tenant. While somebody else waits here, that
        was at its expense."""
        if any(name != tenant for name in self.waiting):
            self._spent[tenant] = max(self.at(tenant), self._now) + _weighed(cost, weight)
            if len(self._spent) > TENANTS_KEPT:
                self._prune()

    def took(self, seconds: float) -> None:
        """A request went well in so long."""
        off_s = seconds - self._run_s if self._run_s else 0.0
        self._run_s = self._run_s + RUN_WEIGHT * off_s if self._run_s else seconds
        self._run_spread_s += RUN_WEIGHT * (abs(off_s) - self._run_spread_s)

    @property
    def run_s(self) -> float:
        """In how long nearly every request is over once it has a place; 0: not known."""
        return self._run_s + RUN_SPREADS * self._run_spread_s

    def _prune(self) -> None:
        """Forget who has no claim and no debt."""
        self._spent = {
            tenant: at
            for tenant, at in self._spent.items()
            if at > self._now or tenant in self.waiting
        }


class Line:
    """Requests of one need: whoever can start one can start any of them."""

    __slots__ = ("_ageing", "_classes", "count", "need", "shares")

    def __init__(self, need: Need, shares: Shares, ageing: Ageing) -> None:
        """``ageing``: one for all lines."""
        self.need = need
        self.shares = shares
        self.count = 0
        self._ageing = ageing
        self._classes: dict[int, _Class] = {}

    def add(self, waiting: Waiting) -> None:
        """It waits from now on."""
        priority = waiting.request.priority
        found = self._classes.get(priority)
        if found is None:
            found = self._classes[priority] = _Class(self.shares)
        self.shares.came(waiting.request.tenant)
        found.add(waiting)
        self.count += 1

    def remove(self, waiting: Waiting) -> None:
        """It waits no more, for whatever reason."""
        waiting.left = True
        self.count -= 1
        self.shares.left(waiting.request.tenant)

    def start(self, waiting: Waiting, now_s: float) -> None:
        """It starts: :meth:`remove`, and its tenant pays."""
        self._ageing.started(waiting, now_s)
        self.shares.served(waiting.request)
        self.remove(waiting)

    def turn(self, now_s: float) -> Turn | None:
        """Whose turn it is. None: nobody waits."""
        first: Turn | None = None
        for priority in sorted(self._classes):
            head = self._classes[priority].head()
            if head is None:
                del self._classes[priority]
            elif self._ageing.turn(head, now_s):
                return self._turn(head, AGED)
            elif first is None:
                first = self._turn(head, priority)
        return first

    def _turn(self, head: Waiting, priority: int) -> Turn:
        return Turn(priority, self.shares.at(head.request.tenant), head)

    def of(self, tenant: str) -> Iterator[Waiting]:
        """All that wait of one tenant, in no order."""
        for found in self._classes.values():
            yield from found.of(tenant)


class _Class:
    """The tenants of one priority."""

    __slots__ = ("_queues", "_shares", "_turns")

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._queues: dict[str, list[Waiting]] = {}
        self._turns: list[tuple[float, str]] = []
        """Heap by virtual time, one entry a tenant. Times only grow, so that an entry that is out
        of date stands too far ahead, and is put right when it is met."""

    def add(self, waiting: Waiting) -> None:
        tenant = waiting.request.tenant
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = []
            heapq.heappush(self._turns, (self._shares.at(tenant), tenant))
        elif len(queue) > QUEUE_SLACK and len(queue) > 2 * self._shares.waiting.get(tenant, 0):
            # Who left stays in the heap until met. More of them than of the others: clear up.
            queue[:] = [other for other in queue if not other.left]
            heapq.heapify(queue)
        heapq.heappush(queue, waiting)

    def head(self) -> Waiting | None:
        while self._turns:
            at, tenant = self._turns[0]
            queue = self._queues[tenant]
            while queue and queue[0].left:
                heapq.heappop(queue)
            if not queue:
                heapq.heappop(self._turns)
                del self._queues[tenant]
            elif (now := self._shares.at(tenant)) > at:
                heapq.heapreplace(self._turns, (now, tenant))
            else:
                return queue[0]
        return None

    def of(self, tenant: str) -> Iterator[Waiting]:
        return (waiting for waiting in self._queues.get(tenant, ()) if not waiting.left)


def _weighed(cost: Cost, weight: int) -> float:
    return (cost.tokens + REQUEST_TOKENS) / max(weight, 1)
