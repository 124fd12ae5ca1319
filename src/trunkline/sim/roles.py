"""The roles of a simulated network: real nodes, a real gateway, and a log that proves or fails.

A node is the real attempt shell, gate and receipt signer on a simulated disk, before the real text
pipeline over a simulated engine (:func:`embedded`) or the real provider's service and caller over
a simulated endpoint (:func:`fronting`). A gateway is the real :class:`Gateway` over a simulated
transport and disks. All can be killed at any moment and started again on the disk that is left. The
log is a stand-in for its caller: its own correctness is not looked at here.
"""

import asyncio
from base64 import b32encode
from collections.abc import Awaitable, Callable, Coroutine
from hashlib import sha256
from random import Random
from typing import Any, Final

import msgspec

from trunkline.base.errors import ConnectError, Error, TimedOutError
from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer
from trunkline.gateway.config import GatewayConfig, NodeConfig
from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.front import Gateway
from trunkline.gateway.key_store import MIGRATIONS as KEY_MIGRATIONS
from trunkline.gateway.key_store import KeyRow, KeyStore, digest_of
from trunkline.gateway.keys import PREFIX
from trunkline.gateway.routing import Routing
from trunkline.gateway.store import MIGRATIONS as GATEWAY_MIGRATIONS
from trunkline.gateway.store import EvidenceStore
from trunkline.node import provider_kinds
from trunkline.node.attempts import Attempts, Served, reply_error
from trunkline.node.chat import EmbeddedChat
from trunkline.node.config_providers import OpenAIEngine
from trunkline.node.core.prefix import Prefixes
from trunkline.node.core.statement import Identity
from trunkline.node.gate import Gate
from trunkline.node.provider import Provider, ProviderModels
from trunkline.node.signing import ReceiptSigner
from trunkline.node.store import MIGRATIONS as NODE_MIGRATIONS
from trunkline.remote.transport import REFUSED
from trunkline.runtime.http import Call, Receive, Router, Scope, Send
from trunkline.schema import errors
from trunkline.schema.attempt import ATTEMPT_PATH, INFO_PATH, NodeInfo
from trunkline.sim.disk import Disk
from trunkline.sim.engine import KeyedEngine, Pace
from trunkline.sim.network import App, Network, SimTransport
from trunkline.sim.ports import SimClock, SimNonces, SimRandomness
from trunkline.sim.process import Process

PLACES: Final = 3
QUEUE_MAX: Final = 4
GATEWAY: Final = "gateway"
GRACE_S: Final = 1.0
STOPPING_S: Final = 1.0
"""A stopping gateway's running calls: to finish by themselves, then to say that they can not."""
TIMEOUTS: Final = Timeouts(
    connect_s=1.0, head_s=2.0, first_event_s=4.0, first_token_s=3.0, idle_s=2.0, total_s=60.0
)

PROVIDER_PLACES: Final = 16

MakeEngine = Callable[[Pace], KeyedEngine]


Serve = Callable[["SimNode", SimRandomness], Awaitable[Served]]
"""Makes what answers a node's attempts, for one life of it."""


def embedded(make_engine: MakeEngine) -> Serve:
    """A model run by the node itself."""

    async def serve(node: "SimNode", randomness: SimRandomness) -> Served:
        chat = EmbeddedChat(
            make_engine(node.pace), node.identity, choices_max=PLACES, nonces=SimNonces(randomness)
        )
        await chat.load()
        return Served(chat, Gate(PLACES, QUEUE_MAX, clock=node.clock))

    return serve


def fronting(engine: OpenAIEngine) -> Serve:
    """A provider's account at a simulated endpoint."""

    async def serve(node: "SimNode", _randomness: SimRandomness) -> Served:
        caller = provider_kinds.caller(engine, SimTransport(node.network), None, node.clock)
        models = ProviderModels(
            chat=engine.models,
            embeddings=engine.embedding_models,
            prefixes=Prefixes(default=engine.prefix or "none"),
            limits=engine.limits.stated(),
        )
        service = Provider(caller, engine.url, models, node.identity)
        return Served(service, Gate(PROVIDER_PLACES, QUEUE_MAX, clock=node.clock))

    return serve


