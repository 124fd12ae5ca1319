"""One HTTP call as a handler sees it, over a raw ASGI callable: the least that is needed.

Refuses to buffer without a bound, to guess an error format (the room hands one in), and to hide
that the client left: the server does not cancel a handler then, so whoever does long work watches
:meth:`Call.disconnected` or works inside :meth:`Call.while_connected`.
"""

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final, Literal, NotRequired, TypedDict
from urllib.parse import parse_qsl

import msgspec

from trunkline.base.errors import Error, RequestError
from trunkline.remote.limit import Limit

BODY_TIMEOUT_S: Final = 60.0
"""Longest that a client may take to send a body."""
QUERY_FIELDS_MAX: Final = 64
PROXY_HEADERS: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_HOST: Final = re.compile(r"(?:\[([^\[\]]*)\]|([^:]*))(?::[0-9]*)?")
STOPPING_KEY: Final = "trunkline.stopping"
DRAINING_KEY: Final = "trunkline.draining"

JSON_TYPE: Final = "application/json"
SSE_TYPE: Final = "text/event-stream; charset=utf-8"
TEXT_TYPE: Final = "text/plain; charset=utf-8"

RawHeaders = list[tuple[bytes, bytes]]
HeaderItems = Iterable[tuple[str, str]]

Scope = TypedDict(
    "Scope",
    {
        "type": str,
        "method": str,
        "path": str,
        "query_string": bytes,
        "headers": RawHeaders,
        "client": NotRequired[tuple[str, int] | None],
        "trunkline.stopping": NotRequired[asyncio.Event],
        "trunkline.draining": NotRequired[asyncio.Event],
    },
)
"""The part of an ASGI HTTP scope that is read here, and the server's two events."""


class Received(TypedDict):
    type: str
    body: NotRequired[bytes]
    more_body: NotRequired[bool]


class Sent(TypedDict):
    type: str
    status: NotRequired[int]
    headers: NotRequired[RawHeaders]
    body: NotRequired[bytes]
    more_body: NotRequired[bool]


Receive = Callable[[], Awaitable[Received]]
Send = Callable[[Sent], Awaitable[None]]


class ClientGoneError(Exception):
    """The client closed the connection. Not a failure of ours, so outside the error tree."""


