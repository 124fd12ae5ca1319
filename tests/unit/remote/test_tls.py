"""TLS: whose certificate is believed, and how its failures are told apart."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from trunkline.base.errors import ConnectError
from trunkline.remote.connect import tls_context
from trunkline.remote.http1 import HttpTransport

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="no openssl program to make certificates with"
)


def certificate(folder: Path, names: str) -> tuple[Path, Path]:
    """A fresh self-signed certificate for ``names`` and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    asked = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    command = ["openssl", *asked.split(), "-addext", f"subjectAltName={names}"]
    subprocess.run(
        [*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
    )
    return cert, key


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("local"), "DNS:localhost,IP:127.0.0.1")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("elsewhere"), "DNS:elsewhere.example")


def trusting(cert: Path) -> ssl.SSLContext:
    context = tls_context()
    context.load_verify_locations(cert)
    return context


@asynccontextmanager
async def tls_server(pair: tuple[Path, Path], chosen: list[str | None]):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    context.set_alpn_protocols(["h2", "http/1.1"])
    writers = []

    async def handle(reader, writer) -> None:
        writers.append(writer)
        chosen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        try:
            while True:
                request = await reader.readuntil(b"\r\n\r\n")
                name = request.split(b" ")[1]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
                if name == b"/cut":
                    writer.write(b"HTTP/1.1 200 OK\r\n")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        # Aborting TLS takes effect in the next turn.
        await asyncio.sleep(0)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_trusted_certificate_and_reuse(local, host):
    transport = HttpTransport(tls=trusting(local[0]))
    chosen: list[str | None] = []
    async with tls_server(local, chosen) as port:
        for _ in range(3):
            url = f"https://{host}:{port}/"
            async with await transport.request("GET", url) as response:
                assert await response.read(10) == b"hello"
        await transport.aclose()
    # One connection, and HTTP/1.1 although the server would rather speak HTTP/2.
    assert chosen == ["http/1.1"]


async def test_unknown_authority(local):
    transport = HttpTransport()
    async with tls_server(local, []) as port:
        with pytest.raises(ConnectError) as caught:
            await transport.request("GET", f"https://localhost:{port}/")
        await transport.aclose()
    assert caught.value.error_code == "upstream_tls_failed"
    assert "self-signed" in caught.value.message


async def test_certificate_for_another_name(elsewhere):
    transport = HttpTransport(tls=trusting(elsewhere[0]))
    async with tls_server(elsewhere, []) as port:
        with pytest.raises(ConnectError) as caught:
            await transport.request("GET", f"https://localhost:{port}/")
        await transport.aclose()
    assert caught.value.error_code == "upstream_tls_failed"


async def test_the_first_address_to_answer_wins(monkeypatch, local):
    """A name with a dead address before the live one."""
    loop = asyncio.get_running_loop()
    transport = HttpTransport(tls=trusting(local[0]))

    async def resolve(host, port, **_):
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    async with tls_server(local, []) as port:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "getaddrinfo", resolve)
            async with await transport.request("GET", f"https://localhost:{port}/") as response:
                assert await response.read(10) == b"hello"
        await transport.aclose()


async def test_all_addresses_refuse(monkeypatch):
    async def resolve(host, port, **_):
        addresses = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    transport = HttpTransport()
    # Taken, so that nobody else is given the port meanwhile; and nobody listens there.
    with socket.socket() as taken, pytest.raises(ConnectError) as caught:
        taken.bind(("127.0.0.1", 0))
        await transport.request("GET", f"http://name.example:{taken.getsockname()[1]}/")
    await transport.aclose()
    assert caught.value.error_code == "upstream_refused"
