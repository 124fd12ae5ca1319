"""A network in memory: ASGI servers at one end, :class:`remote.transport.Transport` at the other.

Bodies stream piece by piece, with back-pressure. Each exchange has a :class:`Passage` that says
what the way does to it: refused, slow, cut at any byte, silent for a while, a frame doubled or
replaced by rubbish. Whoever dies takes its exchanges along: the client of a dead server sees a cut,
the server of a dead client a disconnect.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from random import Random
from types import TracebackType
from typing import Final, Self

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    ConnectError,
    Error,
    TimedOutError,
    TruncatedError,
)
from trunkline.remote import transport as port
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Headers, Method
from trunkline.runtime.http import STOPPING_KEY, Receive, Received, Scope, Send, Sent
from trunkline.sim.process import Process
from trunkline.sim.trace import Trace

App = Callable[[Scope, Receive, Send], Awaitable[None]]

PIPE_FRAMES_MAX: Final = 16
"""Frames under way before the sender has to wait."""
UNBROKEN_BYTES: Final = 1 << 16
"""Frames arrive as they were sent where pieces may be this large."""
RUBBISH: Final = b'id: 0\ndata: {"choices": [}\n\n'


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """What the way does to one exchange. The default is a good day."""

    refused: str | None = None
    """Code of the ConnectError."""
    connect_s: float = 0.001
    head_s: float = 0.001
    frame_s: float = 0.0005
    """Most that one frame is delayed."""
    piece_bytes: int = UNBROKEN_BYTES
    """Frames arrive in pieces of at most this size."""
    cut_at: int | None = None
    """The connection dies after so many bytes of the body."""
    stall_at: int | None = None
    """Silence after so many bytes of the body,"""
    stall_s: float = 0.0
    """for so long."""
    doubled: int | None = None
    """The frame that arrives twice."""
    rubbish: int | None = None
    """The frame in whose place rubbish arrives."""
    deaf_s: float = 0.0
    """How long the server takes to notice that its client has left."""
    flipped: int | None = None
    """The frame in which one letter of the answer's text becomes another."""


class Server:
    """One address: which process and application answer there now."""

    def __init__(self) -> None:
        self.process: Process | None = None
        self.app: App | None = None
        self.stopping = asyncio.Event()
        """Set when running calls must end now; handlers find it in their scope."""
        self.running: dict[asyncio.Task[None], None] = {}

    @property
    def listens(self) -> bool:
        """Somebody answers there."""
        return self.app is not None

    def up(self, process: Process, app: App) -> None:
        self.process, self.app = process, app
        self.stopping = asyncio.Event()

    def down(self) -> None:
        self.process, self.app = None, None

    def serve(self, exchange: "Exchange", process: Process, app: App, trace: Trace) -> None:
        """Answer one call."""
        task = process.spawn(exchange.serve(app, trace))
        self.running[task] = None
        task.add_done_callback(lambda done: self.running.pop(done, None))


Weather = Callable[[str, str], Passage]
"""Host and path to what happens on the way."""


class Network:
    """All addresses, the weather, and a tap that hears every exchange as the server sent it."""

    def __init__(self, random: Random, trace: Trace) -> None:
        self.random = random
        self.trace = trace
        self.servers: dict[str, Server] = {}
        self.weather: Weather = lambda _host, _path: Passage()
        self.tap: Callable[[str, str, bytes], Callable[[bytes], None]] | None = None
        """Called with host, path and request body; returns what hears each frame."""

    def server(self, host: str) -> Server:
        """The address, made when first asked for."""
        return self.servers.setdefault(host, Server())


