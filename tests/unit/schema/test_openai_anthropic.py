"""Chat Completions requests to Messages requests: what is said how, and what is refused."""

import json
from typing import Any

import pytest

from trunkline.base.errors import RequestError
from trunkline.schema import anthropic_messages, openai_chat
from trunkline.schema.grid import openai_anthropic

HELLO = [{"role": "user", "content": "hello"}]
SAID = [{"role": "user", "content": [{"type": "text", "text": "hello"}]}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
PNG = "data:image/png;base64,AAAA"


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO} | fields).encode()


def translate(**fields: Any) -> Any:
    data = openai_anthropic.translate_request(body(**fields))
    assert anthropic_messages.parse(data).unknown == ()
    return json.loads(data)


def refused(**fields: Any) -> str | None:
    with pytest.raises(RequestError) as caught:
        openai_anthropic.translate_request(body(**fields))
    assert caught.value.error_code == "unsupported_parameter"
    return caught.value.param


def call(arguments: str = '{"at": 1.50}', call_id: str = "call_1") -> dict[str, Any]:
    return {
        "id": call_id,
        "type": "function",
        "function": {"name": "look", "arguments": arguments},
    }


def asked(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


def test_a_plain_request() -> None:
    assert translate() == {"model": "m", "max_tokens": 8192, "messages": SAID}


def test_the_provider_may_know_the_model_by_another_name_and_bound() -> None:
    data = openai_anthropic.translate_request(body(), model="claude-x", max_tokens=64)
    assert json.loads(data) == {"model": "claude-x", "max_tokens": 64, "messages": SAID}


def test_parameters_that_both_formats_have() -> None:
    got = translate(
        max_completion_tokens=7,
        temperature=0.5,
        top_p=0.9,
        top_k=3,
        stop=["a", "b"],
        stream=True,
        stream_options={"include_usage": True},
        user="u",
        service_tier="default",
        reasoning_effort="high",
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}},
        },
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    assert got == {
        "model": "m",
        "max_tokens": 7,
        "messages": SAID,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "stop_sequences": ["a", "b"],
        "stream": True,
        "metadata": {"user_id": "u"},
        "service_tier": "standard_only",
        "output_config": {
            "effort": "high",
            "format": {"type": "json_schema", "schema": {"type": "object"}},
        },
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    }


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_either_name_of_the_bound(name: str) -> None:
    assert translate(**{name: 5})["max_tokens"] == 5


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", {"type": "none"}),
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        (
            {"type": "function", "function": {"name": "look"}},
            {"type": "tool", "name": "look"},
        ),
    ],
)
def test_tool_choices(choice: Any, expected: Any) -> None:
    assert translate(tools=[TOOL], tool_choice=choice)["tool_choice"] == expected
    got = translate(tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)["tool_choice"]
    one = {} if choice == "none" else {"disable_parallel_tool_use": True}
    assert got == expected | one


def test_one_call_at_a_time_without_a_choice() -> None:
    got = translate(tools=[TOOL], parallel_tool_calls=False)
    assert got["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert "tool_choice" not in translate(tools=[TOOL], parallel_tool_calls=True)
    assert "tool_choice" not in translate(parallel_tool_calls=False)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (None, {"type": "object", "properties": {}}),
        ({}, {"type": "object"}),
        ({"properties": {}}, {"type": "object", "properties": {}}),
        ({"type": "object", "x": 1}, {"type": "object", "x": 1}),
    ],
)
def test_a_schema_says_that_it_is_an_object(parameters: Any, expected: Any) -> None:
    function = {"name": "f", "description": "d", "strict": True}
    if parameters is not None:
        function["parameters"] = parameters
    (tool,) = translate(tools=[{"type": "function", "function": function}])["tools"]
    assert tool == {"name": "f", "description": "d", "input_schema": expected, "strict": True}


def test_system_prompts() -> None:
    got = translate(
        messages=[
            {"role": "system", "content": "one"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}]},
            *HELLO,
            {"role": "system", "content": "three"},
            *HELLO,
        ]
    )
    assert got["system"] == [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert [turn["role"] for turn in got["messages"]] == ["user", "system", "user"]
    assert got["messages"][1]["content"] == [{"type": "text", "text": "three"}]


def test_images_and_documents() -> None:
    got = translate(
        messages=asked(
            {"type": "text", "text": "what"},
            {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
            {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
            {
                "type": "file",
                "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"},
            },
        )
    )
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}
    assert got["messages"][0]["content"] == [
        {"type": "text", "text": "what"},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
        },
        {"type": "image", "source": {"type": "url", "url": "https://a.example/b.png"}},
        {"type": "document", "source": pdf, "title": "a.pdf"},
    ]


