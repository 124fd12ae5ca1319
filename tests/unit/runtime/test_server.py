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

from trunkline.base.errors import ConfigError, OverloadedError, RequestError
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime import server
from trunkline.runtime.http import Call, ClientGoneError, Router, http_status
from trunkline.runtime.server import bind, parse_listen, serving


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


class App:
    """Routes to the handlers of a test; notes its life."""

    def __init__(self, **handlers) -> None:
        self.life = []
        self.router = Router(self.error)
        for name, handler in handlers.items():
            self.router.add("POST", f"/{name}", handler)
            self.router.add("GET", f"/{name}", handler)

    async def error(self, call: Call, error) -> None:
        await call.reply_json(http_status(error), {"code": error.error_code})

    async def startup(self) -> None:
        self.life.append("startup")

    async def shutdown(self) -> None:
        self.life.append("shutdown")

    async def __call__(self, scope, receive, send) -> None:
        await self.router.dispatch(Call(scope, receive, send))


@pytest.fixture
async def transport():
    made = HttpTransport()
    yield made
    await made.aclose()


async def fetch(transport, url, body=b"", **options) -> tuple[int, bytes]:
    async with await transport.request("POST", url, body=body, **options) as response:
        return response.status, await response.read(50_000_000)


@asynccontextmanager
async def raw(url: str):
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes; a reset counts as closing."""
    data = b""
    try:
        async with asyncio.timeout(10):
            while piece := await reader.read(65536):
                data += piece
    except ConnectionError:
        pass
    return data


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


@pytest.fixture
def half_closed(monkeypatch):
    """Set once the server knows that its client sends no more, and has done what follows."""
    known, received = asyncio.Event(), server._BoundedProtocol.eof_received

    def eof_received(self) -> bool:
        stays = received(self)
        asyncio.get_running_loop().call_later(0.1, known.set)  # it looks twice who is there
        return stays

    monkeypatch.setattr(server._BoundedProtocol, "eof_received", eof_received)
    return known


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_a_client_that_only_ends_its_own_half_is_answered(logger, half_closed, version):
    async def slow(call: Call) -> None:
        await call.body(10)
        async with call.while_connected():
            await half_closed.wait()
            await call.start(200)
            await call.send(b"one ")
            await asyncio.sleep(0)
            await call.finish(b"two")

    async with serving(App(slow=slow), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(b"POST /slow HTTP/%b\r\ncontent-length: 2\r\n\r\nhi" % version.encode())
        writer.write_eof()
        data = await ended(reader)
    interim, plain = b"HTTP/1.1 100 Continue\r\n\r\n", b"one two"
    assert data.startswith(interim if version == "1.1" else b"HTTP/1.1 200 ")
    assert b"connection: close\r\n" in data
    whole = b"4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n" if version == "1.1" else plain
    assert data.replace(interim, b"").partition(b"\r\n\r\n")[2] == whole


async def test_all_that_was_asked_for_before_that_is_answered(logger, half_closed):
    async def slow(call: Call) -> None:
        async with call.while_connected():
            await half_closed.wait()
            await call.reply(200, b"there", "text/plain")

    async with serving(App(slow=slow), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
        writer.write_eof()
        data = await ended(reader)
    assert data.count(b"HTTP/1.1 200") == 3
    assert data.count(b"\r\n\r\nthere") == 3
    assert data.count(b"connection: close") == 1


@pytest.mark.parametrize("asked", ["once", "ahead"])
async def test_a_client_that_left_without_a_word_is_missed_soon(logger, asked):
    left = asyncio.get_running_loop().create_future()

    async def work(call: Call) -> None:
        try:
            async with call.while_connected():
                if asked == "once":
                    await asyncio.Event().wait()
                # Nothing is read of a client that has asked for more ahead: what is sent shows.
                await call.start(200)
                while True:
                    await call.send(b"more")
                    await asyncio.sleep(0.01)
        except ClientGoneError:
            left.set_result(None)
            raise

    async with serving(App(work=work), logger=logger) as url:
        async with raw(url) as (_, writer):
            times = 1 if asked == "once" else 2
            writer.write(b"GET /work HTTP/1.1\r\nhost: x\r\n\r\n" * times)
            await writer.drain()
        async with asyncio.timeout(2):
            await left


@pytest.mark.parametrize("how", ["crash", "stop short"])
async def test_unfinished_answer_is_seen_as_truncated(logger, how):
    async def partial(call: Call) -> None:
        await call.start(200, [])
        await call.send(b"some")
        if how == "crash":
            raise RuntimeError

    async with serving(App(partial=partial), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(b"GET /partial HTTP/1.1\r\nhost: x\r\n\r\n")
        data = await ended(reader)
    assert data.endswith(b"4\r\nsome\r\n")


@pytest.mark.parametrize("sized", [False, True])
async def test_a_client_of_http_1_0_is_sent_no_chunks(logger, sized):
    async def parts(call: Call) -> None:
        await call.start(200, [("content-length", "8")] if sized else [])
        await call.send(b"some")
        await call.finish(b"more")

    async with serving(App(parts=parts), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(b"GET /parts HTTP/1.0\r\n\r\n")
        head, _, body = (await ended(reader)).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"somemore"


@pytest.mark.parametrize("split", [False, True])
async def test_an_offer_of_another_protocol_costs_no_body(logger, split):
    async def echo(call: Call) -> None:
        await call.reply(200, await call.body(100))

    head = b"POST /echo HTTP/1.1\r\nhost: x\r\nconnection: Upgrade, HTTP2-Settings, close\r\n"
    rest = b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\ncontent-length: 11\r\n\r\nUpgrade: me"
    async with serving(App(echo=echo), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(head + rest[: 40 if split else len(rest)])
        await writer.drain()
        writer.write(rest[40:] if split else b"")
        data = await ended(reader)
    assert data.startswith(b"HTTP/1.1 200")
    assert data.endswith(b"\r\n\r\nUpgrade: me")


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed_http"),
        (b"GET / HTTP/1.1\r\n bad\r\n\r\n", 400, "malformed_http"),
        (b"\x16\x03\x01" + bytes(100), 400, "tls_unsupported"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 505, "http_version_unsupported"),
        (
            b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "malformed_http",
        ),
    ],
)
async def test_what_is_no_request_is_told_so_and_not_logged(logger, lines, sent, status, code):
    async with serving(App(), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(sent)
        data = await ended(reader)
    assert data.startswith(b"HTTP/1.1 %d " % status)
    assert msgspec.json.decode(data.partition(b"\r\n\r\n")[2])["error"]["code"] == code
    assert set(lines.events()) == {"server.started", "server.stopping", "server.stopped"}


@pytest.mark.parametrize(
    "part", [b"GET /" + b"x" * 200_000, b"GET / HTTP/1.1\r\na: " + b"x" * 200_000]
)
async def test_huge_head_is_refused(logger, part):
    async with serving(App(), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(part)
        assert b"HTTP/1.1 431" in await ended(reader) or reader.at_eof()


async def test_garbage_after_a_request_is_no_part_of_its_answer(logger):
    begun = asyncio.Event()

    async def slow(call: Call) -> None:
        await call.start(200)
        await call.send(b"some")
        begun.set()
        async with call.while_connected():
            await asyncio.Event().wait()

    async with serving(App(slow=slow), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        await begun.wait()
        writer.write(b"garbage\r\n\r\n")
        data = await ended(reader)
    assert data.endswith(b"\r\n\r\n4\r\nsome\r\n")


async def test_stalled_head_is_cut_off(logger, monkeypatch):
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.05)
    async with serving(App(), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n")
        assert await ended(reader) == b""


async def test_second_head_on_a_kept_connection_is_bounded_too(logger, monkeypatch):
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.05)

    async def ok(call: Call) -> None:
        await call.reply(200, b"ok")

    async with serving(App(ok=ok), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"ok")
        writer.write(b"GET /ok HT")
        assert await ended(reader) == b""


async def test_client_that_stops_reading_is_cut_off(logger, monkeypatch):
    monkeypatch.setattr(server, "WRITE_STALL_S", 0.05)
    gone = asyncio.get_running_loop().create_future()

    async def flood(call: Call) -> None:
        await call.start(200, [])
        try:
            async with call.while_connected():
                while True:
                    await call.send(bytes(65536))
                    await asyncio.sleep(0)
        except ClientGoneError:
            gone.set_result(True)

    async with serving(App(flood=flood), logger=logger) as url, raw(url) as (reader, writer):
        reader._transport.pause_reading()
        writer.write(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await asyncio.wait_for(gone, 10)


async def test_connections_are_bounded(logger, monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 1)

    async def ok(call: Call) -> None:
        await call.reply(200, b"ok")

    async with serving(App(ok=ok), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"ok")
        async with raw(url) as (second, _):
            assert await ended(second) == b""
        writer.write(b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nok")


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
