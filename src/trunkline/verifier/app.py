"""The verifier as a process: its parts put together, its loops, its start and its end.

Several processes may share one data folder: what must happen once is decided in the store. It
serves before it can check anything: engines start with the first audit that needs them.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from trunkline.base.errors import (
    ConfigError,
    Error,
    MalformedError,
    OverloadedError,
    UpstreamError,
    VerificationError,
)
from trunkline.base.ports import Clock, Randomness
from trunkline.crypto.signer import Signer
from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.engine.embeddings import EmbeddedEmbedder, EmbedderConfig
from trunkline.engine.vllm import VllmConfig, VllmScorer
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.remote.node import NodeCaller
from trunkline.remote.transport import Transport
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.config import read_key, resolve
from trunkline.runtime.crash import CrashHook, crash_hook
from trunkline.runtime.http import Call, Receive, Router, Scope, Send
from trunkline.runtime.logger import Logger, get_logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.server import run_server
from trunkline.runtime.store import Connection, Database, DiskError
from trunkline.schema.audit import AskedAudit, AskedVerdict, CheckedModel, VerifierInfo
from trunkline.verifier import calibrations, crash, ledger, queue, showing, store
from trunkline.verifier.api import Api, reply_error
from trunkline.verifier.auditing import Auditor
from trunkline.verifier.cases import Cases
from trunkline.verifier.config import (
    CheckedWeights,
    VerifierConfig,
    parse_key,
    read,
    read_policy,
)
from trunkline.verifier.core.entry import Reader
from trunkline.verifier.core.patience import Patience
from trunkline.verifier.demanding import Demander, KnownNode
from trunkline.verifier.drawing import Drawer
from trunkline.verifier.embedders import EmbedderMaker, Embedders
from trunkline.verifier.engines import Engines, ScoringEngine
from trunkline.verifier.follower import Follower
from trunkline.verifier.heeding import Heeder
from trunkline.verifier.judging import Judge
from trunkline.verifier.planting import Planter
from trunkline.verifier.plants import Plants
from trunkline.verifier.publishing import Publisher
from trunkline.verifier.queue import SqliteQueue
from trunkline.verifier.store import create_store
from trunkline.verifier.telemetry import VerifierGauges
from trunkline.verifier.withdrawing import Withdrawer

__all__ = ["VerifierApp", "create_store", "run"]

SPARE_CONNECTIONS: Final = 16
SEQUENCES: Final = 2
"""Answers that an engine scores at once: more only cost memory."""
PLANT_WAIT_S: Final = 5.0
"""For so long at least a failing verdict waits for its plant to be opened, if it is about one: log
and planter need some seconds."""
LOOKS_A_DRAW: Final = 5
"""One draw for what so many looks at the log find: each is two signatures, an entry of the log, and
work for all who read it."""
SCRUB_S: Final = 60.0
"""Between two times that openings which were deleted leave the write-ahead file."""
LOOK_S_MAX: Final = 2.0
"""For so long who asks for an audit waits for the log."""
UNDRAWN_MS: Final = 2_000
"""What a node signed so short a while ago is hardly in the log, drawn and opened by now."""
DISK_PAUSE_S: Final = 1.0
"""Before work goes on that a full or busy disk has ended."""
EngineMaker = Callable[[], ScoringEngine]


class VerifierApp:
    """The ASGI application. Opened by :meth:`startup`, closed by :meth:`shutdown`."""

    def __init__(
        self,
        config: VerifierConfig,
        *,
        base: Path,
        engines: Sequence[EngineMaker] | None = None,
        embedder: EmbedderMaker | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        randomness: Randomness | None = None,
        logger: Logger | None = None,
        reach: CrashHook | None = None,
    ) -> None:
        """``base``: the file that relative paths start at. The parts given are used in place of
        those that the configuration names.

        Raises :class:`ConfigError` for keys, a policy or calibrations that can not be used.
        """
        self._config = config
        self._base = base
        self._clock = clock or SystemClock()
        self._randomness = randomness or SystemRandomness()
        self._logger = logger or get_logger("verifier")
        self._reach = reach or crash_hook(enabled=config.crash_points)
        self._signer = _read_key(config, base)
        self._policy = read_policy(base, config)
        folder = config.calibrations
        self._known = calibrations.load(None if folder is None else resolve(base, folder))
        self._nodes = {one.vkey: parse_key(one.vkey, "nodes.vkey") for one in config.nodes}
        self._peers = {one.vkey: parse_key(one.vkey, "verifiers.vkey") for one in config.verifiers}
        self._transport = transport or HttpTransport(max_connections_per_origin=SPARE_CONNECTIONS)
        self._makers = engines if engines is not None else self._configured()
        self._engines = Engines(self._makers, clock=self._clock, idle_s=config.idle_s)
        self._embedders = Embedders(
            (embedder or _embedder) if config.embeddings else None,
            clock=self._clock,
            idle_s=config.idle_s,
            logger=self._logger,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._open_database: Database | None = None
        self._parts: _Parts | None = None
        self._broken = ""
        """Why a part of it has ended, a stable code."""
        self._contradicted = ""
        """Why the log is not believed, likewise."""
        self._router = Router(reply_error)
        self._api = Api(
            lambda: self._database, self._info, self._ask, self._signer, asked_max=config.asked_max
        )
        self._api.add_routes(self._router)
        self._router.add("GET", "/healthz", self._health)
        metrics = Metrics()
        self._gauges = VerifierGauges(metrics)
        metrics.refresh.append(self._look)
        metrics.add_route(self._router, config.telemetry)

    def _configured(self) -> list[EngineMaker]:
        return [partial(self._engine, model) for model in self._config.models]

    def _engine(self, model: CheckedWeights) -> ScoringEngine:
        config = _engine_config(model, resolve(self._base, self._config.cache), self._base)
        if model.server is None:
            return EmbeddedEngine(config)
        vllm = VllmConfig(
            url=model.server,
            vocabulary=config,
            owner=self._config.name,
            candidates=model.candidates,
        )
        return VllmScorer(vllm, self._transport, clock=self._clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router.dispatch(Call(scope, receive, send))

    @property
    def _database(self) -> Database:
        if self._open_database is None:
            raise OverloadedError("the verifier is not running", code="verifier_stopping")
        return self._open_database

    async def startup(self) -> None:
        """Open the store, and begin to follow the log."""
        self._open_database = store.open_store(resolve(self._base, self._config.data))
        await self._open_database.write(store.overwrite_deleted)
        await self._open_database.write(showing.catch_up)
        parts = self._parts = self._assemble(self._open_database)
        self._background(parts.publisher.run, "verifier.publish")
        self._background(self._engines.tend, "verifier.engines")
        self._background(self._embedders.tend, "verifier.embedder")
        self._background(partial(self._watch, parts), "verifier.watch")
        self._background(partial(_scrub, self._open_database), "verifier.scrub")
        if self._config.probe_per_minute:
            self._background(parts.planter.run, "verifier.plant")
        for number in range(self._config.audits_at_once):
            self._background(parts.auditor.run, f"verifier.audit.{number}")

    async def shutdown(self) -> None:
        """Let go of everything; what was begun is durable, or is begun again."""
        await self._api.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._engines.close()
        await self._embedders.close()
        await self._transport.aclose()
        if self._open_database is not None:
            await self._open_database.aclose()

    def _background(self, work: Callable[[], Coroutine[None, None, None]], name: str) -> None:
        task = asyncio.create_task(self._unless_broken(work, name), name=name)
        task.add_done_callback(self._note_end)
        self._tasks.append(task)

    async def _unless_broken(
        self, work: Callable[[], Coroutine[None, None, None]], name: str
    ) -> None:
        """Do it, and anew where the disk was full or busy: what was begun is durable, or is begun
        again."""
        while True:
            try:
                return await work()
            except (DiskError, OverloadedError) as error:
                if self._database.is_broken:
                    # Only a new process can tell what is there.
                    raise
                self._logger.error("background.paused", task=name, error=error.error_code)
                await asyncio.sleep(DISK_PAUSE_S)

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            # A damaged store, or a bug: it goes on serving what it has found, and says so.
            self._broken = error.error_code if isinstance(error, Error) else "internal_error"
            self._logger.crashed("background.failed", error, task=task.get_name())

    async def _watch(self, parts: "_Parts") -> None:
        """Follow the log, and do what follows from what is in it, until cancelled."""
        draw_s, logged = 0.0, False
        while True:
            now_s = self._clock.monotonic_s()
            if draws := now_s >= draw_s:
                draw_s = now_s + LOOKS_A_DRAW * self._config.poll_s
            try:
                # What was logged is committed by now: a step writes.
                if await parts.step(draws=draws) or logged:
                    self._api.revealed.set()
                    parts.auditor.wake.set()
                self._contradicted, logged = "", False
            except VerificationError as error:
                self._contradicted = error.error_code
                self._logger.error("log.contradicted", error=error.error_code)
            except (UpstreamError, OverloadedError, MalformedError) as error:
                # Away, or showing something unusable: it is asked again.
                self._logger.warning("log.unfollowed", error=error.error_code)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.poll_s):
                    await parts.progress.wait()
            logged = logged or parts.progress.is_set()
            parts.progress.clear()

    async def _info(self) -> VerifierInfo:
        def facts(connection: Connection) -> tuple[int, int, int]:
            head = store.read_head(connection)
            followed = 0 if head is None else head.frontier.size
            return followed, queue.count(connection), showing.newest(connection)

        followed, waiting, newest = await self._database.read(facts)
        return VerifierInfo(
            key=str(self._signer.vkey),
            operator=self._config.operator,
            rate_ppm=self._config.rate_ppm,
            models=tuple(
                CheckedModel(model=one.name, weights=one.weights_digest)
                for one in self._engines.models()
            ),
            log=self._policy.logs[0].key.name,
            followed=followed,
            waiting=waiting,
            verdicts=newest,
        )

    async def _ask(self, asked: AskedAudit, *, own: bool = False) -> AskedVerdict:
        if self._parts is None:
            raise OverloadedError("the verifier is not running", code="verifier_stopping")
        return await self._parts.auditor.asked(asked, own=own)

    async def _health(self, call: Call) -> None:
        error = self._broken or self._contradicted
        await call.reply_json(503 if error else 200, Health(error=error))

    async def _look(self) -> None:
        """Set the gauges to what is so now."""
        info = await self._info()
        results = await self._database.read(showing.results)
        gauges, work, parts = self._gauges, self._engines.work, self._parts
        gauges.followed.set(info.followed)
        gauges.waiting.set(info.waiting)
        gauges.verdicts.replace(results)
        gauges.cpu.set(self._engines.cpu_s())
        gauges.tokens.replace({("prompt",): work.prompt_tokens, ("answer",): work.tokens})
        if parts is not None:
            gauges.unlogged.set((await parts.publisher.counts()).waiting)
            gauges.left_out.set(parts.drawer.left_out)

    def _assemble(self, database: Database) -> "_Parts":
        config, clock, reach = self._config, self._clock, self._reach
        loop, progress = asyncio.get_running_loop(), asyncio.Event()
        log = LogCaller(self._transport, config.log_url)
        publisher = Publisher(
            database, log, clock=clock, randomness=self._randomness, logger=self._logger,
            reach=reach, on_logged=lambda: _wake(loop, progress),
        )  # fmt: skip
        reader = Reader(
            {key.name: key for key in self._nodes.values()},
            {key.name: key for key in self._peers.values()},
            self._signer.vkey,
        )
        verifiers = {self._peers[one.vkey].name: one.operator for one in config.verifiers}
        verifiers[self._signer.name] = config.operator
        nodes = {
            one.vkey: KnownNode(
                key=self._nodes[one.vkey],
                operator=one.operator,
                caller=NodeCaller(self._transport, one.url),
            )
            for one in config.nodes
        }
        judge = Judge(
            database, self._signer, publisher, operator=config.operator, clock=clock,
            randomness=self._randomness, reach=reach,
        )  # fmt: skip
        withdrawer = self._withdrawer(database, judge, publisher)
        follower = Follower(database, log, self._policy, reader, clock=clock, reach=reach)
        drawer = Drawer(
            database, self._signer, self._policy, publisher, operator=config.operator,
            rate_ppm=config.rate_ppm, peers=self._peers, clock=clock,
            randomness=self._randomness, reach=reach,
        )  # fmt: skip
        reveal_after_s = config.reveal_after_s if config.verifiers else 0.0
        plants = Plants(
            database, self._signer, publisher, operator=config.operator,
            peers={one.vkey: one.operator for one in config.verifiers},
            opinions=config.opinions, reveal_after_ms=int(reveal_after_s * 1000), clock=clock,
            randomness=self._randomness,
        )  # fmt: skip
        return _Parts(
            database=database,
            publisher=publisher,
            follower=follower,
            drawer=drawer,
            heeder=Heeder(
                database, keys=self._peers, verifiers=verifiers, name=self._signer.name,
                opinions_count=config.opinions, withdrawer=withdrawer, clock=clock,
            ),
            withdrawer=withdrawer,
            plants=plants,
            auditor=Auditor(
                database,
                SqliteQueue(
                    database, clock=clock, randomness=self._randomness,
                    lease_ms=int(config.lease_s * 1000),
                ),
                Demander(nodes, self._signer, operator=config.operator, clock=clock),
                Cases(
                    database, self._engines, self._embedders, judge, nodes=nodes,
                    known=self._known, clock=clock,
                ),
                judge,
                nodes=nodes,
                verifiers=verifiers,
                key=self._signer.vkey,
                policy=self._policy,
                opinions_count=config.opinions,
                known=self._known,
                patience=Patience(
                    opening_ms=int(config.opening_s * 1000),
                    unreachable_ms=int(config.unreachable_s * 1000),
                ),
                drawn=partial(self._is_drawn, follower, drawer),
                keep_s=config.lease_s / 3,
                clock=clock,
                logger=self._logger,
                reach=reach,
            ),
            planter=self._planter(database, tuple(nodes.values()), plants),
            progress=progress,
            reveal_after_ms=int(reveal_after_s * 1000),
            plant_wait_ms=int(min(PLANT_WAIT_S, reveal_after_s) * 1000),
            clock=clock,
            reach=reach,
        )  # fmt: skip

    async def _is_drawn(
        self,
        follower: Follower,
        drawer: Drawer,
        node: str,
        root: bytes,
        position: int,
        signed_ms: int,
    ) -> bool:
        """Whether anybody has drawn a receipt by now, as far as the log tells in time: somebody
        waits for the answer. Where the log does not tell, whatever is not new may be drawn."""
        began_ms = self._clock.unix_ms()
        try:
            async with asyncio.timeout(LOOK_S_MAX):
                while await follower.step():
                    pass
        except TimeoutError:
            self._logger.info("log.unseen", error="upstream_timeout")
        except (UpstreamError, MalformedError, VerificationError) as error:
            self._logger.info("log.unseen", error=error.error_code)
        if follower.followed_ms < began_ms and abs(began_ms - signed_ms) > UNDRAWN_MS:
            return True
        return await drawer.has_drawn(node, root, position)

    def _withdrawer(self, database: Database, judge: Judge, publisher: Publisher) -> Withdrawer:
        config = self._config
        verifiers = {
            one.vkey: (self._peers[one.vkey], one.operator) for one in config.verifiers
        } | {str(self._signer.vkey): (self._signer.vkey, config.operator)}
        return Withdrawer(
            database,
            judge,
            publisher,
            nodes={one.vkey: (self._nodes[one.vkey], one.operator) for one in config.nodes},
            verifiers=verifiers,
            clock=self._clock,
            randomness=self._randomness,
        )

    def _planter(self, database: Database, nodes: tuple[KnownNode, ...], plants: Plants) -> Planter:
        config = self._config
        callers = {
            self._peers[one.vkey].name: VerifierCaller(self._transport, one.url)
            for one in config.verifiers
        }
        return Planter(
            database,
            nodes,
            callers,
            partial(self._ask, own=True),
            plants=plants if config.verifiers else None,
            per_minute=config.probe_per_minute,
            plant_share=config.plant_share,
            clock=self._clock,
            randomness=self._randomness,
            logger=self._logger,
        )


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /healthz``: 200, or 503 where it can not go on."""

    error: str
    """Stable code of why: a part of it has ended, or the log contradicts itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a running verifier is made of."""

    database: Database
    publisher: Publisher
    follower: Follower
    drawer: Drawer
    heeder: Heeder
    withdrawer: Withdrawer
    plants: Plants
    auditor: Auditor
    planter: Planter
    progress: asyncio.Event
    """Set when a statement has reached the log: what waits for it can go on."""
    reveal_after_ms: int
    plant_wait_ms: int
    clock: Clock
    reach: CrashHook

    async def step(self, *, draws: bool) -> bool:
        """Follow the log to its end, and conclude what can be; ``draws``: and draw. Whether there
        was anything."""
        found = False
        self.publisher.look()
        while await self.follower.step():
            found = True
        # Not what somebody who asks follows meanwhile: nothing was concluded from that.
        followed_ms = self.follower.followed_ms
        conclusions: list[Callable[[], Awaitable[bool]]] = [
            self.drawer.join, self.heeder.step, self.plants.open_due,
            partial(self._withdraw, followed_ms), partial(self._reveal, followed_ms),
        ]  # fmt: skip
        if draws:
            conclusions.append(self.drawer.draw)
        for conclude in conclusions:
            while await conclude():
                found = True
        # What was followed a moment ago may have been concluded from all the same.
        return found or self.progress.is_set()

    async def _withdraw(self, followed_ms: int) -> bool:
        """Conclude what follows from plants, by the log up to then."""
        return await self.withdrawer.step(self._bounds(followed_ms))

    async def _reveal(self, followed_ms: int) -> bool:
        """Reveal verdicts that need not be kept back any longer, by the log up to then."""
        bounds = self._bounds(followed_ms)
        revealed = await self.database.write(lambda c: ledger.reveal_due(c, self.publisher, bounds))
        if revealed:
            self.reach(crash.VERDICT_REVEALED)
        return revealed > 0

    def _bounds(self, followed_ms: int) -> ledger.Bounds:
        return ledger.Bounds(
            now_ms=self.clock.unix_ms(),
            followed_ms=followed_ms,
            reveal_after_ms=self.reveal_after_ms,
            plant_wait_ms=self.plant_wait_ms,
        )


