"""A node with a scripted engine, served over real HTTP, and a caller that reads the protocol."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer
from trunkline.inference.ports import Embedder, Engine
from trunkline.node.app import NodeApp
from trunkline.node.config import NodeConfig
from trunkline.node.store import create_store
from trunkline.receipts import request_digest
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.node import (
    AcceptedEvent,
    AttemptEvent,
    ChunkEvent,
    ErrorEvent,
    LimitsEvent,
    NodeCaller,
    ProgressEvent,
    ReceiptEvent,
    ReplayedEvent,
)
from trunkline.runtime.server import serving
from trunkline.schema.attempt import (
    Accepted,
    Attempt,
    Limits,
    NodeError,
    PreviousAttempt,
    Resume,
    SignedReceipt,
)

NAME = "alpha.example/node"
SIGNER = Signer.generate(NAME, b"\x07" * 32)
KEY: VerifierKey = SIGNER.vkey


def attempt(
    request: dict[str, object],
    *,
    number: int = 1,
    model: str = "scripted",
    kind: str = "chat",
    resume: Sequence[Sequence[int]] | None = None,
    seed: str | None = None,
    numerics: str | None = None,
    deadline_ms: int = 120_000,
    previous: tuple[PreviousAttempt, ...] = (),
) -> Attempt:
    raw = msgspec.json.encode({"model": model} | request)
    return Attempt(
        kind="embeddings" if kind == "embeddings" else "chat",
        attempt=f"att_{number}",
        answer="ans_one",
        created_s=1_780_000_000,
        model=model,
        client_format="openai.embeddings" if kind == "embeddings" else "openai.chat",
        client_request_digest=request_digest(raw),
        caller_nonce="ab" * 32,
        deadline_ms=deadline_ms,
        seed=seed,
        numerics=numerics,
        previous=previous,
        resume=None if resume is None else Resume(tokens=tuple(tuple(t) for t in resume)),
        request=msgspec.Raw(raw),
    )


def chat(text: str = "hello", *, stream: bool = True, **more: object) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": text}], "stream": stream} | more


class Heard(msgspec.Struct, kw_only=True):
    """Everything that one attempt said."""

    accepted: Accepted | None = None
    chunks: list[ChunkEvent] = []
    progress: list[tuple[tuple[int, int], ...]] = []
    replayed: str | None = None
    limits: list[Limits] = []
    error: NodeError | None = None
    signed: SignedReceipt | None = None

    @property
    def data(self) -> list[bytes]:
        return [chunk.data for chunk in self.chunks if chunk.data is not None]

    @property
    def tokens(self) -> list[tuple[int, int]]:
        return [token for chunk in self.chunks for token in chunk.tokens]

    @property
    def text(self) -> str:
        """Of choice 0."""
        chunks = [msgspec.json.decode(data) for data in self.data]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        deltas = [choice["delta"] for choice in choices if choice["index"] == 0]
        return "".join([delta.get("content") or "" for delta in deltas])

    def take(self, event: AttemptEvent) -> None:
        match event:
            case AcceptedEvent():
                self.accepted = event.accepted
            case ChunkEvent():
                self.chunks.append(event)
            case ProgressEvent():
                self.progress.append(event.tokens)
            case ReplayedEvent():
                self.replayed = event.digest
            case LimitsEvent():
                self.limits.append(event.limits)
            case ErrorEvent():
                self.error = event.error
            case ReceiptEvent():
                self.signed = event.signed


class Node:
    """A running node."""

    def __init__(self, app: NodeApp, base_url: str, transport: HttpTransport) -> None:
        self.app = app
        self.base_url = base_url
        self.transport = transport
        self.caller = NodeCaller(transport, base_url)

    async def hear(self, what: Attempt, *, first_id: int = 0) -> Heard:
        heard = Heard()
        async with await self.caller.attempt(what, 30.0, first_id=first_id) as stream:
            async for event in stream:
                heard.take(event)
        return heard

    async def get(self, path: str) -> tuple[int, bytes, str | None]:
        response = await self.transport.request("GET", self.base_url + path)
        async with response:
            body = await response.read(1 << 20)
            return response.status, body, response.header("trunkline-log-index")

    async def post(self, body: bytes) -> tuple[int, bytes]:
        response = await self.transport.request("POST", self.base_url + "/v1/attempts", body=body)
        async with response:
            return response.status, await response.read(1 << 20)


def prepare(folder: Path) -> Path:
    """A node's folder with key and store; returns the configuration's path."""
    if not (folder / "key").exists():
        folder.mkdir(parents=True, exist_ok=True)
        key = folder / "key"
        key.write_text(SIGNER.skey() + "\n")
        key.chmod(0o600)
        create_store(folder)
    return folder / "node.toml"


@asynccontextmanager
async def node(
    folder: Path,
    engine: Engine | None = None,
    *,
    embedder: Embedder | None = None,
    config: NodeConfig | None = None,
    grace_s: float = 5.0,
) -> AsyncIterator[Node]:
    """Serve a node until the block ends."""
    config = config or NodeConfig(
        name=NAME, operator="alpha.example", embeddings=embedder is not None
    )
    app = NodeApp(config, base=prepare(folder), engine=engine, embedder=embedder)
    transport = HttpTransport()
    # Closed by the test itself where it reads on after the node has stopped.
    async with serving(app, shutdown_grace_s=grace_s) as base_url:
        async with asyncio.timeout(180):
            await app.wait_ready()
        yield Node(app, base_url, transport)
    if grace_s:
        await transport.aclose()
