"""The front door of a real network, through the official OpenAI client: every parameter counts."""

import asyncio
import json
import math
import urllib.request
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest
from tests.support.front_door import ASK_WEATHER, EMBEDDER, MODEL, WEATHER
from tests.support.network import RunningNetwork

pytestmark = pytest.mark.xdist_group("network")

ASK = [{"role": "user", "content": "Name three colours of the rainbow."}]
BOTH_S_MAX = 120.0
IDLE_S_MAX = 60.0
CLOCK = {
    "type": "function",
    "function": {
        "name": "clock",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["CET", "UTC"]}},
            "required": ["zone"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class City(pydantic.BaseModel):
    """A schema as the client makes it from a class."""

    name: str = pydantic.Field(max_length=12)
    size: Literal["small", "big"]
    rivers: int


@pytest.fixture
def client(network: RunningNetwork) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{network.base_url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(network: RunningNetwork) -> AsyncIterator[openai.AsyncOpenAI]:
    base_url = f"{network.base_url}/v1"
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, **more: Any) -> Any:
    """The answer's one choice."""
    defaults: dict[str, Any] = {"messages": ASK, "max_tokens": 12}
    (choice,) = client.chat.completions.create(model=MODEL, **(defaults | more)).choices
    return choice


def calls(choice: Any) -> list[tuple[str, Any]]:
    """Name and arguments of each call."""
    made = choice.message.tool_calls or []
    return [(call.function.name, json.loads(call.function.arguments)) for call in made]


def streamed(
    client: openai.OpenAI, **more: Any
) -> tuple[dict[int, str], dict[int, str], list[Any]]:
    """Text and finish reason by choice, and the usages that were said."""
    defaults: dict[str, Any] = {"messages": ASK, "max_tokens": 12, "stream": True}
    texts: dict[int, str] = {}
    finishes: dict[int, str] = {}
    usages = []
    for chunk in client.chat.completions.create(model=MODEL, **(defaults | more)):
        for choice in chunk.choices:
            assert choice.index not in finishes
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason is not None:
                finishes[choice.index] = choice.finish_reason
        if chunk.usage is not None:
            usages.append(chunk.usage)
    return texts, finishes, usages


def test_a_seed_gives_one_answer_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = ask(client, seed=7, temperature=1.5)
    texts, finishes, usages = streamed(client, seed=7, temperature=1.5)

    assert whole.message.content
    assert texts == {0: whole.message.content}
    assert finishes == {0: whole.finish_reason}
    assert usages == []


async def test_a_seed_gives_one_answer_on_both_nodes_at_once(
    async_client: openai.AsyncOpenAI,
) -> None:
    async def one() -> tuple[str, str]:
        raw = await async_client.chat.completions.with_raw_response.create(
            model=MODEL, messages=ASK, max_tokens=8, seed=11, temperature=1.5,
            extra_headers={"trunkline-detail": "1"},
        )  # fmt: skip
        return raw.headers["trunkline-node"], raw.parse().choices[0].message.content

    answers: list[tuple[str, str]] = []
    # A node that a busy machine held up is left alone for some seconds: ask until both answered.
    async with asyncio.timeout(BOTH_S_MAX):
        while len({node for node, _ in answers}) < 2:
            answers += await asyncio.gather(*(one() for _ in range(16)))

    assert {node for node, _ in answers} == {"alpha.localhost/node", "beta.localhost/node"}
    assert len({text for _, text in answers}) == 1


def test_other_seeds_give_other_answers(client: openai.OpenAI) -> None:
    answers = {ask(client, seed=seed, temperature=2).message.content for seed in range(3)}
    assert len(answers) == 3


def test_choices_differ_and_stream_as_they_are_whole(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"n": 4, "seed": 3, "temperature": 2, "max_tokens": 6}
    whole = client.chat.completions.create(model=MODEL, messages=ASK, **asked)
    texts, finishes, usages = streamed(client, stream_options={"include_usage": True}, **asked)

    assert {each.index: each.message.content for each in whole.choices} == texts
    assert len(set(texts.values())) > 1
    assert set(finishes) == {0, 1, 2, 3}
    assert [usage.completion_tokens for usage in usages] == [whole.usage.completion_tokens]


def test_log_probabilities(client: openai.OpenAI) -> None:
    choice = ask(client, logprobs=True, top_logprobs=3, max_tokens=3, temperature=0)

    said = choice.logprobs.content
    assert "".join(each.token for each in said) == choice.message.content
    for each in said:
        chances = [math.exp(top.logprob) for top in each.top_logprobs]
        assert len(chances) == 3
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) <= 1.0001
        # At temperature 0 the likeliest is taken.
        assert each.token == each.top_logprobs[0].token