def test_calls_and_results() -> None:
    got = translate(
        tools=[TOOL],
        messages=[
            *HELLO,
            {"role": "assistant", "content": "so", "tool_calls": [call(), call("", "call_2")]},
            {"role": "tool", "tool_call_id": "call_1", "content": "a", "name": "look"},
            {"role": "tool", "tool_call_id": "call_2", "content": "", "is_error": True},
            *HELLO,
        ],
    )
    assert got["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "so"},
                {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": 1.5}},
                {"type": "tool_use", "id": "call_2", "name": "look", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "call_1",
                    "content": [{"type": "text", "text": "a"}],
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "call_2",
                    "content": [],
                    "is_error": True,
                },
            ],
        },
        *SAID,
    ]


def test_arguments_keep_their_bytes() -> None:
    history = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call()]}, *HELLO]
    assert b'"input":{"at": 1.50}' in openai_anthropic.translate_request(body(messages=history))


def test_an_id_of_other_characters_still_ties_result_to_call() -> None:
    odd = "functions.look:0"
    got = translate(
        messages=[
            *HELLO,
            {"role": "assistant", "tool_calls": [call(call_id=odd), call(call_id=odd + "1")]},
            {"role": "tool", "tool_call_id": odd, "content": "a"},
        ]
    )
    first, second = got["messages"][1]["content"]
    (result,) = got["messages"][2]["content"]
    assert first["id"] == result["tool_use_id"] != second["id"]
    assert first["id"].replace("_", "").isalnum()


def test_an_earlier_refusal_is_something_said() -> None:
    turn = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": "!"}
    got = translate(messages=[*HELLO, turn, *HELLO])
    assert [block["text"] for block in got["messages"][1]["content"]] == ["no", "!"]


def test_empty_parts_are_left_out() -> None:
    got = translate(messages=asked({"type": "text", "text": ""}, {"type": "text", "text": "hello"}))
    assert got["messages"] == SAID


def test_no_reasoning_is_asked_for_by_name() -> None:
    assert translate(reasoning_effort="none")["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    "fields",
    [
        {"frequency_penalty": 1},
        {"presence_penalty": -1},
        {"logit_bias": {"1": 2}},
        {"logprobs": True},
        {"n": 2},
        {"seed": 7},
        {"min_p": 0.1},
        {"verbosity": "low"},
        {"service_tier": "flex"},
        {"store": True},
        {"modalities": ["text", "audio"]},
        {"prediction": {"type": "content", "content": "x"}},
        {"web_search_options": {}},
        {"reasoning_effort": "minimal"},
        {"temperature": 1.5},
        {"stop": " \n"},
        {"mirostat": 2},
        {"moderation": {"x": 1}},
        {"functions": [{"name": "f"}]},
    ],
)
def test_what_can_not_be_said_is_refused_by_name(fields: dict[str, Any]) -> None:
    assert refused(**fields) == next(iter(fields))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "json_object"}}, "response_format.json_object"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": {}, "description": "d"},
                }
            },
            "response_format.json_schema.description",
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools.custom"),
        (
            {
                "tools": [TOOL],
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]},
                },
            },
            "tool_choice.allowed_tools",
        ),
        (
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
    ],
)
def test_finer_things_are_refused_by_path(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields) == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "name": "Ann"}, "messages[1].name"),
        ({"role": "user", "content": ""}, "messages[1].content"),
        ({"role": "function", "name": "f", "content": "x"}, "messages[1].role"),
        (
            {"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": ""}},
            "messages[1].function_call",
        ),
        (
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
            "messages[1].reasoning_content",
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [call("[1]")]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "n", "input": ""}}],
            },
            "messages[1].tool_calls[0].type",
        ),
        (
            {"role": "tool", "tool_call_id": "c", "content": "x", "name": "other"},
            "messages[1].name",
        ),
    ],
)
def test_messages_that_can_not_be_said(message: dict[str, Any], param: str) -> None:
    assert refused(messages=[*HELLO, message, *HELLO]) == param


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, None),
        ({"type": "image_url", "image_url": {"url": "http://a.example"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}, "image_url.detail"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
        ({"type": "file", "file": {"file_data": "data:text/csv;base64,AA"}}, "file.file_data"),
    ],
)
def test_parts_that_can_not_be_said(part: dict[str, Any], param: str | None) -> None:
    expected = "messages.input_audio" if param is None else f"messages[0].content[0].{param}"
    assert refused(messages=asked(part)) == expected


def test_a_conversation_must_end_with_the_caller() -> None:
    assert refused(messages=[*HELLO, {"role": "assistant", "content": "so"}]) == "messages"
    assert refused(messages=[{"role": "system", "content": "x"}]) == "messages"


def test_every_known_name_is_honoured_or_refused_on_purpose() -> None:
    finer = {name for name in openai_anthropic.HONOURED if "." in name}
    assert openai_anthropic.HONOURED - finer <= openai_chat.FIELDS
    assert not openai_anthropic.HONOURED & openai_chat.HINTS
