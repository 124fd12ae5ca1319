"""The server over real sockets: calls, bounds, disconnects, and the stages of stopping."""

import asyncio
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager

import msgspec
import pytest
import uvloop
from tests.support.served import App, ended, raw

from trunkline.base.errors import ConfigError, OverloadedError, RequestError
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime import server
from trunkline.runtime.http import Call, ClientGoneError, Router
from trunkline.runtime.server import bind, parse_listen, serving


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def transport():
    made = HttpTransport()
    yield made
    await made.aclose()


async def fetch(transport, url, body=b"", **options) -> tuple[int, bytes]:
    async with await transport.request("POST", url, body=body, **options) as response:
        return response.status, await response.read(50_000_000)


async def test_a_call_and_its_answer(transport, logger):
    async def echo(call: Call) -> None:
        body = await call.body(100)
        assert call.header("x-name") == "a, b"
        assert call.query == {"q": "a b", "r": ""}
        await call.reply(201, body[::-1], "text/x", [("x-back", "1\r\n2 ✓")])

    app = App(echo=echo)
    async with serving(app, logger=logger) as url:
        assert app.life == ["startup"]
        async with await transport.request(
            "POST",
            url + "/echo?q=a%20b&r=",
            body=b"abc",
            headers=[("x-name", "a"), ("x-name", "b")],
        ) as response:
            assert response.status == 201
            assert response.header("x-back") == "1??2 ?"
            assert response.header("content-type") == "text/x"
            assert response.header("server") is None
            assert await response.read(10) == b"cba"
    assert app.life == ["startup", "shutdown"]


async def test_every_answer_says_when_it_was_made(logger, monkeypatch):
    async def ok(call: Call) -> None:
        await call.reply(200, b"hi")

    async def crash(call: Call) -> None:
        raise KeyError("prompt")

    asked = {"/ok": b"200", "/crash": b"500", "/none": b"404", "no path": b"400"}
    monkeypatch.setattr(server.time, "time", lambda: 784111777.9)
    async with serving(App(ok=ok, crash=crash), logger=logger) as url:
        for path, status in asked.items():
            async with raw(url) as (reader, writer):
                line = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                writer.write(line.encode())
                head = (await ended(reader)).partition(b"\r\n\r\n")[0].split(b"\r\n")
            assert head[0].split()[1] == status
            # The example of RFC 9110, section 5.6.7.
            dates = [line for line in head if line.lower().startswith(b"date:")]
            assert dates == [b"date: Sun, 06 Nov 1994 08:49:37 GMT"]


async def test_routing_errors_and_failures_in_the_rooms_format(transport, logger):
    async def busy(call: Call) -> None:
        raise OverloadedError("full")

    app = App(busy=busy)
    app.router.add_prefix("GET", "/tile/", busy)
    async with serving(app, logger=logger) as url:
        assert await fetch(transport, url + "/nothing") == (404, b'{"code":"not_found"}')
        assert await fetch(transport, url + "/tile/0/1") == (405, b'{"code":"method_not_allowed"}')
        assert await fetch(transport, url + "/busy") == (503, b'{"code":"overloaded"}')


async def test_an_answer_to_another_method_says_which_are_taken(transport, logger):
    async def refused(call: Call) -> None:
        raise RequestError("not now", status=405)

    app = App(refused=refused)
    app.router.add_prefix("GET", "/tile/", refused)
    app.router.add("DELETE", "/tile/0", refused)
    app.router.add("POST", "/tile/0", refused)
    async with serving(app, logger=logger) as url:
        for method, path, allowed in (
            ("POST", "/tile/1", "GET, HEAD"),
            ("PUT", "/tile/0", "DELETE, POST"),
            ("POST", "/refused", None),
        ):
            async with await transport.request(method, url + path) as response:
                assert (response.status, response.header("allow")) == (405, allowed)
        async with await transport.request("GET", url + "/nothing") as response:
            assert (response.status, response.header("allow")) == (404, None)


