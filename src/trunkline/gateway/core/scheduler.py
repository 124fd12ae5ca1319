"""One fair, bounded queue over all deployments: who starts next, and where.

Pure. Events go in (a request arrives, leaves, ends; a provider states its limits; time passes), and
decisions come out: started there, or refused with a time to come back. ``wake_s`` says when time
alone may change something.

Rules:

- A request goes wherever it can start first, in the route's order. A later level of the route (a
  lower tier, what verdicts demoted, or a node that failed for this answer before) takes it only if
  nothing above can start within ``PATIENCE_S``, or it has waited so long; what is unhealthy only if
  nothing healthy serves it at all.
- Whose turn it is waits for room; who comes after does not take that room before it, however little
  it needs, nor by another model of the same account. So nobody starves, and at most one request's
  size of a limit lies idle.
- Refused is: what finds the queue full (the tenant with most waiting pays for that, its lower class
  first), what cannot start before its deadline, what is over its tenant's own limit, what no limit
  would ever let through, and what nothing serves.
"""

import heapq
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Final, Literal, assert_never

import msgspec

from trunkline.gateway.core.breaker import Admission
from trunkline.gateway.core.facts import Began, Fact, Heard, Left, Stated
from trunkline.gateway.core.fair import Ageing, Line, Request, Shares, Turn, Waiting
from trunkline.gateway.core.quota import Spent, TooLarge
from trunkline.gateway.core.route import Deployment, Need, Place, candidate
from trunkline.gateway.core.slots import End, Run, Slot, Slots
from trunkline.gateway.core.standing import Level
from trunkline.schema.attempt import Limits

WAITING_MAX: Final = 4096
WAITING_BYTES_MAX: Final = 256 * 1024 * 1024
PATIENCE_S: Final = 1.0
LOOK_S: Final = 0.25
"""While somebody waits, the world (nodes, breakers) is looked at so often, news or not."""
GRACE_S_MAX: Final = 0.5
GRACE_SHARE: Final = 0.05
RUN_SHARE_MAX: Final = 0.5
"""A request is refused so long before its deadline that it can still be told when to come back, and
as long as its like take, because a later start would be for nothing."""
RETRY_AFTER_S_MIN: Final = 0.05
RETRY_AFTER_S_DEFAULT: Final = 1.0
"""Where nothing is known of when a place comes free."""
EVICTED_MAX: Final = 64
"""Requests refused to make room for one."""

