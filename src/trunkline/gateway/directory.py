"""Who is out there: polls each configured node's ``/v1/info`` and offers what it serves.

A node counts only under a key pinned in the configuration, or one that its pinned operator states
(``core/pins.py``), which may change while everything runs. One that stops answering is kept with
what it last said, as a last resort, and looked at again soon. Nothing is written to disk.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError, Error, SignatureError
from trunkline.base.ports import Clock, Randomness
from trunkline.crypto.keys import VerifierKey
from trunkline.gateway.config import NodeConfig
from trunkline.gateway.core.breaker import Admission, State
from trunkline.gateway.core.route import Deployment, Need, models
from trunkline.gateway.core.standing import Level
from trunkline.gateway.health import Health
from trunkline.remote.limit import Limit
from trunkline.remote.node import NodeCaller
from trunkline.remote.transport import Transport
from trunkline.runtime.logger import Logger
from trunkline.schema.attempt import Kind, NodeInfo, ServedModel

POLL_TIMEOUT_S: Final = 5.0
SOON_S: Final = 0.2
"""First wait after a failed poll; doubles up to the ordinary interval."""
JITTER: Final = 0.2
"""Share of the interval by which it varies, so that gateways do not poll in step."""


class Node:
    """One configured node, its caller, and what it last said."""

    __slots__ = ("caller", "error", "info", "key", "pin", "polled", "reachable", "soon", "url")

    def __init__(self, config: NodeConfig, transport: Transport) -> None:
        self.pin = config.pin
        self.key = self.pin.key
        """What its receipts are signed by now; None: not known before it has answered."""
        self.url = config.url.rstrip("/")
        self.caller = NodeCaller(transport, self.url)
        self.info: NodeInfo | None = None
        """None until it has answered under a key that counts."""
        self.reachable = False
        self.error = ""
        """Stable code of why the last poll failed."""
        self.polled = asyncio.Event()
        """Set once the first poll is over, whatever came of it."""
        self.soon = asyncio.Event()
        """Set to have it polled now."""

    @property
    def name(self) -> str:
        """Its own, and that of its keys."""
        return self.pin.name


class KnownModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that some node serves."""

    name: str
    kind: Kind
    since_s: int
    """Unix seconds when this gateway first heard of it."""
    owned_by: str
    context_tokens: int | None


