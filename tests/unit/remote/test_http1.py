"""The transport against scripted servers: framing, failure at each phase, reuse, cancellation."""

import asyncio

import pytest

from trunkline.base.errors import (
    BadResponseError,
    ConnectError,
    TimedOutError,
    TruncatedError,
    UpstreamError,
)
from trunkline.remote.connection import BUFFER_HIGH_BYTES, HEAD_BYTES_MAX
from trunkline.remote.http1 import HttpTransport

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nx-trailer: 1\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nhello"


def says(*pieces: bytes, close: bool = False):
    """A script that answers every request of its connection with ``pieces``."""

    async def script(peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)
            if close:
                return

    return script


async def fetch(transport: HttpTransport, url: str, **options) -> tuple[int, bytes]:
    async with await transport.request("POST", url, body=b"{}", **options) as response:
        return response.status, await response.read(1_000_000)


async def failure(transport: HttpTransport, url: str, **options) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await fetch(transport, url, **options)
    return caught.value


async def test_request_bytes(transport, server):
    async with server(says(OK)) as s:
        await fetch(transport, s.url + "/v1/x?a=b", headers=[("X-One", "1"), ("x-two", "")])
        head, _, body = s.peers[0].requests[0].partition(b"\r\n\r\n")
    host = s.url.removeprefix("http://").encode()
    assert head.split(b"\r\n") == [
        b"POST /v1/x?a=b HTTP/1.1",
        b"host: " + host,
        b"x-one: 1",
        b"x-two: ",
        b"content-length: 2",
        b"accept-encoding: identity",
    ]
    assert body == b"{}"


async def test_get_has_no_body(transport, server):
    async with server(says(OK)) as s:
        async with await transport.request("GET", s.url) as response:
            assert await response.read(10) == b"hello"
            assert (response.status, response.reason) == (200, "OK")
            assert response.header("content-length") == "5"
        assert b"content-length" not in s.peers[0].requests[0]


async def test_large_body_is_sent_whole(transport, server):
    body = bytes(3_000_000)
    async with server(says(OK)) as s:
        async with await transport.request("POST", s.url, body=body) as response:
            await response.read(10)
        assert s.peers[0].requests[0].endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("whole", [OK, CHUNKED], ids=["length", "chunked"])
async def test_split_at_every_byte(transport, server, whole):
    expected = b"hello" if whole is OK else b"hello, world"
    for cut in range(1, len(whole)):
        async with server(says(whole[:cut], whole[cut:])) as s:
            assert await fetch(transport, s.url) == (200, expected), cut


@pytest.mark.parametrize("whole", [OK, CHUNKED], ids=["length", "chunked"])
async def test_one_byte_at_a_time(transport, server, whole):
    async with server(says(*(whole[i : i + 1] for i in range(len(whole))))) as s:
        assert (await fetch(transport, s.url))[0] == 200


@pytest.mark.parametrize("whole", [OK, CHUNKED], ids=["length", "chunked"])
async def test_cut_at_every_byte_is_never_an_answer(transport, server, whole):
    for cut in range(len(whole)):
        async with server(says(whole[:cut], close=True)) as s:
            error = await failure(transport, s.url)
        assert isinstance(error, TruncatedError), cut
        assert error.error_code == ("upstream_truncated" if cut else "upstream_closed"), cut


async def test_cut_body_yields_what_came_before(transport, server):
    got = b""
    async with (
        server(says(CHUNKED[:-20], close=True)) as s,
        await transport.request("GET", s.url) as response,
    ):
        with pytest.raises(TruncatedError):
            async for piece in response.chunks():
                got += piece
    assert got.startswith(b"hello")


async def test_close_delimited_body_ends_with_the_connection(transport, server):
    async with server(says(UNTIL_CLOSE, close=True)) as s:
        assert await fetch(transport, s.url) == (200, b"hello")
        assert await fetch(transport, s.url) == (200, b"hello")
        assert len(s.peers) == 2


async def test_close_delimited_body_cut_by_a_reset_is_truncated(transport, server):
    reached = asyncio.Event()

    async def script(peer) -> None:
        await peer.request()
        await peer.send(UNTIL_CLOSE)
        await reached.wait()
        # Unread data makes the kernel send a reset.
        import socket
        import struct

        sock = peer.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.reset()

    async with server(script) as s, await transport.request("GET", s.url) as response:
        chunks = response.chunks()
        assert await anext(chunks) == b"hello"
        reached.set()
        with pytest.raises(TruncatedError):
            await anext(chunks)


