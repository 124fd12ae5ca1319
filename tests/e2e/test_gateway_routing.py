"""Routing by policy, on loopback: virtual models, substitution, and a policy that changes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.support.fake_answer import EMBEDDER, text_of
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault, Script
from tests.support.gateway import Stack, gateway_over

from trunkline.gateway import routing

ASK = [{"role": "user", "content": "say it"}]
FAST = '[models.fast]\nuse = ["model-a", "model-b"]\n'


@pytest.fixture
async def a() -> AsyncIterator[FakeNode]:
    async with FakeNode("alpha", model="model-a") as node:
        yield node


@pytest.fixture
async def b() -> AsyncIterator[FakeNode]:
    async with FakeNode("beta", model="model-b") as node:
        yield node


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(routing, "LOOK_S", 0.01)
    path = tmp_path / "routing.toml"
    path.write_text(FAST)
    return path


@pytest.fixture
async def stack(a: FakeNode, b: FakeNode, policy: Path, tmp_path: Path) -> AsyncIterator[Stack]:
    async with gateway_over([a, b], tmp_path, routing=policy) as stack:
        yield stack


async def ask(stack: Stack, model: str = "fast", **more: object) -> tuple[str, str, str]:
    """The text, the model that served, and the answer's id."""
    raw = await stack.openai.chat.completions.with_raw_response.create(
        model=model, messages=ASK, **more
    )
    (choice,) = raw.parse().choices
    headers = raw.headers
    return choice.message.content or "", headers["trunkline-model"], headers["trunkline-receipt"]


async def receipt_of(stack: Stack, answer: str) -> dict[str, Any]:
    evidence = (await stack.http.get(f"/trunkline/v1/receipts/{answer}")).json()
    (part,) = evidence["parts"]
    receipt: dict[str, Any] = json.loads(part["signed"]["receipt"])
    return receipt


async def explained(stack: Stack, model: str = "fast", key: str = "") -> dict[str, Any]:
    reply = await stack.http.get(f"/trunkline/v1/route?model={model}&key={key}")
    assert reply.status == 200
    return reply.json()


async def written(stack: Stack, path: Path, text: str) -> dict[str, Any]:
    """Replace the policy's file, and wait until the gateway has read it; what it says then."""
    before = await explained(stack)
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)
    parts = "candidates", "policy"
    async with asyncio.timeout(30):
        while True:
            now = await explained(stack)
            if any(now[part] != before[part] for part in parts):
                return now


def shown(found: dict[str, Any]) -> list[tuple[int | None, str, str]]:
    return [(row["place"], row["model"], row["state"]) for row in found["deployments"]]


async def test_the_first_model_serves_and_everything_says_which(stack: Stack, a: FakeNode) -> None:
    text, served, answer = await ask(stack)
    assert served == "model-a"
    (attempt,) = a.attempts
    assert attempt.model == "model-a"
    receipt = await receipt_of(stack, answer)
    assert receipt["model"]["requested"] == "fast"
    assert receipt["model"]["served"] == "model-a"
    assert text == text_of(receipt["sampling"]["seed"])


async def test_virtual_models_are_listed(stack: Stack) -> None:
    listed = {model.id: model async for model in stack.openai.models.list()}
    assert set(listed) == {"fast", "model-a", "model-b", EMBEDDER}
    assert listed["fast"].owned_by == "routing policy"
    assert (await stack.openai.models.retrieve("fast")).id == "fast"


async def test_a_model_that_dies_is_stood_in_for_and_everything_says_so(
    stack: Stack, a: FakeNode, b: FakeNode
) -> None:
    assert shown(await explained(stack)) == [(1, "model-a", "healthy"), (2, "model-b", "healthy")]
    await a.die()
    text, served, answer = await ask(stack)
    assert served == "model-b"
    receipt = await receipt_of(stack, answer)
    assert (receipt["model"]["requested"], receipt["model"]["served"]) == ("fast", "model-b")
    assert [past["node"] for past in receipt["route"]] == [a.name]
    assert text == text_of(receipt["sampling"]["seed"])
    found = await explained(stack)
    places = shown(found)
    assert places[0] == (1, "model-b", "healthy")
    assert places[1][:2] == (2, "model-a")
    assert places[1][2] in ("resting", "unreachable")
    assert found["outcome"] == f"asks model-b at {b.name}"


async def test_a_stream_fails_over_before_its_first_text(
    stack: Stack, a: FakeNode, b: FakeNode
) -> None:
    a.will(Fault.CUT, after=0)
    stream = await stack.openai.chat.completions.create(model="fast", messages=ASK, stream=True)
    models = {chunk.model async for chunk in stream}
    assert models == {"model-b"}


async def test_a_stream_that_has_shown_text_never_changes_its_model(
    tmp_path: Path, policy: Path
) -> None:
    async with (
        FakeNode("alpha", model="model-a", numerics=None) as a,
        FakeNode("beta", model="model-b", numerics=None) as b,
        gateway_over([a, b], tmp_path, routing=policy) as stack,
    ):
        a.always = Script(fault=Fault.CUT, after=4)
        stream = await stack.openai.chat.completions.create(model="fast", messages=ASK, stream=True)
        with pytest.raises(openai.APIError) as raised:
            async for chunk in stream:
                assert chunk.model == "model-a"
        assert raised.value.code == "answer_interrupted"
        assert b.attempts == []