@pytest.mark.parametrize("start", [9, 10])
def test_a_stop_string_is_cut_wherever_tokens_end(client: openai.OpenAI, start: int) -> None:
    full = ask(client, temperature=0).message.content
    stop = full[start : start + 5]
    choice = ask(client, temperature=0, stop=["@@", stop])
    texts, finishes, _ = streamed(client, temperature=0, stop=stop)

    assert choice.finish_reason == "stop"
    assert choice.message.content == full[: full.index(stop)]
    assert (texts[0], finishes[0]) == (choice.message.content, "stop")


def test_a_stop_string_at_once_leaves_nothing(client: openai.OpenAI) -> None:
    first = ask(client, temperature=0, max_tokens=1).message.content
    choice = ask(client, temperature=0, stop=first)
    assert (choice.message.content, choice.finish_reason) == ("", "stop")


def test_logit_bias_and_penalties_are_felt(client: openai.OpenAI) -> None:
    forced = ask(client, logit_bias={"504": 100}, max_tokens=3, temperature=0).message.content
    freed = ask(
        client, logit_bias={"504": 60}, max_tokens=3, temperature=0, presence_penalty=2,
        frequency_penalty=2,
    ).message.content  # fmt: skip

    token = forced[: len(forced) // 3]
    assert forced == token * 3
    assert freed.startswith(token)
    assert ask(client, logit_bias={"504": -100}, temperature=0).message.content


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_bound_on_tokens_is_kept_and_said(client: openai.OpenAI, name: str) -> None:
    texts, finishes, usages = streamed(
        client, stream_options={"include_usage": True}, **{"max_tokens": None, name: 1}
    )
    assert texts[0]
    assert finishes == {0: "length"}
    assert usages[0].completion_tokens == 1
    assert usages[0].total_tokens == usages[0].prompt_tokens + 1


def test_an_absurd_bound_is_only_a_bound(client: openai.OpenAI) -> None:
    choice = ask(client, max_tokens=2**31 - 1, stop=[" "], temperature=0)
    assert choice.finish_reason == "stop"


def test_the_tool_that_is_named_is_called_by_its_schema(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "clock"}}
    choice = ask(
        client, messages=ASK_WEATHER, tools=[WEATHER, CLOCK], tool_choice=named, max_tokens=80
    )

    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    for name, arguments in calls(choice):
        assert name == "clock"
        assert set(arguments) == {"zone"}
        assert arguments["zone"] in ("CET", "UTC")
    assert calls(choice)


def test_a_demanded_call_that_was_cut_says_so_and_shows_no_markup(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "messages": ASK_WEATHER, "tools": [WEATHER], "tool_choice": "required", "max_tokens": 6,
    }  # fmt: skip
    choice = ask(client, **asked)
    assert (choice.message.content, calls(choice), choice.finish_reason) == ("", [], "length")
    assert streamed(client, **asked)[:2] == ({0: ""}, {0: "length"})


def test_tools_stream_as_they_are_whole(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "messages": ASK_WEATHER, "tools": [WEATHER], "tool_choice": "required",
        "seed": 5, "max_tokens": 80,
    }  # fmt: skip
    whole = ask(client, **asked)
    with client.chat.completions.stream(model=MODEL, **asked) as stream:
        (final,) = stream.get_final_completion().choices

    assert calls(final) == calls(whole)
    assert len(calls(whole)) == 1
    assert calls(whole)[0][0] == "weather"
    assert isinstance(calls(whole)[0][1]["city"], str)


