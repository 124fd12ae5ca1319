"""The node as a process: its parts put together, its HTTP paths, its start and its end.

Paths: ``POST /v1/attempts``, ``GET /v1/info``, ``GET /healthz``, ``GET /v1/receipts/<attempt>``,
``POST /v1/openings``, ``POST /v1/plants``, ``GET /v1/self-test``,
``GET /v1/nonces/<root>/<index>``. There is no authentication but the demands' and plants' own: the
address is where access is limited. A receipt is found by its attempt's id alone, which its gateway
made up and nobody else can guess.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from re import compile as regex
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError, Error, RequestError
from trunkline.base.ports import Clock, Randomness
from trunkline.crypto.signer import Signer
from trunkline.engine.client import JOBS_MAX, EmbeddedEngine, EngineConfig
from trunkline.engine.embeddings import EmbeddedEmbedder, EmbedderConfig
from trunkline.engine.vllm import VllmConfig
from trunkline.engine.vllm import VllmEngine as VllmClient
from trunkline.inference.ports import Embedder, Engine
from trunkline.node import accounts, publish, store
from trunkline.node import config as configuration
from trunkline.node.attempts import Attempts, Served, reply_error
from trunkline.node.cache import AnswerCache
from trunkline.node.chat import EmbeddedChat
from trunkline.node.config import EmbeddedEngine as EngineSettings
from trunkline.node.config import NodeConfig, VllmEngine
from trunkline.node.config_providers import ProviderEngine
from trunkline.node.core import envelope
from trunkline.node.core.keyring import KeyState
from trunkline.node.core.statement import Identity
from trunkline.node.dates import Dates, last_dated
from trunkline.node.embeddings import EmbeddedEmbeddings
from trunkline.node.gate import Gate
from trunkline.node.nonces import Nonces
from trunkline.node.openings import OpeningDesk, OpeningKeeper, nothing_kept
from trunkline.node.plants import PlantDesk
from trunkline.node.self_test import SelfTesting, SelfTests
from trunkline.node.signing import Enqueue, ReceiptSigner
from trunkline.node.statements import Statements
from trunkline.node.store import create_store
from trunkline.node.telemetry import NodeGauges, NodeTelemetry, provider_name
from trunkline.node.terms import StatedTerms
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.remote.transport import Transport
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.config import read_key, resolve
from trunkline.runtime.crash import crash_hook
from trunkline.runtime.http import Call, Receive, Router, Scope, Send
from trunkline.runtime.logger import Logger, get_logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.outbox import Outbox
from trunkline.runtime.server import run_server
from trunkline.runtime.store import Database
from trunkline.schema import errors
from trunkline.schema.attempt import ATTEMPT_PATH, HEALTH_PATH, INFO_PATH, NodeInfo
from trunkline.schema.audit import NONCES_PREFIX, OPENINGS_PATH, PLANTS_PATH, SELF_TEST_PATH

__all__ = ["NodeApp", "create_store", "run"]

RECEIPTS_PREFIX: Final = "/v1/receipts/"
PLACE: Final = regex(r"([0-9a-f]{64})/(0|[1-9][0-9]{0,8})")
"""Of a nonce, in the path after ``NONCES_PREFIX``."""
LOG_INDEX_HEADER: Final = "trunkline-log-index"
RELOAD_S: Final = 5.0
"""Between two tries to load the model, or to ask the upstream for its models."""
SPARE_CONNECTIONS: Final = 16
"""To one origin, for what is asked beside the calls."""
EMBEDDINGS_AT_ONCE: Final = 4
"""The embedder takes turns between calls, so that a small one does not wait for a large one."""


class NodeApp:
    """The ASGI application. Opened by :meth:`startup`, closed by :meth:`shutdown`."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        base: Path,
        engine: Engine | None = None,
        embedder: Embedder | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        randomness: Randomness | None = None,
        logger: Logger | None = None,
    ) -> None:
        """``base``: the file that relative paths start at (its folder need not hold it). The
        parts given are used in place of those that the configuration names, and closed with it.

        Raises :class:`ConfigError` for a key that can not be used.
        """
        self._config = config
        self._base = base
        self._clock = clock or SystemClock()
        self._randomness = randomness or SystemRandomness()
        self._logger = logger or get_logger("node")
        self._signer = _read_key(config, base)
        self._identity = Identity(
            node=config.name, operator=config.operator, key=str(self._signer.vkey)
        )
        self._log = None if config.log is None else configuration.log_key(config.log)
        said = config.operator_file
        self._statements = Statements(
            None if said is None else resolve(base, said), config.name, logger=self._logger
        )
        self._engine = engine
        self._embedder = embedder
        self._transport = transport
        self._database: Database | None = None
        self._outbox: Outbox[int] | None = None
        self._receipts: ReceiptSigner | None = None
        self._nonces: Nonces | None = None
        self._terms: StatedTerms | None = None
        self._keeper: OpeningKeeper | None = None
        self._plants: PlantDesk | None = None
        self._served: tuple[Served, ...] = ()
        self._keys: Callable[[], tuple[KeyState, ...]] = tuple
        self._tasks: list[asyncio.Task[None]] = []
        self._load: Callable[[], Awaitable[object]] | None = None
        """Reads what the engine is."""
        self._looking: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._failed = ""
        self._router = Router(_reply_error)
        self._router.add("GET", INFO_PATH, self._info)
        self._router.add("GET", HEALTH_PATH, self._health)
        self._router.add_prefix("GET", RECEIPTS_PREFIX, self._receipt)
        self._router.add_prefix("GET", NONCES_PREFIX, self._nonce)
        self._metrics = Metrics()
        self._telemetry = NodeTelemetry(self._metrics, provider_name(config))
        self._gauges = NodeGauges(self._metrics)
        self._metrics.refresh.append(self._look)
        self._metrics.add_route(self._router, config.telemetry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router.dispatch(Call(scope, receive, send))

    async def startup(self) -> None:
        """Open the store, start the engine's loading and the deliveries to the log."""
        self._database = store.open_store(resolve(self._base, self._config.data))
        dates = Dates(self._clock, await self._database.read(last_dated))
        self._transport = self._transport or _transport(self._config.engine)
        enqueue = self._publish(self._database, self._transport)
        self._terms = await self._state(self._database, enqueue, dates)
        self._keeper = self._keep(self._database)
        self._plants = self._plant()
        self._receipts = ReceiptSigner(
            self._signer,
            self._database,
            clock=dates,
            enqueue=enqueue,
            keep=None if self._keeper is None else self._keeper.keep,
        )
        self._nonces = await self._commit(self._database, enqueue)
        self._served = tuple(self._serve(self._transport))
        cache = self._config.cache
        attempts = Attempts(
            self._served,
            identity=self._identity,
            signer=self._receipts,
            database=self._database,
            clock=self._clock,
            randomness=self._randomness,
            logger=self._logger,
            telemetry=self._telemetry,
            cache=None if cache is None else AnswerCache(cache, self._database, clock=self._clock),
            audited=self._keeper is not None,
        )
        self._router.add("POST", ATTEMPT_PATH, attempts.handle)
        self._audit(self._database, self._transport, enqueue, dates)

    async def shutdown(self) -> None:
        """Finish what was promised, then close. Also after a start that failed half-way."""
        if self._receipts is not None:
            await self._receipts.close()
        if self._looking is not None:
            self._tasks.append(self._looking)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._nonces is not None:
            await self._nonces.close()
        for part in (self._engine, self._embedder):
            if part is not None:
                await part.close()
        if self._transport is not None:
            await self._transport.aclose()
        if self._database is not None:
            await self._database.aclose()

    async def wait_ready(self) -> None:
        """Wait until the model is loaded. The caller bounds the wait."""
        await self._ready.wait()

    def _publish(self, database: Database, transport: Transport) -> Enqueue | None:
        target = self._config.log
        if target is None:
            return None
        outbox = publish.publisher(
            database,
            LogCaller(transport, target.url),
            clock=self._clock,
            randomness=self._randomness,
            logger=self._logger,
        )
        self._outbox = outbox

        async def deliver() -> None:
            await publish.catch_up(database, outbox)
            await outbox.run()

        self._background(deliver(), "node.publish")
        return outbox.enqueue

    async def _state(
        self, database: Database, enqueue: Enqueue | None, dates: Dates
    ) -> StatedTerms | None:
        """Say in the log which audits are allowed, before the first receipt."""
        if enqueue is None:
            return None
        terms = StatedTerms(
            self._config.audits,
            self._signer,
            database,
            operator=self._identity.operator,
            clock=self._clock,
            dates=dates,
            enqueue=enqueue,
        )
        await terms.state()
        self._background(terms.run(), "node.terms")
        return terms

    def _keep(self, database: Database) -> OpeningKeeper | None:
        """Keep what opens receipts, where somebody may ask for it."""
        audits, terms = self._config.audits, self._terms
        if audits is None or terms is None:
            return None
        keeper = OpeningKeeper(audits, database, terms, clock=self._clock)
        self._background(keeper.run(), "node.openings")
        return keeper

    def _plant(self) -> PlantDesk | None:
        """Answer wrongly for the verifiers that try each other so, where the operator lets them."""
        audits = self._config.audits
        if audits is None or not audits.plants_per_day:
            return None
        keys = configuration.verifier_keys(audits)
        desk = PlantDesk(self._signer, keys, per_day=audits.plants_per_day, clock=self._clock)
        self._router.add("POST", PLANTS_PATH, desk.handle)
        return desk

    async def _commit(self, database: Database, enqueue: Enqueue | None) -> Nonces | None:
        """Commit to nonces, where the seeds are the node's own."""
        if not isinstance(self._config.engine, EngineSettings):
            return None
        nonces = Nonces(
            self._signer,
            database,
            clock=self._clock,
            randomness=self._randomness,
            enqueue=enqueue,
            crash=crash_hook(enabled=self._config.crash_points),
        )
        await nonces.open()
        return nonces

    def _audit(
        self, database: Database, transport: Transport, enqueue: Enqueue | None, dates: Dates
    ) -> None:
        """Set up what verifiers ask for."""
        audits, keeper, terms = self._config.audits, self._keeper, self._terms
        target, key = self._config.log, self._log
        if audits is None or keeper is None or terms is None or target is None or key is None:
            self._router.add("POST", OPENINGS_PATH, nothing_kept)
        else:
            desk = OpeningDesk(
                audits,
                keeper,
                database,
                self._nonces,
                terms,
                node=self._identity.node,
                log=key,
                show=partial(publish.show, LogCaller(transport, target.url)),
                clock=self._clock,
                logger=self._logger,
            )
            self._router.add("POST", OPENINGS_PATH, desk.handle)
        engine: object = self._engine
        tests = SelfTests(
            engine if isinstance(engine, SelfTesting) else None,
            self._signer,
            database,
            dates=dates,
            logger=self._logger,
            busy=lambda: any(served.gate.running for served in self._served),
            enqueue=enqueue,
        )
        self._router.add("GET", SELF_TEST_PATH, tests.handle)
        self._background(self._when_ready(tests.run), "node.self_test")

    async def _when_ready(self, work: Callable[[], Awaitable[None]]) -> None:
        await self._ready.wait()
        await work()

    def _serve(self, transport: Transport) -> Iterator[Served]:
        """Set up what answers, each with a gate of its own."""
        settings = self._config.engine
        if not isinstance(settings, EngineSettings):
            provider = accounts.provider(
                settings, self._base, transport, self._clock, self._identity
            )
            self._keys = provider.keys
            yield Served(provider, self._gate(settings.concurrency))
            self._background(self._loaded(provider.refresh), "node.models")
        elif self._nonces is not None:
            self._engine = self._engine or self._made(settings, transport)
            chat = EmbeddedChat(
                self._engine,
                self._identity,
                choices_max=settings.sequences,
                nonces=self._nonces,
                plants=self._plants,
            )
            self._load = chat.load
            yield Served(chat, self._gate(settings.sequences))
            self._background(self._loaded(chat.load), "node.load")
        if self._config.embeddings:
            self._embedder = self._embedder or EmbeddedEmbedder(EmbedderConfig())
            embeddings = EmbeddedEmbeddings(self._embedder, self._identity)
            yield Served(embeddings, self._gate(EMBEDDINGS_AT_ONCE))

    def _made(self, settings: EngineSettings, transport: Transport) -> Engine:
        """What answers with tokens of its own."""
        config = _engine_config(settings, self._base)
        if not isinstance(settings, VllmEngine):
            return EmbeddedEngine(config)
        vllm = VllmConfig(
            url=settings.server,
            vocabulary=msgspec.structs.replace(config, compute="vocabulary"),
            owner=self._config.name,
        )
        return VllmClient(vllm, transport, clock=self._clock)

    def _gate(self, places: int) -> Gate:
        return Gate(places, self._config.queue_max, clock=self._clock)

    def _background(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._note_end)
        self._tasks.append(task)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            # A damaged store, or a bug: the node goes on serving what it can, and says so.
            self._failed = error.error_code if isinstance(error, Error) else "internal_error"
            self._logger.crashed("background.failed", error, task=task.get_name())

    async def _loaded(self, load: Callable[[], Awaitable[object]]) -> None:
        """Load until it works; only a configuration that can not work ends the tries."""
        while True:
            try:
                await load()
            except ConfigError as error:
                self._failed = error.error_code
                self._logger.error("model.unusable", error=error.error_code, fix=error.message)
                return
            except Error as error:
                self._logger.warning("model.delayed", error=error.error_code)
                await asyncio.sleep(RELOAD_S)
            else:
                self._ready.set()
                self._logger.info("model.loaded")
                return

    def _look_again(self, load: Callable[[], Awaitable[object]]) -> None:
        """Begin to read anew what the engine is, unless that is under way: what computes may be
        replaced while the node runs. Nobody waits for it: who asks next is told."""
        if self._ready.is_set() and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(_try(load), name="node.look")
            self._looking.add_done_callback(self._note_end)

    async def _info(self, call: Call) -> None:
        if self._load is not None:
            self._look_again(self._load)
        await call.reply_json(
            200,
            NodeInfo(
                node=self._identity.node,
                operator=self._identity.operator,
                key=self._identity.key,
                models=tuple(model for served in self._served for model in served.service.models()),
                log=None if self._log is None else self._log.name,
                statements=await self._statements.read(),
                ready=self._ready.is_set(),
                running=sum(served.gate.running for served in self._served),
                queued=sum(served.gate.queued for served in self._served),
            ),
        )

    async def _health(self, call: Call) -> None:
        ready = self._ready.is_set() and not self._failed and not call.draining.is_set()
        waiting = await self._unlogged()
        await call.reply_json(
            200 if ready else 503,
            Health(
                ready=ready, error=self._failed, unlogged_batches=waiting, api_keys=self._keys()
            ),
        )

    async def _unlogged(self) -> int:
        """Batches on their way to the log."""
        if self._outbox is None or self._database is None:
            return 0
        return await self._database.read(store.unlogged)

    async def _look(self) -> None:
        """Set the gauges to what is so now."""
        if self._keeper is not None:
            self._gauges.openings(await self._keeper.kept_bytes(), self._keeper.dropped)
        waiting = await self._unlogged()
        self._gauges.look(
            ready=self._ready.is_set() and not self._failed,
            running=sum(served.gate.running for served in self._served),
            queued=sum(served.gate.queued for served in self._served),
            unlogged=waiting,
        )

    async def _receipt(self, call: Call) -> None:
        attempt = call.path.removeprefix(RECEIPTS_PREFIX)
        database = self._database
        found = None
        if database is not None and envelope.is_id(attempt):
            found = await database.read(lambda c: store.find_receipt(c, attempt))
        if found is None or found.private:
            raise RequestError("no receipt of that attempt", code="not_found", status=404)
        headers = [] if found.log_index is None else [(LOG_INDEX_HEADER, str(found.log_index))]
        await call.reply(200, found.signed, headers=headers)

    async def _nonce(self, call: Call) -> None:
        """For who checks a seed that another node took over: it has no receipt of this one's."""
        place = PLACE.fullmatch(call.path.removeprefix(NONCES_PREFIX))
        shown = None
        if self._nonces is not None and place is not None:
            shown = await self._nonces.show(bytes.fromhex(place[1]), int(place[2]))
        if shown is None:
            raise RequestError("no such nonce", code="not_found", status=404)
        await call.reply_json(200, shown)


async def _try(load: Callable[[], Awaitable[object]]) -> None:
    """An engine that can not be asked now tells whoever calls it."""
    with suppress(Error):
        await load()


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /healthz``: 200 when attempts are taken, else 503."""

    ready: bool
    error: str
    """Stable code of what keeps it from being ready for good; empty otherwise."""
    unlogged_batches: int
    """Signed and durable, and not yet with the log."""
    api_keys: tuple[KeyState, ...] = ()
    """The provider account's keys by their labels, where there are several."""


def _transport(engine: EngineSettings | ProviderEngine) -> HttpTransport:
    """As many connections to whoever answers as calls may run there."""
    match engine:
        case VllmEngine():
            most = _jobs_max(engine)
        case EngineSettings():
            most = 0
        case _:
            most = engine.concurrency
    return HttpTransport(max_connections_per_origin=most + SPARE_CONNECTIONS)


def run(config_path: Path) -> None:
    """Serve until told to stop. Raises :class:`ConfigError`; blocks."""
    config = configuration.read(config_path)
    logger = get_logger("node").bind(node=config.name)
    run_server(
        NodeApp(config, base=config_path, logger=logger),
        config.listen,
        logger=logger,
        shutdown_grace_s=config.shutdown_grace_s,
    )


def _read_key(config: NodeConfig, base: Path) -> Signer:
    path = resolve(base, config.key_file)
    signer = read_key(path, Signer.parse)
    if signer.name != config.name:
        raise ConfigError(f"{path}: the key is that of {signer.name}, not of {config.name}")
    return signer


def _jobs_max(settings: EngineSettings) -> int:
    """Calls of the engine that may run or wait: an answer of several choices makes several."""
    return max(JOBS_MAX, settings.sequences)


def _engine_config(settings: EngineSettings, base: Path) -> EngineConfig:
    model = settings.model_path
    return EngineConfig(
        cache_folder=str(resolve(base, settings.cache)),
        model_path="" if model is None else str(resolve(base, model)),
        model_name=settings.model or "",
        weights=settings.weights,
        sequences=settings.sequences,
        jobs_max=_jobs_max(settings),
        context_tokens=settings.context_tokens,
        threads=settings.threads,
    )


async def _reply_error(call: Call, error: Error) -> None:
    await reply_error(call, errors.node_error(error))
