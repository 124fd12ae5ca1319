"""The server over real sockets, before clients that hang, leave, babble or speak it strangely."""

import asyncio

import msgspec
import pytest
import uvloop
from tests.support.served import App, ended, raw

from trunkline.runtime import server
from trunkline.runtime.http import Call, ClientGoneError
from trunkline.runtime.server import serving


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


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
        async with asyncio.timeout(10):
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
    async def ok(call: Call) -> None:
        await call.reply(200, b"ok")

    async with serving(App(ok=ok), logger=logger) as url, raw(url) as (reader, writer):
        writer.write(b"GET /ok HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"ok")
        monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.05)
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
