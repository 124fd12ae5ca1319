"""A provider behind a node: relayed as it came, checked, and signed for."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.unit.node.harness import KEY, NAME, Heard, attempt, chat, node

from trunkline.node.config import NodeConfig
from trunkline.node.config_providers import AccountLimits, OpenAIEngine
from trunkline.receipts import request_digest, verify_signed
from trunkline.remote.node import NodeRefusedError
from trunkline.runtime.http import Call, Receive, Scope, Send
from trunkline.runtime.server import serving
from trunkline.schema.attempt import Limits, NodeInfo, Quota

HEAD = {"id": "up-1", "object": "chat.completion.chunk", "created": 7, "model": "real-1"}


def chunk(text: str | None = None, finish: str | None = None, **more: object) -> bytes:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return msgspec.json.encode(HEAD | {"choices": [choice]} | more)


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
GOOD = [
    chunk("", system_fingerprint="fp_up"),
    chunk("Hel"),
    chunk("lo", unknown_field=[1]),
    chunk(None, "stop", usage=USAGE),
]
WHOLE = {
    "id": "up-1",
    "object": "chat.completion",
    "created": 7,
    "model": "real-1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello"},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}


class Upstream:
    """A scripted provider: status, content type, the stream's data, and how it ends."""

    def __init__(
        self,
        events: list[bytes] | None = None,
        *,
        body: bytes | None = None,
        status: int = 200,
        kind: str | None = None,
        done: bool = True,
        cut: bool = False,
        hang: bool = False,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.events = events
        self.body = body
        self.status = status
        self.kind = kind or ("text/event-stream" if body is None else "application/json")
        self.done = done
        self.cut = cut
        self.hang = hang
        self.headers = headers
        self.received: list[bytes] = []
        self.keys: list[str | None] = []
        self.left = asyncio.Event()

    async def startup(self) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        if call.path.endswith("/models"):
            await call.reply_json(200, {"data": [{"id": "real-1"}, {"id": "real-2"}]})
            return
        self.received.append(await call.body(1 << 20))
        self.keys.append(call.header("idempotency-key"))
        if self.body is not None:
            await call.reply(self.status, self.body, self.kind, headers=self.headers)
            return
        await call.start(self.status, (("content-type", self.kind), *self.headers))
        for data in self.events or ():
            await call.send(b"data: " + data.replace(b"\n", b"\ndata: ") + b"\n\n")
        if self.hang:
            await call.disconnected()
            self.left.set()
        elif not self.cut:
            await call.finish(b"data: [DONE]\n\n" if self.done else b"")
        call.close()


def config(base_url: str, **more: object) -> NodeConfig:
    engine = OpenAIEngine(base_url=base_url + "/v1", **more)  # type: ignore[arg-type]
    return NodeConfig(name=NAME, operator="alpha.example", embeddings=False, engine=engine)


async def through(
    folder: Path, upstream: Upstream, request: dict[str, object], **more: object
) -> Heard:
    async with (
        serving(upstream) as base_url,
        node(folder, config=config(base_url, **more)) as running,
    ):
        return await running.hear(attempt(request, model="real-1"))


@pytest.mark.parametrize(
    "upstream",
    [
        {"events": GOOD, "hang": True},
        {"events": GOOD, "cut": True},
        {"events": [*GOOD, b"[DONE]"], "hang": True},
        {"events": [*GOOD, b"[DONE]"], "cut": True},
        {"events": [*GOOD, b"[DONE]", GOOD[1]]},
    ],
)
async def test_how_the_connection_ends_is_no_part_of_an_answer_that_has_finished(
    tmp_path: Path, upstream: dict[str, object]
) -> None:
    heard = await through(tmp_path, Upstream(**upstream), chat())  # type: ignore[arg-type]

    assert heard.data == GOOD
    assert heard.signed is not None
    assert verify_signed(heard.signed, KEY).receipt.usage.completion == 2


async def test_usage_that_comes_after_the_finish_is_kept_when_the_rest_does_not_come(
    tmp_path: Path,
) -> None:
    counted = msgspec.json.encode(HEAD | {"choices": [], "usage": USAGE})
    events = [*GOOD[:3], chunk(None, "stop"), counted]
    request = chat(stream_options={"include_usage": True})
    heard = await through(tmp_path, Upstream(events, hang=True), request)

    assert heard.data == events
    assert heard.signed is not None


async def test_a_count_that_was_given_as_the_text_came_is_shown_at_its_end(tmp_path: Path) -> None:
    last = msgspec.json.decode(chunk(None, "stop")) | {"usage": USAGE}
    events = [*GOOD[:3], msgspec.json.encode(last)]
    request = chat(stream_options={"include_usage": True})
    heard = await through(tmp_path, Upstream(events, cut=True), request, prefix="vllm")
    unasked = await through(tmp_path / "unasked", Upstream(events, cut=True), chat(), prefix="vllm")

    assert [msgspec.json.decode(data).get("usage") for data in heard.data[3:]] == [None, USAGE]
    assert msgspec.json.decode(heard.data[-1])["choices"] == []
    assert not any(msgspec.json.decode(data).get("usage") for data in unasked.data)
    for one in (heard, unasked):
        assert one.signed is not None
        assert verify_signed(one.signed, KEY).receipt.usage.completion == 2


async def test_an_error_after_the_finish_is_one(tmp_path: Path) -> None:
    events = [*GOOD, b'{"error": {"message": "x", "code": 503}}']
    heard = await through(tmp_path, Upstream(events), chat())

    assert heard.error is not None
    assert heard.error.code == "upstream_unavailable"


async def test_a_stream_is_relayed_as_it_came_and_signed_for(tmp_path: Path) -> None:
    upstream = Upstream(GOOD)
    request = chat(temperature=0.3, vendor_option={"a": [1, 2.50]})
    heard = await through(tmp_path, upstream, request)

    assert heard.data == GOOD
    assert [event.id for event in heard.chunks] == [0, 1, 2, 3]
    asked = attempt(request | {"stream_options": {"include_usage": True}}, model="real-1")
    assert upstream.received == [bytes(asked.request)]
    assert upstream.keys == ["att_1"]
    assert heard.signed is not None
    receipt = verify_signed(heard.signed, KEY).receipt
    assert receipt.model.provider == "127.0.0.1"
    assert (receipt.model.served, receipt.model.fingerprint) == ("real-1", "fp_up")
    assert (receipt.usage.prompt, receipt.usage.completion, receipt.usage.counted) == (3, 2, False)
    assert receipt.sampling.source == "none"
    assert receipt.response.finish == ("stop",)
    assert receipt.request.digest == request_digest(bytes(attempt(request, model="real-1").request))
    assert heard.accepted is not None
    assert heard.accepted.seed is None


async def test_only_the_models_name_is_changed_and_unknown_fields_survive(tmp_path: Path) -> None:
    upstream = Upstream(GOOD)
    request = chat(vendor_option={"a": 2.50})
    names = {"real-1": "up/real"}
    await through(tmp_path, upstream, request, upstream_names=names, ask_usage=False)

    sent = msgspec.json.decode(upstream.received[0])
    assert sent == {"model": "up/real"} | request
    assert b'"vendor_option":{"a":2.5}' in upstream.received[0]


async def test_a_whole_answer_is_put_on_one_line(tmp_path: Path) -> None:
    body = msgspec.json.format(msgspec.json.encode(WHOLE), indent=2).replace(b"\n", b"\r\n")
    heard = await through(tmp_path, Upstream(body=body), chat(stream=False))

    assert len(heard.data) == 1
    assert msgspec.json.decode(heard.data[0]) == WHOLE
    assert b"\n" not in heard.data[0]
    assert heard.signed is not None


@pytest.mark.parametrize(
    ("upstream", "code"),
    [
        ({"events": GOOD[:2]}, "upstream_truncated"),
        ({"events": GOOD[:3], "done": False}, "upstream_truncated"),
        ({"events": GOOD[:2], "cut": True}, "upstream_truncated"),
        (
            {"events": [GOOD[1], b'{"error": {"message": "x", "code": 503}}']},
            "upstream_unavailable",
        ),
        ({"events": [GOOD[1], b"not json"]}, "upstream_bad_chunk"),
        ({"events": [GOOD[1], GOOD[1].replace(b'"index":0', b'"index":1')]}, "upstream_bad_chunk"),
        ({"events": [*GOOD, GOOD[1]]}, "upstream_bad_chunk"),
        ({"events": [*GOOD, chunk(None, "length")]}, "upstream_bad_chunk"),
        ({"events": [GOOD[1], b'{"code": "Busy", "message": "x"}']}, "upstream_bad_chunk"),
        ({"events": [GOOD[1], chunk(None, "network_error")]}, "upstream_truncated"),
        ({"events": [GOOD[1], chunk(None, "ERROR")]}, "upstream_truncated"),
        (
            {"events": [GOOD[1], chunk(None, "stop").replace(b'"index"', b'"error":{},"index"')]},
            "upstream_truncated",
        ),
        ({"events": []}, "upstream_empty"),
        ({"events": [chunk(""), chunk(None, "stop")]}, "upstream_empty"),
        ({"events": [chunk("")] * 100}, "upstream_empty"),
    ],
)
async def test_a_stream_that_is_no_answer_ends_in_an_error(
    tmp_path: Path, upstream: dict[str, object], code: str
) -> None:
    heard = await through(tmp_path, Upstream(**upstream), chat())  # type: ignore[arg-type]

    assert heard.error is not None
    assert (heard.error.code, heard.error.retryable) == (code, True)
    assert heard.signed is None


async def test_an_empty_stream_shows_the_app_nothing(tmp_path: Path) -> None:
    heard = await through(tmp_path, Upstream([chunk(""), chunk(None, "stop")]), chat())

    assert heard.chunks == []


async def test_an_empty_answer_with_a_reason_is_an_answer(tmp_path: Path) -> None:
    heard = await through(tmp_path, Upstream([chunk(""), chunk(None, "length")]), chat())

    assert len(heard.data) == 2
    assert heard.signed is not None


@pytest.mark.parametrize(
    ("upstream", "code", "retryable"),
    [
        ({"body": b'{"error": {"message": "no"}}', "status": 401}, "upstream_auth", True),
        ({"body": b"{}", "status": 429}, "upstream_rate_limited", True),
        ({"body": b"<html>", "status": 502}, "upstream_unavailable", True),
        ({"body": b"<html>", "kind": "text/html"}, "upstream_wrong_content_type", True),
        (
            {"body": b'{"error": {"code": "bad_thing", "param": "top_p"}}', "status": 400},
            "bad_thing",
            False,
        ),
        ({"body": b"", "status": 413}, "request_too_large", True),
    ],
)
async def test_an_upstreams_no_is_an_http_status_of_the_node(
    tmp_path: Path, upstream: dict[str, object], code: str, retryable: bool
) -> None:
    with pytest.raises(NodeRefusedError) as refused:
        await through(tmp_path, Upstream(**upstream), chat())  # type: ignore[arg-type]

    assert (refused.value.error_code, refused.value.retryable) == (code, retryable)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"choices": []}, "upstream_empty"),
        ({"choices": [WHOLE["choices"][0] | {"finish_reason": None}]}, "upstream_truncated"),  # type: ignore[index]
        (
            {"choices": [WHOLE["choices"][0] | {"message": {"content": ""}}]},  # type: ignore[index]
            "upstream_empty",
        ),
        ({"choices": 7}, "upstream_bad_chunk"),
        ({"choices": [WHOLE["choices"][0] | {"index": 1}]}, "upstream_bad_chunk"),  # type: ignore[index]
    ],
)
async def test_a_whole_answer_that_is_none_is_an_error(
    tmp_path: Path, change: dict[str, object], code: str
) -> None:
    body = msgspec.json.encode(WHOLE | change)
    heard = await through(tmp_path, Upstream(body=body), chat(stream=False))

    assert heard.error is not None
    assert heard.error.code == code


