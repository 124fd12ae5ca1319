"""The front door of a real network, through the official client's ``responses``, as apps and agent
libraries use it: unmodified, with its helpers."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest
from tests.support.front_door import MODEL
from tests.support.network import RunningNetwork

pytestmark = pytest.mark.xdist_group("network")

ASK = "Name three colours of the rainbow."
CLOCK: dict[str, Any] = {
    "type": "function",
    "name": "clock",
    "description": "The time in a zone",
    "parameters": {
        "type": "object",
        "properties": {"zone": {"enum": ["CET", "UTC"]}},
        "required": ["zone"],
        "additionalProperties": False,
    },
    "strict": True,
}


class City(pydantic.BaseModel):
    """A schema as the client makes it from a class."""

    name: str = pydantic.Field(max_length=12)
    size: Literal["small", "big"]


class Weather(pydantic.BaseModel):
    """The weather of a city."""

    city: str = pydantic.Field(max_length=20)


@pytest.fixture
def client(network: RunningNetwork) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{network.base_url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, **more: Any) -> Any:
    defaults: dict[str, Any] = {"input": ASK, "max_output_tokens": 12, "temperature": 0}
    return client.responses.create(model=MODEL, **(defaults | more))


def test_a_stream_is_the_whole_answer(client: openai.OpenAI) -> None:
    whole = ask(client)
    with client.responses.stream(
        model=MODEL, input=ASK, max_output_tokens=12, temperature=0
    ) as stream:
        text = "".join([event.delta for event in stream if "text.delta" in event.type])
        # The helper gives a final response of completed ones only; this one was cut.
    chat = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": ASK}], max_tokens=12, temperature=0
    )
    assert whole.output_text == text == chat.choices[0].message.content
    assert whole.status == "incomplete"
    assert whole.incomplete_details.reason == "max_output_tokens"
    assert whole.usage.input_tokens == chat.usage.prompt_tokens
    assert whole.usage.output_tokens == 12


def test_instructions_and_a_conversation_are_what_chat_says_of_them(client: openai.OpenAI) -> None:
    said = "Red, green and blue."
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": ASK}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": said}]},
        {"role": "user", "content": "And another?"},
    ]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ASK},
        {"role": "assistant", "content": said},
        {"role": "user", "content": "And another?"},
    ]
    told = ask(client, input=items, instructions="Be brief.")
    chat = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=12, temperature=0  # type: ignore[arg-type]
    )  # fmt: skip
    assert told.output_text == chat.choices[0].message.content
    assert told.instructions == "Be brief."


def test_a_document_satisfies_its_class(client: openai.OpenAI) -> None:
    answer = client.responses.parse(
        model=MODEL, input="Describe Paris.", text_format=City, max_output_tokens=80
    )
    assert isinstance(answer.output_parsed, City)


def test_a_demanded_call_and_its_output(client: openai.OpenAI) -> None:
    """One turn of an agent: the call, its output, the answer."""
    items: list[Any] = [{"role": "user", "content": "What time is it in UTC?"}]
    first = ask(
        client, input=items, tools=[CLOCK], tool_choice="required", max_output_tokens=60,
        parallel_tool_calls=False,
    )  # fmt: skip
    (call,) = first.output
    assert call.type == "function_call"
    assert json.loads(call.arguments)["zone"] in ("CET", "UTC")
    assert first.tool_choice == "required"

    items += first.output
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "12:00"})
    last = ask(client, input=items, tools=[CLOCK], max_output_tokens=30)
    assert last.status in ("completed", "incomplete")
    assert last.usage.input_tokens > first.usage.input_tokens


def test_a_streamed_call(client: openai.OpenAI) -> None:
    with client.responses.stream(
        model=MODEL, input="What time is it?", tools=[CLOCK], max_output_tokens=60,
        tool_choice={"type": "function", "name": "clock"},
    ) as stream:  # fmt: skip
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.function_call_arguments.done" in kinds
    assert final.output[0].type == "function_call"


@pytest.mark.parametrize("question", ["Hello", "What is the weather in Paris?"])
def test_strict_functions_need_no_demand(client: openai.OpenAI, question: str) -> None:
    """As the client's own helpers send them: strict, and the choice left to the model."""
    tool = openai.pydantic_function_tool(Weather, name="weather")
    parsed = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": question}], tools=[tool],
        max_completion_tokens=200, seed=1, parallel_tool_calls=False, stop=".",
    )  # fmt: skip
    (choice,) = parsed.choices
    calls = choice.message.tool_calls or []
    assert all(isinstance(call.function.parsed_arguments, Weather) for call in calls)
    assert calls or choice.message.content


def test_log_probabilities(client: openai.OpenAI) -> None:
    answer = ask(
        client, include=["message.output_text.logprobs"], top_logprobs=2, max_output_tokens=3
    )
    (message,) = answer.output
    said = message.content[0].logprobs
    assert "".join([each.token for each in said]) == answer.output_text
    assert all(len(each.top_logprobs) == 2 for each in said)


def test_what_is_asked_is_repeated_and_nothing_is_kept(client: openai.OpenAI) -> None:
    answer = ask(client, metadata={"a": "b"}, user="me")
    assert answer.metadata == {"a": "b"}
    assert answer.user == "me"
    assert answer.to_dict()["store"] is False
    assert answer.temperature == 0


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "tools[0]"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"text": {"verbosity": "low"}}, "text.verbosity"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"temperature": 3}, "temperature"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "strict": True,
                              "schema": {"type": "object", "patternProperties": {}}}}},
         "text.format.schema.patternProperties"),
    ],
)  # fmt: skip
def test_what_is_not_honoured_is_refused_by_the_callers_name(
    client: openai.OpenAI, more: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, **more)
    assert refused.value.param == param
    assert refused.value.message.count(param) >= 1
