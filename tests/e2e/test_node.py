"""A node with its real model over real HTTP: chat, calls, documents, vectors, taking over."""

import asyncio
import os
import signal
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from tests.unit.node.harness import KEY, NAME, Node, attempt, chat, node

from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.engine.embeddings import EmbeddedEmbedder, EmbedderConfig
from trunkline.node.config import EmbeddedEngine as EngineSettings
from trunkline.node.config import NodeConfig
from trunkline.receipts import verify_signed
from trunkline.remote.node import ErrorEvent, NodeRefusedError

pytestmark = pytest.mark.asyncio(loop_scope="module")

MODEL = "smollm2-135m-instruct"
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "people": {"type": "integer"},
    },
    "required": ["city", "people"],
}


def engine(cache: Path) -> EmbeddedEngine:
    return EmbeddedEngine(
        EngineConfig(
            cache_folder=str(cache), weights="as_shipped", sequences=4, context_tokens=1024
        )
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Node, Node]]:
    """Two nodes, each with an engine process of its own; the first also embeds."""
    folder = tmp_path_factory.mktemp("nodes")
    config = NodeConfig(name=NAME, operator="alpha.example", engine=EngineSettings(sequences=4))
    alone = msgspec.structs.replace(config, embeddings=False)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(
            node(
                folder / "a",
                engine(folder / "cache"),
                embedder=EmbeddedEmbedder(EmbedderConfig()),
                config=config,
            )
        )
        second = await stack.enter_async_context(
            node(folder / "b", engine(folder / "cache"), config=alone)
        )
        yield first, second


_number = 0


def ask(request: dict[str, object], **more: object) -> object:
    global _number
    _number += 1
    return attempt(request, number=1000 + _number, model=MODEL, **more)  # type: ignore[arg-type]


async def test_a_question_is_answered(nodes: tuple[Node, Node]) -> None:
    what = chat("What is the capital of France?", temperature=0, max_tokens=20)
    heard = await nodes[0].hear(ask(what))  # type: ignore[arg-type]

    assert heard.error is None
    assert heard.signed is not None
    assert len(heard.text) > 3
    receipt = verify_signed(heard.signed, KEY).receipt
    assert receipt.model.served == MODEL
    assert receipt.model.numerics
    assert receipt.usage.completion == len(heard.tokens)


async def test_another_process_takes_over_exactly(nodes: tuple[Node, Node]) -> None:
    first, second = nodes
    what = chat("Tell me a story.", max_tokens=24, n=2, logprobs=True, top_logprobs=2)
    whole = await first.hear(ask(what))  # type: ignore[arg-type]
    assert whole.accepted is not None
    for cut in (1, 2, 17, len(whole.tokens)):
        given = [[t for c, t in whole.tokens[:cut] if c == choice] for choice in range(2)]
        seen = 0
        for chunk in whole.chunks:
            seen += len(chunk.tokens)
            if seen == cut:
                break
        rest = await second.hear(
            ask(  # type: ignore[arg-type]
                what,
                seed=whole.accepted.seed,
                numerics=whole.accepted.numerics,
                resume=given,
            ),
            first_id=chunk.id + 1,
        )
        assert rest.error is None
        assert rest.chunks == whole.chunks[chunk.id + 1 :]


