"""A real gateway on loopback over scripted nodes and a scripted log, for tests."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import anthropic
import msgspec
import openai
from tests.support.fake_node import FakeNode

from trunkline.base.errors import ConnectError, Error
from trunkline.crypto.signer import Signer
from trunkline.gateway.config import GatewayConfig, NodeConfig, render
from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.evidence import Prover
from trunkline.gateway.front import Gateway
from trunkline.gateway.health_file import FileMemory
from trunkline.gateway.routing import Routing
from trunkline.gateway.store import EvidenceStore, create_store
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.transport import Response
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.logger import get_logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.otlp_export import Exporter
from trunkline.runtime.server import serving

QUICK = Timeouts(
    connect_s=1.0,
    head_s=0.3,
    first_event_s=0.4,
    first_token_s=0.4,
    whole_s=0.4,
    idle_s=0.3,
    total_s=20.0,
)
"""Short enough that a test of a hanging node is quick."""
PATIENCE_S = 90.0
"""How long a test waits for a gateway: longer than any of its own waits."""


class FakeLog:
    """A prover that answers at once, or fails while ``down``."""

    def __init__(self) -> None:
        self.down = False
        self.bugs = 0
        """Calls that fail by something outside the error tree."""
        self.entries: list[bytes] = []
        self.asked = asyncio.Event()

    async def prove(self, entry: bytes, timeout_s: float) -> str:
        assert timeout_s > 0
        self.asked.set()
        if self.bugs:
            self.bugs -= 1
            raise ValueError("a bug")
        if self.down:
            raise ConnectError("the log is down", code="upstream_refused")
        if entry not in self.entries:
            self.entries.append(entry)
        return f"c2sp.org/tlog-proof@v1\nindex {self.entries.index(entry)}\n\n"


class Reply:
    """A whole HTTP answer."""

    def __init__(self, response: Response, body: bytes) -> None:
        self.status = response.status
        self.header = response.header
        self.body = body

    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class PlainClient:
    """HTTP without any client library's opinions."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._transport = HttpTransport()

    async def get(self, path: str) -> Reply:
        async with await self._transport.request(
            "GET", self._url + path, head_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S
        ) as response:
            return Reply(response, await response.read(1 << 26))

    async def open(self, path: str, body: bytes, **headers: str) -> Response:
        """Post and hand over the response as it comes."""
        sent = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return await self._transport.request(
            "POST", self._url + path, headers=sent, body=body,
            head_timeout_s=PATIENCE_S, idle_timeout_s=PATIENCE_S,
        )  # fmt: skip

    async def post(self, path: str, body: bytes, **headers: str) -> Reply:
        async with await self.open(path, body, **headers) as response:
            return Reply(response, await response.read(1 << 26))

    async def aclose(self) -> None:
        await self._transport.aclose()


class Stack:
    """What a test holds in its hands."""

    def __init__(self, url: str, log: FakeLog, store: EvidenceStore) -> None:
        self.url = url
        self.log = log
        self.store = store
        self.http = PlainClient(url)
        self.openai = openai.AsyncOpenAI(
            base_url=url + "/v1", api_key="unused", max_retries=0, timeout=PATIENCE_S
        )
        self.anthropic = anthropic.AsyncAnthropic(
            base_url=url, api_key="unused", max_retries=0, timeout=PATIENCE_S
        )

    async def close(self) -> None:
        await self.http.aclose()
        await self.openai.close()
        await self.anthropic.close()


def settings(nodes: Sequence[FakeNode], timeouts: Timeouts = QUICK) -> GatewayConfig:
    return GatewayConfig(
        policy_file="policy",
        log_url="http://127.0.0.1:1",
        nodes=tuple(NodeConfig(url=node.url, vkey=node.vkey) for node in nodes),
        timeouts=timeouts,
        poll_s=0.2,
        shutdown_grace_s=0.2,
    )


@asynccontextmanager
async def gateway_over(
    nodes: Sequence[FakeNode],
    data: Path,
    *,
    log: FakeLog | None = None,
    timeouts: Timeouts = QUICK,
    store: EvidenceStore | None = None,
    grace_s: float = 0.2,
    config: GatewayConfig | None = None,
    prover: Prover | None = None,
    policy: str = "",
    routing: Path | None = None,
    metrics: Metrics | None = None,
    exporter: Exporter | None = None,
) -> AsyncIterator[Stack]:
    """Serve a gateway with its store in ``data``, and close it properly. ``routing``: the file of
    its routing policy."""
    if store is None:
        if not (data / "evidence.db").exists():
            create_store(data)
        store = EvidenceStore.open(data)
    used_log = FakeLog() if log is None else log
    app = Gateway(
        settings(nodes, timeouts) if config is None else config,
        store,
        prover or used_log,
        HttpTransport(),
        policy=policy,
        routing=Routing(routing, clock=SystemClock(), logger=get_logger("gateway")),
        memory=FileMemory(data),
        metrics=metrics,
        exporter=exporter,
        clock=SystemClock(),
        randomness=SystemRandomness(),
        logger=get_logger("gateway"),
    )
    async with serving(app, shutdown_grace_s=grace_s) as url:
        stack = Stack(url, used_log, store)
        try:
            yield stack
        finally:
            await stack.close()


MAIN = (
    "import sys; from pathlib import Path; from trunkline.cli.role import run;"
    "run('gateway', Path(sys.argv[1]))"
)
"""For ``python -c``: a gateway, by the path of its configuration."""


def write_config(folder: Path, config: GatewayConfig, *, routing: str | None = None) -> Path:
    """Write what :func:`process` runs: a configuration, its policy, and its routing file if there
    is one. The store is not made."""
    log_key = Signer.generate("net.localhost/log", sha256(b"log").digest()).vkey
    (folder / "policy").write_text(f"log {log_key}\nquorum none\n")
    if routing is not None:
        (folder / "routing.toml").write_text(routing)
        config = msgspec.structs.replace(config, routing_file="routing.toml")
    path = folder / "gateway.toml"
    path.write_text(render(msgspec.structs.replace(config, listen="127.0.0.1:0", data="data")))
    return path


@asynccontextmanager
async def process(config: Path) -> AsyncIterator[tuple[Process, str]]:
    """A gateway as a process of its own, and its URL, as its own logger reports it."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", MAIN, str(config), stderr=PIPE, env=dict(os.environ)
    )
    assert child.stderr is not None
    try:
        async with asyncio.timeout(30):
            while b"server.started" not in (line := await child.stderr.readline()):
                assert line, "it ended instead of starting"
        yield child, line.decode().partition('"url":"')[2].partition('"')[0]
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


class BrokenStore(EvidenceStore):
    """A store whose disk is full for new answers."""

    async def add(self, *_: object) -> None:
        raise Error("disk full", code="disk_failed")
