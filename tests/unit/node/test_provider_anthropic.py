"""An Anthropic account behind a node: asked in its format, answered in ours, and signed for."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.node.harness import KEY, NAME, Heard, attempt, chat, node

from trunkline.node import config as node_config
from trunkline.node.config import NodeConfig
from trunkline.node.config_providers import AnthropicEngine
from trunkline.receipts import verify_signed
from trunkline.remote.node import NodeRefusedError
from trunkline.runtime.http import Call, Receive, Scope, Send
from trunkline.runtime.server import serving
from trunkline.schema.attempt import Quota

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-real",
    "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": MESSAGE | {"content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
STATED = (
    ("anthropic-ratelimit-input-tokens-limit", "30000"),
    ("anthropic-ratelimit-input-tokens-remaining", "29000"),
)


class Account:
    """A scripted Messages API."""

    def __init__(
        self, events: list[dict[str, Any]] | None = None, *, body: Any = None, status: int = 200
    ) -> None:
        self.events = events
        self.body = body
        self.status = status
        self.asked: list[Any] = []
        self.headers: list[tuple[str | None, str | None]] = []

    async def startup(self) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        self.headers.append((call.header("x-api-key"), call.header("anthropic-version")))
        if call.path == "/v1/models":
            await call.reply_json(200, {"data": [{"id": "claude-real", "type": "model"}]})
            return
        assert call.path == "/v1/messages"
        self.asked.append(json.loads(await call.body(1 << 20)))
        if self.events is None:
            await call.reply_json(self.status, self.body, STATED)
            return
        await call.start(self.status, (("content-type", "text/event-stream"), *STATED))
        for event in self.events:
            data = json.dumps(event).encode()
            await call.send(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), data))
        await call.finish(b"")
        call.close()


async def through(folder: Path, account: Account, request: dict[str, object]) -> Heard:
    key = folder / "api_key"
    key.write_text("sk-secret")
    key.chmod(0o600)
    async with serving(account) as base_url:
        engine = AnthropicEngine(
            base_url=base_url + "/v1",
            api_key_file=str(key),
            upstream_names={"claude": "claude-real"},
            max_tokens=77,
        )
        config = NodeConfig(name=NAME, operator="alpha.example", embeddings=False, engine=engine)
        async with node(folder, config=config) as running:
            return await running.hear(attempt(request, model="claude"))


async def test_a_stream_is_translated_and_signed_for(tmp_path: Path) -> None:
    account = Account(EVENTS)
    request = chat(stream_options={"include_usage": True})
    heard = await through(tmp_path, account, request)

    assert account.asked == [
        {
            "model": "claude-real",
            "max_tokens": 77,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
            "stream": True,
        }
    ]
    assert set(account.headers) == {("sk-secret", "2023-06-01")}
    (told,) = heard.limits
    assert told.quotas == (
        Quota(unit="input_tokens", limit=30_000, remaining=29_000, window_ms=60_000),
    )
    chunks = [json.loads(data) for data in heard.data]
    assert [c["choices"][0]["delta"].get("content") for c in chunks[:-1]] == ["", "Hel", "lo", None]
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["usage"]["total_tokens"] == 5
    assert heard.signed is not None
    receipt = verify_signed(heard.signed, KEY).receipt
    assert (receipt.model.requested, receipt.model.served) == ("claude", "claude-real")
    assert receipt.response.finish == ("stop",)
    assert (receipt.usage.prompt, receipt.usage.completion, receipt.usage.counted) == (3, 2, False)


async def test_a_whole_answer_is_translated_and_signed_for(tmp_path: Path) -> None:
    account = Account(body=MESSAGE)
    heard = await through(tmp_path, account, chat(stream=False))
    (completion,) = [json.loads(data) for data in heard.data]
    assert completion["choices"][0]["message"]["content"] == "Hello"
    assert "stream" not in account.asked[0]
    assert heard.signed is not None
    assert verify_signed(heard.signed, KEY).receipt.usage.completion == 2


async def test_what_was_not_counted_is_not_told_as_a_count(tmp_path: Path) -> None:
    """The stream begins with how much of the answer there was before it: no count of the whole."""
    uncounted = [{name: event[name] for name in event if name != "usage"} for event in EVENTS]
    asked = chat(stream_options={"include_usage": True})
    heard = await through(tmp_path, Account(uncounted), asked)
    assert heard.signed is not None
    assert not any(json.loads(data).get("usage") for data in heard.data)


@pytest.mark.parametrize("usage", [None, {}, {"input_tokens": 3}])
async def test_a_whole_answer_without_a_count_has_none(tmp_path: Path, usage: object) -> None:
    heard = await through(tmp_path, Account(body=MESSAGE | {"usage": usage}), chat(stream=False))
    (completion,) = [json.loads(data) for data in heard.data]
    assert completion["usage"] is None


@pytest.mark.parametrize("count", range(1, len(EVENTS)))
async def test_a_stream_cut_short_gets_no_receipt(tmp_path: Path, count: int) -> None:
    heard = await through(tmp_path, Account(EVENTS[:count]), chat())
    assert heard.signed is None
    assert heard.error is not None
    assert heard.error.code in ("upstream_truncated", "upstream_empty")
    assert heard.error.retryable


async def test_an_error_within_the_stream_ends_it(tmp_path: Path) -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "a secret"}}
    heard = await through(tmp_path, Account([*EVENTS[:4], error]), chat())
    assert heard.signed is None
    assert heard.error is not None
    assert (heard.error.code, heard.error.retryable) == ("upstream_unavailable", True)
    assert "secret" not in heard.error.message


async def test_a_damaged_event_ends_it(tmp_path: Path) -> None:
    heard = await through(tmp_path, Account([*EVENTS[:4], EVENTS[0]]), chat())
    assert heard.error is not None
    assert heard.error.code == "upstream_bad_chunk"


async def test_what_can_not_be_translated_is_refused_and_may_go_elsewhere(tmp_path: Path) -> None:
    account = Account(EVENTS)
    with pytest.raises(NodeRefusedError) as caught:
        await through(tmp_path, account, chat(seed=7))
    refusal = caught.value.node_error
    assert (refusal.code, refusal.param) == ("unsupported_parameter", "seed")
    assert (refusal.status, refusal.retryable) == (400, True)
    assert account.asked == []


async def test_a_refused_translation_may_go_elsewhere(tmp_path: Path) -> None:
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": "a secret"}}
    with pytest.raises(NodeRefusedError) as caught:
        await through(tmp_path, Account(body=body, status=400), chat())
    refusal = caught.value.node_error
    assert (refusal.code, refusal.retryable) == ("unsupported_parameter", True)
    assert "secret" not in refusal.message


def test_the_file_reads_back_as_written(tmp_path: Path) -> None:
    engine = AnthropicEngine(
        api_key_env="SOME_KEY", models=("a", "b"), upstream_names={"a": "claude-a"}, max_tokens=9
    )
    config = NodeConfig(name=NAME, operator="alpha.example", engine=engine)
    path = tmp_path / "node.toml"
    path.write_text(node_config.render(config))
    assert node_config.read(path) == config


@pytest.mark.parametrize(
    "wrong", [{"api_key_file": "a", "api_key_env": "b"}, {"concurrency": 0}, {"max_tokens": 0}]
)
def test_settings_that_can_not_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|one of them"):
        AnthropicEngine(**wrong)
