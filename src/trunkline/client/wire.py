"""Where a call passes on its way out and its answer on the way back: an HTTP transport.

It stands before whatever the app's own client would have used, and changes nothing that the app
sees: the body goes out as it is, and every piece of the answer is handed on as it comes. It adds
four request headers: the call's nonce, ``accept-encoding: identity`` (what was signed are the
answer's own bytes), the wish to be told whose hash chain a stream's events belong to, and, for
formats that a gateway translates, the wish that it keep the bodies.

Works with httpx and with httpx2, which have the same shapes and different classes; neither is
imported here: the one that the app uses is there already.
"""

import hashlib
import hmac
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from functools import cache
from types import ModuleType
from typing import Final, Protocol

from trunkline.client.exchange import Exchange, format_of
from trunkline.client.receipt import AsyncReceipt, Fetched, Receipt
from trunkline.client.sightings import Keeps, Sightings
from trunkline.client.trust import Trust
from trunkline.evidence import EVIDENCE_BYTES_MAX
from trunkline.evidence.content import VERBATIM

EVIDENCE_PATH: Final = "/trunkline/v1/receipts/"
KINDS: Final = ("Client", "AsyncClient", "BaseTransport", "AsyncBaseTransport")
CREDENTIALS: Final = ("authorization", "x-api-key")
SLACK_S: Final = 15.0
"""What fetching evidence may take beyond the wait that it asks for."""

_SECRET: Final = secrets.token_bytes(32)

CALL: Final[ContextVar[list[Receipt | AsyncReceipt] | None]] = ContextVar("call", default=None)
"""Receipts of the exchanges that one call of an official client made, retries included."""


class Headers(Protocol):
    def get(self, key: str, default: str = "") -> str: ...
    def __setitem__(self, key: str, value: str) -> None: ...


class Url(Protocol):
    @property
    def path(self) -> str: ...
    def copy_with(self, **parts: object) -> "Url": ...


class Request(Protocol):
    @property
    def method(self) -> str: ...
    @property
    def url(self) -> Url: ...
    @property
    def headers(self) -> Headers: ...
    def read(self) -> bytes: ...
    async def aread(self) -> bytes: ...


