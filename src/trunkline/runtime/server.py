"""Hosting of a raw ASGI callable on uvicorn (httptools, uvloop).

What uvicorn leaves open is closed here: request heads are bounded in size and time, a client that
stops reading is cut off, stopping is graceful in stages, and nothing of a request is printed.
Refuses to run a crash into a clean end: an answer that was begun and not finished ends with a cut
connection, which the client's HTTP framing shows.

Stages of stopping: (1) the listening socket closes, idle connections close, ``draining`` is set;
(2) running calls get ``shutdown_grace_s`` to finish; (3) ``stopping`` is set and handlers get
``LAST_WORDS_S`` to end their streams with an explicit error; (4) they are cancelled.
"""

import asyncio
import errno
import functools
import ipaddress
import re
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Final, Literal, Protocol

import msgspec
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from trunkline.base.errors import ConfigError, Error
from trunkline.remote.limit import Alarm
from trunkline.runtime.http import (
    DRAINING_KEY,
    STOPPING_KEY,
    Receive,
    Scope,
    Send,
    Sent,
    http_status,
)
from trunkline.runtime.logger import Logger, get_logger, quiet_server

HEAD_BYTES_MAX: Final = 64 * 1024
HEAD_TIMEOUT_S: Final = 20.0
WRITE_STALL_S: Final = 60.0
KEEP_ALIVE_S: Final = 75
CONNECTIONS_MAX: Final = 4096
LAST_WORDS_S: Final = 2.0
HURRIED_WORDS_S: Final = 0.25
"""Instead, after a second signal."""
CANCEL_S: Final = 2.0
BACKLOG: Final = 1024
FILES_MAX: Final = 65_536
"""Open files that a role asks the system for. Each running call may take two connections, and most
systems begin with 1,024: short of them, every other process would seem to be out of reach."""
PROBES_S: Final = (0.0, 0.02, 0.2, 1.0)
"""After a client sent its last byte: when it is asked whether it still reads. Few, since clients
bound the interim responses that they take."""
_STILL_THERE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_TLS_HELLO: Final = b"\x16\x03"
_HTTP_2: Final = b"PRI * HTTP/2"
_UPGRADE: Final = re.compile(rb"(?im)^upgrade[ \t]*:")


class App(Protocol):
    """What a service room hands to the server."""

    async def startup(self) -> None:
        """Open what the calls need. Runs before the first connection is accepted."""
        ...

    async def shutdown(self) -> None:
        """Close it again. Runs after the last call ended, also when startup failed half-way."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


def run_server(
    app: App,
    listen: str,
    *,
    logger: Logger,
    on_ready: Callable[[str], None] | None = None,
    shutdown_grace_s: float = 10.0,
) -> None:
    """Serve ``app`` on ``listen`` (``host:port``) until SIGTERM or SIGINT; blocks.

    ``on_ready`` gets the base URL once connections are accepted. A second signal ends the time
    that running calls have to finish. Raises :class:`ConfigError` if the address can not be bound.
    """
    allow_files()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve_until_signalled(app, listen, logger, on_ready, shutdown_grace_s))


def allow_files() -> None:
    """Raise this process's limit of open files as far as it may, up to ``FILES_MAX``."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _serve_until_signalled(
    app: App,
    listen: str,
    logger: Logger,
    on_ready: Callable[[str], None] | None,
    grace_s: float,
) -> None:
    server = _Server(app, bind(listen), logger, grace_s)
    loop = asyncio.get_running_loop()
    handled = (signal.SIGTERM, signal.SIGINT)
    for number in handled:
        loop.add_signal_handler(number, server.stop)
    try:
        await server.serve_until_stopped(on_ready)
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


