"""One HTTP/1.1 connection: bytes to responses, one request at a time, no pipelining.

The parser is llhttp (httptools). It does not tell how a body is framed, and that decides whether
the end of the connection is the end of the body or a cut, so the framing is kept here (RFC 9112,
section 6.3): a body whose length is declared, or chunked, is complete only when the parser says
so; one that is neither ends with the connection, if that was closed in order.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import Final, Protocol, Self, cast

import httptools

from trunkline.base.errors import (
    BadResponseError,
    TimedOutError,
    TruncatedError,
    UpstreamError,
)
from trunkline.remote.connect import Cuttable
from trunkline.remote.limit import Alarm
from trunkline.remote.transport import (
    BAD_HTTP,
    CLOSED,
    HEAD_TIMEOUT,
    STALLED,
    TOO_LARGE,
    TRUNCATED,
)

HEAD_BYTES_MAX: Final = 64 * 1024
"""Of one response: status line and headers, interim responses included."""
HEADERS_MAX: Final = 256
BETWEEN_BODY_BYTES_MAX: Final = 64 * 1024
"""Bytes that may pass without any of body, give or take one read: chunk extensions, trailers."""
INTERIM_MAX: Final = 16
"""Interim (1xx) responses before the final one."""
BUFFER_HIGH_BYTES: Final = 256 * 1024
"""Reading from the network pauses while this much of a body waits for its reader."""


class Owner(Protocol):
    """Whoever keeps connections: told when one is free for another request, or gone."""

    def released(self, connection: "Connection") -> None: ...

    def lost(self, connection: "Connection") -> None: ...


class Http1Response:
    """A response and the part of its body that waits to be read."""

    __slots__ = (
        "_buffer",
        "_buffered",
        "_by_name",
        "_complete",
        "_connection",
        "_error",
        "_idle_alarm",
        "_idle_timeout_s",
        "_paused",
        "_waiter",
        "headers",
        "reason",
        "status",
    )  # fmt: skip

    def __init__(self, connection: "Connection", idle_timeout_s: float | None) -> None:
        self.status = 0
        self.reason = ""
        self.headers: list[tuple[str, str]] = []
        self._by_name: dict[str, str] | None = None
        self._connection: Connection | None = connection
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._paused = False
        self._complete = False
        self._error: UpstreamError | None = None
        self._idle_timeout_s = idle_timeout_s
        self._idle_alarm = Alarm(self._stalled)
        self._waiter: asyncio.Future[None] | None = None

    def header(self, name: str) -> str | None:
        """One header by its lower-case name; repeated ones joined."""
        if self._by_name is None:
            found: dict[str, str] = {}
            for key, value in self.headers:
                found[key] = f"{found[key]}, {value}" if key in found else value
            self._by_name = found
        return self._by_name.get(name)

    async def chunks(self) -> AsyncIterator[bytes]:
        """See :class:`trunkline.remote.transport.Response`."""
        while data := await self._next():
            yield data

    async def read(self, limit: int) -> bytes:
        """See :class:`trunkline.remote.transport.Response`."""
        parts: list[bytes] = []
        size = 0
        while data := await self._next():
            size += len(data)
            if size > limit:
                await self.aclose()
                raise BadResponseError(f"more than {limit} bytes of body", code=TOO_LARGE)
            parts.append(data)
        return b"".join(parts)

    async def aclose(self) -> None:
        """See :class:`trunkline.remote.transport.Response`."""
        if self._connection is not None:
            self._connection.abort()
        if not self._complete and self._error is None:
            self.fail(TruncatedError("the response was closed by its reader", code=TRUNCATED))
        self._buffer.clear()
        self._buffered = 0
        self._idle_alarm.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _next(self) -> bytes:
        """What has arrived since the last call, waiting for more; empty at the end."""
        while not self._buffer:
            if self._complete:
                self._idle_alarm.stop()
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        data = self._buffer[0] if len(self._buffer) == 1 else b"".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        if self._paused:
            self._paused = False
            if self._connection is not None:
                self._connection.transport.resume_reading()
        return data

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("a response has one reader")
        self._waiter = asyncio.get_running_loop().create_future()
        if self._idle_timeout_s is not None:
            self._idle_alarm.set(self._idle_timeout_s)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._idle_alarm.unset()

    def _stalled(self) -> None:
        connection = self._connection
        self.fail(TimedOutError(f"nothing came for {self._idle_timeout_s:g} s", code=STALLED))
        if connection is not None:
            connection.abort()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # Called by the connection.

    def received(self, data: bytes) -> None:
        """A piece of the body."""
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered > BUFFER_HIGH_BYTES and not self._paused and self._connection:
            self._paused = True
            self._connection.transport.pause_reading()
        self._wake()

    def completed(self) -> None:
        """The body is complete; the connection is no longer this response's."""
        self._complete = True
        self._detach()

    def fail(self, error: UpstreamError) -> None:
        """Nothing more will come."""
        if not self._complete and self._error is None:
            self._error = error
        self._detach()

    def _detach(self) -> None:
        connection, self._connection = self._connection, None
        if self._paused and connection is not None and not connection.transport.is_closing():
            connection.transport.resume_reading()
        self._paused = False
        self._wake()


