"""The witness's HTTP service (C2SP tlog-witness): ``POST /add-checkpoint`` and what monitors read.

Anybody may ask; only a log's signature on a consistent checkpoint gets an answer. It never asks
anybody anything.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError, Error, OverloadedError, RequestError
from trunkline.base.ports import Clock
from trunkline.crypto.digest import sha256
from trunkline.crypto.signer import Cosigner, parse_cosigner
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.config import read_key, resolve
from trunkline.runtime.http import TEXT_TYPE, Call, Receive, Router, Scope, Send, http_status
from trunkline.runtime.logger import Logger, get_logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.server import run_server
from trunkline.tlog.add_checkpoint import ADD_CHECKPOINT_PATH, REQUEST_BYTES_MAX, SIZE_CONTENT_TYPE
from trunkline.witness.config import ALGORITHMS, WitnessConfig, known_logs, read
from trunkline.witness.core.decide import SizeConflictError, open_request
from trunkline.witness.store import WitnessStore, create_store

__all__ = ["WitnessService", "build", "create_store", "run"]

NO_STORE: Final = ("cache-control", "no-store")
SHORT_CACHE: Final = ("cache-control", "no-cache")


class WitnessedStatus(msgspec.Struct, frozen=True, kw_only=True):
    origin: str
    size: int
    """Latest cosigned size; 0 before the first."""


class WitnessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /status``."""

    name: str
    vkey: str
    """The cosigning key."""
    logs: tuple[WitnessedStatus, ...]


class WitnessService:
    """One witness, as the server hosts it."""

    def __init__(
        self, *, config: WitnessConfig, data: Path, signer: Cosigner, clock: Clock, logger: Logger
    ) -> None:
        if signer.name != config.name:
            raise ConfigError(f"key name: the key in key_file is named {signer.name}")
        if signer.cosigner_vkey.algorithm != ALGORITHMS[config.algorithm]:
            raise ConfigError(f"key algorithm: the key in key_file is not {config.algorithm}")
        self._data = data
        self._signer = signer
        self._clock = clock
        self._logger = logger
        self._logs = known_logs(config)
        self._origins = {sha256(origin.encode()).hex(): origin for origin in self._logs}
        self._open_store: WitnessStore | None = None
        self._router = Router(reply_error)
        self._router.add("POST", ADD_CHECKPOINT_PATH, self._add_checkpoint)
        self._router.add("GET", "/healthz", self._health)
        self._router.add("GET", "/status", self._status)
        metrics = Metrics()
        self._sizes = metrics.gauge(
            "trunkline.witness.tree.size", "{entry}", "Latest cosigned size of a log", "origin"
        )
        self._asked = metrics.counter(
            "trunkline.witness.checkpoints", "{checkpoint}",
            "Checkpoints that logs asked to have cosigned; error.type: why one was not",
            "origin", "error.type",
        )  # fmt: skip
        metrics.refresh.append(self._look)
        metrics.add_route(self._router, config.telemetry)
        for origin_hash in self._origins:
            self._router.add("GET", f"/{origin_hash}/checkpoint", self._latest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router.dispatch(Call(scope, receive, send))

    async def startup(self) -> None:
        self._open_store = WitnessStore.open(self._data)

    async def shutdown(self) -> None:
        if self._open_store is not None:
            await self._open_store.aclose()

    @property
    def _store(self) -> WitnessStore:
        if self._open_store is None:
            raise OverloadedError("the witness is not running", code="witness_stopping")
        return self._open_store

    def _now_s(self) -> int:
        return self._clock.unix_ms() // 1000

    async def _add_checkpoint(self, call: Call) -> None:
        body = await call.body(REQUEST_BYTES_MAX)
        submission = open_request(body, self._logs)
        checkpoint = submission.checkpoint
        line = self._logger.line(
            "cosignature.asked",
            origin=checkpoint.origin,
            old_size=submission.old_size,
            size=checkpoint.size,
        )
        try:
            # A crash before the commit in here: nothing was cosigned. After it: the record says
            # cosigned though nobody has the cosignature; the log asks again and gets another one.
            cosignature = await self._store.cosign(submission, self._signer, self._now_s)
        except SizeConflictError as conflict:
            line.set(refused=conflict.error_code, known_size=conflict.size)
            self._asked.add(checkpoint.origin, conflict.error_code)
            await call.reply(409, b"%d\n" % conflict.size, SIZE_CONTENT_TYPE, [NO_STORE])
        except RequestError as refused:
            # Signed by the log, and not consistent: it may be proof of the log's misbehaviour.
            line.failed(refused)
            self._asked.add(checkpoint.origin, refused.error_code)
            raise
        else:
            self._asked.add(checkpoint.origin, "")
            await call.reply(200, cosignature, TEXT_TYPE, [NO_STORE])
        finally:
            line.emit()

    async def _latest(self, call: Call) -> None:
        origin = self._origins[call.path.split("/")[1]]
        latest = await self._store.latest(origin)
        if latest is None:
            raise RequestError("nothing cosigned for this log yet", code="not_found", status=404)
        await call.reply(200, latest, TEXT_TYPE, [SHORT_CACHE])

    async def _health(self, call: Call) -> None:
        await self._store.sizes()
        await call.reply(200, b"ok\n", TEXT_TYPE, [NO_STORE])

    async def _look(self) -> None:
        sizes = await self._store.sizes()
        self._sizes.replace({(one,): sizes.get(one, 0) for one in self._logs})

    async def _status(self, call: Call) -> None:
        sizes = await self._store.sizes()
        logs = tuple(WitnessedStatus(origin=one, size=sizes.get(one, 0)) for one in self._logs)
        status = WitnessStatus(
            name=self._signer.name, vkey=str(self._signer.cosigner_vkey), logs=logs
        )
        await call.reply_json(200, status, [NO_STORE])


async def reply_error(call: Call, error: Error) -> None:
    """A failure as ``{"error": {"code", "message"}}``."""
    body = {"error": {"code": error.error_code, "message": error.message}}
    await call.reply_json(http_status(error), body, [NO_STORE])


def build(
    config_path: Path, *, logger: Logger | None = None
) -> tuple[WitnessService, WitnessConfig]:
    """The service that a configuration file describes. ConfigError naming what is wrong."""
    config = read(config_path)
    signer = read_key(resolve(config_path, config.key_file), parse_cosigner)
    service = WitnessService(
        config=config,
        data=resolve(config_path, config.data),
        signer=signer,
        clock=SystemClock(),
        logger=logger or get_logger("witness"),
    )
    return service, config


def run(config_path: Path, *, on_ready: Callable[[str], None] | None = None) -> None:
    """Serve the witness until told to stop; blocks."""
    logger = get_logger("witness")
    service, config = build(config_path, logger=logger)
    run_server(
        service,
        config.listen,
        logger=logger,
        on_ready=on_ready,
        shutdown_grace_s=config.shutdown_grace_s,
    )
