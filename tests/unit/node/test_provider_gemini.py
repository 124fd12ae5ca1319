"""A Gemini account behind a node: asked in its format, answered in ours, and signed for."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.node.harness import KEY, NAME, Heard, attempt, chat, node

from trunkline.node import config as node_config
from trunkline.node.config import NodeConfig
from trunkline.node.config_providers import GeminiEngine
from trunkline.receipts import verify_signed
from trunkline.remote.node import NodeRefusedError
from trunkline.runtime.http import Call, Receive, Scope, Send
from trunkline.runtime.server import serving

HEAD = {"responseId": "r1", "modelVersion": "gemini-real-001"}
USAGE = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}


def event(text: str, finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}}
    if finish is not None:
        candidate["finishReason"] = finish
    return HEAD | {"candidates": [candidate], "usageMetadata": USAGE}


EVENTS = [event("Hel"), event("lo", "STOP")]
LISTED = [
    {"name": "models/gemini-real", "supportedGenerationMethods": ["generateContent"]},
    {"name": "models/embedding-1", "supportedGenerationMethods": ["embedContent"]},
]


class Account:
    """A scripted Gemini API."""

    def __init__(
        self, events: list[dict[str, Any]] | None = None, *, body: Any = None, status: int = 200
    ) -> None:
        self.events = events
        self.body = body
        self.status = status
        self.asked: list[tuple[str, Any]] = []
        self.keys: set[str | None] = set()

    async def startup(self) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        self.keys.add(call.header("x-goog-api-key"))
        if call.path == "/v1beta/models":
            await call.reply_json(200, {"models": LISTED})
            return
        self.asked.append((call.path, json.loads(await call.body(1 << 20))))
        if self.events is None:
            await call.reply_json(self.status, self.body)
            return
        await call.start(self.status, (("content-type", "text/event-stream"),))
        for told in self.events:
            await call.send(b"data: %b\r\n\r\n" % json.dumps(told).encode())
        await call.finish(b"")
        call.close()


async def through(
    folder: Path, account: Account, request: dict[str, object], model: str = "gemini"
) -> Heard:
    key = folder / "api_key"
    key.write_text("secret-key")
    key.chmod(0o600)
    async with serving(account) as base_url:
        engine = GeminiEngine(
            base_url=base_url + "/v1beta",
            api_key_file=str(key),
            upstream_names={"gemini": "gemini-real"},
        )
        config = NodeConfig(name=NAME, operator="alpha.example", embeddings=False, engine=engine)
        async with node(folder, config=config) as running:
            status, body, _ = await running.get("/v1/info")
            assert status == 200
            assert [m["name"] for m in json.loads(body)["models"]] == ["gemini-real"]
            return await running.hear(attempt(request, model=model))


SAID = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}


async def test_a_stream_is_translated_and_signed_for(tmp_path: Path) -> None:
    account = Account(EVENTS)
    heard = await through(tmp_path, account, chat(stream_options={"include_usage": True}))

    assert account.asked == [("/v1beta/models/gemini-real:streamGenerateContent", SAID)]
    assert account.keys == {"secret-key"}
    assert heard.text == "Hello"
    assert json.loads(heard.data[-1])["usage"]["total_tokens"] == 5
    assert heard.signed is not None
    receipt = verify_signed(heard.signed, KEY).receipt
    assert (receipt.model.requested, receipt.model.served) == ("gemini", "gemini-real-001")
    assert receipt.response.finish == ("stop",)
    assert (receipt.usage.prompt, receipt.usage.completion, receipt.usage.counted) == (3, 2, False)


async def test_a_whole_answer_is_translated_and_signed_for(tmp_path: Path) -> None:
    account = Account(body=event("Hello", "STOP"))
    heard = await through(tmp_path, account, chat(stream=False))
    assert account.asked == [("/v1beta/models/gemini-real:generateContent", SAID)]
    (completion,) = [json.loads(data) for data in heard.data]
    assert completion["choices"][0]["message"]["content"] == "Hello"
    assert heard.signed is not None


async def test_a_stream_without_finish_gets_no_receipt(tmp_path: Path) -> None:
    heard = await through(tmp_path, Account(EVENTS[:1]), chat())
    assert heard.signed is None
    assert heard.error is not None
    assert (heard.error.code, heard.error.retryable) == ("upstream_truncated", True)


async def test_an_error_within_the_stream_ends_it(tmp_path: Path) -> None:
    error = {"error": {"code": 503, "status": "UNAVAILABLE", "message": "a secret"}}
    heard = await through(tmp_path, Account([EVENTS[0], error]), chat())
    assert heard.signed is None
    assert heard.error is not None
    assert (heard.error.code, heard.error.retryable) == ("upstream_unavailable", True)
    assert "secret" not in heard.error.message


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_with_a_200_may_go_elsewhere_too(tmp_path: Path, stream: bool) -> None:
    error = {"error": {"code": 400, "status": "INVALID_ARGUMENT", "message": "a secret"}}
    account = Account([error]) if stream else Account(body=error)
    heard = await through(tmp_path, account, chat(stream=stream))
    assert heard.signed is None
    assert heard.error is not None
    assert (heard.error.code, heard.error.retryable) == ("unsupported_parameter", True)
    assert "secret" not in heard.error.message


async def test_a_limit_says_when_to_come_back(tmp_path: Path) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "13.5s"}
    error = {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "m", "details": [info]}
    with pytest.raises(NodeRefusedError) as caught:
        await through(tmp_path, Account(body={"error": error}, status=429), chat())
    refusal = caught.value.node_error
    assert (refusal.code, refusal.retry_after_ms) == ("upstream_rate_limited", 13_500)


async def test_what_can_not_be_translated_may_go_elsewhere(tmp_path: Path) -> None:
    account = Account(EVENTS)
    with pytest.raises(NodeRefusedError) as caught:
        await through(tmp_path, account, chat(logit_bias={"1": 1}))
    refusal = caught.value.node_error
    assert (refusal.code, refusal.param) == ("unsupported_parameter", "logit_bias")
    assert refusal.retryable
    assert account.asked == []


async def test_a_model_of_no_ones_name_gets_into_no_url(tmp_path: Path) -> None:
    account = Account(EVENTS)
    with pytest.raises(NodeRefusedError) as caught:
        await through(tmp_path, account, chat(), model="a/../b?key=1")
    assert caught.value.node_error.code == "model_not_found"
    assert account.asked == []


def test_the_file_reads_back_as_written(tmp_path: Path) -> None:
    engine = GeminiEngine(api_key_env="SOME_KEY", models=("a",), upstream_names={"a": "g-a"})
    config = NodeConfig(name=NAME, operator="alpha.example", engine=engine)
    path = tmp_path / "node.toml"
    path.write_text(node_config.render(config))
    assert node_config.read(path) == config
