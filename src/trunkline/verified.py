"""Drop-in verification for an app's own client: its answers carry a receipt that can be asked.

    from trunkline import verified

    trust = verified.Trust.from_files(policy="policy", keys="keys.json")
    client = verified.wrap(openai.AsyncOpenAI(base_url=…), trust)
    answer = await client.chat.completions.create(…)    # as ever
    result = await answer.receipt.final()               # proven, or an error says what is not

Works with ``openai`` and ``anthropic`` clients, blocking or not, with ``httpx`` and ``httpx2``
clients, and with their transports. The gateway need not be trusted: what it says is held against
the bytes that this process sent and received. It loads no HTTP library and no gateway.
"""

import copy
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar, cast

from trunkline.base.errors import ConfigError
from trunkline.client import wire
from trunkline.client.errors import (
    AnswerChangedError,
    FalseEvidenceError,
    NoReceiptError,
    NotFinalError,
    NotShownError,
    OtherAnswerError,
    ReceiptError,
    ReplayedError,
    RequestChangedError,
    UnreadError,
    VerificationError,
)
from trunkline.client.judge import Result
from trunkline.client.receipt import AsyncReceipt, Receipt
from trunkline.client.sightings import Keeps, SplitViewError
from trunkline.client.trust import Trust

__all__ = [
    "AnswerChangedError",
    "AsyncReceipt",
    "FalseEvidenceError",
    "NoReceiptError",
    "NotFinalError",
    "NotShownError",
    "OtherAnswerError",
    "Receipt",
    "ReceiptError",
    "ReplayedError",
    "RequestChangedError",
    "Result",
    "SplitViewError",
    "Trust",
    "UnreadError",
    "VerificationError",
    "receipt_of",
    "wrap",
]

Client = TypeVar("Client")


class _Sends(Protocol):
    """What blocking httpx and httpx2 clients and transports have."""

    timeout: object
    headers: object
    base_url: object

    def send(self, request: object, *, stream: bool) -> wire.Response: ...
    def handle_request(self, request: object) -> wire.Response: ...
    def close(self) -> None: ...


class _SendsAsync(Protocol):
    """What those have that are awaited."""

    timeout: object
    headers: object
    base_url: object

    async def send(self, request: object, *, stream: bool) -> wire.Response: ...
    async def handle_async_request(self, request: object) -> wire.Response: ...
    async def aclose(self) -> None: ...


class _Official(Protocol):
    """What openai's and anthropic's clients have in common."""

    def copy(self, *, http_client: object) -> object: ...
    def post(self, *arguments: object, **named: object) -> object: ...


def wrap(
    client: Client,
    trust: Trust,
    *,
    keep_bodies: bool | None = None,
    sightings: str | Path | None = None,
) -> Client:
    """A client like ``client`` whose answers carry ``.receipt``; ``client`` itself stays as it is.

    ``keep_bodies``: whether the gateway is asked to keep what was said, so that answers that it
    translates (Anthropic's and the Responses format) can be proven too. By default only for those.
    ``sightings``: a file to keep the largest checkpoint seen of each log in, so that a log that
    shows two trees of one size is caught between runs and between processes too. Without, what was
    seen is in memory only, and forgotten with the process.
    Closing the new client closes the old one's connections.

    Raises :class:`ConfigError` for something that is none of what the module names, or a file that
    can not be used, and :class:`CorruptStateError` for one that is no file of sightings.
    """
    file = None if sightings is None else _sightings_file(Path(sightings))
    library = wire.library_of(client)
    if library is not None:
        watch = wire.Watch(library, trust, keep_bodies, file)
        if hasattr(client, "handle_async_request") or hasattr(client, "handle_request"):
            return cast(Client, _around_transport(client, watch))
        return cast(Client, _around_http(client, watch))
    inner = getattr(client, "_client", None)
    library = wire.library_of(inner)
    if library is None or not hasattr(client, "copy") or not hasattr(client, "post"):
        raise ConfigError(f"verified.wrap: not a client that is known: {type(client).__name__}")
    watched = _around_http(inner, wire.Watch(library, trust, keep_bodies, file))
    twin = copy.copy(client)
    # Its own copies, by with_options() too, are then of the same class.
    twin.__class__ = _carrying(type(client), library, inner)
    return cast(Client, cast(_Official, twin).copy(http_client=watched))


def _sightings_file(path: Path) -> Keeps:
    from trunkline.client.sightings_file import SightingsFile  # POSIX only, as its locks are

    return SightingsFile(path)


def receipt_of(answer: object) -> Receipt | AsyncReceipt:
    """The receipt of anything that an answer came in: a stream helper or a raw response too.

    Raises :class:`NoReceiptError` where there is none.
    """
    for thing in (answer, *(getattr(answer, name, None) for name in ("response", "http_response"))):
        found = getattr(thing, "receipt", None)
        if isinstance(found, Receipt | AsyncReceipt):
            return found
    raise NoReceiptError("this came through no wrapped client")


def _around_transport(inner: object, watch: wire.Watch) -> object:
    if hasattr(inner, "handle_async_request"):
        awaited = cast(_SendsAsync, inner)
        return wire.async_transport(watch, awaited.handle_async_request, awaited.aclose)
    blocking = cast(_Sends, inner)
    return wire.sync_transport(watch, blocking.handle_request, blocking.close)


def _around_http(inner: object, watch: wire.Watch) -> object:
    """An HTTP client that sends through ``inner``: its connections, proxies and settings."""
    if isinstance(inner, watch.library.AsyncClient):
        awaited = cast(_SendsAsync, inner)
        return watch.library.AsyncClient(
            transport=wire.async_transport(
                watch, partial(awaited.send, stream=True), awaited.aclose
            ),
            timeout=awaited.timeout,
            headers=awaited.headers,
            base_url=awaited.base_url,
        )
    blocking = cast(_Sends, inner)
    return watch.library.Client(
        transport=wire.sync_transport(watch, partial(blocking.send, stream=True), blocking.close),
        timeout=blocking.timeout,
        headers=blocking.headers,
        base_url=blocking.base_url,
    )


def _carrying(base: type, library: ModuleType, inner: object) -> type:
    """``base`` with a ``post`` whose answers carry their receipts."""
    post = cast(Callable[..., object], cast(type[_Official], base).post)
    apost = cast(Callable[..., Awaitable[object]], post)

    def blocking(self: object, *arguments: object, **named: object) -> object:
        call: list[Receipt | AsyncReceipt] = []
        token = wire.CALL.set(call)
        try:
            answer = post(self, *arguments, **named)
        finally:
            wire.CALL.reset(token)
        return _with_receipt(answer, call)

    async def awaited(self: object, *arguments: object, **named: object) -> object:
        call: list[Receipt | AsyncReceipt] = []
        token = wire.CALL.set(call)
        try:
            answer = await apost(self, *arguments, **named)
        finally:
            wire.CALL.reset(token)
        return _with_receipt(answer, call)

    is_async = isinstance(inner, library.AsyncClient)
    return type(base.__name__, (base,), {"post": awaited if is_async else blocking})


def _with_receipt(answer: object, call: list[Receipt | AsyncReceipt]) -> object:
    """Beside the fields, not among them: what an app dumps or compares stays the same."""
    members: MutableMapping[str, object] | None = getattr(answer, "__dict__", None)
    if call and members is not None:
        # The last one: earlier ones were retried by the client.
        members["receipt"] = call[-1]
    return answer
