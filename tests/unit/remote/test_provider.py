"""The provider caller: every failure has its own name, and upstream's words stay out of it."""

import asyncio

import msgspec
import pytest

from trunkline.base.errors import (
    BadResponseError,
    MalformedError,
    TimedOutError,
    TruncatedError,
    UpstreamError,
)
from trunkline.remote.exchange import ProviderTimeouts
from trunkline.remote.provider import ProviderCaller
from trunkline.remote.status import LimitedError, RejectedError

NOW_S = 1_780_000_000
PROMPT = "words of the prompt"
BODY = b'{"model":"m","messages":[]}'


class FixedClock:
    def unix_ms(self) -> int:
        return NOW_S * 1000

    def monotonic_s(self) -> float:
        return 0.0


def answers(status: int, body: bytes, *headers: str, kind: str = "application/json"):
    lines = [f"HTTP/1.1 {status} x", f"content-type: {kind}", f"content-length: {len(body)}"]
    raw = "\r\n".join([*lines, *headers, "", ""]).encode() + body

    async def script(peer) -> None:
        while True:
            await peer.request()
            await peer.send(raw)

    return script


def error_body(**fields: object) -> bytes:
    return msgspec.json.encode({"error": {"message": PROMPT, **fields}})


def caller(transport, url: str) -> ProviderCaller:
    return ProviderCaller(transport, url + "/v1/", "sk-secret", clock=FixedClock())


async def chat(transport, url: str, *, stream: bool = False) -> bytes:
    async with await caller(transport, url).chat(BODY, stream) as answer:
        if stream:
            return b"|".join([event.data async for event in answer.events()])
        return await answer.whole()


async def failure(transport, server, script, *, stream: bool = False) -> UpstreamError:
    async with server(script) as s:
        with pytest.raises(UpstreamError) as caught:
            await chat(transport, s.url, stream=stream)
    assert PROMPT not in caught.value.message
    return caught.value


async def test_request(transport, server):
    async with server(answers(200, b'{"choices":[]}')) as s:
        assert await chat(transport, s.url) == b'{"choices":[]}'
        head, _, body = s.peers[0].requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"authorization: Bearer sk-secret\r\n" in head + b"\r\n"
    assert body == BODY


async def test_embeddings_models_and_idempotency_key(transport, server):
    async with server(answers(200, b'{"data":[]}')) as s:
        provider = caller(transport, s.url)
        async with await provider.embeddings(b"{}", idempotency_key="k1") as answer:
            assert await answer.whole() == b'{"data":[]}'
        assert await provider.models() == b'{"data":[]}'
        first, second = s.peers[0].requests
    assert first.startswith(b"POST /v1/embeddings ")
    assert b"idempotency-key: k1\r\n" in first
    assert second.startswith(b"GET /v1/models ")