def test_tools_may_be_left_alone(client: openai.OpenAI) -> None:
    for choice in ("auto", "none"):
        answer = ask(
            client, tools=[WEATHER], tool_choice=choice, messages=ASK_WEATHER, max_tokens=4
        )
        assert answer.finish_reason in ("length", "stop", "tool_calls")
        assert choice == "auto" or calls(answer) == []


def test_a_call_and_its_result_go_back_in(client: openai.OpenAI) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city":"Paris"}'},
    }
    turns = [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "18 degrees, sunny"},
    ]
    asked: dict[str, Any] = {"model": MODEL, "tools": [WEATHER], "max_tokens": 4}
    before = client.chat.completions.create(messages=ASK_WEATHER, **asked)
    after = client.chat.completions.create(messages=[*ASK_WEATHER, *turns], **asked)

    # The model reads both: this one is too small for more to be promised of what it says.
    assert after.usage.prompt_tokens > before.usage.prompt_tokens + 20
    assert after.choices[0].message.content


def test_an_object_is_json(client: openai.OpenAI) -> None:
    choice = ask(
        client, messages=[{"role": "user", "content": "Paris as JSON, very short"}], seed=3,
        response_format={"type": "json_object"}, max_tokens=200,
    )  # fmt: skip
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(choice.message.content), dict)
    else:
        assert choice.finish_reason == "length"


def test_a_class_comes_back_as_its_object(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "Describe Paris"}], seed=1,
        response_format=City, max_tokens=120,
    )  # fmt: skip
    (choice,) = parsed.choices
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, City)


def test_json_that_was_cut_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=MODEL, messages=ASK, response_format=City, max_tokens=4)


def test_a_class_as_a_tool(client: openai.OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model=MODEL, messages=ASK_WEATHER, tools=[openai.pydantic_function_tool(City)],
        tool_choice="required", parallel_tool_calls=False, max_tokens=120,
    )  # fmt: skip
    (call,) = parsed.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, City)


def dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_embeddings_in_both_encodings(client: openai.OpenAI) -> None:
    texts = ["a small dog", "a little dog", "the national debt"]
    packed = client.embeddings.create(model=EMBEDDER, input=texts)
    plain = client.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")

    assert [each.index for each in packed.data] == [0, 1, 2]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert len(one.embedding) == 384
    first, near, far = (each.embedding for each in plain.data)
    assert dot(first, near) > dot(first, far)
    assert packed.usage.prompt_tokens > 0


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {MODEL, EMBEDDER}
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


def running(network: RunningNetwork) -> int:
    """Attempts that the nodes have in hand, by their own word."""
    port = int(network.base_url.rpartition(":")[2])
    total = 0
    for number in (port + 1, port + 2):
        with urllib.request.urlopen(f"http://127.0.0.1:{number}/v1/info") as reply:
            info = json.load(reply)
        total += info["running"] + info["queued"]
    return total


async def until_idle(network: RunningNetwork) -> None:
    """Wait until the nodes have nothing in hand: much less time than an answer takes here that
    nobody stopped."""
    async with asyncio.timeout(IDLE_S_MAX):
        while await asyncio.to_thread(running, network):
            pass


async def test_who_leaves_frees_the_place(
    network: RunningNetwork, async_client: openai.AsyncOpenAI
) -> None:
    long: dict[str, Any] = {"model": MODEL, "messages": ASK, "max_tokens": 1500}
    long["logit_bias"] = {"2": -100}
    await until_idle(network)
    stream = await async_client.chat.completions.create(stream=True, n=4, **long)
    await anext(aiter(stream))
    assert await asyncio.to_thread(running, network)
    await stream.close()
    await until_idle(network)

    whole = asyncio.create_task(async_client.chat.completions.create(**long))
    async with asyncio.timeout(BOTH_S_MAX):
        while not await asyncio.to_thread(running, network):
            pass
    whole.cancel()
    await until_idle(network)