Reason = Literal["deadline", "full", "limited", "nobody", "too_large"]
Held = set[Place | str]
"""Places, and accounts by their nodes' names, kept for who is before."""
Options = Callable[[Need, Mapping[Place, int]], Sequence[Deployment]]
"""The deployments for a need, best first, given what runs where."""


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The request has a place. Report :meth:`Scheduler.finished` when it leaves it."""

    number: int
    deployment: Deployment


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """The request waits no more and has no place."""

    number: int
    reason: Reason
    retry_after_s: float | None = None
    limit: TooLarge | None = None
    """The largest of the limits that it is ``too_large`` for."""


Decision = Started | Refused
Decisions = list[Decision]


class Scheduler:
    """The queue and the places."""

    def __init__(
        self,
        options: Options,
        *,
        waiting_max: int = WAITING_MAX,
        waiting_bytes_max: int = WAITING_BYTES_MAX,
        look_s: float = LOOK_S,
        telling: bool = False,
    ) -> None:
        """``telling``: keep what happens for :meth:`told`."""
        self._options = options
        self._waiting_max = waiting_max
        self._bytes_max = waiting_bytes_max
        self.slots = Slots()
        self._lines: dict[Need, Line] = {}
        self._shares: dict[tuple[str, str], Shares] = {}
        self._ageing = Ageing()
        self._waiting: dict[int, Waiting] = {}
        self._charged: dict[int, Spent] = {}
        """What waiting requests spent of their tenants' own limits."""
        self._running: dict[int, tuple[Run, Shares]] = {}
        self._ends: list[tuple[float, int]] = []
        """Heap of when each waiting request is given up."""
        self.waiting_bytes = 0
        self._look_s = look_s
        self._told: list[Fact] = []
        self._telling = telling
        self._elsewhere: dict[tuple[int, int], Run] = {}
        """What other processes run, by teller and its number."""
        self._wake_s: float | None = None

    @property
    def waiting(self) -> int:
        """Requests without a place."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests with one."""
        return len(self._running)

    def wake_s(self) -> float | None:
        """When to call :meth:`tick` unless something else happens before; None: not needed."""
        return self._wake_s

    # Events.

    def arrive(self, request: Request, now_s: float) -> Decisions:
        """A request looks for a place."""
        decisions: Decisions = []
        own = self.slots.tenant(request.tenant) if request.first else None
        if own is not None and (opens_s := own.opens_s(request.cost, now_s)) > now_s:
            wait_s = opens_s - now_s
            return [Refused(number=request.number, reason="limited", retry_after_s=wait_s)]
        if (limit := self._too_large(request, now_s)) is not None:
            return [Refused(number=request.number, reason="too_large", limit=limit)]
        if not self._make_room(request, decisions, now_s):
            return [*decisions, self._refused(request, "full", now_s)]
        if own is not None:
            self._charged[request.number] = own.spend(request.cost, now_s)
        line = self._line(request.need)
        behind = line.count > 0
        give_up_s = _give_up_s(request, line.shares.run_s, now_s)
        waiting = Waiting(request, now_s, give_up_s)
        line.add(waiting)
        self._waiting[request.number] = waiting
        self.waiting_bytes += request.body_bytes
        heapq.heappush(self._ends, (give_up_s, request.number))
        if behind:
            # Who was first could not start, so nobody behind can.
            self._wake(give_up_s)
        else:
            decisions += self.tick(now_s)
        if request.number in self._waiting:
            forecast_s = self.forecast_s(request, now_s) or 0.0
            if now_s + forecast_s >= give_up_s:
                self._evict(waiting, "deadline", decisions, now_s)
        return decisions

    def start_now(self, request: Request, now_s: float) -> Deployment | None:
        """A place that is free this instant, ahead of nobody; None: there is none. The request's
        tenant pays nothing: it is one more attempt at an answer that was counted."""
        need = request.need
        domain = self._shares.get((need.model, need.kind))
        if domain is not None and domain.waiting:
            return None
        for deployment in self._options(need, self.slots.running()):
            fit = deployment.ready and deployment.admission is Admission.FREE
            if not fit or deployment.place in need.resting:
                continue
            slot = self._slot(deployment, now_s)
            if slot.concurrency.free and slot.opens_s(request.cost, now_s) <= now_s:
                self._run(request, deployment, (), now_s)
                return deployment
        return None

    def cancel(self, number: int, now_s: float) -> Decisions:
        """A waiting request left by itself."""
        waiting = self._waiting.get(number)
        if waiting is None:
            return []
        self._line(waiting.request.need).remove(waiting)
        self._forget(waiting, refund=True)
        return self.tick(now_s)

    def finished(self, number: int, end: End, now_s: float) -> Decisions:
        """A running request left its place."""
        run, shares = self._running.pop(number, (None, None))
        if run is None or shares is None:
            return []
        self.slots.finish(run, end, now_s)
        self._tell(Left(number=number, end=end))
        if end.how == "ok":
            shares.took(now_s - run.started_s)
        return self.tick(now_s)

    def stated(self, place: Place, limits: Limits, now_s: float) -> Decisions:
        """A provider said something of its limits."""
        self.slots.at(place).meter.stated(limits, now_s)
        self._tell(Stated(place=place, limits=limits))
        return self.tick(now_s) if self._waiting else []

    def heard(self, facts: Iterable[Heard], now_s: float) -> None:
        """What other processes did since. Look with :meth:`tick` or any event what follows."""
        for heard in facts:
            match heard.fact:
                case Began(number=number, place=place, tenant=tenant, cost=cost) as began:
                    run = self.slots.start_elsewhere(place, cost, tenant, heard.at_s)
                    self._elsewhere[heard.teller, number] = run
                    shares = self._shares.get(began.domain)
                    if shares is not None:
                        shares.served_elsewhere(began.payer, began.weight, cost)
                case Left(number=number, end=end):
                    left = self._elsewhere.pop((heard.teller, number), None)
                    if left is not None:
                        self.slots.finish_elsewhere(left, end, now_s)
                case Stated(place=place, limits=limits):
                    self.slots.at(place).meter.stated(limits, heard.at_s)
                case _:
                    assert_never(heard.fact)

    def gone(self, alive: Container[int], now_s: float) -> None:
        """Only these other processes live: what the rest of them ran has ended somehow."""
        for key in [key for key in self._elsewhere if key[0] not in alive]:
            self.slots.finish_elsewhere(self._elsewhere.pop(key), End(how="stopped"), now_s)

    def told(self) -> list[Fact]:
        """What happened here since the last call, for the other processes."""
        told, self._told = self._told, []
        return told

    def tick(self, now_s: float) -> Decisions:
        """Start whatever can start now."""
        decisions: Decisions = []
        self._wake_s = None
        self._give_up(now_s, decisions)
        held: Held = set()
        lines = {need: line for need, line in self._lines.items() if line.count}
        while (next_one := _next(lines.values(), now_s)) is not None:
            line, head = next_one
            if not self._advance(line, head, held, decisions, now_s):
                del lines[line.need]
        self._lines = {need: line for need, line in self._lines.items() if line.count}
        self._tidy()
        if self._waiting:
            self._wake(now_s + self._look_s)
            self._wake(self._ends[0][0])
        return decisions

    # What may be asked.

    def forecast_s(self, request: Request, now_s: float) -> float | None:
        """Seconds until the request could start, by what is known, and at least. None: nothing
        serves it."""
        options = self._options(request.need, self.slots.running())
        if not options:
            return None
        slots = [self._slot(d, now_s) for d in _hopeful(options)]
        opens_s = min(slot.opens_s(request.cost, now_s) for slot in slots)
        rate_s = sum(slot.rate_s(request.cost, now_s) for slot in slots)
        # Only who comes after those that the windows have room for waits for windows to move on.
        room = sum(slot.room(request.cost, now_s) for slot in slots)
        ahead = max(self._ahead(request) - room, 0.0)
        return max(opens_s - now_s, ahead / rate_s)

    # Inside.

    def _refused(self, request: Request, reason: Reason, now_s: float) -> Refused:
        forecast_s = self.forecast_s(request, now_s)
        if forecast_s is None:
            return Refused(number=request.number, reason="nobody")
        wait_s = max(forecast_s, RETRY_AFTER_S_MIN) if forecast_s else RETRY_AFTER_S_DEFAULT
        return Refused(number=request.number, reason=reason, retry_after_s=wait_s)

    def _too_large(self, request: Request, now_s: float) -> TooLarge | None:
        """The largest of the limits that are too small for it everywhere; None: it fits
        somewhere, sometime, or nothing serves it."""
        largest: TooLarge | None = None
        for deployment in self._options(request.need, self.slots.running()):
            limit = self._slot(deployment, now_s).too_large(request.cost)
            if limit is None:
                return None
            if largest is None or limit.limit > largest.limit:
                largest = limit
        return largest

    def _ahead(self, request: Request) -> float:
        """How many that wait for the same would start before it: its tenant's, and a fair part of
        the others'."""
        need = request.need
        shares = self._shares.get((need.model, need.kind))
        if shares is None:
            return 0.0
        itself = request.number in self._waiting
        own = shares.waiting.get(request.tenant, 0) - itself
        return sum(min(count, own + 1) for count in shares.waiting.values()) - itself

    def _line(self, need: Need) -> Line:
        line = self._lines.get(need)
        if line is None:
            line = self._lines[need] = Line(need, self._domain(need), self._ageing)
        return line

    def _domain(self, need: Need) -> Shares:
        return self._shares.setdefault((need.model, need.kind), Shares())

    def _slot(self, deployment: Deployment, now_s: float) -> Slot:
        slot = self.slots.of(deployment)
        slot.seen(deployment.limits, now_s)
        return slot

    def _advance(
        self, line: Line, head: Waiting, held: Held, decisions: Decisions, now_s: float
    ) -> bool:
        """Start the head if it can, or refuse it; False: the line must wait."""
        request = head.request
        options = self._options(line.need, self.slots.running())
        if not options:
            line.remove(head)
            self._forget(head, refund=True)
            decisions.append(Refused(number=request.number, reason="nobody"))
            return True
        deployment = self._choose(head, options, held, now_s)
        if deployment is None:
            if not self._closed_beyond(options, head.give_up_s, now_s):
                return False
            self._evict(head, "deadline", decisions, now_s)
            return True
        line.start(head, now_s)
        charged = self._charged.pop(request.number, ())
        self._forget(head, refund=False)
        self._run(request, deployment, charged, now_s)
        decisions.append(Started(number=request.number, deployment=deployment))
        return True

    def _closed_beyond(self, options: Sequence[Deployment], at_s: float, now_s: float) -> bool:
        """By the providers' own words nothing starts before that time, anywhere."""
        return all(self._slot(d, now_s).meter.closed_s >= at_s for d in _hopeful(options))

    def _choose(
        self, head: Waiting, options: Sequence[Deployment], held: Held, now_s: float
    ) -> Deployment | None:
        """Where it can start now, by the rules above. Else what it waits for is held for it."""
        need, cost = head.request.need, head.request.cost
        fit = [d for d in options if _fit(d)] or list(options)
        patient_s = head.arrived_s + PATIENCE_S
        first = _level(fit[0], need)
        above_opens = False
        """Something on a level above may start soon."""
        for deployment in fit:
            key = deployment.place
            slot = self._slot(deployment, now_s)
            later = _level(deployment, need) != first
            if later and above_opens and now_s < patient_s:
                self._wake(patient_s)
                break
            opens_s = slot.opens_s(cost, now_s)
            free = slot.concurrency.free and not _probing(deployment, slot)
            kept = key in held or (key[0] in held and bool(slot.account.windows))
            if free and opens_s <= now_s and not kept:
                return deployment
            if opens_s > now_s:
                self._wake(opens_s)
            above_opens = above_opens or opens_s <= now_s + PATIENCE_S
            if free and slot.meter.closed_s <= now_s:
                held.add(key)
                if slot.account.opens_s(cost, now_s) > now_s:
                    held.add(key[0])
        return None

    def _run(self, request: Request, deployment: Deployment, charged: Spent, now_s: float) -> None:
        key = deployment.place
        run = self.slots.start(key, request.cost, charged, request.tenant, now_s)
        self._running[request.number] = run, self._domain(request.need)
        tenant = request.tenant if charged else None
        self._tell(
            Began(
                number=request.number,
                place=run.place,
                tenant=tenant,
                cost=request.cost,
                payer=request.tenant,
                weight=request.weight,
                domain=(request.need.model, request.need.kind),
            )
        )

    def _forget(self, waiting: Waiting, *, refund: bool) -> None:
        """It waits no more."""
        request = waiting.request
        del self._waiting[request.number]
        self.waiting_bytes -= request.body_bytes
        charged = self._charged.pop(request.number, None)
        own = self.slots.tenant(request.tenant)
        if refund and charged is not None and own is not None:
            own.refund(charged, requests=True)

    def _give_up(self, now_s: float, decisions: Decisions) -> None:
        """Refuse what can not start in time any more."""
        while self._ends and (self._ends[0][0] <= now_s or self._ends[0][1] not in self._waiting):
            _, number = heapq.heappop(self._ends)
            waiting = self._waiting.get(number)
            if waiting is not None:
                self._evict(waiting, "deadline", decisions, now_s)

    def _evict(self, waiting: Waiting, reason: Reason, decisions: Decisions, now_s: float) -> None:
        self._line(waiting.request.need).remove(waiting)
        self._forget(waiting, refund=True)
        decisions.append(self._refused(waiting.request, reason, now_s))

    def _make_room(self, request: Request, decisions: Decisions, now_s: float) -> bool:
        """Whether the queue can take the request, perhaps at the expense of a tenant that has more
        waiting than this one, or of a lower class of its own."""
        for _ in range(EVICTED_MAX):
            fits = self.waiting_bytes + request.body_bytes <= self._bytes_max
            if self.waiting < self._waiting_max and fits:
                return True
            victim = self._victim(request)
            if victim is None:
                return False
            self._evict(victim, "full", decisions, now_s)
        return False

    def _victim(self, request: Request) -> Waiting | None:
        """The last in the lowest class of the tenant with most waiting for its weight."""
        counts: dict[str, float] = {}
        for waiting in self._waiting.values():
            of = waiting.request
            counts[of.tenant] = counts.get(of.tenant, 0.0) + 1 / max(of.weight, 1)
        own = counts.get(request.tenant, 0.0) + 1 / max(request.weight, 1)
        tenant = max(counts, key=lambda name: (counts[name], name), default=None)
        if tenant is None:
            return None
        theirs = [w for w in self._waiting.values() if w.request.tenant == tenant]
        last = max(theirs, key=lambda w: (w.request.priority, w.order))
        more = tenant != request.tenant and counts[tenant] > own
        lower = last.request.priority > request.priority
        return last if more or (tenant == request.tenant and lower) else None

    def _tell(self, fact: Fact) -> None:
        if self._telling:
            self._told.append(fact)

    def _wake(self, at_s: float) -> None:
        self._wake_s = at_s if self._wake_s is None else min(self._wake_s, at_s)

    def _tidy(self) -> None:
        """Drop what lies in the heap of ends for nothing, and idle domains' times if many."""
        if len(self._ends) > 64 and len(self._ends) > 2 * len(self._waiting):
            self._ends = [end for end in self._ends if end[1] in self._waiting]
            heapq.heapify(self._ends)
        if len(self._shares) > WAITING_MAX:
            self._shares = {name: s for name, s in self._shares.items() if s.waiting}