class SyncStream(Protocol):
    def __iter__(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class AsyncStream(Protocol):
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class Response(Protocol):
    stream: object
    status_code: int

    @property
    def headers(self) -> Headers: ...


class Watch:
    """What all exchanges of one wrapped client have in common."""

    def __init__(
        self, library: ModuleType, trust: Trust, keep_bodies: bool | None, file: Keeps | None
    ) -> None:
        """``file``: where sightings outlive the process. Raises what reading it raises."""
        self.library = library
        self.trust = trust
        self.sightings = Sightings(trust.policy, file)
        self._keep_bodies = keep_bodies

    def begin(self, request: Request, body: bytes) -> Exchange | None:
        """Note a request that asks for an answer, and mark it; None for any other."""
        found = format_of(request.url.path) if request.method == "POST" else None
        if found is None:
            return None
        format_ = found[0]
        kept = format_ not in VERBATIM if self._keep_bodies is None else self._keep_bodies
        nonce = _nonce(request.headers.get("idempotency-key"), body)
        request.headers["trunkline-nonce"] = nonce
        request.headers["accept-encoding"] = "identity"
        request.headers["trunkline-chain"] = "1"
        if kept:
            request.headers["trunkline-keep"] = "bodies"
        return Exchange(
            format=format_,
            request=body,
            nonce=nonce,
            sent_ms=time.time_ns() // 1_000_000,
            kept=kept,
        )

    def head(self, exchange: Exchange, headers: Headers) -> None:
        """Note what the response's head says."""
        exchange.answer = headers.get("trunkline-receipt", "")
        exchange.encoded = headers.get("content-encoding", "identity") != "identity"

    def evidence(self, asked: Request, answer: str, wait_s: int) -> object:
        """The request for an answer's evidence, at the gateway that was asked."""
        found = format_of(asked.url.path)
        prefix = "" if found is None else found[1]
        query = f"wait_s={wait_s}".encode()
        url = asked.url.copy_with(path=f"{prefix}{EVIDENCE_PATH}{answer}", query=query)
        timeout = self.library.Timeout(wait_s + SLACK_S)
        # The key that asked, to the gateway that it was sent to before: bodies that were kept are
        # shown to its holder alone.
        sent = {name: asked.headers.get(name, "") for name in CREDENTIALS}
        own = {name: value for name, value in sent.items() if value}
        return self.library.Request(
            "GET", url, headers=own, extensions={"timeout": timeout.as_dict()}
        )


def _nonce(idempotency_key: str, body: bytes) -> str:
    """Fresh, but for a request that the caller itself declares to be the same one again."""
    if not idempotency_key:
        return secrets.token_hex(32)
    message = idempotency_key.encode() + b"\n" + hashlib.sha256(body).digest()
    return hmac.new(_SECRET, message, hashlib.sha256).hexdigest()


class SyncTransport:
    """See the module. ``send`` is the app's own way out."""

    def __init__(
        self, watch: Watch, send: Callable[[object], Response], close: Callable[[], None]
    ) -> None:
        self._watch = watch
        self._send = send
        self._close = close

    def handle_request(self, request: Request) -> Response:
        """Send it, and watch the answer pass."""
        exchange = self._watch.begin(request, request.read())
        response = self._send(request)
        if exchange is not None and response.status_code == 200:
            self._watch.head(exchange, response.headers)
            response.stream = _classes(self._watch.library)[0](response.stream, exchange)
            _attach(response, self._receipt(exchange, request))
        return response

    def _receipt(self, exchange: Exchange, request: Request) -> Receipt:
        watch = self._watch

        def fetch(wait_s: int) -> Fetched:
            try:
                response = self._send(watch.evidence(request, exchange.answer, wait_s))
                stream: SyncStream = response.stream  # type: ignore[assignment]
                try:
                    return Fetched(status=response.status_code, data=_bounded(stream))
                finally:
                    stream.close()
            except watch.library.TransportError:
                return Fetched(status=0)

        return Receipt(exchange, watch.trust, watch.sightings, fetch)

    def close(self) -> None:
        """Close the app's own way out."""
        self._close()


class AsyncTransport:
    """As :class:`SyncTransport`, awaited."""

    def __init__(
        self,
        watch: Watch,
        send: Callable[[object], Awaitable[Response]],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._watch = watch
        self._send = send
        self._close = close

    async def handle_async_request(self, request: Request) -> Response:
        """Send it, and watch the answer pass."""
        exchange = self._watch.begin(request, await request.aread())
        response = await self._send(request)
        if exchange is not None and response.status_code == 200:
            self._watch.head(exchange, response.headers)
            response.stream = _classes(self._watch.library)[1](response.stream, exchange)
            _attach(response, self._receipt(exchange, request))
        return response

    def _receipt(self, exchange: Exchange, request: Request) -> AsyncReceipt:
        watch = self._watch

        async def fetch(wait_s: int) -> Fetched:
            try:
                response = await self._send(watch.evidence(request, exchange.answer, wait_s))
                stream: AsyncStream = response.stream  # type: ignore[assignment]
                try:
                    return Fetched(status=response.status_code, data=await _abounded(stream))
                finally:
                    await stream.aclose()
            except watch.library.TransportError:
                return Fetched(status=0)

        return AsyncReceipt(exchange, watch.trust, watch.sightings, fetch)

    async def aclose(self) -> None:
        """Close the app's own way out."""
        await self._close()


def _attach(response: Response, receipt: Receipt | AsyncReceipt) -> None:
    response.__dict__["receipt"] = receipt
    call = CALL.get()
    if call is not None:
        call.append(receipt)


def _bounded(stream: SyncStream) -> bytes:
    data = bytearray()
    for piece in stream:
        data += piece
        if len(data) > EVIDENCE_BYTES_MAX:
            break  # the check refuses what is too long
    return bytes(data)


async def _abounded(stream: AsyncStream) -> bytes:
    data = bytearray()
    async for piece in stream:
        data += piece
        if len(data) > EVIDENCE_BYTES_MAX:
            break
    return bytes(data)


class _SyncTee:
    """An answer's stream on its way to the app."""

    def __init__(self, inner: SyncStream, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            self._exchange.add(piece)
            yield piece
        self._exchange.close()

    def close(self) -> None:
        self._inner.close()


class _AsyncTee:
    def __init__(self, inner: AsyncStream, exchange: Exchange) -> None:
        self._inner = inner
        self._exchange = exchange

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._exchange.add(piece)
            yield piece
        self._exchange.close()

    async def aclose(self) -> None:
        await self._inner.aclose()


Make = Callable[..., object]


@cache
def _classes(library: ModuleType) -> tuple[Make, Make, Make, Make]:
    """The streams and transports above, as the library's own kinds."""
    return (
        type("VerifiedStream", (_SyncTee, library.SyncByteStream), {}),
        type("AsyncVerifiedStream", (_AsyncTee, library.AsyncByteStream), {}),
        type("VerifiedTransport", (SyncTransport, library.BaseTransport), {}),
        type("AsyncVerifiedTransport", (AsyncTransport, library.AsyncBaseTransport), {}),
    )


def sync_transport(
    watch: Watch, send: Callable[[object], Response], close: Callable[[], None]
) -> object:
    """A :class:`SyncTransport` that the library takes for its own."""
    return _classes(watch.library)[2](watch, send, close)


def async_transport(
    watch: Watch,
    send: Callable[[object], Awaitable[Response]],
    close: Callable[[], Awaitable[None]],
) -> object:
    """An :class:`AsyncTransport` that the library takes for its own."""
    return _classes(watch.library)[3](watch, send, close)


def library_of(thing: object) -> ModuleType | None:
    """The HTTP library that ``thing`` is made of; None: neither httpx nor httpx2."""
    # Not by the names of classes' modules: official clients give some of them their own.
    for name in ("httpx", "httpx2"):
        library = sys.modules.get(name)
        kinds = () if library is None else tuple(getattr(library, kind) for kind in KINDS)
        if isinstance(thing, kinds):
            return library
    return None
