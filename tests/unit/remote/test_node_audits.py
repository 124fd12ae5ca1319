"""A node asked for openings and its self-test: its answer is held to the demand and to the time."""

import msgspec
import pytest

from trunkline.base.errors import BadResponseError, TimedOutError, UpstreamError
from trunkline.remote import node as caller
from trunkline.remote.node import NodeCaller, NodeRefusedError
from trunkline.schema.attempt import NodeError, NodeErrorBody
from trunkline.schema.audit import Demand, Opening, Openings, WantedReceipt

WANTED = (WantedReceipt(batch="ab" * 32, index=0), WantedReceipt(batch="cd" * 32, index=3))
DEMAND = Demand(draw="a draw\n", receipts=WANTED, demand="a demand\n")
ANSWER = Openings(
    openings=tuple(
        Opening(batch=wanted.batch, index=wanted.index, reason="not_kept") for wanted in WANTED
    )
)
PENDING = NodeErrorBody(
    error=NodeError(
        code="self_test_pending", message="m", retryable=True, status=503, retry_after_ms=2000
    )
)


def replies(body: bytes, status: int = 200):
    async def script(peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
        await peer.closed_by_client()

    return script


def stalls(head: bytes):
    async def script(peer) -> None:
        await peer.request()
        await peer.send(head)
        await peer.closed_by_client()

    return script


async def test_openings_come_in_the_demands_order(transport, server):
    async with server(replies(msgspec.json.encode(ANSWER))) as s:
        assert await NodeCaller(transport, s.url).openings(DEMAND) == ANSWER
        request = s.peers[0].requests[0]
    assert request.startswith(b"POST /v1/openings HTTP/1.1\r\n")
    assert msgspec.json.decode(request.partition(b"\r\n\r\n")[2], type=Demand) == DEMAND


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[" * 100_000,
        msgspec.json.encode(Openings(openings=ANSWER.openings[:1])),
        msgspec.json.encode(Openings(openings=ANSWER.openings[::-1])),
        msgspec.json.encode(Openings(openings=ANSWER.openings * 2)),
        msgspec.json.encode(ANSWER).replace(b"not_kept", b"forgotten"),
    ],
)
async def test_an_answer_to_something_else_breaks_the_protocol(transport, server, body):
    async with server(replies(body)) as s:
        with pytest.raises(BadResponseError) as caught:
            await NodeCaller(transport, s.url).openings(DEMAND)
    assert caught.value.error_code == "node_protocol"


async def test_more_than_the_bound_is_not_read(transport, server, monkeypatch):
    monkeypatch.setattr(caller, "OPENINGS_BYTES_MAX", 100)
    monkeypatch.setattr(caller, "SELF_TEST_BYTES_MAX", 100)
    async with server(replies(b"x" * 101)) as s:
        with pytest.raises(UpstreamError):
            await NodeCaller(transport, s.url).openings(DEMAND)
        with pytest.raises(UpstreamError):
            await NodeCaller(transport, s.url).self_test()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"])
async def test_the_deadline_is_for_the_whole(transport, server, head):
    async with server(stalls(head)) as s:
        node = NodeCaller(transport, s.url)
        with pytest.raises(TimedOutError):
            await node.openings(DEMAND, timeout_s=0.05)
        with pytest.raises(TimedOutError):
            await node.self_test(timeout_s=0.05)
        with pytest.raises(TimedOutError):
            await node.nonce("00", 0, timeout_s=0.05)


async def test_a_node_that_says_little_by_little_what_it_serves_is_given_up(transport, server):
    async def script(peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
        while not peer.writer.is_closing():
            await peer.send(b" ")

    async with server(script) as s:
        with pytest.raises(TimedOutError) as caught:
            await NodeCaller(transport, s.url).info(timeout_s=0.05)
    assert caught.value.error_code == "info_timeout"


async def test_a_self_test_is_the_notes_bytes_or_a_refusal(transport, server):
    async with server(replies(b"a note\n")) as s:
        assert await NodeCaller(transport, s.url).self_test() == b"a note\n"
        assert s.peers[0].requests[0].startswith(b"GET /v1/self-test HTTP/1.1\r\n")
    async with server(replies(msgspec.json.encode(PENDING), 503)) as s:
        with pytest.raises(NodeRefusedError) as caught:
            await NodeCaller(transport, s.url).self_test()
    assert caught.value.error_code == "self_test_pending"
    assert caught.value.retry_after_s == 2