class Directory:
    """The nodes. ``start`` begins polling, ``stop`` ends it."""

    def __init__(
        self,
        nodes: Sequence[NodeConfig],
        transport: Transport,
        health: Health,
        *,
        poll_s: float,
        clock: Clock,
        randomness: Randomness,
        logger: Logger,
        level: Callable[[str, str], Level] = lambda _node, _model: Level.GOOD,
        last_resort: Callable[[], bool] = lambda: False,
    ) -> None:
        """``level``: what verdicts came to for a model at a node. ``last_resort``: whether what
        they quarantined is asked when nobody else is there."""
        self.nodes = tuple(Node(node, transport) for node in nodes)
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            raise ConfigError("nodes: two nodes have the same key name; give each its own")
        self._health = health
        self._poll_s = poll_s
        self._clock = clock
        self._randomness = randomness
        self._logger = logger
        self._level = level
        self._last_resort = last_resort
        self._since_s: dict[str, int] = {}
        self.keys = {str(node.key): node.name for node in self.nodes if node.key is not None}
        """Names of the nodes by every key that they have counted under, vkey texts."""
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Poll every node from now on."""
        self._tasks = [
            asyncio.create_task(self._poll_forever(node), name=f"poll.{node.name}")
            for node in self.nodes
        ]

    async def stop(self) -> None:
        """Stop polling."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def settled(self, timeout_s: float, stopping: asyncio.Event) -> None:
        """Wait until every node was asked once, the time is over, or this process stops."""

        async def every() -> None:
            for node in self.nodes:
                await node.polled.wait()

        waits = [asyncio.create_task(every()), asyncio.create_task(stopping.wait())]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    @property
    def unseen(self) -> int:
        """Nodes that have never answered."""
        return sum(node.info is None for node in self.nodes)

    def look_again(self, name: str) -> None:
        """A call to this node failed: ask it now how it is."""
        for node in self.nodes:
            if node.name == name:
                node.soon.set()

    def caller(self, name: str) -> NodeCaller:
        """The caller of a node that a deployment named."""
        return next(node.caller for node in self.nodes if node.name == name)

    def offers(self, need: Need) -> list[Deployment]:
        """Every deployment of a model that may serve the need, with its health now."""
        names = models(need)
        return [
            self._deployment(node, node.info, node.key, served)
            for node in self.nodes
            if node.info is not None and node.key is not None
            for served in node.info.models
            if served.name in names and served.kind == need.kind
        ]

    def models(self) -> list[KnownModel]:
        """Every model some node serves, by name."""
        found: dict[str, KnownModel] = {}
        for node in self.nodes:
            for served in () if node.info is None else node.info.models:
                known = found.get(served.name)
                found[served.name] = self._known(node, served, known)
        return [found[name] for name in sorted(found)]

    def _known(self, node: Node, served: ServedModel, known: KnownModel | None) -> KnownModel:
        operator = "" if node.info is None else node.info.operator
        owners = {operator} if known is None else {operator, *known.owned_by.split(", ")}
        return KnownModel(
            name=served.name,
            kind=served.kind,
            since_s=self._since_s.get(served.name, 0),
            owned_by=", ".join(sorted(owners)),
            context_tokens=served.context_tokens if known is None else known.context_tokens,
        )

    def _deployment(
        self, node: Node, info: NodeInfo, key: VerifierKey, served: ServedModel
    ) -> Deployment:
        health = self._health.of(info.node, served.name, exact=served.numerics is not None)
        load = max(info.running + info.queued, health.running)
        level = self._level(info.node, served.name)
        return Deployment(
            node=info.node,
            operator=info.operator,
            url=node.url,
            key=key,
            model=served.name,
            kind=served.kind,
            weights=served.weights,
            numerics=served.numerics,
            prefix=served.prefix,
            ready=info.ready and node.reachable,
            load=load,
            first_token_s=health.first_token_s,
            admission=Admission.NO if level is Level.QUARANTINED else health.admission,
            half_open=health.state is State.HALF_OPEN,
            share=health.share,
            expected=health.expected(load),
            limits=served.limits,
            level=level,
            last_resort=self._last_resort(),
        )

    async def _poll_forever(self, node: Node) -> None:
        failures = 0
        while True:
            node.soon.clear()
            failures = 0 if await self._poll(node) else failures + 1
            node.polled.set()
            pause_s = self._poll_s
            if failures:
                pause_s = min(SOON_S * 2.0 ** min(failures - 1, 16), self._poll_s)
            share = int.from_bytes(self._randomness.token(2), "big") / 0xFFFF
            try:
                async with asyncio.timeout(pause_s * (1 + JITTER * (share - 0.5))):
                    await node.soon.wait()
            except TimeoutError:
                continue

    async def _poll(self, node: Node) -> bool:
        try:
            async with Limit(POLL_TIMEOUT_S):
                info = await node.caller.info()
            self._accept(node, info)
        except (Error, TimeoutError) as error:
            self._lost(node, error.error_code if isinstance(error, Error) else "upstream_timeout")
            return False
        except Exception as error:  # noqa: BLE001 - a bug met with one node must not hide the others
            self._logger.crashed("poll.failed", error, node=node.name)
            self._lost(node, "internal_error")
            return False
        if not node.reachable:
            self._logger.info("node.found", node=node.name, models=len(info.models))
            # At the first look it is no news: it may be what an earlier process had known to fail.
            if node.polled.is_set():
                self._health.heard_of(node.name)
        node.info, node.reachable, node.error = info, True, ""
        for served in info.models:
            self._since_s.setdefault(served.name, self._clock.unix_ms() // 1000)
        return True

    def _accept(self, node: Node, info: NodeInfo) -> None:
        """Take the key that it shows, if that counts. Raises :class:`SignatureError`."""
        try:
            key = node.pin.accept(info, self._clock.unix_ms() // 1000)
        except SignatureError:
            # Whoever answers there is somebody else: forget what was believed of it.
            node.info = None
            raise
        if key == node.key:
            return
        if node.key is not None:
            self._logger.info("node.key_changed", node=node.name, key=str(key))
        # Attempts that run were begun under the key before, and are held to that.
        node.key, self.keys[str(key)] = key, node.name

    def _lost(self, node: Node, code: str) -> None:
        if node.reachable or not node.polled.is_set():
            self._logger.warning("node.lost", node=node.name, error=code)
        node.reachable, node.error = False, code