def test_router_prefers_exact_paths_and_long_prefixes():
    async def one(call): ...
    async def two(call): ...
    async def three(call): ...

    router = Router(one)
    router.add_prefix("GET", "/a/", one)
    router.add_prefix("GET", "/a/b/", two)
    router.add("GET", "/a/b/c", three)
    assert router.find("GET", "/a/x") is one
    assert router.find("GET", "/a/b/x") is two
    assert router.find("HEAD", "/a/b/c") is three
    for method, path, code in (
        ("GET", "/a", "not_found"),
        ("POST", "/a/b/c", "method_not_allowed"),
        ("BREW", "/a/x", "method_not_allowed"),
    ):
        with pytest.raises(RequestError) as caught:
            router.find(method, path)
        assert caught.value.error_code == code
    with pytest.raises(ValueError):
        router.add("GET", "/a/b/c", one)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_body_limit(transport, logger, framing):
    async def take(call: Call) -> None:
        await call.reply(200, b"%d" % len(await call.body(1000)))

    async with serving(App(take=take), logger=logger) as url:
        assert await fetch(transport, url + "/take", bytes(1000)) == (200, b"1000")
        if framing == "length":
            assert (await fetch(transport, url + "/take", bytes(1001)))[0] == 413
            return
        async with raw(url) as (reader, writer):
            writer.write(b"POST /take HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(3):
                writer.write(b"1f4\r\n" + bytes(500) + b"\r\n")
            writer.write(b"0\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 413")


async def test_slow_body_is_a_timeout(logger):
    async def take(call: Call) -> None:
        await call.body(1000, timeout_s=0.05)

    async with serving(App(take=take), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")


async def test_client_that_leaves_in_the_body_ends_the_call(logger):
    caught = asyncio.get_running_loop().create_future()

    async def take(call: Call) -> None:
        try:
            await call.body(1000)
        except RequestError as error:
            caught.set_result(error.error_code)
            raise

    async with serving(App(take=take), logger=logger) as url:
        async with raw(url) as (_, writer):
            writer.write(b"POST /take HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab")
            await writer.drain()
        assert await asyncio.wait_for(caught, 5) == "body_incomplete"


async def test_work_is_cancelled_when_the_client_leaves(transport, logger):
    outcome = asyncio.get_running_loop().create_future()

    async def stream(call: Call) -> None:
        await call.body(10)
        await call.start(200, [])
        await call.send(b"first")
        try:
            async with call.while_connected():
                await asyncio.Event().wait()
        except ClientGoneError as error:
            outcome.set_result(type(error))
            raise

    async with serving(App(stream=stream), logger=logger) as url:
        response = await transport.request("POST", url + "/stream", body=b"{}")
        assert await anext(response.chunks()) == b"first"
        await response.aclose()
        assert await asyncio.wait_for(outcome, 5) is ClientGoneError


async def test_while_connected_lets_results_and_errors_through(transport, logger):
    async def work(call: Call) -> None:
        async with call.while_connected():
            await asyncio.sleep(0)
        with pytest.raises(KeyError):
            async with call.while_connected():
                raise KeyError
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), call.while_connected():
                await asyncio.Event().wait()
        await call.reply(200, b"fine")
        assert not await call.disconnected()

    async with serving(App(work=work), logger=logger) as url:
        for _ in range(3):
            assert await fetch(transport, url + "/work") == (200, b"fine")


async def test_disconnected_can_be_watched_while_streaming(transport, logger):
    async def stream(call: Call) -> None:
        watching = asyncio.create_task(call.disconnected())
        await call.start(200, [])
        for _ in range(100):
            await call.send(b"x" * 1000)
        assert not watching.done()
        await call.finish()
        assert await watching is False

    async with serving(App(stream=stream), logger=logger) as url:
        assert await fetch(transport, url + "/stream") == (200, b"x" * 100_000)


async def test_crash_before_the_answer_is_a_500_without_content(transport, logger, lines):
    async def crash(call: Call) -> None:
        raise KeyError("the prompt")

    async with serving(App(crash=crash), logger=logger) as url:
        status, body = await fetch(transport, url + "/crash?secret=1")
    assert status == 500
    assert msgspec.json.decode(body)["error"]["code"] == "internal_error"
    crashed = next(line for line in lines if line["event"] == "call.crashed")
    assert crashed["error_type"] == "KeyError"
    assert "crash" in crashed["raised_at"]
    assert "prompt" not in str(lines)
    assert "secret" not in str(lines)


async def test_stopping_lets_running_calls_finish(transport, logger):
    running, go = asyncio.Event(), asyncio.Event()

    async def slow(call: Call) -> None:
        running.set()
        await call.draining.wait()
        go.set()
        await call.reply(200, b"done")

    async with serving(App(slow=slow), logger=logger) as url:
        task = asyncio.create_task(fetch(transport, url + "/slow"))
        await asyncio.wait_for(running.wait(), 5)
    assert go.is_set()
    assert await task == (200, b"done")


async def test_stopping_tells_streams_before_it_cancels(transport, logger):
    running = asyncio.Event()

    async def endless(call: Call) -> None:
        await call.start(200, [])
        running.set()
        await call.stopping.wait()
        await call.finish(b"event: error\n\n")

    async with serving(App(endless=endless), logger=logger, shutdown_grace_s=0.05) as url:
        task = asyncio.create_task(fetch(transport, url + "/endless"))
        await asyncio.wait_for(running.wait(), 5)
    assert await task == (200, b"event: error\n\n")


async def test_deaf_calls_are_cancelled(logger, monkeypatch, lines):
    monkeypatch.setattr(server, "LAST_WORDS_S", 0.05)
    running = asyncio.Event()

    async def deaf(call: Call) -> None:
        await call.start(200, [])
        await call.send(b"part")
        running.set()
        await asyncio.Event().wait()

    app = App(deaf=deaf)
    async with raw_later() as connect:
        async with serving(app, logger=logger, shutdown_grace_s=0.05) as url:
            reader = await connect(url, b"GET /deaf HTTP/1.1\r\nhost: x\r\n\r\n")
            await asyncio.wait_for(running.wait(), 5)
        assert (await ended(reader)).endswith(b"4\r\npart\r\n")
    assert "call.cancelled" in lines.events()
    assert app.life[-1] == "shutdown"


@asynccontextmanager
async def raw_later():
    """A connection that outlives the server it is made to."""
    opened = []

    async def connect(url: str, sent: bytes) -> asyncio.StreamReader:
        host, _, port = url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        opened.append(writer)
        return reader

    yield connect
    for writer in opened:
        writer.close()


async def test_failing_startup_is_raised_and_closed(logger):
    class Broken(App):
        async def startup(self) -> None:
            raise ConfigError("no store")

    app = Broken()
    with pytest.raises(ConfigError, match="no store"):
        async with serving(app, logger=logger):
            pytest.fail("it must not start")
    assert app.life == ["shutdown"]


@pytest.mark.parametrize(("soft", "hard"), [(64, 512), (256, 256)])
def test_a_role_may_open_as_many_files_as_the_system_lets_it(soft, hard):
    script = (
        "import resource as r; from trunkline.runtime.server import allow_files;"
        f"r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard})); allow_files();"
        "print(*r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.split() == [b"%d" % hard] * 2


def test_port_in_use_names_the_fix():
    with bind("127.0.0.1:0") as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is in use.*`listen`"):
            bind(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("listen", "parsed"),
    [
        ("127.0.0.1:8480", ("127.0.0.1", 8480)),
        (":8480", ("127.0.0.1", 8480)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_listen_addresses(listen, parsed):
    assert parse_listen(listen) == parsed


@pytest.mark.parametrize(
    "listen", ["", "8480", "host", "host:", "host:x", "host:70000", "::1:80", "h:١"]
)
def test_bad_listen_addresses(listen):
    with pytest.raises(ConfigError, match="listen"):
        parse_listen(listen)


def test_unknown_host_and_foreign_address():
    with pytest.raises(ConfigError, match="does not resolve"):
        bind("nowhere.invalid:0")
    with pytest.raises(ConfigError, match="no such address"):
        bind("192.0.2.1:0")


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
async def test_ipv6_end_to_end(transport, logger):
    async def ok(call: Call) -> None:
        await call.reply(200, b"ok")

    async with serving(App(ok=ok), "[::1]:0", logger=logger) as url:
        assert url.startswith("http://[::1]:")
        assert await fetch(transport, url + "/ok") == (200, b"ok")


PROGRAM = """
import asyncio, sys
from trunkline.runtime.http import Call
from trunkline.runtime.logger import configure, get_logger
from trunkline.runtime.server import run_server

class App:
    async def startup(self): pass
    async def shutdown(self): print("closed", flush=True)
    async def __call__(self, scope, receive, send):
        call = Call(scope, receive, send)
        await call.start(200, [])
        await call.send(b"part")
        print("running", flush=True)
        await call.stopping.wait()
        await call.finish(b"last words")

configure()
run_server(App(), "127.0.0.1:0", logger=get_logger("test"), shutdown_grace_s=float(sys.argv[1]),
           on_ready=lambda url: print(url, flush=True))
print("returned", flush=True)
"""


@pytest.mark.parametrize(("grace_s", "signals"), [("0.05", 1), ("60", 2)])
def test_signals_stop_a_real_process(grace_s, signals):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, grace_s],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        url = process.stdout.readline().strip()
        host, _, port = url.removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port)), timeout=10) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGTERM)
            # Only then has the first signal been handled.
            while "server.stopping" not in process.stderr.readline():
                continue
            if signals == 2:
                process.send_signal(signal.SIGINT)
            data = b""
            while piece := sock.recv(65536):
                data += piece
        out, err = process.communicate(timeout=10)
    assert data.endswith(b"a\r\nlast words\r\n0\r\n\r\n")
    assert out == "closed\nreturned\n"
    assert process.returncode == 0
    assert [msgspec.json.decode(line)["event"] for line in err.splitlines()] == ["server.stopped"]


@pytest.mark.parametrize(
    ("headers", "local"),
    [
        ((), True),
        (((b"host", b"127.0.0.1:8480"),), True),
        (((b"host", b"[::1]:8480"),), True),
        (((b"Host", b"LocalHost:8480"),), True),
        (((b"host", b"0.0.0.0:8480"),), True),
        # A page in the browser whose own name was made to lead to this machine.
        (((b"host", b"evil.example:8480"),), False),
        (((b"host", b"localhost.evil.example"),), False),
        (((b"host", b"127.0.0.1.evil.example:8480"),), False),
        (((b"host", b"127.0.0.1:8480"), (b"host", b"evil.example")), False),
        (((b"host", b"10.0.0.7:8480"),), False),
        (((b"host", b"[::1"),), False),
        (((b"host", b"127.0.0.1:8480"), (b"x-forwarded-for", b"127.0.0.1")), False),
    ],
)
def test_who_is_on_this_machine(headers, local):
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": list(headers),
        "client": ("127.0.0.1", 50_000),
    }
    assert Call(scope, None, None).local is local
    assert not Call(scope | {"client": ("10.0.0.7", 50_000)}, None, None).local