@pytest.mark.parametrize(
    ("status", "kind", "code", "retryable"),
    [
        (400, RejectedError, "upstream_rejected", False),
        (401, UpstreamError, "upstream_auth", True),
        (402, LimitedError, "upstream_quota_exhausted", True),
        (403, UpstreamError, "upstream_auth", True),
        (404, UpstreamError, "upstream_model_missing", True),
        (405, UpstreamError, "upstream_model_missing", True),
        (408, TimedOutError, "upstream_timeout", True),
        (409, UpstreamError, "upstream_conflict", True),
        (410, UpstreamError, "upstream_model_missing", True),
        (413, RejectedError, "upstream_rejected", False),
        (422, RejectedError, "upstream_rejected", False),
        (498, UpstreamError, "upstream_auth", True),
        (499, UpstreamError, "upstream_failed", True),
        (425, UpstreamError, "upstream_conflict", True),
        (429, LimitedError, "upstream_rate_limited", True),
        (500, UpstreamError, "upstream_failed", True),
        (501, UpstreamError, "upstream_failed", True),
        (502, UpstreamError, "upstream_unavailable", True),
        (503, UpstreamError, "upstream_unavailable", True),
        (504, TimedOutError, "upstream_timeout", True),
        (521, UpstreamError, "upstream_unavailable", True),
        (524, UpstreamError, "upstream_failed", True),
        (529, UpstreamError, "upstream_unavailable", True),
        (302, BadResponseError, "upstream_redirect", True),
        (206, BadResponseError, "upstream_bad_response", True),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_statuses(transport, server, status, kind, code, retryable, stream):
    error = await failure(transport, server, answers(status, error_body()), stream=stream)
    assert (type(error), error.error_code, error.retryable) == (kind, code, retryable)
    assert error.retry_after_s is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("retry-after: 7", 7.0),
        ("retry-after: 1.5", 1.5),
        ("retry-after-ms: 250", 0.25),
        ("retry-after: 9\r\nretry-after-ms: 250", 0.25),
        ("retry-after-ms: soon\r\nretry-after: 9", 9.0),
        ("retry-after: Thu, 28 May 2026 20:27:10 GMT", 30.0),
        ("retry-after: Thu, 28 May 2026 20:26:00 GMT", 0.0),
        ("retry-after: 99999999", 86400.0),
        ("retry-after: -5", None),
        ("retry-after: soon", None),
        ("retry-after: nan", None),
        ("retry-after: ", None),
        ("retry-after: Thu, 99 May 2026 20:27:10 GMT", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after(transport, server, header, seconds, status):
    error = await failure(transport, server, answers(status, b"{}", header))
    assert error.retry_after_s == seconds


async def test_retry_delay_in_the_body(transport, server):
    info = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13.5s"}]
    body = b"[" + error_body(code=429, status="RESOURCE_EXHAUSTED", details=info) + b"]"
    error = await failure(transport, server, answers(429, body))
    assert error.retry_after_s == 13.5


async def test_spent_quota_is_told_from_a_rate_limit(transport, server):
    error = await failure(transport, server, answers(429, error_body(code="insufficient_quota")))
    assert error.error_code == "upstream_quota_exhausted"


async def test_rejection_names_code_and_parameter(transport, server):
    body = error_body(code="context_length_exceeded", param="messages", type="invalid_request")
    error = await failure(transport, server, answers(400, body))
    assert isinstance(error, RejectedError)
    assert (error.upstream_code, error.param) == ("context_length_exceeded", "messages")
    sneaky = error_body(code=f"{PROMPT}!", param=PROMPT, type=PROMPT)
    error = await failure(transport, server, answers(400, sneaky))
    assert (error.upstream_code, error.param) == ("", None)


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{", b"null", b"[]", b'{"error":null}', b'{"error":"x"}', b"\xff"]
)
async def test_error_bodies_that_are_not_the_format(transport, server, body):
    error = await failure(transport, server, answers(500, body))
    assert error.error_code == "upstream_failed"


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"<html>busy</html>", "text/html", "upstream_not_json"),
        (b"<html>busy</html>", "application/json", "upstream_not_json"),
        (b'{"choices":', "application/json", "upstream_not_json"),
        (b"", "application/json", "upstream_not_json"),
        (b'"text"', "application/json", "upstream_not_json"),
        (b"[1]", "application/json", "upstream_not_json"),
        (b"data: {}\n\n", "text/event-stream", "upstream_wrong_content_type"),
    ],
)
async def test_what_is_no_json_answer(transport, server, body, kind, code):
    error = await failure(transport, server, answers(200, body, kind=kind))
    assert (type(error), error.error_code) == (BadResponseError, code)


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"code": "rate_limit_exceeded"}, LimitedError, "upstream_rate_limited"),
        ({"type": "insufficient_quota"}, LimitedError, "upstream_quota_exhausted"),
        ({"type": "authentication_error"}, UpstreamError, "upstream_auth"),
        ({"code": "model_not_found"}, UpstreamError, "upstream_model_missing"),
        ({"type": "overloaded_error"}, UpstreamError, "upstream_unavailable"),
        ({"code": 502}, UpstreamError, "upstream_unavailable"),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, LimitedError, "upstream_rate_limited"),
        ({"code": 400}, RejectedError, "upstream_rejected"),
        ({"code": "odd"}, BadResponseError, "upstream_bad_response"),
        ({}, BadResponseError, "upstream_bad_response"),
    ],
)
@pytest.mark.parametrize("shape", ["whole", "json to a stream", "event", "named event"])
async def test_error_inside_a_success(transport, server, fields, kind, code, shape):
    body = error_body(**fields)
    if shape == "event":
        script = answers(200, b"data: {}\n\ndata: " + body + b"\n\n", kind="text/event-stream")
    elif shape == "named event":
        script = answers(200, b"event: error\ndata: " + body + b"\n\n", kind="text/event-stream")
    else:
        script = answers(200, body)
    error = await failure(transport, server, script, stream=shape != "whole")
    assert (type(error), error.error_code) == (kind, code)


async def test_an_answer_that_speaks_of_errors_is_none(transport, server):
    body = (
        b'{"choices":[{"message":{"content":"the key \\"error\\" is \\"error\\""}}],"error":null}'
    )
    async with server(answers(200, body)) as s:
        assert await chat(transport, s.url) == body


async def test_an_answer_is_not_decoded_for_words_within_it(transport, server, monkeypatch):
    def decoded(body: bytes) -> None:
        raise AssertionError("megabytes of candidates would be")

    monkeypatch.setattr("trunkline.remote.answer.error_object", decoded)
    body = b'{"object":"text_completion","choices":[{"7":{"decoded_token":"error","error":1}}]}'
    async with server(answers(200, body)) as s:
        assert await chat(transport, s.url) == body


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b'data: {"a":1}\n\n: hi\n\ndata: [DONE]\n\n', b'{"a":1}|[DONE]'),
        (b'data: {"a":1}\n\ndata: [DONE]', b'{"a":1}'),
        (b'data: {"a":1}\n\ndata: [DONE]\n', b'{"a":1}|[DONE]'),
        (b'data: {"a":1}\n\ndata: {"b"\n', b'{"a":1}'),
        (b"", b""),
    ],
)
async def test_stream(transport, server, stream, events):
    async with server(answers(200, stream, kind="text/event-stream; charset=utf-8")) as s:
        assert await chat(transport, s.url, stream=True) == events