class Call:
    """One request and the answer to it. Used by one handler task, plus a watcher of its own."""

    __slots__ = (
        "_body_done", "_gone", "_headers", "_receive", "_scope", "_send", "_watcher", "allow",
        "finished", "method", "path", "started",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers: dict[str, str] | None = None
        self._body_done = False
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None
        self.method = scope["method"]
        self.path = scope["path"]
        self.allow: str | None = None
        """The methods that the path takes, where the call came with another."""
        self.started = False
        """Status and headers have been sent."""
        self.finished = False
        """The whole answer has been handed to the server."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Request headers by lower-case name; repeated ones joined by a comma and a space."""
        if self._headers is None:
            found: dict[str, str] = {}
            for raw_name, raw_value in self._scope["headers"]:
                name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
                found[name] = f"{found[name]}, {value}" if name in found else value
            self._headers = found
        return self._headers

    @property
    def local(self) -> bool:
        """Whether the caller is on this machine; a server that knows no addresses has no others.
        What a proxy passes on is not: its caller may be anywhere. Nor is what asks for a foreign
        host: a page in this machine's browser whose own name was made to lead here does."""
        if any(name in self.headers for name in PROXY_HEADERS):
            return False
        if not _is_own_name(self.header("host")):
            return False
        peer = self._scope.get("client")
        if peer is None:
            return True
        try:
            return ipaddress.ip_address(peer[0]).is_loopback
        except ValueError:
            return False

    @property
    def address(self) -> str:
        """Where the connection comes from: an IP address, a proxy's where there is one; empty where
        the server knows none."""
        peer = self._scope.get("client")
        return "" if peer is None else peer[0]

    @property
    def from_foreign_page(self) -> bool:
        """Whether a page of another site sent this, from the user's own browser: one can, to any
        port of this machine, though it is not shown the answer. A page that hides its site too."""
        origin = self.header("origin")
        if origin is None:
            return False
        scheme, _, host = origin.partition("://")
        return origin == "null" or (scheme in ("http", "https") and not _is_own_name(host))

    def header(self, name: str) -> str | None:
        """One request header, by lower-case name."""
        return self.headers.get(name)

    @property
    def query(self) -> Mapping[str, str]:
        """The query string's fields; of a repeated one the last. Raises RequestError if it is
        not UTF-8 or has more than ``QUERY_FIELDS_MAX`` fields."""
        try:
            text = self._scope["query_string"].decode("ascii")
            pairs = parse_qsl(
                text, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX
            )
        except ValueError:
            raise RequestError("the query string can not be read", code="bad_query") from None
        return dict(pairs)

    @property
    def draining(self) -> asyncio.Event:
        """Set when the server stops taking new calls: a long poll should answer now."""
        return self._scope.get("trunkline.draining") or asyncio.Event()

    @property
    def stopping(self) -> asyncio.Event:
        """Set when the time for running calls is over: end a stream with an explicit error.

        Shortly after it the handler is cancelled.
        """
        return self._scope.get("trunkline.stopping") or asyncio.Event()

    async def body(self, limit: int, *, timeout_s: float = BODY_TIMEOUT_S) -> bytes:
        """The request's body, at most ``limit`` bytes.

        Raises RequestError: 413 ``body_too_large``, 408 ``body_timeout``, or 400
        ``body_incomplete`` when the client left before it was complete.
        """
        declared = self.header("content-length")
        if declared is not None and declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        try:
            async with Limit(timeout_s):
                return await self._collect(limit)
        except TimeoutError:
            raise RequestError(
                f"the body took longer than {timeout_s:g} s", code="body_timeout", status=408
            ) from None

    async def _collect(self, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        while not self._body_done:
            message = await self._receive()
            if message["type"] != "http.request":
                self._gone = True
                raise RequestError("the body is incomplete", code="body_incomplete")
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
            self._body_done = not message.get("more_body", False)
        return b"".join(parts)

    async def disconnected(self) -> bool:
        """Wait until the client leaves (True) or the answer is complete (False).

        May be awaited beside streaming, by several tasks, and cancelled freely. A body that was
        not read yet is thrown away, so read it first.
        """
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="call.watch")
        await asyncio.shield(self._watcher)
        return self._gone

    async def _watch(self) -> None:
        while (await self._receive())["type"] == "http.request":
            self._body_done = True
        self._gone = self._gone or not self.finished

    @asynccontextmanager
    async def while_connected(self) -> AsyncIterator[None]:
        """Do the work inside; when the client leaves it is cancelled at once, and
        :class:`ClientGoneError` is raised in its place. Upstream work ends with it."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("while_connected needs a running task")
        cancelled_by_us = False

        def on_watched(watcher: asyncio.Task[bool]) -> None:
            nonlocal cancelled_by_us
            if not watcher.cancelled() and watcher.exception() is None and watcher.result():
                cancelled_by_us = True
                task.cancel()

        watching = asyncio.create_task(self.disconnected(), name="call.disconnected")
        watching.add_done_callback(on_watched)
        try:
            yield
        except asyncio.CancelledError:
            # Somebody else may have cancelled as well; then that cancellation goes on.
            if cancelled_by_us and task.uncancel() == 0:
                cancelled_by_us = False
                raise ClientGoneError from None
            raise
        finally:
            watching.remove_done_callback(on_watched)
            watching.cancel()
            if cancelled_by_us and task.cancelling():
                task.uncancel()

    def close(self) -> None:
        """Stop watching. :meth:`Router.dispatch` calls it; tests may too."""
        if self._watcher is not None:
            self._watcher.cancel()

    async def start(self, status: int, headers: HeaderItems = ()) -> None:
        """Send status and headers of a streamed answer."""
        raw = [(name.lower().encode("ascii"), header_bytes(value)) for name, value in headers]
        if self.allow is not None:
            # RFC 9110, 15.5.6: a 405 says what is allowed.
            raw.append((b"allow", header_bytes(self.allow)))
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def send(self, data: bytes) -> None:
        """Send a part of the answer, waiting while the client is slow. A client that stays slow
        for too long is disconnected by the server."""
        if data:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        """Send the last part. Without this call the client sees a truncated answer."""
        self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def reply(
        self,
        status: int,
        body: bytes,
        content_type: str = JSON_TYPE,
        headers: HeaderItems = (),
    ) -> None:
        """Send a whole answer."""
        fixed = (("content-type", content_type), ("content-length", str(len(body))))
        await self.start(status, (*fixed, *headers))
        await self.finish(body)

    async def reply_json(self, status: int, obj: object, headers: HeaderItems = ()) -> None:
        """Send ``obj``, anything msgspec can encode, as JSON."""
        await self.reply(status, msgspec.json.encode(obj), JSON_TYPE, headers)


Handler = Callable[[Call], Awaitable[None]]
ErrorReply = Callable[[Call, Error], Awaitable[None]]
Method = Literal["GET", "POST", "PUT", "DELETE"]


class Router:
    """Finds the handler of a call by method and path: exact paths first, then the longest prefix.

    A failure raised before the answer began is written by ``error_reply``, in the room's format.
    """

    __slots__ = ("_error_reply", "_exact", "_prefixes")

    def __init__(self, error_reply: ErrorReply) -> None:
        self._error_reply = error_reply
        self._exact: dict[str, dict[str, Handler]] = {}
        self._prefixes: dict[str, dict[str, Handler]] = {}

    def add(self, method: Method, path: str, handler: Handler) -> None:
        """Handle ``method`` on exactly ``path``."""
        _register(self._exact.setdefault(path, {}), method, handler)

    def add_prefix(self, method: Method, prefix: str, handler: Handler) -> None:
        """Handle ``method`` on every path that starts with ``prefix`` (ends with a slash)."""
        if not prefix.endswith("/"):
            raise ValueError(f"prefix {prefix!r} must end with a slash")
        _register(self._prefixes.setdefault(prefix, {}), method, handler)

    def find(self, method: str, path: str) -> Handler:
        """The handler. Raises RequestError: 404 ``not_found`` or 405 ``method_not_allowed``."""
        # HEAD is GET without the body, which the server leaves out by itself.
        handler = self._at(path).get("GET" if method == "HEAD" else method)
        if handler is None:
            takes = f"this path takes {self.methods(path)}"
            raise RequestError(takes, code="method_not_allowed", status=405)
        return handler

    def methods(self, path: str) -> str:
        """The methods that ``path`` takes, as an ``allow`` header has them. RequestError 404."""
        found = self._at(path).keys()
        return ", ".join(sorted(found | {"HEAD"} if "GET" in found else found))

    def _at(self, path: str) -> dict[str, Handler]:
        found = self._exact.get(path)
        if found is None:
            fitting = [prefix for prefix in self._prefixes if path.startswith(prefix)]
            if not fitting:
                raise RequestError("there is nothing at this path", code="not_found", status=404)
            found = self._prefixes[max(fitting, key=len)]
        return found

    async def dispatch(self, call: Call) -> None:
        """Run the call's handler. An :class:`Error` after the answer began is raised on, so that
        the server cuts the connection instead of forging a clean end."""
        try:
            await self.find(call.method, call.path)(call)
        except ClientGoneError:
            return
        except Error as error:
            if call.started:
                raise
            if error.error_code == "method_not_allowed":
                call.allow = self.methods(call.path)
            await self._error_reply(call, error)
        finally:
            call.close()


def header_bytes(value: str) -> bytes:
    """A header value that can not end the line: what is not printable ASCII becomes ``?``."""
    if value.isascii() and value.isprintable():
        return value.encode("ascii")
    return "".join(c if " " <= c <= "~" else "?" for c in value).encode("ascii")


def http_status(error: Error) -> int:
    """The HTTP status that says the same as ``error``."""
    return error.http_status if isinstance(error, RequestError) else error.status


def _is_own_name(host: str | None) -> bool:
    """Whether a ``Host`` is one by which only this machine calls itself; without one, it is."""
    found = _HOST.fullmatch("" if host is None else host)
    if found is None:
        return False
    name: str = found[2] if found[1] is None else found[1]
    if not name or name.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    # 0.0.0.0 is where a role listens that serves others too; our own commands call it so.
    return address.is_loopback or address.is_unspecified


def _register(methods: dict[str, Handler], method: Method, handler: Handler) -> None:
    if method in methods:
        raise ValueError(f"{method} has a handler already")
    methods[method] = handler


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the body is larger than {limit} bytes", code="body_too_large", status=413)
