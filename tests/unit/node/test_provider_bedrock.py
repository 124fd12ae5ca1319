"""A Bedrock account behind a node: asked in its format, answered in ours, and signed for."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import bedrock
from tests.unit.node.harness import KEY, NAME, Heard, attempt, chat, node

from trunkline.base.errors import ConfigError
from trunkline.node.config import NodeConfig
from trunkline.node.config_providers import BedrockEngine
from trunkline.receipts import verify_signed
from trunkline.remote.node import NodeRefusedError
from trunkline.runtime.http import Call, Receive, Scope, Send
from trunkline.runtime.server import serving

MODEL = "maker.model-v1:0"
TOLD = bedrock.events(["Hel", "lo"])
WHOLE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}]}},
    "stopReason": "end_turn",
    "usage": bedrock.USAGE,
    "metrics": {"latencyMs": 3},
}


class Account:
    """A scripted Bedrock runtime."""

    def __init__(self, stream: bytes = b"", *, body: Any = None, status: int = 200) -> None:
        self.stream = stream
        self.body = body
        self.status = status
        self.asked: list[tuple[str, Any]] = []
        self.headers: dict[str, str | None] = {}

        self.base_url = ""

    async def startup(self) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        raw = await call.body(1 << 20)
        path = bytes(scope["raw_path"]).decode()
        self.asked.append((path, json.loads(raw)))
        bedrock.check(self.asked[-1][1], "ConverseRequest")
        for name in ("authorization", "x-amz-date", "accept"):
            self.headers[name] = call.header(name)
        if self.body is not None:
            headers = (("x-amzn-requestid", "req-7"),)
            await call.reply_json(self.status, self.body, headers)
            return
        kind = ("content-type", "application/vnd.amazon.eventstream")
        await call.start(200, (kind, ("x-amzn-requestid", "req-7")))
        await call.send(self.stream)
        await call.finish(b"")
        call.close()


async def through(folder: Path, account: Account, request: dict[str, object], **more: Any) -> Heard:
    key = folder / "api_key"
    key.write_text(more.pop("key", "bearer-key"))
    key.chmod(0o600)
    async with serving(account) as base_url:
        account.base_url = base_url
        engine = BedrockEngine(
            region="us-east-1",
            base_url=base_url,
            api_key_file=str(key),
            models=("fast",),
            upstream_names={"fast": MODEL},
            **more,
        )
        config = NodeConfig(name=NAME, operator="alpha.example", embeddings=False, engine=engine)
        async with node(folder, config=config) as running:
            return await running.hear(attempt(request, model="fast"))


async def test_a_stream_is_translated_and_signed_for(tmp_path: Path) -> None:
    account = Account(b"".join(map(bedrock.event, TOLD)))
    heard = await through(tmp_path, account, chat(stream_options={"include_usage": True}))

    said = {"messages": [{"role": "user", "content": [{"text": "hello"}]}]}
    assert account.asked == [("/model/maker.model-v1%3A0/converse-stream", said)]
    assert account.headers["authorization"] == "Bearer bearer-key"
    assert account.headers["accept"] == "application/vnd.amazon.eventstream"
    assert heard.text == "Hello"
    assert json.loads(heard.data[0])["id"] == "req-7"
    assert json.loads(heard.data[-1])["usage"]["total_tokens"] == 5
    assert heard.signed is not None
    receipt = verify_signed(heard.signed, KEY).receipt
    assert (receipt.usage.prompt, receipt.usage.completion) == (3, 2)


async def test_a_whole_answer_signed_for_with_an_access_key(tmp_path: Path) -> None:
    account = Account(body=WHOLE)
    more = {"auth": "signature", "key": "AKIDEXAMPLE:a/secret+key"}
    heard = await through(tmp_path, account, chat(stream=False), **more)

    (completion,) = [json.loads(data) for data in heard.data]
    assert completion["choices"][0]["message"]["content"] == "Hello"
    told = account.headers["authorization"] or ""
    assert told.startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    scope = "us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature="
    assert scope in told
    assert "secret" not in told


@pytest.mark.parametrize(
    ("tail", "code"),
    [
        (bedrock.exception("throttlingException"), "upstream_rate_limited"),
        (bedrock.exception("serviceUnavailableException"), "upstream_unavailable"),
        (bedrock.exception("modelStreamErrorException"), "upstream_unavailable"),
        (b"", "upstream_truncated"),
        (bedrock.event(TOLD[2])[:-3], "upstream_truncated"),
        (b"\x00" * 32, "upstream_bad_stream"),
    ],
)
async def test_a_stream_that_fails_ends_in_an_error(tmp_path: Path, tail: bytes, code: str) -> None:
    stream = b"".join(map(bedrock.event, TOLD[:2])) + tail
    heard = await through(tmp_path, Account(stream), chat())
    assert heard.signed is None
    assert heard.error is not None
    assert (heard.error.code, heard.error.retryable) == (code, True)
    assert "secret" not in heard.error.message


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (429, "upstream_rate_limited", True),
        (403, "upstream_auth", True),
        (404, "upstream_model_missing", True),
        (408, "upstream_timeout", True),
        (424, "upstream_failed", True),
        (400, "unsupported_parameter", True),
    ],
)
async def test_refusals(tmp_path: Path, status: int, code: str, retryable: bool) -> None:
    account = Account(body={"message": "a secret"}, status=status)
    with pytest.raises(NodeRefusedError) as caught:
        await through(tmp_path, account, chat())
    assert (caught.value.node_error.code, caught.value.node_error.retryable) == (code, retryable)
    assert "secret" not in caught.value.node_error.message


async def test_an_access_key_that_is_none_is_a_wrong_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ACCESS_KEY_ID") as refused:
        await through(tmp_path, Account(), chat(), auth="signature", key="not-a-pair")
    assert "not-a-pair" not in refused.value.message


@pytest.mark.parametrize(
    "wrong",
    [
        {"region": "nowhere", "models": ("m",), "api_key_env": "K"},
        {"region": "us-east-1", "api_key_env": "K"},
        {"region": "us-east-1", "models": ("m",)},
    ],
)
def test_settings_that_can_not_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|wants"):
        BedrockEngine(**wrong)


def test_the_region_says_where_it_is() -> None:
    engine = BedrockEngine(region="eu-central-1", models=("m",), api_key_env="K")
    assert engine.url == "https://bedrock-runtime.eu-central-1.amazonaws.com"
