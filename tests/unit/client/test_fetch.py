"""Fetching evidence, against a scripted gateway on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from trunkline.base.errors import (
    BadResponseError,
    ConnectError,
    Error,
    RequestError,
    TimedOutError,
    TruncatedError,
)
from trunkline.client import fetch
from trunkline.client.fetch import fetch_evidence
from trunkline.evidence import Evidence, EvidencePart, encode
from trunkline.remote.http1 import HttpTransport
from trunkline.schema.attempt import SignedReceipt

FILE = encode(
    Evidence(
        answer="ans_1",
        parts=(EvidencePart(signed=SignedReceipt(receipt="{}", batch="", index=0, path=())),),
    )
)


def reply(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


@asynccontextmanager
async def gateway(answer: bytes, *, hang: bool = False) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that gives every request this answer; yields its URL and the request lines."""
    lines: list[str] = []

    open_calls: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            lines.append(head.split(b"\r\n")[0].decode())
            writer.write(answer)
            if hang:
                await reader.read()
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_calls.append(asyncio.ensure_future(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}", lines
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.wait_for(asyncio.gather(*open_calls), 5)


async def test_the_file_comes_back_byte_for_byte() -> None:
    async with gateway(reply("200 OK", FILE)) as (url, lines):
        assert await fetch_evidence(url + "/", "ans_1", 3.0) == FILE
        assert lines == ["GET /trunkline/v1/receipts/ans_1?wait_s=3 HTTP/1.1"]


async def test_a_shared_transport_stays_open() -> None:
    transport = HttpTransport()
    async with gateway(reply("200 OK", FILE)) as (url, lines):
        try:
            for _ in range(2):
                assert await fetch_evidence(url, "ans_1", transport=transport) == FILE
        finally:
            await transport.aclose()
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("answer", "error", "code"),
    [
        (reply("404 Not Found", b""), RequestError, "answer_not_found"),
        (reply("500 Internal Server Error", b"<html>"), Error, None),
        (reply("200 OK", b"{}"), BadResponseError, "upstream_bad_response"),
        (reply("200 OK", FILE.replace(b"ans_1", b"ans_2")), BadResponseError, "wrong_answer"),
        (reply("200 OK", FILE)[:-1], TruncatedError, "upstream_truncated"),
        (b"", TruncatedError, None),
    ],
)
async def test_anything_else_is_named(answer: bytes, error: type[Error], code: str | None) -> None:
    async with gateway(answer) as (url, _):
        with pytest.raises(error) as caught:
            await fetch_evidence(url, "ans_1")
    assert code in (None, caught.value.error_code)


async def test_a_gateway_that_says_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SLACK_S", 0.05)
    async with gateway(b"", hang=True) as (url, _):
        with pytest.raises(TimedOutError):
            await fetch_evidence(url, "ans_1")


async def test_no_gateway() -> None:
    async with gateway(b"") as (url, _):
        pass
    with pytest.raises(ConnectError):
        await fetch_evidence(url, "ans_1")


@pytest.mark.parametrize("answer", ["", "../status", "ans_1?x", "ä", "a" * 129])
async def test_an_id_is_an_id(answer: str) -> None:
    with pytest.raises(RequestError) as caught:
        await fetch_evidence("http://127.0.0.1:1", answer)
    assert caught.value.error_code == "bad_answer_id"


@pytest.mark.parametrize("wait_s", [-1.0, 61.0, float("nan")])
async def test_the_wait_is_bounded(wait_s: float) -> None:
    with pytest.raises(RequestError):
        await fetch_evidence("http://127.0.0.1:1", "ans_1", wait_s)
