"""Calling a node: the attempt protocol (``docs/spec/attempt-protocol.md``) from the gateway's side.

Turns the stream into typed events and holds the node to the protocol: order, ids, one-line data,
and a receipt or an error as the last event. Whoever breaks it has failed the attempt. Verifying
the receipt is the caller's.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self, TypeVar

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    MalformedError,
    TimedOutError,
    TruncatedError,
    UpstreamError,
)
from trunkline.remote.limit import Limit
from trunkline.remote.status import ERROR_BODY_BYTES_MAX, failure
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Response, Transport
from trunkline.schema.attempt import (
    ATTEMPT_PATH,
    EVENT_ACCEPTED,
    EVENT_ERROR,
    EVENT_LIMITS,
    EVENT_PROGRESS,
    EVENT_RECEIPT,
    EVENT_REPLAYED,
    INFO_PATH,
    Accepted,
    Attempt,
    Limits,
    NodeError,
    NodeErrorBody,
    NodeInfo,
    Replayed,
    SignedReceipt,
)
from trunkline.schema.audit import (
    NONCE_BYTES_MAX,
    NONCES_PREFIX,
    OPENINGS_BYTES_MAX,
    OPENINGS_PATH,
    PLANTS_PATH,
    SELF_TEST_PATH,
    Demand,
    Openings,
    ShownNonce,
)
from trunkline.schema.sse import SseEvent, SseParser
from trunkline.schema.traceparent import TRACEPARENT

PROTOCOL_BROKEN: Final = "node_protocol"
INFO_BYTES_MAX: Final = 1024 * 1024
SELF_TEST_BYTES_MAX: Final = 8 * 1024
ACCEPTED_BYTES_MAX: Final = 4 * 1024
EVENT_BYTES_MAX: Final = 8 * 1024 * 1024
CLOSING_S: Final = 1.0
"""How long to wait for the end of the body after the last event, to keep the connection."""

_JSON: Final = ("content-type", "application/json")

T = TypeVar("T")


class AcceptedEvent(msgspec.Struct, frozen=True):
    accepted: Accepted


class ChunkEvent(msgspec.Struct, frozen=True):
    """An unnamed event: a message for the app, tokens, or both."""

    id: int
    tokens: tuple[tuple[int, int], ...]
    """(choice, token id) consumed since the event before."""
    data: bytes | None
    """One line, to be relayed as it is."""
    used: tuple[int, int] | None = None
    """Prompt and completion tokens of the answer so far, where the provider says them."""


class ProgressEvent(msgspec.Struct, frozen=True):
    tokens: tuple[tuple[int, int], ...]


class ReplayedEvent(msgspec.Struct, frozen=True):
    """What the tokens given to a resumed attempt show."""

    digest: str


class LimitsEvent(msgspec.Struct, frozen=True):
    """What the node's provider said of its limits."""

    limits: Limits


class ErrorEvent(msgspec.Struct, frozen=True):
    error: NodeError


class ReceiptEvent(msgspec.Struct, frozen=True):
    signed: SignedReceipt


AttemptEvent = (
    AcceptedEvent
    | ReplayedEvent
    | ChunkEvent
    | ProgressEvent
    | LimitsEvent
    | ErrorEvent
    | ReceiptEvent
)


class NodeRefusedError(UpstreamError):
    """The node said why it gives no answer. ``node_error`` is what it said."""

    code = "node_refused"

    def __init__(self, error: NodeError) -> None:
        wait_ms = error.retry_after_ms
        super().__init__(
            f"the node refused ({error.status})",
            code=error.code,
            retryable=error.retryable,
            retry_after_s=None if wait_ms is None else max(wait_ms, 0) / 1000,
        )
        self.node_error = error