@pytest.mark.parametrize("status", [204, 304])
async def test_statuses_without_a_body(transport, server, status):
    async with server(says(b"HTTP/1.1 %d x\r\n\r\n" % status)) as s:
        assert await fetch(transport, s.url) == (status, b"")
        assert await fetch(transport, s.url) == (status, b"")
        assert len(s.peers) == 1


@pytest.mark.parametrize(
    "interim",
    [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"],
)
async def test_interim_responses_are_passed_over(transport, server, interim):
    async with server(says(interim, interim + OK)) as s:
        async with await transport.request("GET", s.url) as response:
            assert response.status == 200
            assert response.header("link") is None
            assert await response.read(10) == b"hello"
        await fetch(transport, s.url)
        assert len(s.peers) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"<html><body>nginx</body></html>",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 099 x\r\n\r\n",
        b"HTTP/1.1 700 x\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nstuff",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"x" * (HEAD_BYTES_MAX + 1),
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 300 + b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 103 x\r\n\r\n" * 20 + OK,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;" + b"x" * 900_000,
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nt: " + b"x" * 900_000,
    ],
)
async def test_unusable_responses(transport, server, garbage):
    async with server(says(garbage)) as s:
        error = await failure(transport, s.url, head_timeout_s=10, idle_timeout_s=10)
        assert isinstance(error, BadResponseError)
        assert error.error_code == "upstream_bad_http"
        await asyncio.wait_for(s.peers[0].gone.wait(), 5)


