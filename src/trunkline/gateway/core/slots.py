"""Places to run at: a slot for each deployment, a meter for each account and tenant."""

from collections import deque
from typing import Final, Literal, NamedTuple

import msgspec

from trunkline.gateway.core.concurrency import Concurrency
from trunkline.gateway.core.policy import LimitsPolicy
from trunkline.gateway.core.quota import Cost, Meter, Spent, TooLarge
from trunkline.gateway.core.route import Deployment, Place
from trunkline.schema.attempt import Limits

UNMET_MAX: Final = 4096
BUSY_PAUSE_S_MAX: Final = 1.0
"""A full queue at a node empties again soon, whatever it says."""

How = Literal["ok", "limited", "busy", "unreached", "failed", "stopped"]
"""``limited``: refused for a rate; ``busy``: for a full queue; ``unreached``: no connection."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt left its place."""

    how: How
    retry_after_s: float | None = None
    tokens: int | None = None
    """What it did cost; None: not known."""
    first_token_s: float | None = None


class Run(NamedTuple):
    """An attempt that holds a place."""

    place: Place
    cost: Cost
    started_s: float
    spent: Spent
    account: Spent
    tenant: Spent
    """Empty for an attempt that follows another: its answer was counted."""
    tenant_id: str
    alone: bool
    """Nothing else ran there when it began."""


class Slot:
    """One deployment."""

    __slots__ = ("_configured", "account", "concurrency", "meter")

    def __init__(self, account: Meter) -> None:
        self.meter = Meter()
        self.account = account
        self.concurrency = Concurrency()
        self._configured: Limits | None = None

    def seen(self, limits: Limits | None, now_s: float) -> None:
        """What the node's operator states of it, each time it is looked at."""
        if limits != self._configured:
            self._configured = limits
            if limits is not None:
                self.meter.stated(limits, now_s)
        stated = [n for n in (self.meter.concurrency, self.account.concurrency) if n is not None]
        self.concurrency.stated = min(stated, default=None)

    def opens_s(self, cost: Cost, now_s: float) -> float:
        """When limits allow it, places aside."""
        return max(self.meter.opens_s(cost, now_s), self.account.opens_s(cost, now_s))

    def too_large(self, cost: Cost) -> TooLarge | None:
        """A limit here that the request can never fit."""
        return self.meter.too_large(cost) or self.account.too_large(cost)

    def room(self, cost: Cost, now_s: float) -> float:
        """Requests like this one that limits would let start at once, places aside."""
        return min(self.meter.room(cost, now_s), self.account.room(cost, now_s))

    def rate_s(self, cost: Cost, now_s: float) -> float:
        """Requests like this one that a second allows."""
        return min(self.meter.rate_s(cost, now_s), self.account.rate_s(cost, now_s))