class SimNode:
    """One node's machine: its key and disk, and the process on it, if any."""

    def __init__(
        self,
        name: str,
        network: Network,
        serve: Serve,
        random: Random,
        *,
        key: Signer | None = None,
        skew_ms: int = 0,
    ) -> None:
        """``key``: what it signs with, if not with the key that the gateway knows it by."""
        self.name = name
        self.operator = f"{name}.example"
        own = Signer.generate(f"{self.operator}/node", sha256(name.encode()).digest())
        self.key: VerifierKey = own.vkey
        self.pace = Pace()
        self.disk = Disk(name, NODE_MIGRATIONS, random)
        self.lives = 0
        self.process: Process | None = None
        self.network = network
        self.clock = SimClock(skew_ms)
        self._signer = key or own
        self._serve = serve
        self._random = random

    @property
    def identity(self) -> Identity:
        return Identity(node=self.key.name, operator=self.operator, key=str(self.key))

    async def start(self) -> bool:
        """A new process on this machine; False if it did not survive its own start."""
        self.lives += 1
        process = self.process = Process(f"{self.name}#{self.lives}")
        randomness = SimRandomness(f"{self._random.random()}")
        return await _up(self.network, self.name, process, self._open(randomness))

    async def kill(self) -> None:
        """SIGKILL."""
        process, self.process = self.process, None
        self.network.server(self.name).down()
        if process is not None:
            await process.kill()

    async def _open(self, randomness: SimRandomness) -> "_NodeFront":
        database = self.disk.mount()
        served = await self._serve(self, randomness)
        attempts = Attempts(
            (served,),
            identity=self.identity,
            signer=ReceiptSigner(self._signer, database, clock=self.clock, enqueue=None),
            database=database,
            clock=self.clock,
            randomness=randomness,
            logger=self.network.trace.logger(self.name),
        )
        return _NodeFront(self.identity, served, attempts)


class _NodeFront:
    """The node's HTTP paths, as :class:`trunkline.node.app.NodeApp` has them."""

    def __init__(self, identity: Identity, served: Served, attempts: Attempts) -> None:
        self._identity = identity
        self._served = served
        self._router = Router(_refuse)
        self._router.add("POST", ATTEMPT_PATH, attempts.handle)
        self._router.add("GET", INFO_PATH, self._info)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router.dispatch(Call(scope, receive, send))

    async def _info(self, call: Call) -> None:
        served = self._served
        await call.reply_json(
            200,
            NodeInfo(
                node=self._identity.node,
                operator=self._identity.operator,
                key=self._identity.key,
                models=served.service.models(),
                log=None,
                ready=True,
                running=served.gate.running,
                queued=served.gate.queued,
            ),
        )


async def _refuse(call: Call, error: Error) -> None:
    await reply_error(call, errors.node_error(error))


class SimLog:
    """:class:`trunkline.gateway.evidence.Prover`. Down, slow, or twins: an entry refused and not
    taken, and one taken whose answer is lost."""

    def __init__(self, random: Random) -> None:
        self.down = False
        self.entries: dict[bytes, int] = {}
        self.loses: Callable[[], bool] = lambda: False
        self._random = random

    async def prove(self, entry: bytes, timeout_s: float) -> str:
        await asyncio.sleep(self._random.uniform(0.01, 0.2))
        if self.down:
            raise ConnectError("the log is down", code=REFUSED)
        if self.loses():
            if self._random.random() < 0.5:
                self.entries.setdefault(entry, len(self.entries))
            raise TimedOutError("the log did not answer")
        index = self.entries.setdefault(entry, len(self.entries))
        return f"c2sp.org/tlog-proof@v1\nindex {index}\n"


class SimMemory:
    """:class:`trunkline.gateway.health_file.Memory` that outlives the process."""

    def __init__(self) -> None:
        self._data = b""

    def read(self) -> bytes:
        return self._data

    def write(self, data: bytes) -> None:
        self._data = data


