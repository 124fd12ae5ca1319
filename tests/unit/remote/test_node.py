"""The node caller: typed events in order, and every breach of the protocol is a failed attempt."""

import asyncio

import msgspec
import pytest

from trunkline.base.errors import BadResponseError, TimedOutError, TruncatedError, UpstreamError
from trunkline.remote.node import (
    AcceptedEvent,
    ChunkEvent,
    ErrorEvent,
    NodeCaller,
    NodeRefusedError,
    ProgressEvent,
    ReceiptEvent,
)
from trunkline.schema.attempt import Accepted, Attempt, NodeError, NodeInfo, SignedReceipt

ATTEMPT = Attempt(
    kind="chat",
    attempt="att_1",
    answer="ans_1",
    created_s=1,
    model="m",
    client_format="openai.chat",
    client_request_digest="sha256:00",
    caller_nonce="00",
    deadline_ms=1000,
    request=msgspec.Raw(b'{"model": "m",  "stream":true}'),
)
ACCEPTED = b'event: accepted\ndata: {"attempt":"att_1","node":"n","operator":"o","model":"m"}\n\n'
RECEIPT = b'event: receipt\ndata: {"receipt":"{}","batch":"b","index":0,"path":[]}\n\n'
ERROR = b'event: error\ndata: {"code":"c","message":"m","retryable":true}\n\n'
CHUNK = b'id: 0\ntokens: 0:5\ndata: {"x":1}\n\n'


def streams(*pieces: bytes, end: bool = True):
    async def script(peer) -> None:
        while True:
            await peer.request()
            await peer.send(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
                b"transfer-encoding: chunked\r\n\r\n"
            )
            await peer.send(*(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces))
            if not end:
                await peer.closed_by_client()
                return
            await peer.send(b"0\r\n\r\n")

    return script


async def collect(transport, url: str, **options) -> list:
    options = {"idle_timeout_s": 5.0} | options
    async with await NodeCaller(transport, url).attempt(ATTEMPT, **options) as stream:
        return [event async for event in stream]


async def failure(transport, server, script, **options) -> UpstreamError:
    async with server(script) as s:
        with pytest.raises(UpstreamError) as caught:
            await collect(transport, s.url, **options)
    return caught.value


async def test_the_events_of_an_answer(transport, server):
    pieces = [
        ACCEPTED,
        b": queued\n\n",
        CHUNK,
        b"id: 1\ntokens: 0:6 1:7\n\n",
        b"event: progress\ntokens: 0:8\n\n",
        b'id: 2\ndata: {"x":2}\n\n',
        RECEIPT,
    ]
    expected = [
        AcceptedEvent(Accepted(attempt="att_1", node="n", operator="o", model="m")),
        ChunkEvent(0, ((0, 5),), b'{"x":1}'),
        ChunkEvent(1, ((0, 6), (1, 7)), None),
        ProgressEvent(((0, 8),)),
        ChunkEvent(2, (), b'{"x":2}'),
        ReceiptEvent(SignedReceipt(receipt="{}", batch="b", index=0, path=())),
    ]
    whole = b"".join(pieces)
    async with server(streams(*pieces)) as s:
        for _ in range(2):
            assert await collect(transport, s.url + "/") == expected
        assert len(s.peers) == 1
        request = s.peers[0].requests[0]
        assert request.startswith(b"POST /v1/attempts HTTP/1.1\r\n")
        # The request's own bytes travel as they are: they are what the receipt binds.
        assert b'"request":{"model": "m",  "stream":true}' in request
    async with server(streams(*(whole[i : i + 1] for i in range(len(whole))))) as s:
        assert await collect(transport, s.url) == expected


async def test_what_came_with_an_event_is_ready(transport, server):
    piece = ACCEPTED + b": queued\n\n" + CHUNK + b": still here\n\n"
    async with (
        server(streams(piece, end=False)) as s,
        await NodeCaller(transport, s.url).attempt(ATTEMPT, idle_timeout_s=5.0) as stream,
    ):
        assert not stream.ready
        assert isinstance(await anext(stream), AcceptedEvent)
        assert stream.ready
        assert isinstance(await anext(stream), ChunkEvent)
        # A comment is no event: the next one has to be waited for.
        assert not stream.ready


async def test_after_the_last_event_nothing_is_ready(transport, server):
    async with (
        server(streams(ACCEPTED + RECEIPT + CHUNK)) as s,
        await NodeCaller(transport, s.url).attempt(ATTEMPT, idle_timeout_s=5.0) as stream,
    ):
        await anext(stream)
        assert isinstance(await anext(stream), ReceiptEvent)
        assert not stream.ready
        with pytest.raises(BadResponseError):
            await anext(stream)


async def test_a_resumed_attempt_starts_at_its_id(transport, server):
    script = streams(ACCEPTED, b"id: 7\ntokens: 0:5\n\n", RECEIPT)
    async with server(script) as s:
        events = await collect(transport, s.url, first_id=7)
    assert events[1] == ChunkEvent(7, ((0, 5),), None)
    assert (await failure(transport, server, script)).error_code == "node_protocol"


async def test_progress_is_numbered_by_the_tokens_before_it(transport, server):
    def progress(number: int) -> bytes:
        return b"event: progress\nid: %d\ntokens: 0:5\n\n" % number

    async with server(streams(ACCEPTED, progress(0), progress(1), RECEIPT)) as s:
        events = await collect(transport, s.url)
    assert events[1:3] == [ProgressEvent(((0, 5),))] * 2
    for numbers in ((0, 0), (1,), (0, 2)):
        script = streams(ACCEPTED, *map(progress, numbers), RECEIPT)
        assert (await failure(transport, server, script)).error_code == "node_protocol"


