"""Providers with limits and requests with needs, in virtual time, around the real scheduler.

A provider counts by itself, and truly: what it is given beyond its limits it refuses. Everything
is decided by a heap of events, so that hours pass in milliseconds and a seed repeats a run.
"""

import heapq
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from trunkline.crypto.signer import Signer
from trunkline.gateway.core.estimate import Estimates
from trunkline.gateway.core.fair import Request
from trunkline.gateway.core.quota import Cost
from trunkline.gateway.core.route import Deployment, Need, Place, order
from trunkline.gateway.core.scheduler import Decision, Refused, Scheduler, Started
from trunkline.gateway.core.slots import End
from trunkline.schema.attempt import Limits, Quota

MODEL = "m"
KEY = Signer.generate("node", bytes(32)).vkey


def deployment(node: str, model: str = MODEL) -> Deployment:
    return Deployment(node=node, operator=node, url="", key=KEY, model=model, kind="chat")


def need(model: str = MODEL) -> Need:
    return Need(model=model, kind="chat")


def offered(
    *deployments: Deployment,
) -> Callable[[Need, Mapping[Place, int]], Sequence[Deployment]]:
    """The options of a scheduler over these, by the real route."""

    def options(wanted: Need, running: Mapping[Place, int]) -> Sequence[Deployment]:
        loaded = (
            msgspec.structs.replace(one, load=running.get(one.place, 0)) for one in deployments
        )
        return order(wanted, loaded)

    return options


@dataclass
class Provider:
    """Counts requests and tokens over a window as they arrive, and places."""

    requests: int | None = None
    tokens: int | None = None
    places: int | None = None
    window_s: float = 60.0
    takes_s: float = 1.0
    fixed_s: float | None = None
    """Its windows begin at this time and end with each length; None: they slide."""
    states: bool = True
    """Its answers say what is left."""
    states_window: bool = False
    """They say how long a window is."""
    states_next: bool = False
    """The reset that they say is when the next bit comes back, not all."""
    running: int = 0
    taken: list[tuple[float, int]] = field(default_factory=list)
    refused: int = 0

    def rate_s(self, tokens: int) -> float:
        """Requests of this size that it allows in a second."""
        if self.requests is not None:
            return self.requests / self.window_s
        if self.tokens is not None:
            return self.tokens / tokens / self.window_s
        return (self.places or 0) / self.takes_s

    def _recent(self, now_s: float) -> list[tuple[float, int]]:
        since_s = now_s - self.window_s
        if self.fixed_s is not None:
            since_s = now_s - (now_s - self.fixed_s) % self.window_s
        recent = []
        for one in reversed(self.taken):
            if one[0] <= since_s:
                break
            recent.append(one)
        return recent[::-1]

    def reset_s(self, now_s: float) -> float:
        """Until its windows are as it says that they will be."""
        recent = self._recent(now_s)
        if not recent:
            return 0.0
        if self.fixed_s is not None:
            return self.window_s - (now_s - self.fixed_s) % self.window_s
        return recent[0 if self.states_next else -1][0] + self.window_s - now_s

    def take(self, tokens: int, now_s: float) -> bool:
        recent = self._recent(now_s)
        full = (
            (self.requests is not None and len(recent) >= self.requests)
            or (self.tokens is not None and sum(t for _, t in recent) + tokens > self.tokens)
            or (self.places is not None and self.running >= self.places)
        )
        if full:
            self.refused += 1
            return False
        self.taken.append((now_s, tokens))
        self.running += 1
        return True

    def said(self, now_s: float) -> Limits | None:
        recent = self._recent(now_s)
        left_ms = int(self.reset_s(now_s) * 1000) + 1
        quotas = []
        if self.requests is not None:
            quotas.append(self._quota("requests", self.requests, len(recent), left_ms))
        if self.tokens is not None:
            quotas.append(self._quota("tokens", self.tokens, sum(t for _, t in recent), left_ms))
        return Limits(quotas=tuple(quotas)) if quotas and self.states else None

    def _quota(self, unit: str, limit: int, used: int, left_ms: int) -> Quota:
        return Quota(
            unit="tokens" if unit == "tokens" else "requests",
            limit=limit,
            remaining=limit - used,
            window_ms=round(self.window_s * 1000) if self.states_window else None,
            reset_ms=left_ms,
        )


@dataclass
class Seen:
    """What came of one request."""

    request: Request
    arrived_s: float
    started_s: float | None = None
    refused: Refused | None = None
    refusals: int = 0
    tokens: int = 0
    """By its provider's count."""
    done_s: float | None = None