async def test_what_one_model_refuses_another_may_take(
    stack: Stack, a: FakeNode, b: FakeNode
) -> None:
    a.will(Fault.REJECT)
    _, served, answer = await ask(stack)
    assert served == "model-b"
    (past,) = (await receipt_of(stack, answer))["route"]
    assert past["error"] == "unsupported_parameter"
    # Where all of them refuse, the first one's reason is told, and nobody is asked twice.
    a.will(Fault.REJECT)
    b.will(Fault.REJECT)
    with pytest.raises(openai.BadRequestError) as raised:
        await ask(stack)
    assert raised.value.param == "logit_bias"
    assert (len(a.attempts), len(b.attempts)) == (2, 2)


async def test_a_real_models_refusal_is_final_where_nothing_stands_in(
    stack: Stack, a: FakeNode
) -> None:
    a.will(Fault.REJECT)
    with pytest.raises(openai.BadRequestError):
        await ask(stack, "model-a")
    assert len(a.attempts) == 1


async def test_substitutes_stand_in_for_a_real_name(
    stack: Stack, a: FakeNode, policy: Path
) -> None:
    await written(stack, policy, FAST + '[models.model-a]\nsubstitutes = ["model-b"]\n')
    assert (await ask(stack, "model-a"))[1] == "model-a"
    await a.die()
    assert (await ask(stack, "model-a"))[1] == "model-b"


async def test_a_policy_is_swapped_while_a_stream_runs(
    stack: Stack, a: FakeNode, policy: Path
) -> None:
    go_on = asyncio.Event()
    a.scripts.append(Script(hold=go_on, after=4))
    stream = await stack.openai.chat.completions.create(model="fast", messages=ASK, stream=True)
    chunks = aiter(stream)
    first = await anext(chunks)
    now = await written(stack, policy, '[models.fast]\nuse = ["model-b"]\n')
    assert [one["model"] for one in now["candidates"]] == ["model-b"]
    assert (await ask(stack))[1] == "model-b"
    go_on.set()
    rest = [chunk async for chunk in chunks]
    assert {chunk.model for chunk in (first, *rest)} == {"model-a"}
    assert rest[-1].choices[0].finish_reason == "stop"


async def test_a_wrong_policy_leaves_the_old_one_in_force(
    stack: Stack, a: FakeNode, policy: Path
) -> None:
    now = await written(stack, policy, FAST + "weight = 3\n")
    assert "line 3: models.fast.weight: no such key" in now["policy"]["problem"]
    assert (await ask(stack))[1] == "model-a"
    status = (await stack.http.get("/trunkline/v1/status")).json()
    assert status["routing"]["problem"] == now["policy"]["problem"]
    now = await written(stack, policy, FAST)
    assert now["policy"]["problem"] == ""


async def test_a_denied_operator_is_never_asked(
    stack: Stack, a: FakeNode, b: FakeNode, policy: Path
) -> None:
    now = await written(stack, policy, FAST + f'[operators]\ndeny = ["{a.operator}"]\n')
    assert shown(now) == [(1, "model-b", "healthy"), (None, "model-a", "excluded")]
    assert now["deployments"][1]["reason"] == "the routing policy denies this operator"
    assert (await ask(stack))[1] == "model-b"
    assert a.attempts == []
    with pytest.raises(openai.NotFoundError):
        await ask(stack, "model-a")
    await b.die()
    with pytest.raises(openai.InternalServerError):
        await ask(stack, timeout=60.0)
    assert a.attempts == []


async def test_the_cheapest_serves(stack: Stack, policy: Path) -> None:
    prices = """
    [prices.model-a]
    input = "3"
    output = "15"
    [prices.model-b]
    input = "0.1"
    output = "0.4"
    """
    now = await written(stack, policy, FAST + 'strategy = "cheapest"\n' + prices)
    assert [(one["model"], one["input_usd"]) for one in now["candidates"]] == [
        ("model-b", "0.1"),
        ("model-a", "3"),
    ]
    assert (await ask(stack))[1] == "model-b"


async def test_by_weights_both_serve(stack: Stack, policy: Path) -> None:
    now = await written(stack, policy, FAST + 'strategy = "weights"\n')
    assert {one["share"] for one in now["candidates"]} == {0.5}
    served = {(await ask(stack))[1] for _ in range(24)}
    # The chance that one of them is never drawn is one in eight million.
    assert served == {"model-a", "model-b"}


async def test_a_key_may_ask_for_what_the_policy_gives_it(stack: Stack, policy: Path) -> None:
    await written(stack, policy, FAST + '[keys.phone]\nmodels = ["model-b"]\n')
    assert (await explained(stack, "fast", key="phone"))["outcome"].startswith("refused: this key")
    assert (await explained(stack, "model-b", key="phone"))["allowed"]


@pytest.mark.parametrize("query", ["", "?model=", "?model=m&kind=video", "?model=" + "m" * 257])
async def test_a_question_that_makes_no_sense_is_refused(stack: Stack, query: str) -> None:
    assert (await stack.http.get("/trunkline/v1/route" + query)).status == 400


async def test_a_model_nobody_serves_is_explained(stack: Stack) -> None:
    found = await explained(stack, "model-z")
    assert found["outcome"] == "refused: no node serves it"
    assert found["deployments"] == []
    assert (await explained(stack, EMBEDDER))["kind"] == "embeddings"