async def test_excess_after_a_response_taints_only_the_connection(transport, server):
    async with server(says(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")) as s:
        assert await fetch(transport, s.url) == (200, b"hello")
        assert await fetch(transport, s.url) == (200, b"hello")
        assert len(s.peers) == 2


async def test_bytes_nobody_asked_for_close_a_kept_connection(transport, server):
    told = asyncio.Event()

    async def script(peer) -> None:
        await peer.request()
        await peer.send(OK)
        await told.wait()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
        assert await peer.closed_by_client()

    async with server(script, says(OK)) as s:
        await fetch(transport, s.url)
        told.set()
        await asyncio.wait_for(s.peers[0].gone.wait(), 5)
        assert await fetch(transport, s.url) == (200, b"hello")
        assert len(s.peers) == 2


async def test_kept_connection_is_reused(transport, server):
    async with server(says(OK)) as s:
        for _ in range(5):
            await fetch(transport, s.url)
        assert len(s.peers) == 1
        assert len(s.peers[0].requests) == 5


@pytest.mark.parametrize(
    "last", [b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 200 OK\r\nconnection: close\r\n"]
)
async def test_connection_that_announces_its_end_is_not_reused(transport, server, last):
    async with server(says(last + b"content-length: 2\r\n\r\nok")) as s:
        await fetch(transport, s.url)
        await asyncio.wait_for(s.peers[0].gone.wait(), 5)
        await fetch(transport, s.url)
        assert len(s.peers) == 2


async def test_stale_kept_connection_is_retried_once_on_a_fresh_one(transport, server):
    async def once(peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()

    async with server(once, says(OK)) as s:
        await fetch(transport, s.url)
        assert await fetch(transport, s.url) == (200, b"hello")
        assert [len(peer.requests) for peer in s.peers] == [2, 1]


async def test_fresh_connection_without_an_answer_is_not_retried(transport, server):
    async def silent(peer) -> None:
        await peer.request()

    async with server(silent) as s:
        error = await failure(transport, s.url)
        assert (type(error), error.error_code) == (TruncatedError, "upstream_closed")
        assert len(s.peers) == 1


async def test_second_stale_connection_is_an_error(transport, server):
    async def once(peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()

    async def silent(peer) -> None:
        await peer.request()

    async with server(once, silent) as s:
        await fetch(transport, s.url)
        assert (await failure(transport, s.url)).error_code == "upstream_closed"
        assert len(s.peers) == 2


async def test_reused_connection_cut_after_a_byte_is_not_retried(transport, server):
    async def twice(peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"H")

    async with server(twice, says(OK)) as s:
        await fetch(transport, s.url)
        assert (await failure(transport, s.url)).error_code == "upstream_truncated"
        assert len(s.peers) == 1


async def test_refused(transport, server):
    async with server(says(OK)) as s:
        url = s.url
    error = await failure(transport, url)
    assert (type(error), error.error_code) == (ConnectError, "upstream_refused")


async def test_unknown_host(transport):
    error = await failure(transport, "http://nowhere.invalid/")
    assert (type(error), error.error_code) == (ConnectError, "upstream_dns_failed")


async def test_plain_server_behind_https(transport, server):
    async def script(peer) -> None:
        await peer.reader.read(1)
        await peer.send(b"HTTP/1.1 400 no\r\n\r\n")

    async with server(script) as s:
        error = await failure(transport, s.url.replace("http:", "https:"))
    assert (type(error), error.error_code) == (ConnectError, "upstream_tls_failed")


async def test_tls_handshake_cut(transport, server):
    async def script(peer) -> None:
        await peer.reader.read(1)

    async with server(script) as s:
        error = await failure(transport, s.url.replace("http:", "https:"))
    assert (type(error), error.error_code) == (ConnectError, "upstream_tls_failed")


async def test_stall_in_the_handshake(transport, server):
    async def script(peer) -> None:
        await peer.closed_by_client()

    async with server(script) as s:
        error = await failure(transport, s.url.replace("http:", "https:"), connect_timeout_s=0.05)
    assert (type(error), error.error_code) == (TimedOutError, "upstream_connect_timeout")


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 2", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_stall_before_the_head_is_complete(transport, server, sent):
    async with server(says(sent)) as s:
        error = await failure(transport, s.url, head_timeout_s=0.05)
        assert (type(error), error.error_code) == (TimedOutError, "upstream_head_timeout")
        await asyncio.wait_for(s.peers[0].gone.wait(), 5)


@pytest.mark.parametrize(
    "sent", [OK[:-2], CHUNKED[:-3], CHUNKED[: CHUNKED.index(b";") + 2], UNTIL_CLOSE]
)
async def test_stall_in_the_body(transport, server, sent):
    async with server(says(sent)) as s:
        error = await failure(transport, s.url, idle_timeout_s=0.05)
        assert (type(error), error.error_code) == (TimedOutError, "upstream_stalled")
        await asyncio.wait_for(s.peers[0].gone.wait(), 5)


async def test_slow_body_within_the_idle_limit_is_fine(transport, server):
    async def script(peer) -> None:
        await peer.request()
        await peer.send(OK[:-5])
        for letter in b"hello":
            await asyncio.sleep(0.12)
            await peer.send(bytes([letter]))
        await peer.closed_by_client()

    async with server(script) as s:
        # 600 ms in all, at most 500 ms without a byte.
        assert await fetch(transport, s.url, idle_timeout_s=0.5) == (200, b"hello")


async def test_slow_reader_is_not_a_stalled_upstream(transport, server):
    finish = asyncio.Event()

    async def script(peer) -> None:
        await peer.request()
        await peer.send(OK[:-3])
        await finish.wait()
        await peer.send(OK[-3:])
        await peer.closed_by_client()

    async with (
        server(script) as s,
        await transport.request("GET", s.url, idle_timeout_s=0.05) as response,
    ):
        chunks = response.chunks()
        got = await anext(chunks)
        loop = asyncio.get_running_loop()
        later = loop.create_future()
        loop.call_later(0.15, later.set_result, None)
        await later
        finish.set()
        async for piece in chunks:
            got += piece
    assert got == b"hello"


async def test_closing_an_unfinished_response_cuts_the_connection(transport, server):
    cut = asyncio.Event()

    async def script(peer) -> None:
        await peer.request()
        await peer.send(CHUNKED[:-30])
        assert await peer.closed_by_client()
        cut.set()

    async with server(script) as s:
        response = await transport.request("GET", s.url)
        await anext(response.chunks())
        await response.aclose()
        await response.aclose()
        await asyncio.wait_for(cut.wait(), 5)
        with pytest.raises(TruncatedError):
            await response.read(10)


async def test_closing_a_finished_response_keeps_the_connection(transport, server):
    async with server(says(OK)) as s:
        for _ in range(3):
            response = await transport.request("GET", s.url)
            await response.aclose()
        assert len(s.peers) == 1


@pytest.mark.parametrize("phase", ["head", "body"])
async def test_cancelling_cuts_the_connection(transport, server, phase):
    reached, cut = asyncio.Event(), asyncio.Event()

    async def script(peer) -> None:
        await peer.request()
        if phase == "body":
            await peer.send(OK[:-3])
        reached.set()
        assert await peer.closed_by_client()
        cut.set()

    async with server(script) as s:
        task = asyncio.create_task(fetch(transport, s.url))
        await asyncio.wait_for(reached.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(cut.wait(), 5)


async def test_reading_pauses_while_the_reader_is_slow(transport, server):
    total = 64 * BUFFER_HIGH_BYTES
    sent = 0

    async def script(peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            await peer.send(bytes(65536))
            sent += 65536
        await peer.closed_by_client()

    async with server(script) as s, await transport.request("GET", s.url) as response:
        # The server goes on until the sockets are full; a turn without progress says so.
        before = -1
        while before != sent:
            before = sent
            for _ in range(50):
                await asyncio.sleep(0)
            await asyncio.wait_for(asyncio.to_thread(int), 5)
        assert response._buffered <= BUFFER_HIGH_BYTES + 512 * 1024
        assert sent < total
        assert len(await response.read(total)) == total


async def test_read_limit(transport, server):
    async with server(says(OK)) as s:
        async with await transport.request("GET", s.url) as response:
            with pytest.raises(BadResponseError) as caught:
                await response.read(4)
        assert caught.value.error_code == "upstream_too_large"


async def test_connections_are_bounded_and_waiters_served(server):
    gate = asyncio.Event()
    waiting = 0
    both = asyncio.Event()

    async def script(peer) -> None:
        nonlocal waiting
        while True:
            await peer.request()
            waiting += 1
            if waiting == 2:
                both.set()
            await gate.wait()
            await peer.send(OK)

    transport = HttpTransport(max_connections_per_origin=2)
    async with server(script) as s:
        tasks = [asyncio.create_task(fetch(transport, s.url)) for _ in range(9)]
        await asyncio.wait_for(both.wait(), 5)
        error = await failure(transport, s.url, connect_timeout_s=0.02)
        assert (type(error), error.error_code) == (ConnectError, "upstream_connections_exhausted")
        tasks[4].cancel()
        gate.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert len(s.peers) == 2
    assert [result for result in done if result == (200, b"hello")] == [(200, b"hello")] * 8
    await transport.aclose()


async def test_failed_connections_give_their_place_back(server):
    async with server(says(OK)) as s:
        dead = s.url
    transport = HttpTransport(max_connections_per_origin=1)
    for _ in range(3):
        assert (await failure(transport, dead)).error_code == "upstream_refused"
    async with server(says(b"garbage")) as s:
        for _ in range(3):
            assert (await failure(transport, s.url)).error_code == "upstream_bad_http"
    async with server(says(OK[:-1], close=True)) as s:
        for _ in range(3):
            assert (await failure(transport, s.url)).error_code == "upstream_truncated"
    await transport.aclose()


async def test_early_answer_to_a_large_body_is_heard_and_the_connection_dropped(transport, server):
    async def script(peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(b"HTTP/1.1 413 no\r\ncontent-length: 2\r\n\r\nno")
        while await peer.reader.read(65536):
            pass

    async with (
        server(script) as s,
        await transport.request("POST", s.url, body=bytes(30_000_000)) as response,
    ):
        assert response.status == 413
        assert await response.read(10) == b"no"


async def test_concurrent_streams_do_not_mix(transport, server):
    async def script(peer) -> None:
        while True:
            request = await peer.request()
            name = request.split(b" ")[1]
            await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            for _ in range(20):
                await peer.send(b"%x\r\n%b\r\n" % (len(name), name))
            await peer.send(b"0\r\n\r\n")

    async with server(script) as s:

        async def one(number: int) -> bool:
            async with await transport.request("GET", f"{s.url}/{number}") as response:
                return await response.read(10_000) == f"/{number}".encode() * 20

        for _ in range(3):
            assert all(await asyncio.gather(*(one(number) for number in range(20))))
        assert len(s.peers) <= 20


async def test_closed_transport_refuses(server):
    transport = HttpTransport()
    await transport.aclose()
    with pytest.raises(RuntimeError):
        await transport.request("GET", "http://127.0.0.1:1/")