class World:
    """Runs a scheduler against providers until nothing happens any more."""

    def __init__(
        self, providers: Mapping[str, Provider], *, seed: int = 0, waiting_max: int = 100_000
    ) -> None:
        self.providers = providers
        self.scheduler = Scheduler(
            offered(*(deployment(name) for name in providers)), waiting_max=waiting_max
        )
        self.rng = random.Random(seed)  # noqa: S311 - a repeatable draw
        self.estimates = Estimates()
        self.now_s = 0.0
        self.seen: dict[int, Seen] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when_s: float, what: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when_s, self._count, what))

    def ask(
        self,
        when_s: float,
        tenant: str = "a",
        *,
        tokens: int = 10,
        deadline_s: float = 600.0,
        priority: int = 0,
        weight: int = 1,
        prompt: bytes | None = None,
        leaves_s: float | None = None,
    ) -> int:
        """A request arrives later. ``tokens``: what it asks for by its provider's count;
        ``prompt``: estimate that from this request. ``leaves_s``: its client goes away so long
        after."""
        number = len(self.seen)
        request = Request(
            number=number,
            need=need(),
            tenant=tenant,
            weight=weight,
            priority=priority,
            deadline_s=when_s + deadline_s,
            cost=Cost(input_tokens=tokens),
        )
        self.seen[number] = Seen(request, when_s)

        def arrive() -> None:
            arriving = request
            if prompt is not None:
                cost = self.estimates.cost(MODEL, prompt, "chat", 1)
                arriving = msgspec.structs.replace(request, cost=cost)
                self.seen[number].request = arriving
            self._do(self.scheduler.arrive(arriving, self.now_s))

        self.seen[number].tokens = tokens
        self.at(when_s, arrive)
        if leaves_s is not None:
            self.at(when_s + leaves_s, lambda: self._leave(number))
        return number

    def run(self, until_s: float = float("inf")) -> None:
        while self._events or self.scheduler.wake_s() is not None:
            wake_s = self.scheduler.wake_s()
            next_s = self._events[0][0] if self._events else float("inf")
            if wake_s is not None and wake_s < next_s:
                if wake_s > until_s:
                    return
                self.now_s = max(self.now_s, wake_s)
                self._do(self.scheduler.tick(self.now_s))
                continue
            if next_s > until_s:
                return
            self.now_s, _, what = heapq.heappop(self._events)
            what()

    def _leave(self, number: int) -> None:
        seen = self.seen[number]
        if seen.started_s is None:
            self._do(self.scheduler.cancel(number, self.now_s))

    def _do(self, decisions: list[Decision]) -> None:
        for decision in decisions:
            seen = self.seen[decision.number]
            match decision:
                case Refused():
                    seen.refused = decision
                case Started():
                    seen.started_s = self.now_s
                    self._start(seen, decision.deployment)

    def _start(self, seen: Seen, place: Deployment) -> None:
        node, provider = place.node, self.providers[place.node]
        delay_s = self.rng.uniform(0.0, 0.01)

        def arrives() -> None:
            if provider.take(seen.tokens, self.now_s):
                took_s = provider.takes_s * self.rng.uniform(0.5, 1.5)
                self._learn(node)
                self.at(self.now_s + took_s, ends)
            else:
                seen.refusals += 1
                self._learn(node)
                after_s = provider.reset_s(self.now_s) if provider.states else None
                self._end(seen, End(how="limited", retry_after_s=after_s))
                tried = (*seen.request.need.tried, place.place)
                wanted = msgspec.structs.replace(seen.request.need, tried=tried)
                seen.request = msgspec.structs.replace(seen.request, first=False, need=wanted)
                self._do(self.scheduler.arrive(seen.request, self.now_s))

        def ends() -> None:
            provider.running -= 1
            seen.done_s = self.now_s
            if not seen.request.cost.text_bytes:
                self._end(seen, End(how="ok", tokens=seen.tokens, first_token_s=0.1))
                return
            # What was asked for is more than what is generated.
            output = seen.request.cost.output_tokens
            prompt = seen.tokens - output
            output = self.rng.randint(output * 3 // 4, output)
            self._learn(node)
            used = Cost(input_tokens=prompt, output_tokens=output)
            self.estimates.learned(MODEL, seen.request.cost, used)
            self._end(seen, End(how="ok", tokens=used.tokens, first_token_s=0.1))

        self.at(self.now_s + delay_s, arrives)

    def _learn(self, node: str) -> None:
        said = self.providers[node].said(self.now_s)
        if said is not None:
            self._do(self.scheduler.stated((node, MODEL), said, self.now_s))

    def _end(self, seen: Seen, end: End) -> None:
        self._do(self.scheduler.finished(seen.request.number, end, self.now_s))


def bursts(rng: random.Random, rate_s: float, seconds: float, mean: float = 6.0) -> list[float]:
    """When requests arrive: ``rate_s`` of them a second over all, in bursts of a geometric size,
    exponential times apart. As many as the rate says, whatever the dice say."""
    times: list[float] = []
    at_s = rng.expovariate(rate_s / mean)
    while at_s < seconds:
        times.append(at_s + rng.uniform(0, 0.05))
        at_s += rng.expovariate(rate_s / mean) if rng.random() < 1 / mean else 0.0
    wanted = round(rate_s * seconds)
    rng.shuffle(times)
    times += [rng.choice(times) for _ in range(wanted - len(times))]
    return sorted(times[:wanted])


def fairness(got: Sequence[float]) -> float:
    """Jain's index: 1 where all got the same."""
    total = sum(got)
    return total * total / (len(got) * sum(one * one for one in got)) if total else 1.0
