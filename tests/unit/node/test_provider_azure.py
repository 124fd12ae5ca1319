"""An Azure OpenAI resource behind a node. Addresses are those of OpenAI's own Azure client."""

import json
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from tests.unit.node.harness import KEY, NAME, Heard, attempt, chat, node
from tests.unit.node.test_provider import GOOD, WHOLE

from trunkline.node.config import NodeConfig
from trunkline.node.config_providers import AzureEngine
from trunkline.receipts import verify_signed
from trunkline.remote.azure import annotates_only
from trunkline.remote.node import NodeRefusedError
from trunkline.runtime.http import Call, Receive, Scope, Send
from trunkline.runtime.server import serving

FILTERED = {"hate": {"filtered": False, "severity": "safe"}}
FIRST: dict[str, Any] = {
    "choices": [], "created": 0, "id": "", "model": "", "object": "",
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": FILTERED}],
}  # fmt: skip
LATE: dict[str, Any] = {
    "id": "", "object": "", "created": 0, "model": "",
    "choices": [{
        "index": 0, "finish_reason": None, "content_filter_results": FILTERED,
        "content_filter_offsets": {"check_offset": 44, "start_offset": 44, "end_offset": 198},
    }],
}  # fmt: skip


class Resource:
    """A scripted Azure resource."""

    def __init__(self, events: list[bytes], *, body: Any = None, status: int = 200) -> None:
        self.events = events
        self.body = body
        self.status = status
        self.asked: list[str] = []
        self.key: str | None = None
        self.models: list[str] = []

    async def startup(self) -> None:
        """Nothing to open."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send)
        self.asked.append(call.path + "?" + bytes(scope["query_string"]).decode())
        self.key = call.header("api-key")
        assert call.header("authorization") is None
        self.models.append(msgspec.json.decode(await call.body(1 << 20))["model"])
        if self.body is not None:
            await call.reply_json(self.status, self.body)
            return
        await call.start(200, (("content-type", "text/event-stream"),))
        for data in self.events:
            await call.send(b"data: " + data + b"\n\n")
        await call.finish(b"data: [DONE]\n\n")
        call.close()


async def through(
    folder: Path, resource: Resource, request: dict[str, object], **more: Any
) -> Heard:
    key = folder / "api_key"
    key.write_text("secret-key")
    key.chmod(0o600)
    async with serving(resource) as base_url:
        engine = AzureEngine(
            base_url=base_url,
            api_key_file=str(key),
            models=("real-1",),
            upstream_names={"real-1": "my-deployment"},
            embedding_models=("vectors",),
            **more,
        )
        config = NodeConfig(name=NAME, operator="alpha.example", embeddings=False, engine=engine)
        async with node(folder, config=config) as running:
            kind = "embeddings" if "input" in request else "chat"
            model = "vectors" if "input" in request else "real-1"
            return await running.hear(attempt(request, model=model, kind=kind))


async def as_the_client_asks(model: str) -> str:
    """Path and query that OpenAI's client for Azure calls."""
    resource = Resource([], body=WHOLE)
    async with (
        serving(resource) as base_url,
        openai.AsyncAzureOpenAI(
            azure_endpoint=base_url, api_key="k", api_version="2024-10-21"
        ) as client,
    ):
        await client.chat.completions.create(messages=[], model=model)
    return resource.asked[0]


async def test_annotations_of_filters_are_no_chunks_of_the_answer(tmp_path: Path) -> None:
    events = [json.dumps(FIRST).encode(), *GOOD[:2], json.dumps(LATE).encode(), *GOOD[2:]]
    resource = Resource(events)
    heard = await through(tmp_path, resource, chat(), api_version="2024-10-21")

    assert resource.asked == [await as_the_client_asks("my-deployment")]
    assert (resource.key, resource.models) == ("secret-key", ["my-deployment"])
    assert heard.text == "Hello"
    assert [json.loads(data)["id"] for data in heard.data] == ["up-1"] * len(heard.data)
    assert heard.signed is not None
    assert verify_signed(heard.signed, KEY).receipt.model.served == "real-1"


async def test_the_v1_api_has_one_path_for_all_deployments(tmp_path: Path) -> None:
    resource = Resource([], body=WHOLE)
    heard = await through(tmp_path, resource, chat(stream=False))
    assert resource.asked == ["/openai/v1/chat/completions?"]
    assert resource.models == ["my-deployment"]
    assert heard.signed is not None


async def test_embeddings(tmp_path: Path) -> None:
    answer = {"model": "vectors", "data": [{"embedding": [1.0]}]}
    resource = Resource([], body=answer)
    heard = await through(tmp_path, resource, {"input": "x"}, api_version="2024-10-21")
    assert resource.asked == ["/openai/deployments/vectors/embeddings?api-version=2024-10-21"]
    assert heard.signed is not None


async def test_a_filtered_answer_says_so(tmp_path: Path) -> None:
    end = {"index": 0, "delta": {}, "finish_reason": "content_filter",
           "content_filter_results": FILTERED}  # fmt: skip
    last = {"id": "up-1", "model": "real-1", "choices": [end]}
    resource = Resource([json.dumps(FIRST).encode(), GOOD[1], json.dumps(last).encode()])
    heard = await through(tmp_path, resource, chat())
    assert heard.signed is not None
    assert verify_signed(heard.signed, KEY).receipt.response.finish == ("content_filter",)


async def test_a_filtered_prompt_is_refused_by_its_code(tmp_path: Path) -> None:
    error = {"code": "content_filter", "message": "a secret", "param": "prompt", "status": 400}
    with pytest.raises(NodeRefusedError) as caught:
        await through(tmp_path, Resource([], body={"error": error}, status=400), chat())
    refusal = caught.value.node_error
    assert (refusal.code, refusal.status, refusal.retryable) == ("content_filter", 400, False)
    assert "secret" not in refusal.message


@pytest.mark.parametrize(
    ("chunk", "only"),
    [
        (FIRST, True),
        (LATE, True),
        (FIRST | {"usage": {"prompt_tokens": 1}}, False),
        (LATE | {"choices": [{"delta": {"content": "x"}, "content_filter_results": {}}]}, False),
        ({"choices": []}, False),
        ({"error": {"code": "content_filter"}}, False),
    ],
)
def test_what_is_nothing_but_an_annotation(chunk: dict[str, Any], only: bool) -> None:
    assert annotates_only(json.dumps(chunk).encode()) is only


def test_deployments_must_be_named() -> None:
    with pytest.raises(ValueError, match="deployments"):
        AzureEngine(base_url="https://x")
