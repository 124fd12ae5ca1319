"""One run: a network built from a seed, a storm, then peace, and the judges' verdict on both.

*Safety*, while everything fails: no app is ever told something untrue. *Liveness*, once nothing
fails any more: every call succeeds, every breaker lets calls through, every stored receipt becomes
final. The world itself decides nothing that a checker relies on.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context
from functools import partial
from random import Random
from typing import Any, Final

import msgspec

from trunkline.crypto.signer import Signer
from trunkline.gateway.status import Status
from trunkline.gateway.store import EvidenceStore
from trunkline.sim import app as apps
from trunkline.sim import ledger
from trunkline.sim.app import Ask, Ending, Seen
from trunkline.sim.cast import GOLD, KEYED, WEIGHTS, Cast, upstream_of
from trunkline.sim.checkers import Judge, Taps, Undisturbed, history, succeeded
from trunkline.sim.crowd import Crowd
from trunkline.sim.disk import Disk
from trunkline.sim.engine import KeyedEngine, Pace, honest, model_info
from trunkline.sim.loop import run
from trunkline.sim.network import Network, SimTransport
from trunkline.sim.process import Process, install
from trunkline.sim.roles import (
    GATEWAY,
    Serve,
    SimGateway,
    SimLog,
    SimNode,
    embedded,
    fronting,
    secret_of,
    stored,
)
from trunkline.sim.trace import Trace
from trunkline.sim.upstream import Upstream
from trunkline.sim.violation import Violation
from trunkline.sim.weather import Weather

CALLS_MIN, CALLS_MAX = 6, 12
REST_S: Final = 40.0
"""Peace before the first call that must succeed: longer than any breaker's cool-down."""
PEACE_CALLS: Final = 4
AWAY_LOOKS, AWAY_LOOK_S = 12, 30.0
"""A breaker must let calls through by then: longer than the longest ejection."""
SLOW_TOKEN_S: Final = 0.6
PEACE_TOKEN_S: Final = 0.01
START_AGAIN_S: Final = 0.1
FINAL_S: Final = 200.0
"""By then every receipt has its proof: longer than the finalizer's longest pause."""
RUSH_EVERY: Final = 10
"""Of so many seeds one plays a rush on too little room."""
WORLD_S_MAX: Final = 3600.0


def _honest_engine(name: str, pace: Pace) -> KeyedEngine:
    return honest(KEYED, WEIGHTS[name], pace)


def _open_store(disk: Disk) -> EvidenceStore:
    return EvidenceStore(disk.mount())


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """Parts that a test may break on purpose, to see that the judges notice."""

    engine: Callable[[str, Pace], KeyedEngine] = _honest_engine
    """A node's engine, by the node's name."""
    open_store: Callable[[Disk], EvidenceStore] = _open_store
    """The gateway's evidence store."""
    keys: dict[str, Signer] = {}
    """Keys that nodes sign with instead of their own, by the node's name."""
    flips: bool = False
    """Letters of answers change on the way (see :class:`Weather`)."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one seed."""

    seed: int
    violations: tuple[Violation, ...]
    trace: str
    """Digest of everything that happened."""
    events: int
    calls: int
    succeeded: int
    failed: int
    """Ended in an explicit error."""
    taken_over: int
    """Succeeded by more than one attempt."""
    crashes: int
    virtual_s: float
    newest: tuple[str, ...]
    """The last events as text."""


def play(seed: int, variant: Variant | None = None) -> Verdict:
    """Run one seed. The same seed and variant give the same verdict, to the last event."""
    variant = variant or Variant()
    world = Rush(seed, variant) if seed % RUSH_EVERY == 0 else World(seed, variant)
    try:
        return run(world.play(), seed=f"{seed}/order", limit_s=WORLD_S_MAX)
    finally:
        world.close()