async def test_a_demanded_call_is_a_call(nodes: tuple[Node, Node]) -> None:
    what = chat(
        "How is the weather in Paris?",
        stream=False,
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        parallel_tool_calls=False,
        max_tokens=80,
    )
    heard = await nodes[0].hear(ask(what))  # type: ignore[arg-type]

    assert heard.error is None
    choice = msgspec.json.decode(heard.data[0])["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]["function"]
    assert call["name"] == "get_weather"
    assert set(msgspec.json.decode(call["arguments"])) == {"city"}


async def test_a_demanded_document_satisfies_its_schema(nodes: tuple[Node, Node]) -> None:
    what = chat(
        "How many people live in Paris?",
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        max_tokens=80,
    )
    heard = await nodes[0].hear(ask(what))  # type: ignore[arg-type]

    assert heard.error is None
    document = msgspec.json.decode(heard.text)
    assert isinstance(document["city"], str)
    assert isinstance(document["people"], int)


async def test_control_tokens_in_a_message_are_text(nodes: tuple[Node, Node]) -> None:
    plain = await nodes[0].hear(ask(chat("a", max_tokens=1)))  # type: ignore[arg-type]
    spelled = await nodes[0].hear(ask(chat("<|im_end|>", max_tokens=1)))  # type: ignore[arg-type]

    assert plain.signed is not None
    assert spelled.signed is not None
    counts = [
        verify_signed(each.signed, KEY).receipt.usage.prompt
        for each in (plain, spelled)
        if each.signed is not None
    ]
    # As a control token it would be one token, as "a" is.
    assert counts[1] > counts[0] + 3


async def test_a_prompt_longer_than_the_context_is_refused(nodes: tuple[Node, Node]) -> None:
    for text in ("word " * 2000, "x" * 900_000):
        with pytest.raises(NodeRefusedError) as refused:
            await nodes[0].hear(ask(chat(text)))  # type: ignore[arg-type]
        assert refused.value.error_code == "context_length_exceeded"


async def test_vectors_as_numbers_and_as_base64_are_the_same(nodes: tuple[Node, Node]) -> None:
    vectors = []
    for form in ("float", "base64"):
        request: dict[str, object] = {
            "model": "multilingual-e5-small",
            "input": ["a cat", "une chatte"],
            "encoding_format": form,
        }
        what = attempt(request, number=2000 + len(vectors), kind="embeddings",
                       model="multilingual-e5-small")  # fmt: skip
        heard = await nodes[0].hear(what)
        assert heard.signed is not None
        answer = msgspec.json.decode(heard.data[0])
        assert answer["usage"]["prompt_tokens"] > 4
        vectors.append([_floats(item["embedding"]) for item in answer["data"]])

    assert vectors[0] == vectors[1]
    assert len(vectors[0][0]) == 384


def _floats(embedding: str | list[float]) -> list[float]:
    if isinstance(embedding, str):
        data = msgspec.json.decode(f'"{embedding}"', type=bytes)
    else:
        data = struct.pack("<384f", *embedding)
    return list(struct.unpack("<384f", data))


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"dimensions": 100}, "dimensions"),
        ({"input": [[1, 2]]}, "input.tokens"),
        ({"frobnicate": 1}, "frobnicate"),
    ],
)
async def test_what_the_embedder_can_not_honour_is_refused(
    nodes: tuple[Node, Node], more: dict[str, object], param: str | None
) -> None:
    what = attempt({"input": "x"} | more, number=2100, kind="embeddings",
                   model="multilingual-e5-small")  # fmt: skip
    with pytest.raises(NodeRefusedError) as refused:
        await nodes[0].hear(what)

    assert refused.value.error_code == "unsupported_parameter"
    assert refused.value.node_error.param == param


async def test_the_engines_death_ends_the_answer_and_not_the_node(tmp_path: Path) -> None:
    made = engine(tmp_path / "cache")
    config = NodeConfig(
        name=NAME, operator="a", embeddings=False, engine=EngineSettings(sequences=4)
    )
    async with node(tmp_path / "n", made, config=config) as running:
        what = ask(chat("Tell me a long story.", max_tokens=400))
        stream = await running.caller.attempt(what, 60.0)  # type: ignore[arg-type]
        events = [await anext(stream) for _ in range(5)]
        assert made.pid is not None
        os.kill(made.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            events += [event async for event in stream]
        again = await running.hear(ask(chat("Hi", max_tokens=3)))  # type: ignore[arg-type]

    last = events[-1]
    assert isinstance(last, ErrorEvent)
    assert last.error.retryable
    assert again.signed is not None
