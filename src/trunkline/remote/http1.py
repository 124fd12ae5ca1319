"""The transport over HTTP/1.1: a pool of kept connections for each origin.

Written for the hot path, so that relaying a stream costs little; see ``docs/adr/0005-http.md``.
Refuses pipelining, proxies, redirects, cookies and content codings.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Final

from trunkline.base.errors import ConnectError, TruncatedError
from trunkline.remote.connect import connect, tls_context
from trunkline.remote.connection import Connection, Http1Response
from trunkline.remote.limit import Limit
from trunkline.remote.target import Origin, encode_head, parse_url
from trunkline.remote.transport import CLOSED, CONNECTIONS_EXHAUSTED, Headers, Method

IDLE_S_MAX: Final = 30.0
"""How long a free connection is kept. Most servers keep theirs longer."""
IDLE_PER_ORIGIN_MAX: Final = 32
ORIGINS_MAX: Final = 256
JOIN_BYTES_MAX: Final = 64 * 1024
"""Up to this size head and body are sent as one piece."""


class HttpTransport:
    """:class:`trunkline.remote.transport.Transport` over real sockets."""

    def __init__(
        self,
        *,
        max_connections_per_origin: int = 256,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """``tls`` replaces the default context (system roots), for private authorities."""
        self._max = max_connections_per_origin
        self._tls = tls
        self._pools: dict[Origin, _Pool] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

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
    ) -> Http1Response:
        """See :class:`trunkline.remote.transport.Transport`."""
        target = parse_url(url)
        has_body = body is not None or method == "POST"
        content = body or b""
        head = encode_head(method, target, headers, len(content) if has_body else None)
        joined = len(content) <= JOIN_BYTES_MAX
        request = (head + content,) if joined else (head, content)
        pool = self._pool(target.origin)
        connection = await pool.acquire(connect_timeout_s)
        reused = connection.served > 0
        try:
            return await connection.exchange(request, head_timeout_s, idle_timeout_s)
        except TruncatedError as error:
            # Not a byte came back on a kept connection: the server had closed it for idleness, as
            # it may at any time (RFC 9112, section 9.3.1). A fresh one decides, once.
            if not reused or error.error_code != CLOSED:
                raise
        connection = await pool.acquire(connect_timeout_s, fresh=True)
        return await connection.exchange(request, head_timeout_s, idle_timeout_s)

    async def aclose(self) -> None:
        """Cut every connection."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def _pool(self, origin: Origin) -> "_Pool":
        if self._closed:
            raise RuntimeError("the transport is closed")
        pool = self._pools.get(origin)
        if pool is None:
            if len(self._pools) >= ORIGINS_MAX:
                self._pools = {key: kept for key, kept in self._pools.items() if kept.in_use}
            if origin.tls and self._tls is None:
                self._tls = tls_context()
            pool = self._pools[origin] = _Pool(origin, self._tls, self._max, self._arm_sweeper)
        return pool

    def _arm_sweeper(self) -> None:
        if self._sweeper is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(IDLE_S_MAX, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        expired_before = asyncio.get_running_loop().time() - IDLE_S_MAX
        some_left = False
        for pool in self._pools.values():
            some_left |= pool.drop_idle(expired_before)
        if some_left:
            self._arm_sweeper()


class _Pool:
    """The connections of one origin: how many there are, which are free, who waits for one."""

    def __init__(
        self, origin: Origin, tls: ssl.SSLContext | None, most: int, on_idle: Callable[[], None]
    ) -> None:
        self._origin = origin
        self._tls = tls
        self._most = most
        self._on_idle = on_idle
        self._open: set[Connection] = set()
        self._connecting = 0
        self._idle: list[Connection] = []
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def in_use(self) -> bool:
        return bool(self._open or self._connecting or self._waiters)

    async def acquire(self, timeout_s: float, *, fresh: bool = False) -> Connection:
        """A free connection, the one used last first, or a new one within ``timeout_s``."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            if not fresh and (kept := self._take_idle(loop.time() - IDLE_S_MAX)) is not None:
                return kept
            if len(self._open) + self._connecting >= self._most and fresh and self._idle:
                self._idle.pop().abort()
            if len(self._open) + self._connecting < self._most:
                return await self._connect(deadline - loop.time())
            await self._wait_turn(deadline - loop.time())

    def _take_idle(self, expired_before: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and not connection.transport.is_closing():
                if connection.idle_since >= expired_before:
                    return connection
                connection.abort()
        return None

    async def _connect(self, timeout_s: float) -> Connection:
        self._connecting += 1
        try:
            connection = await connect(self._origin, lambda: Connection(self), self._tls, timeout_s)
            # It may be lost already; then it said so before it was counted.
            if connection.usable:
                self._open.add(connection)
            return connection
        finally:
            self._connecting -= 1
            # A failed try leaves its place to the next in line.
            self._wake_next()

    async def _wait_turn(self, timeout_s: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with Limit(timeout_s):
                await waiter
        except TimeoutError:
            raise ConnectError(
                f"all {self._most} connections to {self._origin.host} stayed in use",
                code=CONNECTIONS_EXHAUSTED,
            ) from None
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif waiter.done() and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                # Woken and cancelled at once: pass the turn on.
                self._wake_next()

    def _wake_next(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    # Owner of connections

    def released(self, connection: Connection) -> None:
        if len(self._idle) >= IDLE_PER_ORIGIN_MAX and not self._waiters:
            connection.abort()
            return
        self._idle.append(connection)
        self._on_idle()
        self._wake_next()

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake_next()

    def drop_idle(self, expired_before: float) -> bool:
        """Close connections free since before then; True if some are left."""
        for connection in [c for c in self._idle if c.idle_since < expired_before]:
            connection.abort()
        return bool(self._idle)

    def close(self) -> None:
        for connection in list(self._open):
            connection.abort()