@pytest.mark.parametrize("wrapped", [False, True])
async def test_an_error_ends_the_answer(transport, server, wrapped):
    event = ERROR
    if wrapped:
        event = b'event: error\ndata: {"error":{"code":"c","message":"m","retryable":true}}\n\n'
    async with server(streams(ACCEPTED, CHUNK, event)) as s:
        events = await collect(transport, s.url)
    assert events[-1] == ErrorEvent(NodeError(code="c", message="m", retryable=True))


@pytest.mark.parametrize(
    "pieces", [[], [ACCEPTED], [ACCEPTED, CHUNK], [ACCEPTED, CHUNK, RECEIPT[:-1]]]
)
async def test_an_answer_without_its_last_event_is_truncated(transport, server, pieces):
    error = await failure(transport, server, streams(*pieces))
    assert (type(error), error.error_code) == (TruncatedError, "upstream_truncated")


@pytest.mark.parametrize(
    "pieces",
    [
        [CHUNK],
        [RECEIPT],
        [ACCEPTED, ACCEPTED],
        [ACCEPTED, CHUNK, CHUNK],
        [ACCEPTED, b"id: 1\ndata: {}\n\n"],
        [ACCEPTED, b"id: 00\ndata: {}\n\n"],
        [ACCEPTED, b"data: {}\n\n"],
        [ACCEPTED, b"data: [DONE]\n\n"],
        [ACCEPTED, b"id: 0\ndata: a\ndata: b\n\n"],
        [ACCEPTED, b"id: 0\ntokens: x\n\n"],
        [ACCEPTED, b"event: surprise\ndata: {}\n\n"],
        [ACCEPTED, b"event: receipt\ndata: {}\n\n"],
        [ACCEPTED, b"event: receipt\n\n"],
        [ACCEPTED, b"event: error\ndata: oops\n\n"],
        [b"event: accepted\ndata: {\xff}\n\n"],
        [ACCEPTED, RECEIPT, CHUNK],
        [ACCEPTED, ERROR, RECEIPT],
        [ACCEPTED, b"data: " + b"x" * 9_000_000],
    ],
)
async def test_breaches_of_the_protocol(transport, server, pieces):
    error = await failure(transport, server, streams(*pieces))
    assert (type(error), error.error_code) == (BadResponseError, "node_protocol")


async def test_comments_are_signs_of_life_and_silence_is_not(transport, server):
    async def script(peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n", ACCEPTED)
        for _ in range(5):
            await asyncio.sleep(0.1)
            await peer.send(b": queued\n\n")
        await peer.closed_by_client()

    started = asyncio.get_running_loop().time()
    error = await failure(transport, server, script, idle_timeout_s=0.4)
    assert (type(error), error.error_code) == (TimedOutError, "upstream_stalled")
    assert asyncio.get_running_loop().time() - started >= 0.8


async def test_a_node_that_does_not_close_after_the_receipt_is_not_waited_for(
    transport, server, monkeypatch
):
    monkeypatch.setattr("trunkline.remote.node.CLOSING_S", 0.02)
    async with server(streams(ACCEPTED, RECEIPT, end=False)) as s:
        events = await collect(transport, s.url)
        assert isinstance(events[-1], ReceiptEvent)
        await asyncio.wait_for(s.peers[0].gone.wait(), 5)


async def test_closing_early_reaches_the_node(transport, server):
    async with server(streams(ACCEPTED, CHUNK, end=False)) as s:
        async with await NodeCaller(transport, s.url).attempt(ATTEMPT, 5.0) as stream:
            assert isinstance(await anext(stream), AcceptedEvent)
        await asyncio.wait_for(s.peers[0].gone.wait(), 5)


def replies(status: int, body: bytes, kind: str = "application/json"):
    async def script(peer) -> None:
        while True:
            await peer.request()
            await peer.send(
                b"HTTP/1.1 %d x\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b"
                % (status, kind.encode(), len(body), body)
            )

    return script


async def test_a_refusal(transport, server):
    body = (
        b'{"error":{"code":"cannot_resume","message":"m","retryable":false,"param":"p",'
        b'"retry_after_ms":1500,"status":409}}'
    )
    error = await failure(transport, server, replies(409, body))
    assert isinstance(error, NodeRefusedError)
    assert (error.error_code, error.retryable, error.retry_after_s) == ("cannot_resume", False, 1.5)
    assert (error.node_error.status, error.node_error.param) == (409, "p")


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (502, b"<html>", "upstream_unavailable"),
        (404, b"not here", "upstream_not_found"),
        (301, b"", "upstream_redirect"),
        (500, b'{"error":{"message":"no code"}}', "upstream_failed"),
        (503, b'{"error":{"more":' + b"[" * 30_000, "upstream_unavailable"),
    ],
)
async def test_something_else_than_a_node(transport, server, status, body, code):
    assert (await failure(transport, server, replies(status, body))).error_code == code


async def test_a_success_that_is_no_stream(transport, server):
    error = await failure(transport, server, replies(200, b"{}"))
    assert error.error_code == "node_protocol"


async def test_info(transport, server):
    info = NodeInfo(
        node="n", operator="o", key="k", models=(), log=None, ready=True, running=0, queued=0
    )
    async with server(replies(200, msgspec.json.encode(info)), replies(200, b"{}")) as s:
        assert await NodeCaller(transport, s.url).info() == info
    async with server(replies(200, b"{}")) as s:
        with pytest.raises(BadResponseError):
            await NodeCaller(transport, s.url).info()