class Rush:
    """A run of the other kind (:mod:`trunkline.sim.crowd`)."""

    def __init__(self, seed: int, variant: Variant) -> None:
        self._seed = seed
        self._crowd = Crowd(seed, variant.open_store)

    def close(self) -> None:
        """Throw the disks away."""
        self._crowd.close()

    async def play(self) -> Verdict:
        """The verdict."""
        crowd = self._crowd
        seen, found = await crowd.play()
        return _verdict(self._seed, seen, found, crowd.trace, crowd.taps, crowd.crashes)


class World:
    """Everything there is in one run."""

    def __init__(self, seed: int, variant: Variant) -> None:
        self._seed = seed
        self._trace = Trace()
        self._weather = Weather(self._random("weather"), flips=variant.flips)
        self._network = Network(self._random("network"), self._trace)
        self._network.weather = self._weather.passage
        self._taps = Taps()
        self._network.tap = self._taps.tap
        self._log = SimLog(self._random("log"))
        self._log.loses = self._weather.log_loses
        self._variant = variant
        self._cast = Cast.draw(self._random("cast"))
        self._upstreams = {name: self._upstream(name) for name in self._cast.fronts}
        self._nodes = [self._node(name) for name in (*self._cast.embedded, *self._cast.fronts)]
        self._gateway = SimGateway(
            self._nodes,
            self._network,
            self._log,
            self._random("gateway"),
            policy=self._cast.policy,
            open_store=variant.open_store,
        )
        self._gateway.disk.fate = self._weather.disk_fate
        self._gateway.disk.kill = lambda: self._outside(self._crash(self._gateway))
        self._outages: dict[asyncio.Task[None], None] = {}
        self._down: set[str] = set()
        self._crashes = 0

    def close(self) -> None:
        """Throw the disks away."""
        for node in self._nodes:
            node.disk.close()
        self._gateway.close()

    async def play(self) -> Verdict:
        """The storm, the peace, the verdict."""
        install(asyncio.get_running_loop())
        for name, upstream in self._upstreams.items():
            self._network.server(upstream_of(name)).up(Process(upstream_of(name)), upstream)
        for node in self._nodes:
            await node.start()
        await self._gateway.make_keys()
        await self._gateway.start()
        self._weather.brew()
        storm = await self._storm()
        await self._calm()
        peace = await self._calls(self._asks("peace", PEACE_CALLS, over_s=2.0, patient=True))
        seen = [*storm, *peace]
        found = await self._judged(seen)
        found += [_dead(one) for one in peace if not succeeded(one) and not _too_slow(one)]
        found += await self._breakers()
        found += await self._kept(seen)
        found += self._histories(seen)
        found += self._books(seen)
        await self._stop()
        found += [Violation("bug", line) for line in self._trace.bugs]
        return _verdict(self._seed, seen, found, self._trace, self._taps, self._crashes)

    # Building.

    def _random(self, what: str) -> Random:
        return Random(f"{self._seed}/{what}")

    def _node(self, name: str) -> SimNode:
        random = self._random(name)
        node = SimNode(
            name,
            self._network,
            self._serving(name),
            random,
            key=self._variant.keys.get(name),
            skew_ms=random.randint(-60_000, 60_000),
        )
        node.pace.token_s = self._weather.climate.token_s
        node.pace.dies = self._weather.engine_dies
        node.disk.fate = self._weather.disk_fate
        node.disk.kill = lambda: self._outside(self._crash(node))
        return node

    def _serving(self, name: str) -> Serve:
        if name in self._cast.fronts:
            return fronting(self._cast.engine(name))
        return embedded(partial(self._variant.engine, name))

    def _upstream(self, name: str) -> Upstream:
        upstream = Upstream(echoes=self._cast.fronts[name] == "mistral")
        upstream.token_s = self._weather.climate.token_s
        upstream.fault = self._weather.upstream_fault
        return upstream

    # The storm.

    async def _storm(self) -> list[Seen]:
        random = self._random("calls")
        count = random.randint(CALLS_MIN, CALLS_MAX)
        disasters = asyncio.create_task(self._disasters(), name="disasters")
        weather = self._weather
        over_s = weather.storm_s * weather.climate.spread
        seen = await self._calls(self._asks("calls", count, over_s=over_s))
        disasters.cancel()
        await asyncio.gather(disasters, return_exceptions=True)
        return seen

    def _asks(self, name: str, count: int, *, over_s: float, patient: bool = False) -> list[Ask]:
        random = self._random(name)
        drawn = [
            apps.draw(number, random, random.uniform(0.0, over_s), self._cast.menu)
            for number in range(count)
        ]
        if not patient:
            return drawn
        calm = {"deadline_s": 30.0, "leaves_after": None, "key": GOLD}
        return [msgspec.structs.replace(one, **calm) for one in drawn]

    async def _calls(self, asks: list[Ask]) -> list[Seen]:
        async def one(ask: Ask) -> list[Seen]:
            await asyncio.sleep(ask.at_s)
            return await apps.ask_again(ask, self._network, self._gateway)

        seen = await asyncio.gather(*(one(ask) for ask in asks))
        return [tried for tries in seen for tried in tries]

    async def _disasters(self) -> None:
        weather = self._weather
        nodes = {node.name: node for node in self._nodes}
        while True:
            await asyncio.sleep(weather.pause_s())
            kind = weather.pick(("node", "node", "node", "slow", "slow", "log", GATEWAY, "stop"))
            node = nodes[weather.pick(tuple(nodes))]
            match kind:
                case "node":
                    self._outside(self._crash(node))
                case "slow":
                    self._outside(self._slow(node))
                case "log":
                    self._outside(self._log_down())
                case "stop":
                    self._outside(self._stop_gateway())
                case _:
                    self._outside(self._crash(self._gateway))

    def _outside(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that belongs to no process, whoever asks."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._outages[task] = None
        task.add_done_callback(lambda done: self._outages.pop(done, None))

    async def _crash(self, machine: SimNode | SimGateway) -> None:
        """Kill a process, and start it again after a while."""
        name = machine.disk.name
        if name in self._down:
            # Killed while it starts: whoever starts it will try again.
            await machine.kill()
            return
        self._down.add(name)
        self._crashes += 1
        self._trace.note("world", "process.killed", name=name)
        await machine.kill()
        await asyncio.sleep(self._weather.outage_s())
        await self._start(machine)

    async def _stop_gateway(self) -> None:
        """As its operator would for an upgrade."""
        gateway = self._gateway
        if gateway.disk.name in self._down:
            return
        self._down.add(gateway.disk.name)
        self._trace.note("world", "process.stopped", name=gateway.disk.name)
        await gateway.stop()
        await self._start(gateway)

    async def _start(self, machine: SimNode | SimGateway) -> None:
        up = False
        while not up:
            await asyncio.sleep(START_AGAIN_S)
            up = await machine.start()
        self._trace.note("world", "process.started", name=machine.disk.name)
        self._down.discard(machine.disk.name)

    async def _slow(self, node: SimNode) -> None:
        self._set_pace(node, SLOW_TOKEN_S)
        await asyncio.sleep(self._weather.outage_s())
        self._set_pace(node, self._weather.climate.token_s)

    def _set_pace(self, node: SimNode, token_s: float) -> None:
        node.pace.token_s = token_s
        if node.name in self._upstreams:
            self._upstreams[node.name].token_s = token_s

    async def _log_down(self) -> None:
        self._log.down = True
        await asyncio.sleep(self._weather.outage_s())
        self._log.down = False

    # The peace.

    async def _calm(self) -> None:
        """End all faults, let outages pass, and rest."""
        self._weather.clear()
        while self._outages:
            await asyncio.wait(list(self._outages))
        for node in self._nodes:
            self._set_pace(node, PEACE_TOKEN_S)
        await asyncio.sleep(REST_S)
        self._trace.note("world", "peace.began")

    async def _stop(self) -> None:
        await self._gateway.kill()
        for node in self._nodes:
            await node.kill()

    # The verdict.

    async def _judged(self, seen: list[Seen]) -> list[Violation]:
        engines = {
            model_info(KEYED, weights).weights_digest: honest(KEYED, weights)
            for weights in WEIGHTS.values()
        }
        judge = Judge(
            Undisturbed(engines, self._nodes[0].identity),
            {node.key.name: node.key for node in self._nodes},
            self._cast.allowed,
        )
        return await judge.judge(seen, self._taps)

    async def _breakers(self) -> list[Violation]:
        """Whom calls do not reach now. What was ejected for what it did in the storm has its
        time to be away."""
        found = await self._unreached()
        for _ in range(AWAY_LOOKS if found else 0):
            await asyncio.sleep(AWAY_LOOK_S)
            found = await self._unreached()
            if not found:
                break
        return found

    async def _unreached(self) -> list[Violation]:
        transport = SimTransport(self._network)
        headers = (("authorization", f"Bearer {secret_of(GOLD)}"),)
        url = f"http://{GATEWAY}/trunkline/v1/status"
        async with await transport.request("GET", url, headers=headers) as got:
            status = msgspec.json.decode(await got.read(1 << 20), type=Status)
        return [
            Violation("dead", f"{node.node}: reachable {node.reachable}, breaker {model.breaker}")
            for node in status.nodes
            for model in node.models
            if not node.reachable or model.breaker.value == "open"
        ]

    async def _kept(self, seen: list[Seen]) -> list[Violation]:
        """What was on the disk when an app saw the end must be there for good, and get proven."""
        kept = {one.answer: one.kept for one in seen if one.answer and one.kept is not None}
        for _ in range(int(FINAL_S)):
            now = {answer: stored(self._gateway.disk, answer) for answer in kept}
            if all(part is not None and part.proven for part in now.values()):
                break
            await asyncio.sleep(1.0)
        else:
            now = {answer: stored(self._gateway.disk, answer) for answer in kept}
        return [
            Violation("lost", f"answer {answer}: {'gone' if part is None else 'never final'}")
            for answer, before in kept.items()
            if (part := now[answer]) is None or not part.proven or part.signed != before.signed
        ]

    def _histories(self, seen: list[Seen]) -> list[Violation]:
        kept = [one.kept.signed for one in seen if one.kept is not None]
        return [
            violation
            for node in self._nodes
            if node.name not in self._variant.keys
            for violation in history(node.key, node.disk, kept)
        ]

    def _books(self, seen: list[Seen]) -> list[Violation]:
        """What was charged. Limits of keys are in the gateway's memory, and end with it."""
        found = ledger.charges(self._gateway.disk, self._cast.policy, seen)
        found += ledger.repeats(self._gateway.disk, seen)
        if self._gateway.lives == 1:
            begun: dict[str, list[float]] = {}
            keys = {one.answer: one.ask.key for one in seen}
            for answer, attempts in self._taps.answers.items():
                if answer in keys:
                    begun.setdefault(keys[answer], []).append(min(a.at_s for a in attempts))
            found += ledger.rates(self._cast.policy, begun)
        return found


def _verdict(
    seed: int,
    seen: list[Seen],
    found: list[Violation],
    trace: Trace,
    taps: Taps,
    crashes: int,
) -> Verdict:
    good = [one for one in seen if succeeded(one)]
    return Verdict(
        seed=seed,
        violations=tuple(found),
        trace=trace.digest,
        events=trace.events,
        calls=len(seen),
        succeeded=len(good),
        failed=sum(one.ending is Ending.COMPLETE for one in seen) - len(good),
        taken_over=sum(len(taps.of(one)) > 1 for one in good),
        crashes=crashes,
        virtual_s=asyncio.get_running_loop().time(),
        newest=tuple(trace.newest),
    )


def _too_slow(seen: Seen) -> bool:
    """The app itself took longer to read than the deadline that it set."""
    return seen.rested_s >= seen.ask.deadline_s


def _dead(seen: Seen) -> Violation:
    said = f"call {seen.ask.number} in peace: {seen.ending.name}, status {seen.status}"
    return Violation("dead", said)