async def test_cut_stream(transport, server):
    async def script(peer) -> None:
        await peer.request()
        await peer.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n",
            b"a\r\ndata: {}\n\n\r\n",
        )

    assert isinstance(await failure(transport, server, script, stream=True), TruncatedError)


async def test_endless_event(transport, server):
    async def script(peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ")
        while True:
            await peer.send(bytes([120]) * 1_000_000)

    error = await failure(transport, server, script, stream=True)
    assert error.error_code == "upstream_bad_stream"


async def test_head_deadlines_differ_by_kind(transport, server):
    released = asyncio.Event()

    async def script(peer) -> None:
        request = await peer.request()
        if b"event-stream" not in request:
            released.set()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await peer.closed_by_client()

    async with server(script) as s:
        provider = ProviderCaller(
            transport,
            s.url,
            None,
            clock=FixedClock(),
            timeouts=ProviderTimeouts(stream_head_s=0.05, whole_head_s=20.0),
        )
        with pytest.raises(TimedOutError):
            await provider.chat(BODY, True)
        async with await provider.chat(BODY, False) as answer:
            assert await answer.whole() == b"{}"
        assert b"authorization" not in s.peers[0].requests[0]


def test_bad_base_url_and_key(transport):
    with pytest.raises(MalformedError):
        ProviderCaller(transport, "ftp://x", None, clock=FixedClock())


async def test_key_that_can_not_be_a_header_is_not_quoted(transport):
    provider = ProviderCaller(transport, "http://127.0.0.1:1", "se\ncret", clock=FixedClock())
    with pytest.raises(MalformedError) as caught:
        await provider.models()
    assert "cret" not in caught.value.message


async def test_an_error_that_is_the_whole_object(transport, server):
    body = msgspec.json.encode(
        {"object": "error", "message": PROMPT, "type": "invalid_request", "param": "seed"}
    )
    error = await failure(transport, server, answers(422, body))
    assert isinstance(error, RejectedError)
    assert (error.upstream_code, error.param) == ("invalid_request", "seed")


@pytest.mark.parametrize(
    ("error_code", "kind", "code"),
    [
        ("rate_limit_exceeded", LimitedError, "upstream_rate_limited"),
        ("insufficient_quota", LimitedError, "upstream_quota_exhausted"),
        ("invalid_api_key", UpstreamError, "upstream_auth"),
        ("model_decommissioned", UpstreamError, "upstream_model_missing"),
        ("overloaded_error", UpstreamError, "upstream_unavailable"),
        ("tool_use_failed", BadResponseError, "upstream_bad_response"),
        ("json_validate_failed", BadResponseError, "upstream_bad_response"),
    ],
)
async def test_a_400_whose_code_does_not_blame_the_request(
    transport, server, error_code, kind, code
):
    body = error_body(code=error_code, type="invalid_request_error")
    error = await failure(transport, server, answers(400, body))
    assert (type(error), error.error_code, error.retryable) == (kind, code, True)


async def test_google_says_400_of_its_accounts_too(transport, server):
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    body = error_body(code=400, status="INVALID_ARGUMENT", details=[{}, info])
    error = await failure(transport, server, answers(400, body))
    assert error.error_code == "upstream_auth"
    body = error_body(code=400, status="FAILED_PRECONDITION")
    error = await failure(transport, server, answers(400, body))
    assert isinstance(error, RejectedError)
    assert error.upstream_code == "upstream_declined"


@pytest.mark.parametrize("status", [412, 418, 426, 431, 451])
@pytest.mark.parametrize("body", [b'{"detail": "no"}', error_body(code="blocked")])
async def test_a_refusal_that_is_not_of_the_request_says_nothing_of_others(
    transport, server, status, body
):
    error = await failure(transport, server, answers(status, body))
    assert isinstance(error, RejectedError)
    assert error.upstream_code == "upstream_declined"


@pytest.mark.parametrize("status", [400, 422])
async def test_a_page_is_no_refusal_of_an_api(transport, server, status):
    page = await failure(transport, server, answers(status, b"<html>blocked</html>"))
    said = await failure(transport, server, answers(status, b'{"detail": [{"msg": "x"}]}'))
    assert isinstance(page, RejectedError)
    assert isinstance(said, RejectedError)
    assert (page.upstream_code, said.upstream_code) == ("upstream_declined", "")
