"""A run with more demand than there is room: tenants who share accounts that state their limits.

Nothing fails but, in some seeds, one node for a while. Judged is who got how much of what there
was, and that nobody was sent away while there was room. The accounts count by themselves.

============ =======================================================================================
``exceeded`` an account was asked for more than the limit that it states
``unfair``   while all had calls waiting, tenants' shares were not as their weights
``starved``  a tenant with calls waiting got nothing, or a call failed with time left, not by 429
``idle``     a call was refused for lack of room although an account had some, for long
``traffic``  a node that was well for long was sent nothing while others were full
============ =======================================================================================

and everything that :mod:`trunkline.sim.checkers` and :mod:`trunkline.sim.ledger` look at.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Final

import msgspec

from trunkline.base.money import MicroUsd
from trunkline.gateway.core.policy import KeyPolicy, Price, RoutingPolicy
from trunkline.gateway.store import EvidenceStore
from trunkline.node.config_providers import AccountLimits, OpenAIEngine
from trunkline.sim import app as apps
from trunkline.sim import ledger
from trunkline.sim.app import Ask, Seen
from trunkline.sim.cast import BATCH, GOLD, SILVER, SPOKEN, TIMEOUTS, upstream_of
from trunkline.sim.checkers import Judge, Taps, Undisturbed, succeeded
from trunkline.sim.network import Network
from trunkline.sim.process import Process, install
from trunkline.sim.roles import SimGateway, SimLog, SimNode, fronting
from trunkline.sim.trace import Trace
from trunkline.sim.upstream import Allowance, Upstream
from trunkline.sim.violation import Violation

NODES: Final = ("delta", "epsilon", "zeta")
WEIGHTS: Final = {GOLD: 3, SILVER: 1}
"""Tenants of one class; :data:`BATCH` comes after them."""
CALLS_EACH: Final = {GOLD: 24, SILVER: 16, BATCH: 5}
RUSH_S: Final = 0.5
REST_S: Final = 45.0
LOOK_S: Final = 0.25
TELL_S: Final = 2.0
"""Before its deadline a call must have been told that it can not be taken."""
IDLE_SHARE: Final = 0.5
"""Of the deadline: room for so long is room. Less may be left by calls that waited for other places
of a node and gave up."""
FAIRNESS_MIN: Final = 0.9
SHARE_MAX: Final = 2.5
"""Calls by weight that one may be ahead by: calls can not be divided, and run beside each other."""


class Wave(msgspec.Struct, frozen=True, kw_only=True):
    """One rush and what the accounts looked like meanwhile."""

    seen: list[Seen]
    room: list[tuple[float, bool]]
    """At each look, whether some account had room."""
    calls: dict[str, int]
    """By node, calls that its account got."""


class Crowd:
    """Everything there is in one run."""

    def __init__(
        self, seed: int, open_store: Callable[..., EvidenceStore], *, stated: bool = True
    ) -> None:
        """``stated``: nodes say what their accounts allow."""
        self._seed = seed
        random = self._random("cast")
        self.trace = Trace()
        self._network = Network(self._random("network"), self.trace)
        self.taps = Taps()
        self._network.tap = self.taps.tap
        self.crashes = 0
        self._upstreams = {name: _upstream(random) for name in NODES}
        self._fails = random.random() < 0.5
        self._nodes = [self._node(name, stated=stated) for name in NODES]
        self._policy = _policy()
        self._gateway = SimGateway(
            self._nodes,
            self._network,
            SimLog(self._random("log")),
            self._random("gateway"),
            policy=self._policy,
            open_store=open_store,
        )

    def close(self) -> None:
        """Throw the disks away."""
        for node in self._nodes:
            node.disk.close()
        self._gateway.close()

    async def play(self) -> tuple[list[Seen], list[Violation]]:
        """A rush with a node missing, perhaps; rest; a rush with all there; the verdict."""
        install(asyncio.get_running_loop())
        for name, upstream in self._upstreams.items():
            self._network.server(upstream_of(name)).up(Process(upstream_of(name)), upstream)
        for node in self._nodes:
            await node.start()
        await self._gateway.make_keys()
        await self._gateway.start()
        missing = asyncio.create_task(self._missing())
        first = await self._wave("first")
        await missing
        await asyncio.sleep(REST_S + ledger.WINDOW_S)
        second = await self._wave("second")
        seen = [*first.seen, *second.seen]
        found = await self._judged(seen)
        found += ledger.charges(self._gateway.disk, self._policy, seen)
        found += [*_starved(second), *_unfair(second, self._begun(second)), *_idle(second)]
        found += self._accounts(second)
        await self._gateway.kill()
        for node in self._nodes:
            await node.kill()
        return seen, [*found, *(Violation("bug", line) for line in self.trace.bugs)]

    def _random(self, what: str) -> Random:
        return Random(f"{self._seed}/{what}")

    def _node(self, name: str, *, stated: bool) -> SimNode:
        allowed = self._upstreams[name].account.allowance
        limits = AccountLimits(
            requests_per_minute=allowed.requests_per_minute, concurrency=allowed.concurrency
        )
        engine = OpenAIEngine(
            base_url=f"http://{upstream_of(name)}/v1",
            models=(SPOKEN,),
            timeouts=TIMEOUTS,
            limits=limits if stated else AccountLimits(),
        )
        return SimNode(name, self._network, fronting(engine), self._random(name))

    async def _missing(self) -> None:
        if not self._fails:
            return
        node = self._random("missing").choice(self._nodes)
        await asyncio.sleep(1.0)
        self.crashes += 1
        await node.kill()
        await asyncio.sleep(10.0)
        await node.start()

    # The rush.

    async def _wave(self, name: str) -> Wave:
        loop = asyncio.get_running_loop()
        before = {node: upstream.account.calls for node, upstream in self._upstreams.items()}
        room: list[tuple[float, bool]] = []

        async def look() -> None:
            while True:
                accounts = [upstream.account for upstream in self._upstreams.values()]
                room.append((loop.time(), any(account.free(loop.time()) for account in accounts)))
                await asyncio.sleep(LOOK_S)

        looking = asyncio.create_task(look())
        seen = list(await asyncio.gather(*(self._ask(one) for one in self._asks(name))))
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        calls = {
            node: upstream.account.calls - before[node]
            for node, upstream in self._upstreams.items()
        }
        return Wave(seen=seen, room=room, calls=calls)

    async def _ask(self, wanted: Ask) -> Seen:
        await asyncio.sleep(wanted.at_s)
        return await apps.ask(wanted, self._network, self._gateway)

    def _asks(self, name: str) -> list[Ask]:
        random = self._random(name)
        deadline_s = random.choice((8.0, 20.0))
        return [
            Ask(
                number=number,
                at_s=random.uniform(0.0, RUSH_S),
                format="openai.chat",
                model=SPOKEN,
                said=f"{key} {number}",
                body=_body(f"{key} {number}", stream=number % 2 == 0),
                stream=number % 2 == 0,
                key=key,
                deadline_s=deadline_s,
            )
            for key, count in CALLS_EACH.items()
            for number in range(count)
        ]

    # The verdict.

    async def _judged(self, seen: list[Seen]) -> list[Violation]:
        judge = Judge(
            Undisturbed({}, self._nodes[0].identity),
            {node.key.name: node.key for node in self._nodes},
            {SPOKEN: frozenset({SPOKEN})},
        )
        return await judge.judge(seen, self.taps)

    def _begun(self, wave: Wave) -> dict[str, list[float]]:
        """When the first attempt of each call arrived at a node."""
        begun: dict[str, list[float]] = {key: [] for key in CALLS_EACH}
        for one in wave.seen:
            attempts = self.taps.of(one)
            if attempts:
                begun[one.ask.key].append(min(attempt.at_s for attempt in attempts))
        return begun

    def _accounts(self, wave: Wave) -> list[Violation]:
        found = [
            Violation("exceeded", f"{name}: {upstream.account.refused} calls too many")
            for name, upstream in self._upstreams.items()
            if upstream.account.refused
        ]
        refused = any(seen.status == 429 for seen in wave.seen)
        if refused:
            found += [
                Violation("traffic", f"{name} was sent nothing")
                for name, calls in wave.calls.items()
                if not calls
            ]
        return found


def _upstream(random: Random) -> Upstream:
    upstream = Upstream(
        allowance=Allowance(
            requests_per_minute=random.choice((None, None, 6, 10)),
            concurrency=random.choice((1, 2, 6)),
        )
    )
    upstream.token_s = random.choice((0.1, 0.2))
    return upstream


def _policy() -> RoutingPolicy:
    million = 1_000_000
    return RoutingPolicy(
        prices={SPOKEN: Price(input=MicroUsd(3 * million), output=MicroUsd(4 * million))},
        keys={
            GOLD: KeyPolicy(weight=WEIGHTS[GOLD]),
            SILVER: KeyPolicy(weight=WEIGHTS[SILVER]),
            BATCH: KeyPolicy(priority="batch"),
        },
    )


def _starved(wave: Wave) -> list[Violation]:
    found = [
        Violation("starved", f"call {one.ask.number} of {one.ask.key}: status {one.status}")
        for one in wave.seen
        if not succeeded(one) and one.status != 429 and _early(one)
    ]
    served = {one.ask.key for one in wave.seen if succeeded(one)}
    if served:
        found += [
            Violation("starved", f"{key} got nothing") for key in WEIGHTS if key not in served
        ]
    return found


def _early(seen: Seen) -> bool:
    """It failed with time left."""
    return seen.ended_s - seen.began_s < seen.ask.deadline_s - TELL_S


def _body(said: str, *, stream: bool) -> bytes:
    # All of one kind: what a call is taken to cost differs little then, and shares are of calls.
    messages = [{"role": "user", "content": said}]
    return json.dumps({"model": SPOKEN, "messages": messages, "stream": stream}).encode()


def _unfair(wave: Wave, begun: Mapping[str, Sequence[float]]) -> list[Violation]:
    """Starts by weight among those of one class, from when all have come until the first of them
    has no call waiting. ``begun``: by tenant."""
    from_s = max(one.began_s for one in wave.seen)
    refused = [one.ended_s for one in wave.seen if not succeeded(one)]
    until_s = min([*(max(begun[key], default=from_s) for key in WEIGHTS), *refused])
    shares = [
        sum(from_s < at_s <= until_s for at_s in begun[key]) / weight
        for key, weight in WEIGHTS.items()
    ]
    index = jain(shares)
    if index >= FAIRNESS_MIN or max(shares) - min(shares) <= SHARE_MAX:
        return []
    return [Violation("unfair", f"index {index:.3f}, by weight {shares}")]


def jain(shares: Sequence[float]) -> float:
    """Jain's fairness index, 1 where all are equal."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def _idle(wave: Wave) -> list[Violation]:
    """Refused calls that somebody could have taken."""
    found: list[Violation] = []
    for one in wave.seen:
        if one.status != 429:
            continue
        until_s = one.began_s + one.ask.deadline_s - TELL_S
        looks = [free for at_s, free in wave.room if one.began_s <= at_s <= until_s]
        most = longest = 0
        for free in looks:
            longest = longest + 1 if free else 0
            most = max(most, longest)
        if most * LOOK_S >= IDLE_SHARE * one.ask.deadline_s:
            found.append(Violation("idle", f"call {one.ask.number}: room for {most * LOOK_S} s"))
    return found