class _Pipe:
    """Frames from the server to the client."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self.ended = False
        self.whole = False

    async def put(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._changed.set()
        if len(self._frames) >= PIPE_FRAMES_MAX:
            self._room.clear()
        await self._room.wait()

    def end(self, *, whole: bool) -> None:
        """No more frames; ``whole`` if the framing says so. The first end counts."""
        if not self.ended:
            self.ended, self.whole = True, whole
        self._changed.set()
        self._room.set()

    async def get(self) -> bytes | None:
        """The next frame; None at the end."""
        while not self._frames and not self.ended:
            self._changed.clear()
            await self._changed.wait()
        if not self._frames:
            return None
        frame = self._frames.popleft()
        if len(self._frames) < PIPE_FRAMES_MAX:
            self._room.set()
        return frame


class Exchange:
    """One request and its response, from both ends."""

    def __init__(
        self,
        scope: Scope,
        body: bytes,
        heard: Callable[[bytes], None] | None,
        *,
        deaf_s: float,
    ) -> None:
        self._scope = scope
        self._body: bytes | None = body
        self._heard = heard
        self._deaf_s = deaf_s
        self.pipe = _Pipe()
        self.head: asyncio.Future[tuple[int, tuple[tuple[str, str], ...]]] = (
            asyncio.get_running_loop().create_future()
        )
        self._client_gone = asyncio.Event()
        self._served = asyncio.Event()
        self._forget: list[Callable[[], object]] = []

    def bind(self, *processes: Process | None) -> None:
        """Break off when one of these dies."""
        for process in processes:
            if process is not None:
                self._forget.append(process.at_death(self.break_off))

    async def serve(self, app: App, trace: Trace) -> None:
        """The server's side."""
        try:
            await app(self._scope, self._receive, self._send)
        except Error as error:
            trace.note("server", "call.cut", error=error.error_code)
        except Exception as error:  # noqa: BLE001 - a bug of the application: put on record
            trace.note("server", "call.crashed", error="internal_error", kind=type(error).__name__)
        finally:
            self._served.set()
            self._end(whole=False)

    def break_off(self) -> None:
        """The connection is gone: for the client now, for the server once it notices."""
        asyncio.get_running_loop().call_later(self._deaf_s, self._client_gone.set)
        self._end(whole=False)

    def _end(self, *, whole: bool) -> None:
        self.pipe.end(whole=whole)
        if not self.head.done():
            self.head.cancel()
        for forget in self._forget:
            forget()
        self._forget.clear()

    async def _receive(self) -> Received:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        waits = [asyncio.create_task(event.wait()) for event in (self._client_gone, self._served)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return {"type": "http.disconnect"}

    async def _send(self, message: Sent) -> None:
        if self.pipe.ended:
            # As a real server does: what is sent to nobody is dropped.
            return
        if message["type"] == "http.response.start":
            headers = tuple(
                (name.decode("ascii"), value.decode("latin-1"))
                for name, value in message.get("headers", [])
            )
            if not self.head.done():
                self.head.set_result((message.get("status", 500), headers))
            return
        data = message.get("body", b"")
        if data:
            if self._heard is not None:
                self._heard(data)
            await self.pipe.put(data)
        if not message.get("more_body", False):
            self._served.set()
            self._end(whole=True)


class SimResponse:
    """:class:`remote.transport.Response`, by way of a passage."""

    def __init__(
        self,
        exchange: Exchange,
        status: int,
        headers: Sequence[tuple[str, str]],
        passage: Passage,
        random: Random,
        idle_timeout_s: float | None,
    ) -> None:
        self._exchange = exchange
        self._passage = passage
        self._random = random
        self._idle_s = idle_timeout_s
        self.status = status
        self.reason = ""
        self.headers = headers
        self._bodies = self._read_on()
        self._complete = False

    def header(self, name: str) -> str | None:
        found = [value for known, value in self.headers if known == name]
        return ", ".join(found) if found else None

    def chunks(self) -> AsyncGenerator[bytes, None]:
        return self._bodies

    async def read(self, limit: int) -> bytes:
        body = b""
        async for piece in self._bodies:
            body += piece
            if len(body) > limit:
                await self.aclose()
                raise BadResponseError("the body is too large", code=port.TOO_LARGE)
        return body

    async def aclose(self) -> None:
        if not self._complete:
            self._exchange.break_off()
        # Else the garbage collector would close it, at a moment that no seed decides.
        await self._bodies.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def _read_on(self) -> AsyncGenerator[bytes, None]:
        passage, came, number = self._passage, 0, 0
        stalled = False
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    frame = await self._exchange.pipe.get()
                    await asyncio.sleep(self._random.uniform(0.0, passage.frame_s))
            except TimeoutError:
                self._exchange.break_off()
                raise TimedOutError("the body stalled", code=port.STALLED) from None
            if frame is None:
                break
            for piece in self._pieces(self._spoiled(frame, number)):
                left = piece
                if passage.stall_at is not None and not stalled and came >= passage.stall_at:
                    stalled = True
                    await self._stall()
                if passage.cut_at is not None and came + len(left) > passage.cut_at:
                    left = left[: passage.cut_at - came]
                    if left:
                        yield left
                    self._exchange.break_off()
                    raise TruncatedError("the connection was cut", code=port.TRUNCATED)
                came += len(left)
                yield left
            number += 1
        if not self._exchange.pipe.whole:
            raise TruncatedError("the connection was cut", code=port.TRUNCATED)
        self._complete = True

    async def _stall(self) -> None:
        try:
            async with asyncio.timeout(self._idle_s):
                await asyncio.sleep(self._passage.stall_s)
        except TimeoutError:
            self._exchange.break_off()
            raise TimedOutError("the body stalled", code=port.STALLED) from None

    def _spoiled(self, frame: bytes, number: int) -> bytes:
        passage = self._passage
        if passage.rubbish == number:
            return RUBBISH
        if passage.doubled == number:
            return frame + frame
        if passage.flipped is not None and number >= passage.flipped:
            return frame.replace(b'"content":" the', b'"content":" thy')
        return frame

    def _pieces(self, frame: bytes) -> list[bytes]:
        if self._passage.piece_bytes >= UNBROKEN_BYTES:
            return [frame]
        pieces: list[bytes] = []
        while frame:
            size = self._random.randint(1, self._passage.piece_bytes)
            pieces.append(frame[:size])
            frame = frame[size:]
        return pieces


class SimTransport:
    """:class:`remote.transport.Transport` over a :class:`Network`."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def request(
        self,
        method: Method,
        url: str,
        *,
        headers: Headers = (),
        body: bytes | None = None,
        connect_timeout_s: float = 5.0,
        head_timeout_s: float = 30.0,
        idle_timeout_s: float | None = 30.0,
    ) -> SimResponse:
        target = parse_url(url)
        host, path = target.origin.host, target.path
        network = self._network
        passage = network.weather(host, path)
        try:
            async with asyncio.timeout(connect_timeout_s):
                await asyncio.sleep(passage.connect_s)
        except TimeoutError:
            raise TimedOutError("no connection in time", code=port.CONNECT_TIMEOUT) from None
        if passage.refused is not None:
            raise ConnectError("no connection", code=passage.refused)
        server = network.server(host)
        process, app = server.process, server.app
        if process is None or app is None:
            raise ConnectError("nobody listens", code=port.REFUSED)
        exchange = Exchange(
            _scope(method, path, headers, server.stopping),
            body or b"",
            network.tap(host, path, body or b"") if network.tap is not None else None,
            deaf_s=passage.deaf_s,
        )
        exchange.bind(process, Process.current())
        server.serve(exchange, process, app, network.trace)
        try:
            async with asyncio.timeout(head_timeout_s):
                await asyncio.sleep(passage.head_s)
                await asyncio.wait([exchange.head])
        except TimeoutError:
            exchange.break_off()
            raise TimedOutError("no head in time", code=port.HEAD_TIMEOUT) from None
        except BaseException:
            exchange.break_off()
            raise
        if exchange.head.cancelled():
            raise TruncatedError("closed before a response", code=port.CLOSED)
        status, got = exchange.head.result()
        return SimResponse(exchange, status, got, passage, network.random, idle_timeout_s)

    async def aclose(self) -> None:
        """Connections end with their exchanges."""


def _scope(method: str, path: str, headers: Headers, stopping: asyncio.Event) -> Scope:
    path, _, query = path.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query.encode("ascii"),
        "headers": [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers],
        STOPPING_KEY: stopping,
    }