async def test_a_stalled_stream_ends_in_an_error(tmp_path: Path) -> None:
    upstream = Upstream(GOOD[:2], hang=True)
    async with serving(upstream) as base_url:
        engine = msgspec.convert(
            {"kind": "openai", "base_url": base_url + "/v1", "timeouts": {"idle_s": 0.05}},
            OpenAIEngine,
        )
        settings = NodeConfig(name=NAME, operator="a", embeddings=False, engine=engine)
        async with node(tmp_path, config=settings) as running:
            heard = await running.hear(attempt(chat(), model="real-1"))
        await upstream.left.wait()

    assert heard.error is not None
    assert heard.error.code == "upstream_stalled"


async def test_the_gateways_leaving_cuts_the_upstream(tmp_path: Path) -> None:
    upstream = Upstream(GOOD[:2], hang=True)
    async with (
        serving(upstream) as base_url,
        node(tmp_path, config=config(base_url)) as running,
        asyncio.timeout(10),
    ):
        stream = await running.caller.attempt(attempt(chat(), model="real-1"), 5.0)
        await anext(stream)
        await stream.aclose()
        await upstream.left.wait()


async def test_a_providers_answer_is_not_resumed(tmp_path: Path) -> None:
    resumed = attempt(chat(), model="real-1", seed="ab" * 32, numerics="x", resume=[[1]])
    async with (
        serving(Upstream(GOOD)) as base_url,
        node(tmp_path, config=config(base_url)) as running,
    ):
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(resumed)

    assert refused.value.error_code == "cannot_resume"


