"""A node by script: real keys, real receipts, a deterministic "model", and a fault per attempt.

Written on bare sockets, so that it can do what no proper server would: hang, stall, cut a frame at
any byte, forge. Its text is a function of the answer's seed alone, so an exact continuation by
another such node is exact, and a test can say what the whole answer had to be.
"""

import asyncio
import socket
from collections import deque
from contextlib import suppress
from hashlib import sha256
from typing import Self

import msgspec
from tests.support.fake_answer import EMBEDDER, MODEL, NUMERICS, WEIGHTS, Answering
from tests.support.fake_script import Cut, Fault, Pause, Script

from trunkline.crypto.signer import Signer
from trunkline.schema.attempt import (
    Attempt,
    NodeError,
    NodeErrorBody,
    NodeInfo,
    ServedModel,
)


class FakeNode:
    """One node. Use as an async context manager; scripts are consumed one per attempt."""

    def __init__(
        self, name: str = "alpha", *, numerics: str | None = NUMERICS, model: str = MODEL
    ) -> None:
        self.operator = f"{name}.localhost"
        self.signer = Signer.generate(f"{self.operator}/node", sha256(name.encode()).digest())
        self.numerics = numerics
        self.model = model
        self.scripts: deque[Script] = deque()
        self.always: Script | None = None
        self.attempts: list[Attempt] = []
        self.traceparents: list[str] = []
        """Of the attempts that had one."""
        self.left = asyncio.Event()
        """Set when the gateway closed a connection that had an attempt in progress."""
        self.reached = asyncio.Event()
        """Set when a script's ``after`` events have been sent."""
        self.polls = 0
        self.secretive = False
        """Says nothing of itself to whoever asks."""
        self.hold_info: asyncio.Event | None = None
        """Says nothing of itself until this is set."""
        self.vkey_shown = str(self.signer.vkey)
        self.statements: tuple[str, ...] = ()
        self._server: asyncio.Server | None = None
        self._port_kept: socket.socket | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def vkey(self) -> str:
        return str(self.signer.vkey)

    @property
    def name(self) -> str:
        return self.signer.vkey.name

    def change_key(self, signer: Signer, *statements: str) -> None:
        """As after a restart with another key: answers that run end under the one before."""
        self.signer, self.vkey_shown = signer, str(signer.vkey)
        self.statements = statements

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()
        self._give_back()

    async def listen(self) -> None:
        """Start, on the same port as before if there was one."""
        self._give_back()
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Stop listening and cut everything, as a killed process would. Its port is kept: given to
        somebody else meanwhile, it would be that one who is asked."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self._port_kept = socket.socket()
            self._port_kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                self._port_kept.bind(("127.0.0.1", self.port))
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _give_back(self) -> None:
        if self._port_kept is not None:
            self._port_kept.close()
            self._port_kept = None

    def will(self, fault: Fault, after: int = 0, bytes: int = 0) -> Self:  # noqa: A002
        """Script the next attempt."""
        self.scripts.append(Script(fault=fault, after=after, bytes=bytes))
        return self

    def info(self) -> NodeInfo:
        models = [
            ServedModel(
                name=self.model,
                kind="chat",
                provider="embedded",
                weights=WEIGHTS,
                numerics=self.numerics,
                context_tokens=2048,
            ),
            ServedModel(name=EMBEDDER, kind="embeddings", provider="embedded"),
        ]
        return NodeInfo(
            node=self.name,
            operator=self.operator,
            key=self.vkey_shown,
            models=tuple(models),
            log=None,
            ready=True,
            running=0,
            queued=0,
            statements=self.statements,
        )

    # HTTP.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._writers.discard(writer)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        size = 0
        for line in head[1:]:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                size = int(value)
            if name.lower() == "traceparent":
                self.traceparents.append(value.strip())
        body = await reader.readexactly(size)
        if head[0].startswith("GET /v1/info"):
            self.polls += 1
            if self.secretive:
                await self._watch(reader)
                return False
            if self.hold_info is not None:
                await self.hold_info.wait()
            _whole(writer, 200, msgspec.json.encode(self.info()))
            return True
        attempt = msgspec.json.decode(body, type=Attempt)
        self.attempts.append(attempt)
        script = self.always or (self.scripts.popleft() if self.scripts else Script())
        gone = asyncio.create_task(self._watch(reader))
        try:
            return await self._attempt(attempt, script, writer, gone)
        finally:
            gone.cancel()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        if not await reader.read(1):
            self.left.set()

    async def _attempt(
        self,
        attempt: Attempt,
        script: Script,
        writer: asyncio.StreamWriter,
        gone: asyncio.Task[None],
    ) -> bool:
        refusal = _REFUSALS.get(script.fault)
        if refusal is not None:
            _whole(writer, refusal.status, msgspec.json.encode(NodeErrorBody(error=refusal)))
            return True
        if script.fault is Fault.HTML:
            _whole(writer, 502, b"<html>bad gateway</html>", "text/html")
            return True
        if script.fault is Fault.HANG_HEAD:
            await gone
            return False
        if attempt.resume is not None and attempt.numerics != self.numerics:
            error = NodeError(code="cannot_resume", message="no", retryable=True, status=409)
            _whole(writer, 409, msgspec.json.encode(NodeErrorBody(error=error)))
            return True
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        if script.fault is Fault.HANG_ACCEPT:
            await gone
            return False
        for frame in Answering(self, attempt, script).frames():
            if isinstance(frame, Pause):
                await writer.drain()
                self.reached.set()
                if frame.until is not None:
                    await asyncio.wait(
                        {gone, asyncio.ensure_future(frame.until.wait())},
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    continue
                await gone
                return False
            if isinstance(frame, Cut):
                writer.write(_chunk(frame.rest)[: frame.bytes + 6] if frame.bytes else b"")
                await writer.drain()
                writer.transport.abort() if frame.bytes == 0 else writer.close()
                return False
            writer.write(_chunk(frame))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _whole(
    writer: asyncio.StreamWriter, status: int, body: bytes, kind: str = "application/json"
) -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


_REFUSALS = {
    Fault.BUSY: NodeError(
        code="overloaded", message="full", retryable=True, retry_after_ms=50, status=429
    ),
    Fault.UNAVAILABLE: NodeError(code="not_ready", message="loading", retryable=True, status=503),
    Fault.REJECT: NodeError(
        code="unsupported_parameter",
        message="logit_bias is not supported",
        retryable=False,
        param="logit_bias",
        status=400,
    ),
    Fault.UNFIT: NodeError(
        code="unsupported_parameter",
        message="mirostat: is not supported by this model",
        retryable=True,
        param="mirostat",
        status=400,
    ),
}