@asynccontextmanager
async def serving(
    app: App,
    listen: str = "127.0.0.1:0",
    *,
    logger: Logger | None = None,
    shutdown_grace_s: float = 5.0,
) -> AsyncIterator[str]:
    """Serve ``app`` inside the running loop for the duration of the block; yields the base URL.

    For tests, and for several roles in one process. An error of the server's own is raised at
    the end of the block.
    """
    server = _Server(app, bind(listen), logger or get_logger("server"), shutdown_grace_s)
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.serve_until_stopped(ready.set_result), name="server")
    waited: set[asyncio.Future[str] | asyncio.Task[None]] = {ready, task}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    try:
        if ready.done():
            yield ready.result()
    finally:
        server.stop()
        await task


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach ``host:port``. A name but ``localhost`` is taken to be
    reachable, and so is what can not be read: :func:`parse_listen` refuses it later."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_listen(listen: str) -> tuple[str, int]:
    """Split ``host:port`` or ``[v6]:port``. No host means loopback. Raises ConfigError."""
    host, colon, port_text = listen.rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:
        raise ConfigError(f"listen: {listen!r} is not host:port, for example 127.0.0.1:8480")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ConfigError(f"listen: write the IPv6 address in brackets: [{host}]:{port_text}")
    return host or "127.0.0.1", int(port_text)


def bind(listen: str) -> socket.socket:
    """A bound socket that does not listen yet. Raises :class:`ConfigError` naming the fix."""
    host, port = parse_listen(listen)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise ConfigError(f"listen: host {host!r} does not resolve; use an address") from None
    family, kind, number, _, address = found[0]
    sock = socket.socket(family, kind, number)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise ConfigError(_bind_failure(listen, port, error)) from None
    return sock


def _bind_failure(listen: str, port: int, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            fix = (
                f"port {port} is in use; stop the other process, or change `listen` in the "
                "configuration file (or $TRUNKLINE_LISTEN, or --port-base of `trunkline up`)"
            )
        case errno.EACCES:
            fix = f"port {port} needs privileges; change `listen` to a port above 1023"
        case errno.EADDRNOTAVAIL:
            fix = "this machine has no such address; change `listen`"
        case _:
            fix = f"can not be bound: {error.strerror}"
    return f"listen {listen}: {fix}"


def base_url(sock: socket.socket) -> str:
    """``http://host:port`` of a bound socket."""
    host, port = sock.getsockname()[:2]
    if ipaddress.ip_address(host.partition("%")[0]).version == 6:
        host = f"[{host}]"
    return f"http://{host}:{port}"


class _Hosted:
    """The callable that uvicorn sees: hands over the two events, and reports crashes safely."""

    def __init__(self, app: App, logger: Logger) -> None:
        self._app = app
        self._logger = logger
        self.draining = asyncio.Event()
        self.stopping = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[DRAINING_KEY] = self.draining
        scope[STOPPING_KEY] = self.stopping
        started = False

        async def noting_send(message: Sent) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [(b"date", _date(int(time.time()))), *message["headers"]]
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except asyncio.CancelledError:
            # Only stage 4 of stopping cancels. uvicorn would log it as a crash.
            self._logger.warning("call.cancelled", path=scope["path"], method=scope["method"])
        except Exception as error:  # noqa: BLE001 - the last frame before the server: it reports
            self._logger.crashed("call.crashed", error, path=scope["path"], method=scope["method"])
            if not started:
                await _send_failure(noting_send, error)


@functools.lru_cache(maxsize=1)
def _date(unix_s: int) -> bytes:
    """RFC 9110, section 6.6.1: who has a clock says when it answered."""
    return formatdate(unix_s, usegmt=True).encode("ascii")


async def _send_failure(send: Send, error: Exception) -> None:
    status, code = 500, "internal_error"
    message = "an internal error was reported to the operator"
    if isinstance(error, Error):
        status, code, message = http_status(error), error.error_code, error.told
    body = _error_body(code, message)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode("ascii")),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _error_body(code: str, message: str) -> bytes:
    return msgspec.json.encode({"error": {"code": code, "message": message}})


