"""Runs an attempt: from the bytes of the envelope to the receipt as the last event.

``docs/spec/attempt-protocol.md``. In order: read, prepare, wait for a place (with a sign of life
each second), accept, run, sign, store, and only then say so. The gateway's leaving cancels
whichever of these is under way, at once; so does the deadline, with an error event. A failure
before anything was sent is an HTTP status, afterwards an ``error`` event; nothing ends without one
of the two or a receipt. Writes one diagnostic line an attempt, in which no text appears.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec

from trunkline.base.errors import Error, RequestError, TimedOutError, UpstreamError
from trunkline.base.ports import Clock, Randomness
from trunkline.inference.answer import Event
from trunkline.node import store
from trunkline.node.cache import AnswerCache, Recorded
from trunkline.node.core import envelope
from trunkline.node.core.content import content
from trunkline.node.core.statement import Identity, Outcome, Sent, bound_request, statement
from trunkline.node.gate import Gate
from trunkline.node.signing import ReceiptSigner
from trunkline.node.telemetry import NodeTelemetry
from trunkline.node.work import Service, Work, patiently
from trunkline.receipts import ReceiptTimes, StreamDigest, bound_bytes
from trunkline.remote.status import LimitedError
from trunkline.runtime.http import SSE_TYPE, Call, ClientGoneError
from trunkline.runtime.logger import CanonicalLine, Logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.store import Database
from trunkline.schema import errors, sse
from trunkline.schema.attempt import (
    ATTEMPT_BODY_BYTES_MAX,
    EVENT_ACCEPTED,
    EVENT_ERROR,
    EVENT_LIMITS,
    EVENT_RECEIPT,
    EVENT_REPLAYED,
    Attempt,
    Kind,
    Limits,
    NodeError,
    Replayed,
)
from trunkline.schema.traceparent import TRACEPARENT, TraceParent, read_traceparent

SALT_BYTES: Final = 32

T = TypeVar("T")

_QUEUED: Final = sse.comment("queued")
_WORKING: Final = sse.comment("working")


class Served(msgspec.Struct, frozen=True):
    """A service and the gate before it."""

    service: Service
    gate: Gate


class Attempts:
    """``POST /v1/attempts``."""

    def __init__(
        self,
        served: Sequence[Served],
        *,
        identity: Identity,
        signer: ReceiptSigner,
        database: Database,
        clock: Clock,
        randomness: Randomness,
        logger: Logger,
        telemetry: NodeTelemetry | None = None,
        cache: AnswerCache | None = None,
        audited: bool = False,
    ) -> None:
        """``audited``: keep what opens the receipts that may be opened."""
        self._telemetry = telemetry or NodeTelemetry(Metrics())
        self._served = served
        self._cache = cache
        self._audited = audited
        self._identity = identity
        self._signer = signer
        self._database = database
        self._clock = clock
        self._randomness = randomness
        self._logger = logger
        self._running: set[str] = set()

    async def handle(self, call: Call) -> None:
        """Serve one call to its end."""
        run = _Run(call, self._clock, self._logger.line("attempt.ended"))
        try:
            raw = await call.body(ATTEMPT_BODY_BYTES_MAX)
            attempt = envelope.parse(raw)
            run.kind = attempt.kind
            run.join(read_traceparent(call.header(TRACEPARENT)))
            run.line.set(
                answer=attempt.answer,
                attempt=attempt.attempt,
                kind=attempt.kind,
                model=attempt.model,
                resumed=attempt.resume is not None,
            )
            async with call.while_connected(), _bounded(call, attempt.deadline_ms / 1000):
                await self._serve(attempt, run)
        except ClientGoneError:
            run.line.set(outcome="abandoned")
            run.error = "abandoned"
            raise
        except asyncio.CancelledError:
            run.line.set(outcome="cancelled")
            run.error = "cancelled"
            raise
        except Error as error:
            run.line.failed(error)
            await self._fail(run, error)
        except Exception as error:  # noqa: BLE001 - the gateway must be told, whatever it is
            # A bug of ours. The gateway is told that, and nothing of what went wrong.
            run.line.failed(error)
            await self._fail(run, error)
        finally:
            duration_ms = self._clock.unix_ms() - run.arrived_ms
            self._telemetry.ended(run.kind, run.model, run.error, duration_ms / 1000)
            run.line.set(duration_ms=duration_ms)
            run.line.emit()

    async def _serve(self, attempt: Attempt, run: "_Run") -> None:
        if run.call.draining.is_set():
            raise UpstreamError("the node is stopping", code="node_stopping")
        await self._claim(attempt.attempt)
        try:
            served = self._find(attempt)
            run.model = attempt.model
            work = await run.patiently(self._prepare(served.service, attempt))
            ticket = served.gate.ask(work.places)
            try:
                await run.patiently(ticket.admitted)
                outcome = await self._run(attempt, work, run)
            finally:
                await work.close()
                ticket.give_back()
            await self._conclude(attempt, work, outcome, run)
        finally:
            self._running.discard(attempt.attempt)

    async def _claim(self, attempt: str) -> None:
        """An attempt's id is used once: its receipt is found by it."""
        if attempt not in self._running:
            self._running.add(attempt)
            try:
                if await self._database.read(lambda c: store.find_receipt(c, attempt)) is None:
                    return
            except BaseException:
                self._running.discard(attempt)
                raise
            self._running.discard(attempt)
        raise RequestError(
            "an attempt with this id was made before", code="attempt_exists", status=409
        )

    def _find(self, attempt: Attempt) -> Served:
        for served in self._served:
            if served.service.serves(attempt):
                return served
        raise RequestError(
            "the model is not served here", code="model_not_found", param="model", status=404
        )

    async def _prepare(self, service: Service, attempt: Attempt) -> Work:
        if self._cache is None:
            return await service.prepare(attempt)
        return await self._cache.prepare(service, attempt)

    async def _run(self, attempt: Attempt, work: Work, run: "_Run") -> Outcome:
        run.waited_ms()
        await run.patiently(work.begin())
        await run.start()
        await run.call.send(
            sse.encode(event=EVENT_ACCEPTED, data=msgspec.json.encode(work.accepted))
        )
        run.request = bound_request(attempt)
        run.digest = StreamDigest(bound_bytes(run.request), attempt.attempt)
        return await work.run(run)

    async def _conclude(self, attempt: Attempt, work: Work, outcome: Outcome, run: "_Run") -> None:
        receipt = statement(
            self._identity,
            attempt,
            outcome,
            run.sent(),
            salt=self._randomness.token(SALT_BYTES),
        )
        kept = None
        if self._audited:
            kept = content(attempt, receipt, outcome.made, outcome.before)
        # A crash here: no receipt, and the gateway sees a stream cut before its last event.
        data = await run.patiently(self._signer.sign(receipt, kept))
        # A crash here: the receipt is durable and will be logged, see signing.py.
        if isinstance(work, Recorded):
            work.keep(data, receipt.times.ended_ms, kept)
        run.line.set(
            outcome="answered",
            cached=outcome.cached is not None,
            finish=",".join(outcome.finish),
            prompt_tokens=outcome.usage.prompt,
            completion_tokens=outcome.usage.completion,
            chunks=receipt.response.chunks,
            first_token_ms=receipt.times.first_token_ms - receipt.times.arrived_ms,
        )
        times = receipt.times
        self._telemetry.answered(
            attempt.kind,
            attempt.model,
            outcome,
            times.first_token_ms - times.arrived_ms,
            times.ended_ms - times.first_token_ms,
        )
        await run.call.send(sse.encode(event=EVENT_RECEIPT, data=data))
        await run.call.finish()

    async def _fail(self, run: "_Run", error: Exception) -> None:
        run.line.set(outcome="failed")
        run.error = error.error_code if isinstance(error, Error) else "internal_error"
        told = errors.node_error(error)
        if isinstance(error, LimitedError):
            told = msgspec.structs.replace(told, limits=error.limits)
        if run.call.finished:
            return
        if not run.call.started:
            await reply_error(run.call, told)
            return
        await run.call.send(sse.encode(event=EVENT_ERROR, data=msgspec.json.encode(told)))
        await run.call.finish()


