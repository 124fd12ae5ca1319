"""A scripted server on real sockets: what it sends, byte for byte, is the test's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Protocol

import pytest
import uvloop

from trunkline.remote.http1 import HttpTransport

Script = Callable[["Peer"], Awaitable[None]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test runs on both loops: uvloop serves, asyncio is what a simulation replaces."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.requests: list[bytes] = []
        self.gone = asyncio.Event()
        """Set once the client has closed the connection."""

    async def request(self) -> bytes:
        """Read one request, head and body; returns all of it."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = await self.reader.readexactly(length)
        self.requests.append(head + body)
        return head + body

    async def send(self, *pieces: bytes) -> None:
        """Send pieces as separate segments, as far as the kernel lets them be."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def closed_by_client(self) -> bool:
        """Wait until the client closes; True if it sent nothing more before."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True
        finally:
            self.gone.set()

    def reset(self) -> None:
        """Cut without a goodbye."""
        self.writer.transport.abort()


class Serve(Protocol):
    def __call__(self, *scripts: Script) -> "asyncio.Future[str]": ...


class Scripted:
    """Runs script n for connection n, the last one for all further ones."""

    def __init__(self, scripts: tuple[Script, ...]) -> None:
        self.scripts = scripts
        self.peers: list[Peer] = []
        self.errors: list[BaseException] = []
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.peers.append(peer)
        script = self.scripts[min(len(self.peers), len(self.scripts)) - 1]
        try:
            await script(peer)
        except (ConnectionError, asyncio.IncompleteReadError):
            peer.gone.set()
        except Exception as error:  # noqa: BLE001 - shown at the end of the test
            self.errors.append(error)
        finally:
            writer.close()


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[Scripted]:
    state = Scripted(scripts)
    server = await asyncio.start_server(state.handle, "127.0.0.1", 0)
    state.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        for peer in state.peers:
            peer.writer.transport.abort()
    assert state.errors == []


@pytest.fixture
def server() -> Iterator[Callable[..., object]]:
    """``async with server(script, …) as s``: a scripted server on loopback."""
    yield scripted


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made = HttpTransport()
    yield made
    await made.aclose()