def _staying(data: bytes) -> bytes:
    """A head whose offer to change the protocol is not heard. Some clients make one with every call
    (``h2c``); the parser would take it and lose the body."""
    head, blank, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"x-upgrade:", head) + blank + rest


def _undivided(cycle: RequestResponseCycle) -> Send:
    """Sending to a client of HTTP/1.0: it knows no chunks, and would take their sizes for content.
    A body without a length ends where the connection does (RFC 9112, section 6.3)."""
    plain = cycle.send
    sized = False

    async def send(message: Sent) -> None:
        nonlocal sized
        if message["type"] == "http.response.start":
            sized = any(name.lower() == b"content-length" for name, _ in message["headers"])
            cycle.chunked_encoding = None if sized else False
        elif not sized:
            cycle.expected_content_length = len(message.get("body", b""))
        await plain(message)  # type: ignore[arg-type]

    return send


class _BoundedProtocol(HttpToolsProtocol):
    """uvicorn's connection with three bounds it lacks: bytes and time of a head, stalled writes.

    And with an answer for a client that closes its own half after the request (``nc -N``). That
    looks as if it had left altogether, until something is sent: then whoever left refuses it. So
    before the answer begins an interim response is sent, which whoever still reads passes over
    (RFC 9110, section 15.2). HTTP/1.0 has none; there the answer itself shows. A client that ends
    its half in the middle of an answer is taken to have left.
    """

    _served: RequestResponseCycle | None = None
    """Whose answer is being made. Those asked for meanwhile wait."""
    _probe_timer: asyncio.TimerHandle | None = None
    _first = b""
    """How what was sent last begins, if a head was expected."""
    _head_bytes = 0
    _in_head = True
    _head_alarm: Alarm | None = None
    _stall_alarm: Alarm | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > CONNECTIONS_MAX:
            self.transport.abort()
            return
        self._arm_head_alarm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_alarms()
        super().connection_lost(exc)
        # It tells the last one that was asked for. The one before it has lost its client too.
        if self._served is not None and not self._served.response_complete:
            self._served.disconnected = True
            self._served.message_event.set()

    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more. True: it may still read, so the connection stays."""
        last: RequestResponseCycle | None = self.cycle
        if last is None or last.more_body or last.response_started:
            return False
        # Whoever is shown the last answer has to see its end.
        last.keep_alive = False
        # Between the pieces of an answer that comes before it, nothing else can be sent.
        if last is self._served and last.scope["http_version"] != "1.0":
            self._probe(last, 0)
        return True

    def _probe(self, cycle: RequestResponseCycle, number: int) -> None:
        """Send what only a client that is there takes: by the second one it is known."""
        if self.transport.is_closing() or cycle.response_started:
            return
        self.transport.write(_STILL_THERE)
        if number + 1 < len(PROBES_S):
            wait_s = PROBES_S[number + 1] - PROBES_S[number]
            self._probe_timer = self.loop.call_later(wait_s, self._probe, cycle, number + 1)

    def _start_asgi_task(
        self, cycle: RequestResponseCycle, app: Callable[..., Awaitable[None]]
    ) -> None:
        self._served = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            if not self._head_bytes:
                self._first = data[: len(_HTTP_2)]
            if _UPGRADE.search(data) is not None:
                data = _staying(data)
            self._head_bytes += len(data)
            if self._head_alarm is None:
                self._arm_head_alarm()
        super().data_received(data)
        # Only now is it known whether these bytes completed the head.
        if self._in_head and self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
            self._refuse(431, "head_too_large", "the request's head is too large")

    def send_400_response(self, msg: str) -> None:
        """What does not parse."""
        if self._first.startswith(_HTTP_2):
            message = "this server speaks HTTP/1.1, and not HTTP/2"
            self._refuse(505, "http_version_unsupported", message)
        elif self._first.startswith(_TLS_HELLO):
            message = "this server speaks plain HTTP: call it by http://, or put a proxy before it"
            self._refuse(400, "tls_unsupported", message)
        else:
            self._refuse(400, "malformed_http", "this is no HTTP/1.1 request")

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Answer what is no call of any handler's, and close. Not within another call's answer:
        that is cut off, since what follows it can not be told from it."""
        if self._served is None or self._served.response_complete:
            body = _error_body(code, message)
            head = (
                f"date: {_date(int(time.time())).decode('ascii')}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n"
            )
            self.transport.write(STATUS_LINE[status] + head.encode("ascii") + body)
        self.transport.close()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        if self._head_alarm is not None:
            self._head_alarm.stop()
            self._head_alarm = None
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            self.cycle.send = _undivided(self.cycle)  # type: ignore[method-assign, assignment]

    def on_message_complete(self) -> None:
        self._in_head = True
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall_alarm = Alarm(self.transport.abort)
        self._stall_alarm.set(WRITE_STALL_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall_alarm is not None:
            self._stall_alarm.stop()
            self._stall_alarm = None

    def _arm_head_alarm(self) -> None:
        self._head_alarm = Alarm(self.transport.abort)
        self._head_alarm.set(HEAD_TIMEOUT_S)

    def _stop_alarms(self) -> None:
        for alarm in (self._head_alarm, self._stall_alarm):
            if alarm is not None:
                alarm.stop()
        self._head_alarm = self._stall_alarm = None
        if self._probe_timer is not None:
            self._probe_timer.cancel()


class _Server(uvicorn.Server):
    """uvicorn's server with our own stopping, without its signal handlers and polling."""

    def __init__(self, app: App, sock: socket.socket, logger: Logger, grace_s: float) -> None:
        self._app = app
        self._sock = sock
        self._url = base_url(sock)
        self._logger = logger
        self._grace_s = grace_s
        self._hosted = _Hosted(app, logger)
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()
        super().__init__(
            uvicorn.Config(
                self._hosted,
                http=_BoundedProtocol,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                backlog=BACKLOG,
            )
        )
        quiet_server()

    def stop(self) -> None:
        """Ask to stop; asked again, running calls end at once."""
        if self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked.set()

    async def serve_until_stopped(self, on_ready: Callable[[str], None] | None) -> None:
        """Start the app, accept calls, and go through the stages of stopping."""
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        try:
            await self._app.startup()
            await self.startup(sockets=[self._sock])
            await self.on_tick(0)
            self._logger.info("server.started", url=self._url)
            if on_ready is not None:
                on_ready(self._url)
            await self._stop_asked.wait()
            await self._stop_in_stages()
        finally:
            self._sock.close()
            await self._app.shutdown()
        self._logger.info("server.stopped", url=self._url)

    async def _stop_in_stages(self) -> None:
        for server in self.servers:
            server.close()
        # uvloop listens on a duplicate: until this one is closed too, the kernel accepts.
        self._sock.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        self._hosted.draining.set()
        self._logger.info("server.stopping", calls=len(self.server_state.tasks))
        await self._calls_ended(self._grace_s)
        if self.server_state.tasks:
            self._hosted.stopping.set()
            words_s = HURRIED_WORDS_S if self._hurry.is_set() else LAST_WORDS_S
            await asyncio.wait(set(self.server_state.tasks), timeout=words_s)
        for task in list(self.server_state.tasks):
            task.cancel()
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=CANCEL_S)
        for connection in list(self.server_state.connections):
            # Closing still sends what the last words left in the buffer.
            connection.transport.close()

    async def _calls_ended(self, within_s: float) -> None:
        """Wait for the running calls to end, for the time to pass, or for a second signal."""
        calls = asyncio.create_task(_all_done(set(self.server_state.tasks)))
        hurry = asyncio.create_task(self._hurry.wait())
        first: set[asyncio.Task[None] | asyncio.Task[Literal[True]]] = {calls, hurry}
        try:
            await asyncio.wait(first, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            calls.cancel()
            hurry.cancel()


async def _all_done(tasks: set[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)