class Connection(Cuttable):
    """The protocol object of one connection. Free, or serving exactly one request."""

    transport: asyncio.Transport

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._loop = asyncio.get_running_loop()
        self.usable = True
        """False once it is closing; it never becomes usable again."""
        self.served = 0
        self.idle_since = 0.0
        self._response: Http1Response | None = None
        self._head_waiter: asyncio.Future[None] | None = None
        self._reset()

    def _reset(self) -> None:
        self._reason = b""
        self._headers: list[tuple[str, str]] = []
        self._head_done = False
        self._message_done = False
        self._keep = False
        self._until_close = False
        self._interims = 0
        self._quiet_bytes = 0
        self._header_bytes = 0
        self._any_byte = False
        self._broken: str | None = None

    async def exchange(
        self, request: tuple[bytes, ...], head_timeout_s: float, idle_timeout_s: float | None
    ) -> Http1Response:
        """Send a request and wait for the response's head. Cancelling cuts the connection.

        A TruncatedError ``upstream_closed`` says that not one byte came back.
        """
        if not self.usable or self.transport.is_closing():
            raise TruncatedError("closed before the request was sent", code=CLOSED)
        self._reset()
        self.served += 1
        response = Http1Response(self, idle_timeout_s)
        self._response = response
        self._head_waiter = waiter = self._loop.create_future()
        alarm = Alarm(partial(self._head_timed_out, head_timeout_s))
        alarm.set(head_timeout_s)
        self.transport.writelines(request)
        try:
            await waiter
        except BaseException:
            # A response that is whole has given the connection back: it may serve another by now.
            if self._response is response:
                self.abort()
            raise
        finally:
            alarm.stop()
        return response

    def abort(self) -> None:
        """Cut the connection at once."""
        self._give_up()
        self.transport.abort()

    def _give_up(self) -> None:
        if self.usable:
            self.usable = False
            self._owner.lost(self)

    def _head_timed_out(self, timeout_s: float) -> None:
        self._fail(TimedOutError(f"no response within {timeout_s:g} s", code=HEAD_TIMEOUT))

    def _fail(self, error: UpstreamError) -> None:
        """End the request in progress with ``error``, and the connection with it."""
        response, self._response = self._response, None
        if self._head_waiter is not None and not self._head_waiter.done():
            self._head_waiter.set_exception(error)
        if response is not None:
            response.fail(error)
        self.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have asyncio's methods without its base classes.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._response is None:
            # Nobody asked: a kept connection must stay silent.
            self.abort()
            return
        self._any_byte = True
        self._quiet_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._broken = "it switched protocols"
        except httptools.HttpParserError:
            self._broken = self._broken or "it does not parse"
        if self._message_done:
            self._finish()
        elif self._broken is not None:
            self._fail(_bad(self._broken))
        elif self._quiet_bytes > (BETWEEN_BODY_BYTES_MAX if self._head_done else HEAD_BYTES_MAX):
            self._fail(_bad("head, chunk extension or trailer is too long"))

    def connection_lost(self, exc: Exception | None) -> None:
        response = self._response
        if response is not None:
            if self._until_close and self._head_done and exc is None:
                self._response = None
                response.completed()
            elif self._any_byte:
                self._fail(TruncatedError("the connection was cut", code=TRUNCATED))
            else:
                self._fail(TruncatedError("closed without a response", code=CLOSED))
        self._give_up()

    # Parser callbacks. They note what is wrong instead of raising: the parser would only wrap it.

    def on_message_begin(self) -> None:
        if self._message_done:
            self._broken = "more than one response"

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return
        self._header_bytes += len(name) + len(value)
        if len(self._headers) >= HEADERS_MAX or self._header_bytes > HEAD_BYTES_MAX:
            self._broken = "it has too many headers"
            return
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        if self._message_done or self._broken is not None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interims += 1
            self._headers = []
            self._reason = b""
            if status < 100 or self._interims > INTERIM_MAX:
                self._broken = "it has too many interim responses"
            return
        self._head_done = True
        self._quiet_bytes = 0
        self._start_response(status)

    def _start_response(self, status: int) -> None:
        response = self._response
        if response is None:
            return
        response.status = status
        response.reason = self._reason.decode("latin-1")
        response.headers = self._headers
        if status > 599 or self._parser.get_http_version() not in ("1.1", "1.0"):
            self._broken = "its version or status is unknown"
            return
        if response.header("content-encoding") not in (None, "", "identity"):
            self._broken = "its content coding was not asked for"
            return
        # Chunked or not, a transfer coding overrides a length; the parser refuses both together.
        coding = response.header("transfer-encoding")
        chunked = coding is not None and coding.rpartition(",")[2].strip().lower() == "chunked"
        declared = coding is None and response.header("content-length") is not None
        self._until_close = not (chunked or declared)
        if self._head_waiter is not None and not self._head_waiter.done():
            self._head_waiter.set_result(None)

    def on_body(self, data: bytes) -> None:
        if self._response is not None and self._broken is None:
            self._quiet_bytes = 0
            self._response.received(data)

    def on_message_complete(self) -> None:
        # An interim response is a message to the parser, not to us.
        if self._head_done and self._broken is None:
            self._message_done = True
            # Asked here, because the parser forgets the message when this returns.
            self._keep = self._parser.should_keep_alive()

    def _finish(self) -> None:
        """The response is whole: free the connection, if it can be trusted with another request."""
        response, self._response = self._response, None
        if response is not None:
            response.completed()
        reusable = (
            self._broken is None
            and self._keep
            and not self.transport.is_closing()
            # Answered before the request was sent in full: the rest is still on its way.
            and self.transport.get_write_buffer_size() == 0
        )
        if reusable:
            self.idle_since = self._loop.time()
            self._owner.released(self)
        else:
            self.abort()


def _bad(why: str) -> BadResponseError:
    return BadResponseError(f"the response is unusable: {why}", code=BAD_HTTP)