async def _scrub(database: Database) -> None:
    """Keep what was opened no longer on disk than it takes, until cancelled."""
    while True:
        await asyncio.sleep(SCRUB_S)
        await database.scrub()


def _wake(loop: asyncio.AbstractEventLoop, progress: asyncio.Event) -> None:
    # Called in the store's thread, which may outlive the loop.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(progress.set)


def run(config_path: Path) -> None:
    """Serve until told to stop. Raises :class:`ConfigError`; blocks."""
    config = read(config_path)
    os.nice(config.niceness)
    logger = get_logger("verifier").bind(verifier=config.name)
    run_server(
        VerifierApp(config, base=config_path, logger=logger),
        config.listen,
        logger=logger,
        shutdown_grace_s=config.shutdown_grace_s,
    )


def _read_key(config: VerifierConfig, base: Path) -> Signer:
    path = resolve(base, config.key_file)
    signer = read_key(path, Signer.parse)
    if signer.name != config.name:
        raise ConfigError(f"{path}: the key is that of {signer.name}, not of {config.name}")
    return signer


def _embedder() -> EmbeddedEmbedder:
    return EmbeddedEmbedder(EmbedderConfig())


def _engine_config(model: CheckedWeights, cache: Path, base: Path) -> EngineConfig:
    path = model.model_path
    return EngineConfig(
        cache_folder=str(cache),
        model_path="" if path is None else str(resolve(base, path)),
        model_name=model.model or "",
        weights=model.weights,
        compute="vocabulary" if model.compute == "vllm" else model.compute,
        sequences=SEQUENCES,
        context_tokens=model.context_tokens,
        threads=model.threads,
    )
