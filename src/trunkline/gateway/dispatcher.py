"""Finds each attempt its place: a deployment, from now until the attempt is over.

The answer's machine asks by ``Seek``; this answers with a lease, at once or when one comes free. A
thin shell over ``core.scheduler``, which decides: here are only the futures that requests wait at,
the timer, and what a failure means for a place. Waiting costs no memory beyond the scheduler's
bounds, and a caller that leaves has left the queue when its cancellation is delivered.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from trunkline.base.errors import Error, NoRouteError, RateLimitedError, RequestError
from trunkline.base.ports import Clock
from trunkline.gateway.core.ending import BUSY_CODES
from trunkline.gateway.core.estimate import Estimates
from trunkline.gateway.core.fair import Request
from trunkline.gateway.core.load import QueueLoad, place_loads
from trunkline.gateway.core.policy import KeyPolicy, RoutingPolicy
from trunkline.gateway.core.quota import Cost
from trunkline.gateway.core.route import Deployment, Need, Place, as_candidate, order
from trunkline.gateway.core.scheduler import LOOK_S, Decisions, Refused, Scheduler, Started
from trunkline.gateway.core.slots import End
from trunkline.gateway.core.tenant import ANONYMOUS, Tenant
from trunkline.gateway.core.ticket import Outcome, Ticket
from trunkline.gateway.shared_limits import BEAT_S, SharedLimits
from trunkline.schema.attempt import Kind, Limits

SHARED_LOOK_S: Final = 0.05
"""With other gateways about, nobody says when a place of theirs comes free."""
STOPPED_CODES: Final = frozenset({"client_gone", "hedge_lost", "internal_error", "shutting_down"})
QUARANTINED: Final = "node_quarantined"
QUARANTINED_RETRY_S: Final = 30.0
"""A quarantine ends by new evidence: no call makes it end sooner."""
_NO_KEY: Final = KeyPolicy()


class Lease(Protocol):
    """A place at a deployment."""

    @property
    def deployment(self) -> Deployment:
        """Where the attempt may go."""
        ...

    def release(self, outcome: Outcome) -> None:
        """The attempt is over. Every call but the first does nothing."""
        ...


class Dispatcher(Protocol):
    """Gives out leases. One for the whole process."""

    def estimate(self, model: str, request: bytes, kind: Kind, choices: int) -> Cost:
        """What a request will probably use."""
        ...

    async def place(self, need: Need, ticket: Ticket) -> Lease:
        """Wait for a place. Cancelling the wait gives it up.

        Raises :class:`NoRouteError` where no deployment serves the need, and
        :class:`RateLimitedError`, saying when to come back, where none can take it before the
        ticket's deadline (``overloaded``) or its tenant's own limit is reached (``rate_limited``),
        and :class:`RequestError` (``over_limit``) where no limit would ever let it through.
        """
        ...

    def place_now(self, need: Need, ticket: Ticket) -> Lease | None:
        """A place that is free this instant at a healthy deployment, ahead of nobody who waits;
        None if there is none."""
        ...

    def learned(self, deployment: Deployment, limits: Limits) -> None:
        """A provider said something of its limits."""
        ...


class _Lease:
    """A place that the scheduler counts."""

    __slots__ = ("_dispatcher", "_released", "deployment", "request")

    def __init__(
        self, dispatcher: "QueueDispatcher", request: Request, deployment: Deployment
    ) -> None:
        self._dispatcher = dispatcher
        self._released = False
        self.request = request
        self.deployment = deployment

    def release(self, outcome: Outcome) -> None:
        """See :meth:`Lease.release`."""
        if not self._released:
            self._released = True
            self._dispatcher.released(self.request, outcome)


class QueueDispatcher:
    """The scheduler's shell. Belongs to one event loop; ``stop`` it."""

    def __init__(
        self,
        offers: Callable[[Need], Iterable[Deployment]],
        nodes: Sequence[str],
        policy: Callable[[], RoutingPolicy],
        *,
        clock: Clock,
        waiting_max: int,
        waiting_bytes_max: int,
        shared: SharedLimits | None = None,
    ) -> None:
        """``offers``: what may serve a need now, in any order. ``nodes``: the key names of all
        nodes. ``policy``: the routing policy of the moment. ``shared``: what other gateways of
        this machine share limits by; None: there are none."""
        self._offers = offers
        self._nodes = nodes
        self._policy = policy
        self._clock = clock
        self._shared = shared
        self._scheduler = Scheduler(
            self._options,
            waiting_max=waiting_max,
            waiting_bytes_max=waiting_bytes_max,
            look_s=LOOK_S if shared is None else SHARED_LOOK_S,
            telling=shared is not None,
        )
        self._estimates = Estimates()
        self._waiters: dict[int, asyncio.Future[Started | Refused]] = {}
        self._numbers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._configured: RoutingPolicy | None = None
        self._tenants: set[str] = set()
        """Whose own limits are configured as the policy says."""

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self._scheduler.waiting

    @property
    def waiting_bytes(self) -> int:
        """What their bodies take."""
        return self._scheduler.waiting_bytes

    def load(self) -> QueueLoad:
        """The queue and the places, as they are now."""
        return QueueLoad(
            waiting=self.waiting,
            waiting_bytes=self.waiting_bytes,
            places=place_loads(self._scheduler.slots, self._now_s()),
        )

    def stop(self) -> None:
        """Start nothing by time any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._shared is not None:
            self._shared.close()

    def estimate(self, model: str, request: bytes, kind: Kind, choices: int) -> Cost:
        """See :meth:`Dispatcher.estimate`."""
        return self._estimates.cost(model, request, kind, choices)

    async def place(self, need: Need, ticket: Ticket) -> Lease:
        """See :meth:`Dispatcher.place`."""
        request = self._request(need, ticket)
        waiter: asyncio.Future[Started | Refused] = asyncio.get_running_loop().create_future()
        self._waiters[request.number] = waiter
        try:
            self._turn(lambda now_s: self._scheduler.arrive(request, now_s))
            decision = waiter.result() if waiter.done() else await waiter
        except BaseException:
            self._abandon(request)
            raise
        finally:
            self._waiters.pop(request.number, None)
        if isinstance(decision, Refused):
            if decision.reason == "nobody" and self._quarantined(need):
                raise NoRouteError(
                    "what serves this model failed verification and is quarantined",
                    code=QUARANTINED,
                    retry_after_s=QUARANTINED_RETRY_S,
                )
            raise _refusal(decision)
        return _Lease(self, request, decision.deployment)

    def place_now(self, need: Need, ticket: Ticket) -> Lease | None:
        """See :meth:`Dispatcher.place_now`."""
        request = self._request(need, ticket)
        found: list[Deployment | None] = []

        def start(now_s: float) -> Decisions:
            found.append(self._scheduler.start_now(request, now_s))
            return []

        self._turn(start)
        return None if found[0] is None else _Lease(self, request, found[0])

    def learned(self, deployment: Deployment, limits: Limits) -> None:
        """See :meth:`Dispatcher.learned`."""
        self._turn(lambda now_s: self._scheduler.stated(deployment.place, limits, now_s))

    def wait_s(self, deployment: Deployment, cost: Cost) -> float | None:
        """Seconds until one more request may start there, by limits; None: all places are taken,
        and that depends on those that hold them. Starts nothing."""
        self._configure(ANONYMOUS)
        now_s, slot = self._now_s(), self._scheduler.slots.of(deployment)
        slot.seen(deployment.limits, now_s)
        return max(slot.opens_s(cost, now_s) - now_s, 0.0) if slot.concurrency.free else None

    def released(self, request: Request, outcome: Outcome) -> None:
        """A lease came back."""
        if outcome.tokens is not None and outcome.prompt_tokens is not None:
            used = Cost(
                input_tokens=outcome.prompt_tokens,
                output_tokens=outcome.tokens - outcome.prompt_tokens,
            )
            self._estimates.learned(request.need.model, request.cost, used)
        end = _end(outcome)
        self._turn(lambda now_s: self._scheduler.finished(request.number, end, now_s))

    def _now_s(self) -> float:
        return self._clock.monotonic_s()

    def _request(self, need: Need, ticket: Ticket) -> Request:
        self._configure(ticket.tenant)
        self._numbers += 1
        prompt = min(ticket.prompt_tokens, ticket.tokens)
        return Request(
            number=self._numbers,
            need=need,
            tenant=ticket.tenant.id,
            weight=ticket.tenant.weight,
            priority=ticket.priority,
            deadline_s=ticket.deadline_s,
            cost=Cost(
                input_tokens=prompt,
                output_tokens=ticket.tokens - prompt,
                text_bytes=ticket.text_bytes,
            ),
            body_bytes=ticket.body_bytes,
            first=not need.tried,
        )

    def _quarantined(self, need: Need) -> bool:
        """Whether verdicts alone are in the way."""
        return any(one.barred and as_candidate(one, need) is not None for one in self._offers(need))

    def _configure(self, tenant: Tenant) -> None:
        """Take over what the routing policy says, if it is another one."""
        policy, slots = self._policy(), self._scheduler.slots
        if policy is not self._configured:
            self._configured = policy
            self._tenants.clear()
            for node in self._nodes:
                slots.configure_account(node, policy.limits.get(node))
        if tenant.id not in self._tenants:
            self._tenants.add(tenant.id)
            key = policy.keys.get(tenant.name, _NO_KEY)
            slots.configure_tenant(tenant.id, key.requests_per_minute, key.tokens_per_minute)

    def _options(self, need: Need, running: Mapping[Place, int]) -> Sequence[Deployment]:
        """Best first. What was given out this instant counts as load, before it is heard of."""
        return order(need, (_loaded(one, running.get(one.place, 0)) for one in self._offers(need)))

    def _abandon(self, request: Request) -> None:
        """Whoever waited is gone: out of the queue, or of the place it was given just now."""
        number, scheduler = request.number, self._scheduler
        self._turn(
            lambda now_s: [
                *scheduler.cancel(number, now_s),
                *scheduler.finished(number, End(how="stopped"), now_s),
            ]
        )

    def _turn(self, event: Callable[[float], Decisions]) -> None:
        """Hand an event in and do what follows. With other gateways, in turn."""
        shared, now_s = self._shared, self._now_s()
        if shared is None:
            self._apply(event(now_s))
            return
        news = shared.begin()
        try:
            self._scheduler.heard(news.heard, now_s)
            if news.alive is not None:
                self._scheduler.gone(news.alive, now_s)
            decisions = event(now_s)
        finally:
            shared.end(self._scheduler.told())
        self._apply(decisions)

    def _apply(self, decisions: Decisions) -> None:
        for decision in decisions:
            waiter = self._waiters.get(decision.number)
            if waiter is not None and not waiter.done():
                waiter.set_result(decision)
        self._arm()

    def _arm(self) -> None:
        """Look again when time alone may change something."""
        wake_s = self._scheduler.wake_s()
        if self._shared is not None and self._scheduler.running:
            beat_s = self._now_s() + BEAT_S
            wake_s = beat_s if wake_s is None else min(wake_s, beat_s)
        if self._timer is not None:
            if wake_s is not None and self._timer_s <= wake_s:
                # It comes too early at worst, and is set anew then.
                return
            self._timer.cancel()
            self._timer = None
        if wake_s is not None:
            self._timer_s = wake_s
            delay_s = max(wake_s - self._now_s(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._turn(self._scheduler.tick)


def _loaded(deployment: Deployment, running: int) -> Deployment:
    if running <= deployment.load:
        return deployment
    return msgspec.structs.replace(deployment, load=running)


def _refusal(refused: Refused) -> Error:
    wait_s = refused.retry_after_s
    match refused.reason:
        case "nobody":
            return NoRouteError("no node that serves this model can be reached")
        case "limited":
            return RateLimitedError(
                "this key's own limit is reached", code="rate_limited", retry_after_s=wait_s
            )
        case "full":
            return RateLimitedError(
                "too many calls wait already", code="overloaded", retry_after_s=wait_s
            )
        case "too_large":
            over = refused.limit
            limit = "" if over is None else (
                f": {over.asked} {over.unit} at least, where {over.limit} are the limit"
            )  # fmt: skip
            return RequestError(
                f"the call is larger than any node that serves this model may take at once{limit}",
                code="over_limit",
            )
        case "deadline":
            return RateLimitedError(
                "every node that serves this model is busy or at its limit until after the "
                "deadline",
                code="overloaded",
                retry_after_s=wait_s,
            )


def _end(outcome: Outcome) -> End:
    """What an outcome says of the place."""
    failure = outcome.failure
    if failure is None:
        if outcome.tokens is None:
            return End(how="stopped")
        return End(how="ok", tokens=outcome.tokens, first_token_s=outcome.first_token_s)
    if failure.refused:
        return End(how="unreached")
    if failure.code in STOPPED_CODES:
        return End(how="stopped")
    if failure.status == 429 and failure.code != "overloaded":
        return End(how="limited", retry_after_s=failure.retry_after_s)
    if failure.code in BUSY_CODES:
        return End(how="busy", retry_after_s=failure.retry_after_s)
    return End(how="failed")