class Slots:
    """All of them. Meters of tenants are here too."""

    def __init__(self) -> None:
        self._slots: dict[Place, Slot] = {}
        self._accounts: dict[str, Meter] = {}
        self._tenants: dict[str, Meter] = {}
        self._unmet: deque[tuple[str, Cost, float]] = deque(maxlen=UNMET_MAX)
        """What tenants spent elsewhere that this process has not met yet."""

    def of(self, deployment: Deployment) -> Slot:
        """A deployment's slot."""
        return self.at(deployment.place)

    def at(self, place: Place) -> Slot:
        """A slot by its name, made if there is none."""
        slot = self._slots.get(place)
        if slot is None:
            slot = self._slots[place] = Slot(self.account(place[0]))
        return slot

    def places(self) -> tuple[Place, ...]:
        """All that were asked for."""
        return tuple(self._slots)

    def account(self, node: str) -> Meter:
        """The meter of what a node's account allows."""
        return self._accounts.setdefault(node, Meter())

    def tenant(self, tenant: str) -> Meter | None:
        """The meter of a tenant that has limits of its own."""
        return self._tenants.get(tenant)

    def running(self) -> dict[Place, int]:
        """Attempts that this process runs, by place."""
        return {key: s.concurrency.running for key, s in self._slots.items()}

    def configure_account(self, node: str, limits: LimitsPolicy | None) -> None:
        """What the routing policy says of a node's account; None: nothing."""
        limits = limits or LimitsPolicy()
        self.account(node).configure(
            limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency
        )

    def configure_tenant(
        self, tenant: str, requests_per_minute: int | None, tokens_per_minute: int | None
    ) -> None:
        """What a tenant may use; None: any amount."""
        if requests_per_minute is None and tokens_per_minute is None:
            self._tenants.pop(tenant, None)
            return
        met = tenant in self._tenants
        meter = self._tenants.setdefault(tenant, Meter())
        meter.configure(requests_per_minute, tokens_per_minute, None)
        for name, cost, at_s in () if met else self._unmet:
            if name == tenant:
                meter.spend(cost, at_s)

    def start(self, place: Place, cost: Cost, tenant: Spent, tenant_id: str, now_s: float) -> Run:
        """An attempt takes a place."""
        slot = self.at(place)
        slot.concurrency.started()
        return Run(
            place=place,
            cost=cost,
            started_s=now_s,
            spent=slot.meter.spend(cost, now_s),
            account=slot.account.spend(cost, now_s),
            tenant=tenant,
            tenant_id=tenant_id,
            alone=slot.concurrency.at_floor,
        )

    def start_elsewhere(self, place: Place, cost: Cost, tenant_id: str | None, at_s: float) -> Run:
        """Another process's attempt took a place, at ``at_s``."""
        slot = self.at(place)
        slot.concurrency.elsewhere += 1
        own = None if tenant_id is None else self.tenant(tenant_id)
        if tenant_id is not None and own is None:
            self._unmet.append((tenant_id, cost, at_s))
        return Run(
            place=place,
            cost=cost,
            started_s=at_s,
            spent=slot.meter.spend(cost, at_s),
            account=slot.account.spend(cost, at_s),
            tenant=() if own is None else own.spend(cost, at_s),
            tenant_id=tenant_id or "",
            alone=slot.concurrency.at_floor,
        )

    def finish(self, run: Run, end: End, now_s: float) -> None:
        """It leaves: what it cost, and what that says of the place."""
        self._judge(run, end, now_s)
        self.at(run.place).concurrency.ended()

    def finish_elsewhere(self, run: Run, end: End, now_s: float) -> None:
        """Another process's attempt leaves."""
        self._judge(run, end, now_s)
        places = self.at(run.place).concurrency
        places.elsewhere = max(places.elsewhere - 1, 0)

    def _judge(self, run: Run, end: End, now_s: float) -> None:
        slot = self.at(run.place)
        self._settle(slot, run, end)
        places = slot.concurrency
        match end.how:
            case "ok":
                places.succeeded(end.first_token_s)
                slot.meter.succeeded()
            case "limited":
                if slot.meter.refused(
                    end.retry_after_s, run.cost, run.started_s, now_s, alone=run.alone
                ):
                    places.refused(run.started_s, now_s)
            case "busy":
                places.refused(run.started_s, now_s)
                pause_s = end.retry_after_s or 0.0
                slot.meter.close(now_s + min(pause_s, BUSY_PAUSE_S_MAX))
            case "unreached" | "failed" | "stopped":
                pass

    def _settle(self, slot: Slot, run: Run, end: End) -> None:
        own = self.tenant(run.tenant_id)
        for meter, spent in ((slot.meter, run.spent), (slot.account, run.account)):
            if end.how in ("unreached", "limited", "busy"):
                # What was refused used no tokens; whether it counts as a request is not known.
                meter.refund(spent, requests=end.how == "unreached")
            elif end.tokens is not None:
                meter.settle(spent, settled(run.cost, end.tokens))
        if own is not None and end.tokens is not None:
            # Counted is the answer, once: attempts after this one count nothing, so what it stands
            # for is not given back when this one fails.
            own.settle(run.tenant, settled(run.cost, end.tokens))


def settled(cost: Cost, tokens: int) -> Cost:
    """The cost that turned out to be ``tokens``: the prompt was there, the rest was generated."""
    prompt = min(cost.input_tokens, tokens)
    return Cost(input_tokens=prompt, output_tokens=tokens - prompt)
