"""The front door of a real network, through the official Anthropic client."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anthropic
import pytest
from tests.support.front_door import ASK_WEATHER, EMBEDDER, MODEL, WEATHER_SCHEMA
from tests.support.network import RunningNetwork

pytestmark = pytest.mark.xdist_group("network")

TOOL = {"name": "weather", "description": "Weather of a city", "input_schema": WEATHER_SCHEMA}


@pytest.fixture
def client(network: RunningNetwork) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=network.base_url, api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
async def async_client(network: RunningNetwork) -> AsyncIterator[anthropic.AsyncAnthropic]:
    base_url = network.base_url
    async with anthropic.AsyncAnthropic(base_url=base_url, api_key="none", max_retries=0) as made:
        yield made


def ask(client: anthropic.Anthropic, **more: Any) -> Any:
    """One message. What newer clients have no argument for goes in ``extra_body``."""
    defaults: dict[str, Any] = {"messages": ASK_WEATHER, "max_tokens": 8}
    extra = {"temperature": 0} | more.pop("extra_body", {})
    return client.messages.create(model=MODEL, extra_body=extra, **(defaults | more))


def test_a_message_with_everything_that_may_be_said(client: anthropic.Anthropic) -> None:
    message = ask(
        client,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
            {"role": "assistant", "content": "Hello!"},
            {"role": "user", "content": "Name a colour."},
        ],
        extra_body={"top_k": 5, "top_p": 0.9, "temperature": 0.5},
        metadata={"user_id": "somebody"},
    )
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert message.stop_reason in ("max_tokens", "end_turn")
    assert message.content[0].text
    assert message.usage.input_tokens > 0
    assert 1 <= message.usage.output_tokens <= 8


async def test_a_stream_is_the_message(
    client: anthropic.Anthropic, async_client: anthropic.AsyncAnthropic
) -> None:
    whole = ask(client)
    async with async_client.messages.stream(
        model=MODEL, messages=ASK_WEATHER, max_tokens=8, extra_body={"temperature": 0}
    ) as stream:
        events = [event.type async for event in stream]
        final = await stream.get_final_message()

    assert (events[0], events[-1]) == ("message_start", "message_stop")
    assert final.content[0].text == whole.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == (
        whole.stop_reason, whole.usage.output_tokens,
    )  # fmt: skip


def test_a_stop_sequence_is_named(client: anthropic.Anthropic) -> None:
    word = ask(client).content[0].text.split()[1]
    message = ask(client, stop_sequences=["@@", word])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", word)
    assert word not in message.content[0].text


def test_a_tool_is_used_whole_and_streamed(client: anthropic.Anthropic) -> None:
    asked: dict[str, Any] = {
        "model": MODEL, "messages": ASK_WEATHER, "max_tokens": 80, "tools": [TOOL],
        "extra_body": {"temperature": 0},
    }  # fmt: skip
    named = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    whole = client.messages.create(tool_choice=named, **asked)
    any_tool = {"type": "any", "disable_parallel_tool_use": True}
    with client.messages.stream(tool_choice=any_tool, **asked) as stream:
        final = stream.get_final_message()

    for message in (whole, final):
        (block,) = message.content
        assert (message.stop_reason, block.type, block.name) == ("tool_use", "tool_use", "weather")
        assert isinstance(block.input["city"], str)
    # Of one tool, any is the one that was named.
    assert whole.content[0].input == final.content[0].input


def test_a_use_and_its_result_go_back_in(client: anthropic.Anthropic) -> None:
    turns: list[Any] = [
        {"role": "assistant", "content": [
            {"type": "text", "text": "Let me see."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": False,
             "content": [{"type": "text", "text": "18 degrees, sunny"}]},
            {"type": "text", "text": "So?"}]},
    ]  # fmt: skip
    before = ask(client, tools=[TOOL])
    after = ask(client, tools=[TOOL], messages=[*ASK_WEATHER, *turns])
    assert after.usage.input_tokens > before.usage.input_tokens + 20
    assert after.content


def test_models_are_listed_in_its_format(client: anthropic.Anthropic) -> None:
    assert {model.id for model in client.models.list()} == {MODEL, EMBEDDER}
    assert client.models.retrieve(MODEL).type == "model"