class NodeCaller:
    """One node, by its base URL."""

    __slots__ = ("_base", "_transport")

    def __init__(self, transport: Transport, base_url: str) -> None:
        self._transport = transport
        self._base = base_url.rstrip("/")
        parse_url(self._base + INFO_PATH)

    async def attempt(
        self,
        attempt: Attempt,
        idle_timeout_s: float,
        *,
        first_id: int = 0,
        traceparent: str | None = None,
        connect_timeout_s: float = 3.0,
        head_timeout_s: float = 10.0,
    ) -> "AttemptStream":
        """Start an attempt. ``first_id`` is the id that its first unnamed event must have;
        ``traceparent`` is passed on as it is.

        Raises :class:`NodeRefusedError` for a refusal, and the UpstreamErrors of the transport.
        ``idle_timeout_s`` bounds each silence; the caller bounds the whole.
        """
        trace = () if traceparent is None else ((TRACEPARENT, traceparent),)
        response = await self._transport.request(
            "POST",
            self._base + ATTEMPT_PATH,
            headers=(
                _JSON,
                ("accept", "text/event-stream"),
                *trace,
            ),
            body=msgspec.json.encode(attempt),
            connect_timeout_s=connect_timeout_s,
            head_timeout_s=head_timeout_s,
            idle_timeout_s=idle_timeout_s,
        )
        try:
            if response.status != 200:
                raise await _refusal(response)
            if not (response.header("content-type") or "").startswith("text/event-stream"):
                raise _broken("the answer is no event stream")
        except BaseException:
            await response.aclose()
            raise
        given = 0 if attempt.resume is None else sum(map(len, attempt.resume.tokens))
        return AttemptStream(response, first_id, first_progress=given)

    async def info(self, *, timeout_s: float = 5.0) -> NodeInfo:
        """What the node serves. :class:`TimedOutError` ``info_timeout``."""
        body = await self._ask(INFO_PATH, INFO_BYTES_MAX, timeout_s, "info_timeout")
        return _decode(body, NodeInfo)

    async def openings(self, demand: Demand, *, timeout_s: float = 30.0) -> Openings:
        """What opens the receipts demanded, in the demand's order; nothing of it is verified.
        :class:`TimedOutError` ``openings_timeout``."""
        body = await self._ask(
            OPENINGS_PATH,
            OPENINGS_BYTES_MAX,
            timeout_s,
            "openings_timeout",
            asked=msgspec.json.encode(demand),
        )
        found = _decode(body, Openings)
        asked = [(wanted.batch, wanted.index) for wanted in demand.receipts]
        if [(opening.batch, opening.index) for opening in found.openings] != asked:
            raise _broken("openings of other receipts")
        return found

    async def nonce(self, root: str, index: int, *, timeout_s: float = 5.0) -> ShownNonce:
        """The place ``index`` in the commitment to nonces with ``root`` (hex), not verified.
        :class:`NodeRefusedError` where it is not this node's; :class:`TimedOutError`
        ``nonce_timeout``."""
        path = f"{NONCES_PREFIX}{root}/{index}"
        return _decode(
            await self._ask(path, NONCE_BYTES_MAX, timeout_s, "nonce_timeout"), ShownNonce
        )

    async def self_test(self, *, timeout_s: float = 5.0) -> bytes:
        """The node's signed self-test, not verified. :class:`NodeRefusedError` with the code
        ``self_test_pending`` where it will be there later, ``not_found`` where there is none;
        :class:`TimedOutError` ``self_test_timeout``."""
        return await self._ask(SELF_TEST_PATH, SELF_TEST_BYTES_MAX, timeout_s, "self_test_timeout")

    async def plant(self, note: bytes, *, timeout_s: float = 5.0) -> bytes:
        """The node's signed word that it agrees to a plant, not verified.
        :class:`NodeRefusedError` where it does not; :class:`TimedOutError` ``plant_timeout``."""
        return await self._ask(
            PLANTS_PATH, ACCEPTED_BYTES_MAX, timeout_s, "plant_timeout", asked=note
        )

    async def _ask(
        self,
        path: str,
        bytes_max: int,
        timeout_s: float,
        timeout_code: str,
        *,
        asked: bytes | None = None,
    ) -> bytes:
        """The body of a 200, of at most ``bytes_max``; ``asked`` is posted, where there is any.

        ``timeout_s`` bounds the whole: the transport alone would wait that long for each piece.
        Raises :class:`NodeRefusedError` for a refusal, :class:`TimedOutError` ``timeout_code``, and
        the UpstreamErrors of the transport.
        """
        try:
            async with Limit(timeout_s):
                response = await self._transport.request(
                    "GET" if asked is None else "POST",
                    self._base + path,
                    headers=() if asked is None else (_JSON,),
                    body=asked,
                    connect_timeout_s=timeout_s,
                    head_timeout_s=timeout_s,
                    idle_timeout_s=timeout_s,
                )
                async with response:
                    if response.status != 200:
                        raise await _refusal(response)
                    return await response.read(bytes_max)
        except TimeoutError:
            message = f"the node took longer than {timeout_s:g} s"
            raise TimedOutError(message, code=timeout_code) from None