async def test_models_are_the_upstreams_unless_listed(tmp_path: Path) -> None:
    async with serving(Upstream(GOOD)) as base_url:
        async with node(tmp_path / "a", config=config(base_url)) as running:
            found = (await running.caller.info()).models
        listed = config(base_url, models=("one",), embedding_models=("e",))
        async with node(tmp_path / "b", config=listed) as running:
            named = (await running.caller.info()).models
            with pytest.raises(NodeRefusedError):
                await running.hear(attempt(chat(), model="real-1"))

    assert [model.name for model in found] == ["real-1", "real-2"]
    assert [(model.name, model.kind) for model in named] == [("one", "chat"), ("e", "embeddings")]


STATED = (
    ("x-ratelimit-limit-requests", "60"),
    ("x-ratelimit-remaining-requests", "0"),
    ("x-ratelimit-reset-requests", "1.5s"),
)
LIMITS = Limits(quotas=(Quota(unit="requests", limit=60, remaining=0, reset_ms=1500),))


@pytest.mark.parametrize("stream", [True, False])
async def test_stated_limits_are_told(tmp_path: Path, stream: bool) -> None:
    body = None if stream else msgspec.json.encode(WHOLE)
    upstream = Upstream(GOOD, body=body, headers=STATED)
    heard = await through(tmp_path, upstream, chat(stream=stream))
    assert heard.limits == [LIMITS]
    assert heard.signed is not None


async def test_a_refusal_carries_the_limits_it_states(tmp_path: Path) -> None:
    body = msgspec.json.encode({"error": {"message": "m", "code": "rate_limit_exceeded"}})
    with pytest.raises(NodeRefusedError) as caught:
        await through(tmp_path, Upstream(body=body, status=429, headers=STATED), chat())
    refusal = caught.value.node_error
    assert (refusal.limits, refusal.retry_after_ms) == (LIMITS, 1500)


async def test_limits_that_the_operator_states_are_said_of_each_model(tmp_path: Path) -> None:
    limits = AccountLimits(requests_per_minute=500, concurrency=8)
    async with (
        serving(Upstream()) as base_url,
        node(tmp_path, config=config(base_url, models=("real-1",), limits=limits)) as running,
    ):
        _, body, _ = await running.get("/v1/info")
    (model,) = msgspec.json.decode(body, type=NodeInfo).models
    assert model.limits == Limits(
        quotas=(
            Quota(unit="requests", limit=500, window_ms=60_000),
            Quota(unit="concurrency", limit=8),
        )
    )