def _next(lines: Iterable[Line], now_s: float) -> tuple[Line, Waiting] | None:
    """Whose turn it is: in each domain by class and fairness, between them by class and age."""
    best: dict[int, tuple[Line, Turn]] = {}
    for line in lines:
        turn = line.turn(now_s)
        if turn is None:
            continue
        domain = id(line.shares)
        if domain not in best or turn < best[domain][1]:
            best[domain] = line, turn
    if not best:
        return None
    line, turn = min(best.values(), key=lambda found: (found[1].priority, found[1].head.order))
    return line, turn.head


def _fit(deployment: Deployment) -> bool:
    """Healthy. One that asked to be left alone for a while is closed for that while, no more."""
    return deployment.ready and deployment.admission is not Admission.NO


def _hopeful(options: Sequence[Deployment]) -> Sequence[Deployment]:
    """What may take calls before long: beside what is healthy, what a probe is asking just now."""
    if not any(_fit(d) for d in options):
        return options
    return [d for d in options if _fit(d) or (d.ready and d.half_open)]


def _probing(deployment: Deployment, slot: Slot) -> bool:
    """A half-open breaker lets one attempt through at a time."""
    return deployment.admission is Admission.PROBE and slot.concurrency.running > 0


def _level(deployment: Deployment, need: Need) -> tuple[int, int, Level]:
    found = candidate(deployment, need)
    tier = 0 if found is None else found.tier
    return need.tried.count(deployment.place), tier, deployment.level


def _give_up_s(request: Request, run_s: float, now_s: float) -> float:
    left_s = max(request.deadline_s - now_s, 0.0)
    grace_s = min(GRACE_S_MAX, left_s * GRACE_SHARE)
    return request.deadline_s - max(grace_s, min(run_s, left_s * RUN_SHARE_MAX))