class AttemptStream:
    """The events of one attempt, in order; ends after the receipt or the error.

    Close it (or use it as a context manager): closing early is how the node learns to stop.
    Iterating raises TruncatedError if it ends otherwise, and BadResponseError ``node_protocol``.
    """

    __slots__ = (
        "_accepted",
        "_bodies",
        "_ended",
        "_next_id",
        "_next_progress",
        "_parser",
        "_ready",
        "_response",
    )

    def __init__(self, response: Response, first_id: int, *, first_progress: int = 0) -> None:
        self._response = response
        self._bodies = response.chunks()
        self._parser = SseParser(EVENT_BYTES_MAX)
        self._ready: deque[SseEvent] = deque()
        self._next_id = first_id
        self._next_progress = first_progress
        self._accepted = False
        self._ended = False

    def __aiter__(self) -> AsyncIterator[AttemptEvent]:
        return self

    async def __anext__(self) -> AttemptEvent:
        if self._ended:
            await self._expect_end()
            raise StopAsyncIteration
        while not self._ready:
            # Comments are bytes of the body like others, so they reset the transport's idle timer.
            data = await anext(self._bodies, b"")
            if not data:
                raise TruncatedError("the node's answer ended without a receipt")
            self._feed(data)
        return self._typed(self._ready.popleft())

    @property
    def ready(self) -> bool:
        """The next event is here already: reading it waits for nothing."""
        return bool(self._ready) and not self._ended

    async def aclose(self) -> None:
        """Stop reading; an unfinished attempt is cancelled by cutting the connection."""
        await self._response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _feed(self, data: bytes) -> None:
        try:
            self._ready.extend([event for event in self._parser.feed(data) if not event.comment])
        except MalformedError as error:
            raise _broken(error.message) from None

    async def _expect_end(self) -> None:
        """Read the end of the body, so that the connection can be kept; not worth a failure."""
        try:
            async with asyncio.timeout(CLOSING_S):
                while data := await anext(self._bodies, b""):
                    self._feed(data)
        except (TimeoutError, UpstreamError):
            await self._response.aclose()
        if self._ready:
            raise _broken("events after the last one")

    def _typed(self, event: SseEvent) -> AttemptEvent:
        if not self._accepted and event.event not in (EVENT_ACCEPTED, EVENT_ERROR):
            raise _broken("the first event is not `accepted`")
        match event.event:
            case "":
                return self._chunk(event)
            case x if x == EVENT_PROGRESS:
                return self._progress(event)
            case x if x == EVENT_REPLAYED:
                return ReplayedEvent(_decode(event.data, Replayed).digest)
            case x if x == EVENT_ACCEPTED:
                if self._accepted:
                    raise _broken("accepted twice")
                self._accepted = True
                return AcceptedEvent(_decode(event.data, Accepted))
            case x if x == EVENT_LIMITS:
                return LimitsEvent(_decode(event.data, Limits))
            case x if x == EVENT_RECEIPT:
                self._ended = True
                return ReceiptEvent(_decode(event.data, SignedReceipt))
            case x if x == EVENT_ERROR:
                self._ended = True
                return ErrorEvent(_decode_error(event.data))
            case _:
                raise _broken("an event of unknown name")

    def _progress(self, event: SseEvent) -> ProgressEvent:
        # A node that does not number these may have a doubled one go unseen (rule 5).
        if event.id is not None and event.id != b"%d" % self._next_progress:
            raise _broken("progress out of order")
        self._next_progress += 1
        return ProgressEvent(_tokens(event))

    def _chunk(self, event: SseEvent) -> ChunkEvent:
        if event.id is None or event.id != b"%d" % self._next_id:
            raise _broken("an event out of order")
        if event.data is not None and b"\n" in event.data:
            raise _broken("data of more than one line")
        chunk = ChunkEvent(self._next_id, _tokens(event), event.data, _used(event))
        self._next_id += 1
        return chunk


async def _refusal(response: Response) -> UpstreamError:
    body = await response.read(ERROR_BODY_BYTES_MAX)
    try:
        return NodeRefusedError(msgspec.json.decode(body, type=NodeErrorBody).error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not a node: a proxy in between, or another server on that port.
        return failure(response.status, response, body, now_unix_s=0.0)


def _tokens(event: SseEvent) -> tuple[tuple[int, int], ...]:
    try:
        return event.tokens
    except MalformedError as error:
        raise _broken(error.message) from None


def _used(event: SseEvent) -> tuple[int, int] | None:
    try:
        return event.used
    except MalformedError as error:
        raise _broken(error.message) from None


def _decode(data: bytes | None, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data or b"", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _broken(f"a malformed {kind.__name__}") from None


def _decode_error(data: bytes | None) -> NodeError:
    """The event's data is the error itself; the body of a refusal, which wraps it, passes too."""
    try:
        return msgspec.json.decode(data or b"", type=NodeErrorBody).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode(data, NodeError)


def _broken(what: str) -> BadResponseError:
    return BadResponseError(f"the node broke the protocol: {what}", code=PROTOCOL_BROKEN)
