"""A node by script: real keys, real receipts, a deterministic "model", and a fault per attempt.

Written on bare sockets, so that it can do what no proper server would: hang, stall, cut a frame at
any byte, forge. Its text is a function of the answer's seed alone, so an exact continuation by
another such node is exact, and a test can say what the whole answer had to be.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from hashlib import sha256
from typing import Self

import msgspec

from trunkline.crypto.digest import digest
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import (
    BatchBuilder,
    Hiding,
    Receipt,
    ReceiptAttempt,
    ReceiptCached,
    ReceiptModel,
    ReceiptPolicy,
    ReceiptRequest,
    ReceiptResponse,
    ReceiptSampling,
    ReceiptTimes,
    ReceiptUsage,
    ShownDigest,
    StreamDigest,
    bound_bytes,
    encode,
    request_digest,
    tokens_digest,
)
from trunkline.schema import sse
from trunkline.schema.attempt import (
    Accepted,
    Attempt,
    NodeError,
    NodeErrorBody,
    NodeInfo,
    Replayed,
    ServedModel,
    SignedReceipt,
)

MODEL = "tiny"
EMBEDDER = "tiny-embed"
WEIGHTS = digest(b"weights")
NUMERICS = "numerics-1"
TOKENS = 12
"""Tokens of every answer."""
SILENT_EVERY = 4
"""Every so manieth token completes no character: an event with tokens and no data."""
NOW_MS = 1_780_000_000_000


class Fault(Enum):
    """What goes wrong. Where it says k, ``Script.after`` events of the attempt are sent before."""

    NONE = auto()
    BUSY = auto()
    """429 with a retry time."""
    UNAVAILABLE = auto()
    """503 with a node's error body."""
    HTML = auto()
    """502 with a proxy's page."""
    REJECT = auto()
    """400, not retryable: the request itself is at fault."""
    UNFIT = auto()
    """400, retryable: this node can not honour the request, another may."""
    HANG_HEAD = auto()
    HANG_ACCEPT = auto()
    """Headers, then silence."""
    ERROR_RETRYABLE = auto()
    """An error event after k events."""
    ERROR_FINAL = auto()
    """A not retryable error event after k events."""
    CUT = auto()
    """The connection dies after k events and ``Script.bytes`` of the next."""
    CLEAN_END = auto()
    """The response ends properly after k events, without receipt."""
    STALL = auto()
    """Silence after k events, until the gateway leaves."""
    GARBAGE = auto()
    """After k events, one that is no JSON."""
    DOUBLE = auto()
    """After k events, the last one again."""
    ALIEN_ERROR = auto()
    """After k events, an error object where a chunk belongs."""
    NO_RECEIPT = auto()
    """Everything but the receipt."""
    NO_FINISH = auto()
    """A stream without its finish chunk, and an honest receipt over it."""
    ODD_FINISH = auto()
    """A finish reason that nobody has heard of, in text and receipt alike."""
    BAD_SIGNATURE = auto()
    WRONG_STREAM = auto()
    """The receipt binds another text than was sent."""
    WRONG_REQUEST = auto()
    WRONG_NODE = auto()
    WRONG_ATTEMPT = auto()
    WRONG_SEED = auto()
    """Accepts with a seed of its own, resumed or not."""
    WRONG_NUMERICS = auto()
    UNASKED_CACHE = auto()
    """Accepts with an answer that was kept, unasked."""
    HIDDEN_CACHE = auto()
    """Only the receipt says that the answer was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One attempt's fate."""

    fault: Fault = Fault.NONE
    after: int = 0
    """Events after ``accepted``, those named ``progress`` included."""
    bytes: int = 0
    hold: asyncio.Event | None = None
    """Wait for this after ``after`` events, then go on."""


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
        self.vkey_shown = str(self.signer.vkey)
        self.statements: tuple[str, ...] = ()
        self._server: asyncio.Server | None = None
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

    async def listen(self) -> None:
        """Start, on the same port as before if there was one."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def die(self) -> None:
        """Stop listening and cut everything, as a killed process would."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

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


@dataclass(frozen=True, slots=True)
class Pause:
    until: asyncio.Event | None


@dataclass(frozen=True, slots=True)
class Cut:
    rest: bytes
    bytes: int


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


