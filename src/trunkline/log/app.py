"""The log's HTTP service (C2SP tlog-tiles for readers, ``POST /add`` for submitters).

Serves only what the sequenced size covers, whatever lies on disk. Refuses to start where disk and
database disagree, and stops as soon as they might.
"""

import asyncio
import re
import signal
from collections.abc import Callable, Mapping
from gzip import compress
from pathlib import Path
from typing import Final

import msgspec

from trunkline.base.errors import (
    ConfigError,
    CorruptStateError,
    Error,
    MalformedError,
    OverloadedError,
    RequestError,
    VerificationError,
)
from trunkline.base.ports import Clock
from trunkline.crypto.signer import Signer
from trunkline.log import crash
from trunkline.log.config import LogConfig, policy_quorum, read, submitter_keys, witness_keys
from trunkline.log.core import tree as trees
from trunkline.log.core.admission import admit
from trunkline.log.core.cosigning import Cosigning, Signed, at_least
from trunkline.log.files import Folder
from trunkline.log.opening import open_tiles
from trunkline.log.sequencer import ROUND_ENTRIES_MAX, Sequencer
from trunkline.log.store import Current, LogStore, create_log
from trunkline.log.tiles import CHECKPOINT_CACHE, CHECKPOINT_TYPE, TILE_CACHE, TILE_TYPE, Tiles
from trunkline.log.witnessing import Publisher, Witness, read_published
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.transport import Transport
from trunkline.remote.witness import WitnessCaller
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.config import read_key, resolve
from trunkline.runtime.http import TEXT_TYPE, Call, Receive, Router, Scope, Send, http_status
from trunkline.runtime.logger import Logger, get_logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.server import run_server
from trunkline.runtime.store import DiskError
from trunkline.tlog.checkpoint import open_checkpoint
from trunkline.tlog.tile import ENTRY_BYTES_MAX, Tile, width_at

__all__ = ["LogService", "build", "create_log", "run"]

NO_STORE: Final = ("cache-control", "no-store")
TILE_READS_MAX: Final = 32
"""Tiles read from disk at once: each may take 16 MiB of memory."""
STOP_TIMEOUT_S: Final = 10.0
GZIP_LEVEL: Final = 1
"""Signatures and digests leave little to find: more would only cost."""


class LogStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /status``."""

    origin: str
    vkey: str
    size: int
    """Entries sequenced."""
    published: int
    """Size of the published checkpoint."""
    quorum: bool
    """Whether that one has the cosignatures it should have."""
    pending: int
    """Entries waiting to be sequenced."""
    minimum_index: int
    """Entries below it are no longer published."""


class LogService:
    """One log, as the server hosts it."""

    def __init__(
        self,
        *,
        config: LogConfig,
        data: Path,
        signer: Signer,
        transport: Transport,
        clock: Clock,
        logger: Logger,
        on_fatal: Callable[[], None],
        policy: bytes | None = None,
        tiles: Tiles | None = None,
        reach: crash.CrashHook = crash.no_crash,
    ) -> None:
        """``data``: the log's folder. ``transport`` is closed at shutdown. ``on_fatal`` is called
        when the log can not go on; it should stop the process. ``policy``: the text of
        ``policy_file``. ``tiles``: where the tiles are, closed at shutdown (default: in ``data``).
        """
        if signer.name != config.origin:
            raise ConfigError(f"key origin: the key in key_file is named {signer.name}")
        self._config = config
        self._tiles = Folder(data, reach) if tiles is None else tiles
        self._data = data
        self._signer = signer
        self._transport = transport
        self._clock = clock
        self._logger = logger
        self._on_fatal = on_fatal
        self._reach = reach
        self._witness_keys = witness_keys(config)
        self._quorum = (
            at_least(config.quorum_size)
            if policy is None
            else policy_quorum(policy, self._witness_keys)
        )
        self._submitters = submitter_keys(config)
        self._store: LogStore | None = None
        self._sequencer: Sequencer | None = None
        self._publisher: Publisher | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._reads = asyncio.Semaphore(TILE_READS_MAX)
        self.fatal: BaseException | None = None
        """Why the log stopped by itself, if it did."""
        self._router = Router(reply_error)
        self._router.add("POST", "/add", self._add)
        self._router.add("GET", "/checkpoint", self._checkpoint)
        self._router.add_prefix("GET", "/tile/", self._tile)
        self._router.add("GET", "/healthz", self._health)
        self._router.add("GET", "/status", self._status)
        metrics = Metrics()
        self._gauges = LogGauges(metrics)
        metrics.refresh.append(self._look)
        metrics.add_route(self._router, config.telemetry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router.dispatch(Call(scope, receive, send))

    async def startup(self) -> None:
        """Recover: take the database's word for the size, check the disk against it, delete what
        is beyond it. CorruptStateError where they disagree."""
        self._store = LogStore.open(self._data)
        current = await self._store.load()
        if current.vkey != str(self._signer.vkey):
            raise ConfigError(f"{self._data}: this log belongs to another key")
        try:
            tree, published = await asyncio.to_thread(self._recover, current)
        except OSError as error:
            raise DiskError(f"the tiles can not be read: {error.strerror}") from None
        newest = Signed(size=current.size, note=current.checkpoint)
        self._publisher = self._make_publisher(published, newest)
        self._sequencer = Sequencer(
            tree=tree,
            checkpoint=current.checkpoint,
            store=self._store,
            tiles=self._tiles,
            signer=self._signer,
            clock=self._clock,
            logger=self._logger,
            publish=self._publisher.offer,
            interval_ms=self._config.checkpoint_interval_ms,
            entries_max=self._config.pending_entries_max,
            bytes_max=self._config.pending_bytes_max,
            reach=self._reach,
        )
        for name, work in (("sequence", self._sequencer.run), ("publish", self._publisher.run)):
            task = asyncio.create_task(work(), name=f"log.{name}")
            task.add_done_callback(self._task_ended)
            self._tasks.append(task)
        self._logger.info("log.recovered", size=current.size, published=published.size)

    def _recover(self, current: Current) -> tuple[trees.Tree, Signed]:
        """The tree and what is published, from disk. Blocks."""
        checkpoint = open_checkpoint(current.checkpoint, self._signer.vkey)
        if checkpoint.size != current.size:
            raise CorruptStateError("the database's size is not that of its checkpoint")
        # Before anything is deleted: a database that is behind what was published is an old copy,
        # and what lies beyond its size is then not left over but the log.
        published = self._read_published(current)
        self._tiles.prepare()
        # Files beyond the size: a round that crashed before its swap. Never served, so they go.
        discarded = self._tiles.discard_beyond(current.size, ROUND_ENTRIES_MAX)
        if discarded:
            self._logger.warning("tiles.discarded", files=discarded)
        try:
            tiles = {tile: self._tiles.read_tile(tile) for tile in trees.edge_tiles(current.size)}
        except FileNotFoundError as error:
            raise CorruptStateError(f"{error}: missing; the checkpoint needs it") from None
        tree = trees.load(current.size, checkpoint.root, tiles)
        return tree, published

    def _read_published(self, current: Current) -> Signed:
        note_bytes = self._tiles.read_checkpoint()
        if note_bytes is None:
            raise CorruptStateError("the published checkpoint is missing")
        try:
            published = read_published(note_bytes, self._signer.vkey, self._witness_keys)
        except (MalformedError, VerificationError) as error:
            raise CorruptStateError(f"the published checkpoint: {error.message}") from None
        if published.size > current.size:
            # The database is an old copy. Going on would sign a second tree of the same size.
            raise CorruptStateError("the published checkpoint is beyond the database's")
        if self._config.minimum_index > published.size:
            raise ConfigError("key minimum_index: it is above the published size")
        return published

    def _make_publisher(self, published: Signed, newest: Signed) -> Publisher:
        callers = (WitnessCaller(self._transport, one.url) for one in self._config.witnesses)
        witnesses = [
            Witness(key=key, caller=caller)
            for key, caller in zip(self._witness_keys, callers, strict=True)
        ]
        cosigning = Cosigning(
            quorum=self._quorum,
            window_s=self._config.quorum_window_s,
            published=published,
            newest=newest,
            now_s=self._clock.monotonic_s(),
        )
        return Publisher(
            cosigning=cosigning,
            witnesses=witnesses,
            tiles=self._tiles,
            clock=self._clock,
            logger=self._logger,
            reach=self._reach,
        )

    async def shutdown(self) -> None:
        """Sequence what was accepted, then let go of everything."""
        if self._sequencer is not None:
            self._sequencer.stop()
        for task in self._tasks:
            if task.get_name() == "log.sequence":
                await asyncio.wait([task], timeout=STOP_TIMEOUT_S)
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_TIMEOUT_S)
        await self._transport.aclose()
        await asyncio.to_thread(self._tiles.close)
        if self._store is not None:
            await self._store.aclose()

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        # Acknowledging more than the disk holds is worse than being away: stop the process. Its
        # next start takes the database's word for what happened.
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        self.fatal = error
        self._logger.crashed("log.stopped", error)
        self._on_fatal()

    def _running(self) -> tuple[Sequencer, Publisher]:
        if self._sequencer is None or self._publisher is None or self.fatal is not None:
            raise OverloadedError("the log is not running", code="log_stopping")
        return self._sequencer, self._publisher

    async def _add(self, call: Call) -> None:
        sequencer, _ = self._running()
        entry = await call.body(ENTRY_BYTES_MAX)
        admit(entry, types=self._config.types_taken, submitters=self._submitters)
        index = await sequencer.add(entry)
        await call.reply(200, b"%d\n" % index, TEXT_TYPE, [NO_STORE])

    async def _checkpoint(self, call: Call) -> None:
        _, publisher = self._running()
        await call.reply(
            200, publisher.published, CHECKPOINT_TYPE, [("cache-control", CHECKPOINT_CACHE)]
        )

    async def _tile(self, call: Call) -> None:
        sequencer, _ = self._running()
        try:
            tile = Tile.parse(call.path.removeprefix("/"))
        except MalformedError as error:
            raise _not_found() from error
        # What lies on disk beyond the size may yet be replaced: it is not part of the log.
        if tile.width > width_at(tile.level, tile.index, sequencer.size):
            raise _not_found()
        # C2SP tlog-tiles, pruning: only what spans nothing else may be refused, a partial tile with
        # its full one.
        if tile.end <= self._config.minimum_index:
            raise RequestError("these entries are no longer published", code="pruned", status=410)
        async with self._reads:
            try:
                data = await asyncio.to_thread(self._tiles.read_tile, tile)
            except FileNotFoundError:
                raise CorruptStateError(f"{tile.path} is missing") from None
        headers = [("cache-control", TILE_CACHE)]
        if tile.level is None:
            # Hashes do not compress; entries do, and C2SP tlog-tiles wants them to be.
            headers.append(("vary", "accept-encoding"))
            if takes_gzip(call.header("accept-encoding") or ""):
                headers.append(("content-encoding", "gzip"))
                data = await asyncio.to_thread(compress, data, GZIP_LEVEL, mtime=0)
        await call.reply(200, data, TILE_TYPE, headers)

    async def _health(self, call: Call) -> None:
        self._running()
        await call.reply(200, b"ok\n", TEXT_TYPE, [NO_STORE])

    async def _look(self) -> None:
        sequencer, publisher = self._running()
        self._gauges.size.set(sequencer.size)
        self._gauges.published.set(publisher.published_size)
        self._gauges.quorum.set(publisher.has_quorum)
        self._gauges.pending.set(sequencer.pending)

    async def _status(self, call: Call) -> None:
        sequencer, publisher = self._running()
        status = LogStatus(
            origin=self._signer.name,
            vkey=str(self._signer.vkey),
            size=sequencer.size,
            published=publisher.published_size,
            quorum=publisher.has_quorum,
            pending=sequencer.pending,
            minimum_index=self._config.minimum_index,
        )
        await call.reply_json(200, status, [NO_STORE])


class LogGauges:
    """What is so now in a log. Listed in ``docs/operate/telemetry.md``."""

    def __init__(self, metrics: Metrics) -> None:
        self.size = metrics.gauge("trunkline.log.tree.size", "{entry}", "Entries sequenced")
        self.published = metrics.gauge(
            "trunkline.log.published.size",
            "{entry}",
            "Entries that the published checkpoint covers",
        )
        self.quorum = metrics.gauge(
            "trunkline.log.published.quorum", "1",
            "Whether the published checkpoint has the cosignatures it should have",
        )  # fmt: skip
        self.pending = metrics.gauge(
            "trunkline.log.pending", "{entry}", "Entries waiting to be sequenced"
        )


def _not_found() -> RequestError:
    return RequestError("the log has no such tile", code="not_found", status=404)


def takes_gzip(accepted: str) -> bool:
    """Whether an ``accept-encoding`` header allows gzip (RFC 9110, 12.5.3)."""
    weights: dict[str, str] = {}
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        weights[coding.strip()] = weight.replace(" ", "")
    weight = weights.get("gzip", weights.get("x-gzip", weights.get("*", "q=0")))
    return not re.fullmatch(r"q=0(\.0{0,3})?", weight)


async def reply_error(call: Call, error: Error) -> None:
    """A failure as ``{"error": {"code", "message"}}``."""
    headers = [NO_STORE]
    if isinstance(error, OverloadedError):
        headers.append(("retry-after", str(max(1, round(error.retry_after_s)))))
    body: Mapping[str, Mapping[str, str]] = {
        "error": {"code": error.error_code, "message": error.told}
    }
    await call.reply_json(http_status(error), body, headers)


def build(config_path: Path, *, logger: Logger | None = None) -> tuple[LogService, LogConfig]:
    """The service that a configuration file describes. ConfigError naming what is wrong."""
    config = read(config_path)
    signer = read_key(resolve(config_path, config.key_file), Signer.parse)
    reach = crash.crash_hook(enabled=config.crash_points)
    service = LogService(
        policy=_read_policy(config_path, config),
        config=config,
        data=resolve(config_path, config.data),
        tiles=open_tiles(config_path, config, reach),
        signer=signer,
        transport=HttpTransport(),
        clock=SystemClock(),
        logger=logger or get_logger("log"),
        # The server's own way of stopping: running calls end, and :meth:`shutdown` is called.
        on_fatal=lambda: signal.raise_signal(signal.SIGTERM),
        reach=reach,
    )
    return service, config


def _read_policy(config_path: Path, config: LogConfig) -> bytes | None:
    if config.policy_file is None:
        return None
    path = resolve(config_path, config.policy_file)
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def run(config_path: Path, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve the log until told to stop; blocks. Raises what made it stop by itself."""
    logger = get_logger("log")
    service, config = build(config_path, logger=logger)
    run_server(
        service,
        config.listen,
        logger=logger,
        on_ready=on_ready,
        shutdown_grace_s=config.shutdown_grace_s,
    )
    if service.fatal is not None:
        raise service.fatal
