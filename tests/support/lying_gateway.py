"""A gateway run by somebody else, who lies: it stands before an honest one and changes what passes.

A blocking HTTP server in a thread of its own, because the clients that it lies to block too.
"""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

TIMEOUT_S = 90.0
HOP_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "host"})


@dataclass(slots=True, kw_only=True)
class Told:
    """One exchange with the honest gateway."""

    status: int
    headers: dict[str, str]
    body: bytes


Lie = Callable[[Told, list[Told]], Told]
"""From what the honest gateway said, and what it said before, to what the app is told."""


def honest(now: Told, before: list[Told]) -> Told:
    return now


@dataclass(slots=True, kw_only=True)
class Liar:
    """What it does to answers, to requests on their way, and to evidence."""

    base_url: str = ""
    lie: Lie = honest
    request: Callable[[bytes], bytes] = bytes
    evidence: Callable[[Told], Told] = field(default=lambda told: told)
    said: list[Told] = field(default_factory=list)


def _handler(liar: Liar, upstream: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length", "0"))
            told = self._ask(liar.request(self.rfile.read(length)))
            self._tell(liar.lie(told, liar.said))
            liar.said.append(told)

        def do_GET(self) -> None:
            self._tell(liar.evidence(self._ask(None)))

        def _ask(self, body: bytes | None) -> Told:
            kept = {k: v for k, v in self.headers.items() if k.lower() not in HOP_HEADERS}
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=TIMEOUT_S)
            try:
                connection.request(self.command, self.path, body, kept)
                reply = connection.getresponse()
                headers = {k.lower(): v for k, v in reply.getheaders()}
                return Told(status=reply.status, headers=headers, body=reply.read())
            finally:
                connection.close()

        def _tell(self, told: Told) -> None:
            self.send_response(told.status)
            for name, value in told.headers.items():
                if name not in HOP_HEADERS:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its own name
            """Says nothing."""

    return Handler


@contextmanager
def lying(upstream: str) -> Iterator[Liar]:
    """A liar before the gateway at ``upstream``."""
    liar = Liar()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(liar, upstream))
    server.daemon_threads = True
    liar.base_url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield liar
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