def own_seed(node: FakeNode, caller_nonce: str, attempt: str) -> str:
    """The seed that a node gives an answer that begins with it."""
    return sha256((caller_nonce + node.name + attempt).encode()).hexdigest()


def token_of(seed: str, choice: int, position: int) -> int:
    """The model: which token stands where, for a seed."""
    hashed = sha256(f"{seed}/{choice}/{position}".encode()).digest()
    return int.from_bytes(hashed[:2], "big")


def text_of(seed: str, choice: int = 0, tokens: int = TOKENS) -> str:
    """The whole answer for a seed."""
    return "".join(f" w{token_of(seed, choice, position)}é" for position in range(tokens))


class Answering:
    """One attempt's frames."""

    def __init__(self, node: FakeNode, attempt: Attempt, script: Script) -> None:
        self.node = node
        self.signer = node.signer
        self.attempt = attempt
        self.script = script
        self.body = json.loads(bytes(attempt.request))
        self.finish = "odd" if script.fault is Fault.ODD_FINISH else "stop"
        self.stream = bool(self.body.get("stream"))
        self.choices = self.body.get("n") or 1
        resumed = attempt.resume
        self.given = resumed.tokens if resumed else ((),) * self.choices
        self.seed = own_seed(node, attempt.caller_nonce, attempt.attempt)
        if attempt.seed is not None and script.fault is not Fault.WRONG_SEED:
            self.seed = attempt.seed
        self.bind = Hiding(attempt.blinding, answer=attempt.answer, attempt=attempt.attempt).bind
        self.request = self.bind("request.digest", request_digest(bytes(attempt.request)))
        self.digest = StreamDigest(bound_bytes(self.request), attempt.attempt)

    def frames(self) -> Iterator[bytes | Pause | Cut]:
        yield sse.encode(event="accepted", data=msgspec.json.encode(self._accepted()))
        work = self._embeddings() if self.attempt.kind == "embeddings" else self._work()
        yield from self._interrupted(list(work))

    def _interrupted(
        self, frames: list[tuple[bytes, bytes | None]]
    ) -> Iterator[bytes | Pause | Cut]:
        fault, after = self.script.fault, self.script.after
        if fault is Fault.NO_FINISH:
            frames = [frame for frame in frames if frame[1] is None or b'"stop"' not in frame[1]]
        for position in range(len(frames) + 1):
            if position == after:
                if self.script.hold is not None:
                    yield Pause(self.script.hold)
                ended = yield from self._strike(fault, frames, position)
                if ended:
                    return
            if position < len(frames):
                frame, data = frames[position]
                if data is not None:
                    self.digest.update(data)
                yield frame
        if fault is not Fault.NO_RECEIPT:
            yield sse.encode(event="receipt", data=msgspec.json.encode(self._receipt()))

    def _strike(
        self, fault: Fault, frames: list[tuple[bytes, bytes | None]], position: int
    ) -> Iterator[bytes | Pause | Cut]:
        """Do what goes wrong here; the generator's value says whether the attempt ends by it."""
        number = self._number_at(position)
        match fault:
            case Fault.ERROR_RETRYABLE | Fault.ERROR_FINAL:
                error = NodeError(
                    code="engine_died",
                    message="the engine died",
                    retryable=fault is Fault.ERROR_RETRYABLE,
                    status=500,
                )
                yield sse.encode(event="error", data=msgspec.json.encode(error))
            case Fault.CUT:
                rest = frames[position][0] if position < len(frames) else b"event: receipt\n"
                yield Cut(rest, self.script.bytes)
            case Fault.CLEAN_END:
                pass
            case Fault.STALL:
                yield Pause(None)
            case Fault.GARBAGE:
                yield sse.encode(id=number, data=b'{"choices": [}')
            case Fault.ALIEN_ERROR:
                yield sse.encode(id=number, data=b'{"error":{"message":"x","code":"y"}}')
            case Fault.DOUBLE:
                if position:
                    yield frames[position - 1][0]
                return False
            case _:
                return False
        return True

    def _number_at(self, position: int) -> int:
        if not self.stream:
            return 0
        produced = sum(map(len, self.given))
        return position + (1 + produced if produced else 0)

    def _accepted(self) -> Accepted:
        chat = self.attempt.kind == "chat"
        numerics = self.node.numerics if chat else None
        if self.script.fault is Fault.WRONG_NUMERICS:
            numerics = "numerics-9"
        return Accepted(
            attempt=self.attempt.attempt,
            node=self.node.name,
            operator=self.node.operator,
            key=str(self.signer.vkey),
            model=self.attempt.model,
            weights=WEIGHTS if chat else None,
            numerics=numerics,
            seed=self.seed if numerics else None,
            node_nonce="00" * 32 if numerics else None,
            cached=self.script.fault is Fault.UNASKED_CACHE,
        )

    def _embeddings(self) -> Iterator[tuple[bytes, bytes | None]]:
        body = {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}],
            "model": self.attempt.model,
            "usage": {"prompt_tokens": 3, "total_tokens": 3},
        }
        data = json.dumps(body).encode()
        yield sse.encode(id=0, data=data), data

    def _work(self) -> Iterator[tuple[bytes, bytes | None]]:
        if self.stream:
            yield from self._events()
            return
        for position in range(TOKENS):
            for choice in range(self.choices):
                if position >= len(self.given[choice]):
                    token = token_of(self.seed, choice, position)
                    yield sse.encode(event="progress", tokens=[(choice, token)]), None
        data = json.dumps(self._completion(), ensure_ascii=False).encode()
        yield sse.encode(id=0, data=data), data

    def _events(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Every event of the whole answer, those before the resume point left out.

        What those would have shown is said before the first one that is sent.
        """
        shown = ShownDigest()
        frames = self._all_events(shown)
        first, data = next(frames)
        if any(self.given):
            replayed = msgspec.json.encode(Replayed(digest=shown.digest()))
            first = sse.encode(event="replayed", data=replayed) + first
        yield first, data
        yield from frames

    def _all_events(self, shown: ShownDigest) -> Iterator[tuple[bytes, bytes | None]]:
        given = sum(map(len, self.given))
        number, done = 0, 0
        role = [
            {"index": c, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
            for c in range(self.choices)
        ]
        if given:
            shown.update(self._data(role))
        else:
            yield self._event(0, self._data(role), None)
        number += 1
        waiting = [""] * self.choices
        for position in range(TOKENS):
            for choice in range(self.choices):
                token = token_of(self.seed, choice, position)
                waiting[choice] += f" w{token}é"
                silent = position % SILENT_EVERY == SILENT_EVERY - 2
                data = None if silent else self._data(_delta(choice, waiting[choice]))
                if not silent:
                    waiting[choice] = ""
                if done >= given:
                    # Without numerics this stands for a provider's model: no token ids.
                    spoken = [(choice, token)] if self.node.numerics else None
                    if data is not None or spoken:
                        yield self._event(number, data, spoken)
                        number += 1
                else:
                    shown.update(data)
                    number += 1
                done += 1
        end = [{"index": c, "delta": {}, "finish_reason": self.finish} for c in range(self.choices)]
        for one in end:
            yield self._event(number, self._data([one]), None)
            number += 1
        if (self.body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 3, "completion_tokens": TOKENS, "total_tokens": TOKENS + 3}
            yield self._event(number, self._data([], usage), None)

    def _event(
        self, number: int, data: bytes | None, tokens: list[tuple[int, int]] | None
    ) -> tuple[bytes, bytes | None]:
        return sse.encode(id=number, tokens=tokens, data=data), data

    def _data(self, choices: list[dict[str, object]], usage: object = None) -> bytes:
        chunk: dict[str, object] = {
            "id": "chatcmpl-" + self.attempt.answer,
            "object": "chat.completion.chunk",
            "created": self.attempt.created_s,
            "model": self.attempt.model,
            "choices": choices,
        }
        if usage is not None:
            chunk["usage"] = usage
        return json.dumps(chunk, ensure_ascii=False).encode()

    def _completion(self) -> dict[str, object]:
        return {
            "id": "chatcmpl-" + self.attempt.answer,
            "object": "chat.completion",
            "created": self.attempt.created_s,
            "model": self.attempt.model,
            "choices": [
                {
                    "index": choice,
                    "message": {"role": "assistant", "content": text_of(self.seed, choice)},
                    "finish_reason": self.finish,
                }
                for choice in range(self.choices)
            ],
            "usage": {
                "prompt_tokens": 3,
                "completion_tokens": TOKENS,
                "total_tokens": TOKENS + 3,
            },
        }

    def _receipt(self) -> SignedReceipt:
        fault = self.script.fault
        receipt = self._honest_receipt()
        match fault:
            case Fault.WRONG_STREAM:
                response = msgspec.structs.replace(receipt.response, digest=digest(b"other"))
                receipt = msgspec.structs.replace(receipt, response=response)
            case Fault.WRONG_REQUEST:
                request = msgspec.structs.replace(receipt.request, digest=digest(b"other"))
                receipt = msgspec.structs.replace(receipt, request=request)
            case Fault.HIDDEN_CACHE | Fault.UNASKED_CACHE:
                cached = ReceiptCached(ended_ms=NOW_MS, receipt="0f" * 32)
                receipt = msgspec.structs.replace(receipt, cached=cached)
            case Fault.WRONG_NODE:
                receipt = msgspec.structs.replace(receipt, node="other.localhost/node")
            case Fault.WRONG_ATTEMPT:
                receipt = msgspec.structs.replace(receipt, attempt="att_other")
            case _:
                pass
        builder = BatchBuilder(self.node.name)
        builder.add(encode(receipt))
        sealed = builder.seal(previous=None, unix_ms=NOW_MS)
        signer = self.signer
        if fault is Fault.BAD_SIGNATURE:
            signer = Signer.generate(signer.vkey.name, sha256(b"somebody else").digest())
        return sealed.signed(sign_note(sealed.text, signer))[0]

    def _honest_receipt(self) -> Receipt:
        attempt, accepted = self.attempt, self._accepted()
        chat = attempt.kind == "chat"
        tokens = tuple(
            tuple(token_of(self.seed, choice, position) for position in range(TOKENS))
            for choice in range(self.choices)
        )
        resumed = attempt.resume
        return Receipt(
            answer=attempt.answer,
            attempt=attempt.attempt,
            created_s=attempt.created_s,
            key=str(self.signer.vkey),
            model=ReceiptModel(
                numerics=accepted.numerics or "",
                provider="embedded",
                requested=self.body["model"],
                served=attempt.model,
                weights=accepted.weights or "",
            ),
            node=self.node.name,
            operator=self.node.operator,
            policy=ReceiptPolicy(audit=attempt.audit, mode=attempt.mode),
            previous="",
            request=ReceiptRequest(
                client=attempt.client_request_digest,
                digest=self.request,
                format=attempt.client_format,
            ),
            response=ReceiptResponse(
                chunks=self.digest.chunks,
                digest=self.bind("response.digest", self.digest.close()),
                finish=(self.finish,) * self.choices if chat else (),
                resumed=tuple(map(len, resumed.tokens)) if resumed else (),
                resumed_digest=self.bind(
                    "response.resumed_digest", tokens_digest(resumed.tokens) if resumed else ""
                ),
                status=200,
                tokens=self.bind(
                    "response.tokens", tokens_digest(tokens) if accepted.numerics else ""
                ),
            ),
            route=tuple(
                ReceiptAttempt(attempt=p.attempt, error=p.error, node=p.node, tokens=p.tokens)
                for p in attempt.previous
            ),
            salt="11" * 32,
            sampling=ReceiptSampling(
                caller_nonce=attempt.caller_nonce,
                node_nonce=accepted.node_nonce or "",
                seed=accepted.seed or "",
                source="none"
                if accepted.seed is None
                else "inherited"
                if attempt.seed
                else "nonces",
            ),
            times=ReceiptTimes(arrived_ms=NOW_MS, ended_ms=NOW_MS + 2, first_token_ms=NOW_MS + 1),
            usage=ReceiptUsage(completion=TOKENS, counted=True, prompt=3),
        )


def _delta(choice: int, text: str) -> list[dict[str, object]]:
    return [{"index": choice, "delta": {"content": text}, "finish_reason": None}]


def with_hold(script: Script, hold: asyncio.Event) -> Script:
    """The same script, waiting for ``hold`` after its events."""
    return replace(script, hold=hold)