class _Run:
    """One attempt's call, and what has been sent on it. Is the work's ``Output``."""

    __slots__ = (
        "_clock", "_first_ms", "_spoke", "arrived_ms", "call", "digest", "error", "kind", "line",
        "model", "request",
    )  # fmt: skip

    def __init__(self, call: Call, clock: Clock, line: CanonicalLine) -> None:
        self.call = call
        self.line = line
        self.arrived_ms = clock.unix_ms()
        self.request = ""
        """Its digest as the receipt says it, where ``digest`` begins."""
        self.digest: StreamDigest | None = None
        self.kind: Kind | None = None
        self.model: str | None = None
        """Known once it is found to be served here."""
        self.error = ""
        self._clock = clock
        self._first_ms = 0
        self._spoke = False

    def join(self, parent: TraceParent | None) -> None:
        """Say in the line which trace the gateway said that this is part of."""
        if parent is not None:
            self.line.set(trace=parent.trace, span=parent.span)

    async def event(self, event: Event) -> None:
        if not self._first_ms or (event.tokens and not self._spoke):
            # The role chunk comes before the prompt is read: a token's time replaces its time.
            self._first_ms = self._clock.unix_ms()
            self._spoke = bool(event.tokens)
        if event.data is not None and event.id is not None and self.digest is not None:
            self.digest.update(event.data)
        await self.call.send(event.encode())

    async def replayed(self, digest: str) -> None:
        data = msgspec.json.encode(Replayed(digest=digest))
        await self.call.send(sse.encode(event=EVENT_REPLAYED, data=data))

    async def limits(self, limits: Limits) -> None:
        await self.call.send(sse.encode(event=EVENT_LIMITS, data=msgspec.json.encode(limits)))

    async def alive(self) -> None:
        await self.call.send(_WORKING)

    async def start(self) -> None:
        """Send status and headers, once."""
        if not self.call.started:
            headers = (("content-type", SSE_TYPE), ("cache-control", "no-store"))
            await self.call.start(200, headers)

    async def patiently(self, wait: Awaitable[T]) -> T:
        """Await ``wait``, with a comment line for each second that it takes."""
        return await patiently(wait, self._queued)

    async def _queued(self) -> None:
        await self.start()
        await self.call.send(_QUEUED)

    def waited_ms(self) -> None:
        self.line.set(queued_ms=self._clock.unix_ms() - self.arrived_ms)

    def sent(self) -> Sent:
        """Close the stream digest."""
        if self.digest is None:
            raise RuntimeError("nothing was sent")
        ended_ms = self._clock.unix_ms()
        chunks = self.digest.chunks
        return Sent(
            request=self.request,
            chunks=chunks,
            digest=self.digest.close(),
            times=ReceiptTimes(
                arrived_ms=self.arrived_ms,
                ended_ms=ended_ms,
                first_token_ms=self._first_ms or ended_ms,
            ),
        )


async def reply_error(call: Call, error: NodeError) -> None:
    """A refusal before the stream."""
    headers = []
    if error.retry_after_ms is not None:
        headers.append(("retry-after", str(-(-error.retry_after_ms // 1000))))
    await call.reply(error.status, errors.node_error_body(error), headers=headers)


@asynccontextmanager
async def _bounded(call: Call, timeout_s: float) -> AsyncIterator[None]:
    """The attempt's deadline, and the server's last call when it stops."""
    stopping = False

    async def watch() -> None:
        nonlocal stopping
        await call.stopping.wait()
        stopping = True
        scope.reschedule(asyncio.get_running_loop().time())

    scope = asyncio.timeout(timeout_s)
    watcher: asyncio.Task[None] | None = None
    try:
        async with scope:
            watcher = asyncio.create_task(watch(), name="attempt.stopping")
            yield
    except TimeoutError:
        if stopping:
            raise UpstreamError("the node is stopping", code="node_stopping") from None
        if scope.expired():
            raise TimedOutError(
                f"the attempt's {timeout_s:g} s have passed", code="deadline_exceeded"
            ) from None
        raise
    finally:
        if watcher is not None:
            watcher.cancel()
