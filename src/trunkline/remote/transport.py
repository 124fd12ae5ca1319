"""The transport port: one HTTP request out, one response in, as a stream.

Everything that leaves this process over HTTP goes through a :class:`Transport`, so a simulation
can put its own network here. Implemented by :mod:`trunkline.remote.http1`. Redirects are not
followed, content codings are not undone, proxies and cookies are unknown.

Stable codes of what can go wrong:

=============================== ================== ==============================================
code                            class              meaning
=============================== ================== ==============================================
upstream_dns_failed             ConnectError       the host name has no address
upstream_refused                ConnectError       no TCP connection to any address
upstream_tls_failed             ConnectError       the TLS handshake or the certificate failed
upstream_connections_exhausted  ConnectError       all connections to this origin stayed in use
upstream_connect_timeout        TimedOutError      none of the above in time
upstream_head_timeout           TimedOutError      no status line and headers in time
upstream_stalled                TimedOutError      nothing more of the body for too long
upstream_closed                 TruncatedError     closed before the first byte of a response
upstream_truncated              TruncatedError     cut before its framing says it is complete
upstream_bad_http               BadResponseError   not HTTP/1.1, or beyond a bound
upstream_too_large              BadResponseError   the body is larger than the reader's limit
=============================== ================== ==============================================
"""

from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Final, Literal, Protocol, Self

Headers = Sequence[tuple[str, str]]
Method = Literal["GET", "POST", "PUT", "DELETE"]

DNS_FAILED: Final = "upstream_dns_failed"
REFUSED: Final = "upstream_refused"
TLS_FAILED: Final = "upstream_tls_failed"
CONNECTIONS_EXHAUSTED: Final = "upstream_connections_exhausted"
CONNECT_TIMEOUT: Final = "upstream_connect_timeout"
HEAD_TIMEOUT: Final = "upstream_head_timeout"
STALLED: Final = "upstream_stalled"
CLOSED: Final = "upstream_closed"
TRUNCATED: Final = "upstream_truncated"
BAD_HTTP: Final = "upstream_bad_http"
TOO_LARGE: Final = "upstream_too_large"


class Response(Protocol):
    """A response whose head has arrived. Close it, or read it to its end."""

    @property
    def status(self) -> int:
        """The final status, 200 to 599."""
        ...

    @property
    def reason(self) -> str:
        """The words after the status; may be empty. For people only."""
        ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        """Headers in order, names in lower case."""
        ...

    def header(self, name: str) -> str | None:
        """One header by its lower-case name; repeated ones joined by a comma and a space."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives, in pieces of no particular size, never empty.

        Raises TimedOutError (``upstream_stalled``), TruncatedError or BadResponseError. Whatever
        arrived before the failure is yielded first.
        """
        ...

    async def read(self, limit: int) -> bytes:
        """The whole rest of the body, at most ``limit`` bytes; more is BadResponseError
        ``upstream_too_large``. Otherwise fails as :meth:`chunks` does."""
        ...

    async def aclose(self) -> None:
        """Give the response up. One that is not complete has its connection cut, which is how
        upstream work is cancelled. Safe to repeat."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Transport(Protocol):
    """Sends requests. Safe to use from many tasks of one loop."""

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
    ) -> Response:
        """Send one request and wait for the head of its response.

        ``connect_timeout_s`` covers waiting for a connection, DNS, TCP and TLS; ``head_timeout_s``
        sending the request and the response's head; ``idle_timeout_s`` each wait for more of the
        body (None: the caller has a deadline of its own). Cancelling cuts the connection. Raises
        the UpstreamErrors listed above, and MalformedError (``bad_url``, ``bad_header``) before
        anything is sent.
        """
        ...

    async def aclose(self) -> None:
        """Cut every connection."""
        ...