class SimGateway:
    """The gateway's machine."""

    def __init__(
        self,
        nodes: list[SimNode],
        network: Network,
        log: SimLog,
        random: Random,
        *,
        policy: RoutingPolicy,
        open_store: Callable[[Disk], EvidenceStore],
    ) -> None:
        """``policy``: its keys are made, with secrets as :func:`secret_of` has them."""
        self.disk = Disk(GATEWAY, GATEWAY_MIGRATIONS, random)
        self.lives = 0
        self.deaths = 0
        self.stops = 0
        self.process: Process | None = None
        self._app: Gateway | None = None
        self.clock = SimClock()
        self._network = network
        self._log = log
        self._random = random
        self._open_store = open_store
        self._keys = Disk(f"{GATEWAY}-keys", KEY_MIGRATIONS, random)
        self._memory = SimMemory()
        self._policy = policy
        self._settings = GatewayConfig(
            policy_file="policy",
            keys="required",
            log_url="http://log",
            nodes=tuple(NodeConfig(url=f"http://{n.name}", vkey=str(n.key)) for n in nodes),
            timeouts=TIMEOUTS,
            poll_s=4.0,
        )

    def close(self) -> None:
        """Throw the disks away."""
        self.disk.close()
        self._keys.close()

    async def make_keys(self) -> None:
        """As ``trunkline keys create`` does, once."""
        store = KeyStore(self._keys.mount())
        for name in self._policy.keys:
            row = KeyRow(
                id=tenant_of(name), name=name, created_ms=0, expires_ms=None, revoked_ms=None
            )
            await store.create(row, digest_of(secret_of(name)))

    async def start(self) -> bool:
        """A new process on this machine; False if it did not survive its own start."""
        self.lives += 1
        process = self.process = Process(f"{GATEWAY}#{self.lives}")
        randomness = SimRandomness(f"{self._random.random()}")
        return await _up(self._network, GATEWAY, process, self._open(randomness))

    async def kill(self) -> None:
        """SIGKILL."""
        self.deaths += 1
        process, self.process = self.process, None
        self._network.server(GATEWAY).down()
        if process is not None:
            await process.kill()

    async def stop(self) -> None:
        """SIGTERM: no new calls, time to finish, an explicit end for what still runs."""
        process, app = self.process, self._app
        server = self._network.server(GATEWAY)
        server.down()
        self.stops += 1
        if process is None or app is None:
            return
        for running_s in (GRACE_S, STOPPING_S):
            left = list(server.running)
            if left:
                await asyncio.wait(left, timeout=running_s)
            server.stopping.set()
        if process.alive:
            await asyncio.wait([process.spawn(app.shutdown())], timeout=STOPPING_S)
            self.process = None
            await process.kill()

    async def _open(self, randomness: SimRandomness) -> Gateway:
        logger = self._network.trace.logger(GATEWAY)
        routing = Routing(None, clock=self.clock, logger=logger)
        routing.current = self._policy
        app = self._app = Gateway(
            self._settings,
            self._open_store(self.disk),
            self._log,
            SimTransport(self._network),
            policy="",
            clock=self.clock,
            randomness=randomness,
            logger=logger,
            routing=routing,
            key_store=KeyStore(self._keys.mount()),
            memory=self._memory,
        )
        await app.startup()
        return app


async def _up(
    network: Network, host: str, process: Process, opening: Coroutine[Any, Any, App]
) -> bool:
    """Open a role's application inside its process and let it answer at its address."""
    task = process.spawn(opening)
    await asyncio.wait([task])
    if task.cancelled():
        return False
    error = task.exception()
    if error is not None:
        if not isinstance(error, Error):
            raise error
        # Its disk failed it: a real process would exit, and be started again.
        network.trace.note(host, "start.failed", error=error.error_code)
        await process.kill()
        return False
    network.server(host).up(process, task.result())
    return True


def secret_of(name: str) -> str:
    """The virtual key of this name."""
    return PREFIX + b32encode(sha256(name.encode()).digest()).decode().rstrip("=").lower()


def tenant_of(name: str) -> str:
    """Its tenant's id."""
    return f"ten_{name}"


class StoredPart(msgspec.Struct, frozen=True):
    """What the gateway's disk holds of an answer."""

    signed: bytes
    proven: bool


def stored(disk: Disk, answer: str) -> StoredPart | None:
    """Look at the gateway's disk from outside: the committed part of an answer."""
    row = disk.connection.execute(
        "SELECT signed, proof IS NOT NULL FROM parts WHERE answer = ?", (answer,)
    ).fetchone()
    return None if row is None else StoredPart(row[0], bool(row[1]))
