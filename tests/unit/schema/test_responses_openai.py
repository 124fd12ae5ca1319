"""A Responses request becomes the chat request that asks for the same, or is refused by name."""

import json
from typing import Any

import pytest

from trunkline.base.errors import MalformedError, RequestError
from trunkline.schema import openai_chat, openai_responses
from trunkline.schema.grid import responses_openai, responses_openai_params
from trunkline.schema.grid.responses_openai_stream import StreamTranslator

ASK: dict[str, Any] = {"model": "m", "input": "hello"}
TOOL: dict[str, Any] = {"type": "function", "name": "f", "parameters": {"type": "object"}}


def sent(**more: Any) -> dict[str, Any]:
    """The chat request; it breaks no rule of its format, and holds nothing unknown to it."""
    raw = responses_openai.translate_request(json.dumps(ASK | more).encode())
    assert openai_chat.parse(raw).unknown == ()
    found: dict[str, Any] = json.loads(raw)
    return found


def refused(**more: Any) -> tuple[str, str | None]:
    with pytest.raises(RequestError) as caught:
        responses_openai.translate_request(json.dumps(ASK | more).encode())
    error = caught.value
    assert error.param is None or error.message.startswith(error.param)
    return error.error_code, error.param


def messages(*items: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = sent(input=list(items))["messages"]
    return found


def test_a_text_and_instructions() -> None:
    assert sent(instructions="be brief")["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    ]
    assert sent()["messages"] == [{"role": "user", "content": "hello"}]


def test_parameters_are_said_in_the_chat_formats_words() -> None:
    body = sent(
        max_output_tokens=7, temperature=0.5, top_p=0.9, parallel_tool_calls=False, user="u",
        metadata={"a": "b"}, service_tier="flex", safety_identifier="s", prompt_cache_key="k",
        prompt_cache_retention="24h", reasoning={"effort": "low"}, truncation="disabled",
        text={"verbosity": "low", "format": {"type": "text"}}, stream=True, top_logprobs=2,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"], store=False,
        background=False, stream_options={"include_obfuscation": False}, max_tool_calls=3,
    )  # fmt: skip
    del body["messages"], body["model"]
    assert body == {
        "max_completion_tokens": 7, "temperature": 0.5, "top_p": 0.9, "user": "u",
        "parallel_tool_calls": False, "metadata": {"a": "b"}, "service_tier": "flex",
        "safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h",
        "reasoning_effort": "low", "verbosity": "low", "logprobs": True, "top_logprobs": 2,
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_a_schema_for_the_text() -> None:
    schema = {"type": "object", "properties": {}}
    wanted = {"type": "json_schema", "name": "n", "strict": True, "schema": schema}
    assert sent(text={"format": wanted})["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "n", "strict": True, "schema": schema},
    }
    assert sent(text={"format": {"type": "json_object"}})["response_format"] == {
        "type": "json_object"
    }


def test_functions_and_the_choice_of_them() -> None:
    body = sent(tools=[TOOL | {"strict": True, "description": "d"}], tool_choice="required")
    assert body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True
            },
        }
    ]  # fmt: skip
    assert body["tool_choice"] == "required"
    named = sent(tools=[TOOL], tool_choice={"type": "function", "name": "f"})
    assert named["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    allowed = {
        "type": "allowed_tools",
        "mode": "auto",
        "tools": [{"type": "function", "name": "f"}],
    }
    assert sent(tools=[TOOL], tool_choice=allowed)["tool_choice"] == {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]
        },
    }  # fmt: skip


def test_the_parts_of_a_message() -> None:
    (message,) = messages(
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "look"},
                {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
                {"type": "input_file", "file_data": "data:application/pdf;base64,AA",
                 "filename": "a.pdf"},
            ],
        }
    )  # fmt: skip
    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AA",
                                  "filename": "a.pdf"}},
    ]  # fmt: skip


def text(said: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "output_text", "text": said}]}


def call(name: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": name, "name": "f", "arguments": "{}"}


def output(name: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": name, "output": "done"}


def thought(said: str) -> dict[str, Any]:
    return {
        "type": "reasoning", "id": "rs_1", "summary": [],
        "content": [{"type": "reasoning_text", "text": said}],
    }  # fmt: skip


def test_what_the_model_said_in_one_turn_is_one_message() -> None:
    found = messages(
        {"role": "user", "content": "go"}, thought("hm"), text("let me"), call("a"), call("b"),
        output("b"), output("a"), text("done"), {"role": "user", "content": "so?"},
    )  # fmt: skip
    assert [message["role"] for message in found] == [
        "user", "assistant", "tool", "tool", "assistant", "user",
    ]  # fmt: skip
    turn = found[1]
    assert turn["reasoning_content"] == "hm"
    assert turn["content"] == [{"type": "text", "text": "let me"}]
    assert [made["id"] for made in turn["tool_calls"]] == ["a", "b"]
    assert [message["tool_call_id"] for message in found[2:4]] == ["b", "a"]


def test_two_answers_in_a_row_are_two_messages() -> None:
    found = messages(text("one"), thought("hm"), text("two"))
    assert [message.get("reasoning_content") for message in found] == [None, "hm"]


def test_a_thought_without_content_says_nothing() -> None:
    empty = {"type": "reasoning", "id": "rs_1", "summary": []}
    assert messages({"role": "user", "content": "go"}, empty) == [{"role": "user", "content": "go"}]


@pytest.mark.parametrize(
    "kind", ["web_search", "file_search", "code_interpreter", "computer", "mcp", "custom", "shell"]
)
def test_hosted_tools_are_refused_by_their_name(kind: str) -> None:
    with pytest.raises(RequestError, match=kind) as caught:
        responses_openai.translate_request(json.dumps(ASK | {"tools": [{"type": kind}]}).encode())
    assert caught.value.param == "tools[0]"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"seed": 1}, "seed"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["unheard.of"]}, "include[0]"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"context_management": []}, "context_management"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}},
         "stream_options.include_obfuscation"),
        ({"tools": [TOOL | {"defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [TOOL | {"async": True}]}, "tools[0].async"),
        ({"tools": [TOOL | {"unheard": 1}]}, "tools[0].unheard"),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": "x", "phase": "commentary"}]}, "input[0].phase"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
         "input[0].content[0].file_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}]},
         "input[0].content[0].file_url"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
         "input[0].content[0].type"),
        ({"input": [thought("x") | {"encrypted_content": "e"}]}, "input[0].encrypted_content"),
        ({"input": [call("a"), text("x")]}, "input[1]"),
    ],
)  # fmt: skip
def test_what_can_not_be_said_is_refused_by_name(more: dict[str, Any], param: str) -> None:
    assert refused(**more) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    ("more", "code", "param"),
    [
        ({"input": []}, "invalid_value", "input"),
        ({"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
        ({"input": [7]}, "invalid_type", "input[0]"),
        ({"input": [call("")]}, "invalid_value", "input[0].call_id"),
        ({"tool_choice": "perhaps"}, "invalid_value", "tool_choice"),
        ({"tools": [{"name": "f"}]}, "missing_required_parameter", "tools[0].type"),
        ({"model": ""}, "invalid_value", "model"),
        ({"text": {"format": {"type": "json_schema"}}}, "missing_required_parameter",
         "text.format.name"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(more: dict[str, Any], code: str, param: str) -> None:
    assert refused(**more) == (code, param)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("max_completion_tokens", "max_output_tokens"),
        ("response_format.json_schema.schema.x", "text.format.schema.x"),
        ("response_format.json_object", "text.format.json_object"),
        ("tools[2].function.parameters", "tools[2].parameters"),
        ("messages[3].content", "input"),
        ("messages.image_url", "input.input_image"),
        ("temperature", "temperature"),
    ],
)
def test_names_go_back_to_the_callers(theirs: str, ours: str) -> None:
    assert responses_openai_params.caller_name(theirs) == ours


def translator() -> StreamTranslator:
    told = responses_openai.echo(openai_responses.parse(json.dumps(ASK).encode()))
    return StreamTranslator(response_id="resp_1", told=told)


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return json.dumps({"choices": [choice]}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"no json",
        b'{"error":{"message":"x"}}',
        chunk({"content": "x"}, index=1),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        b'{"choices":[{"delta":{"content":"x"},"logprobs":{"content":7}}]}',
    ],
)
def test_chunks_that_no_stream_can_say(data: bytes) -> None:
    with pytest.raises(MalformedError):
        translator().feed(data)


def test_a_call_that_goes_on_after_another_began_is_malformed() -> None:
    translate = translator()
    for index in (0, 1):
        function = {"name": "f", "arguments": ""}
        translate.feed(
            chunk({"tool_calls": [{"index": index, "id": f"c{index}", "function": function}]})
        )
    with pytest.raises(MalformedError):
        translate.feed(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]}))


@pytest.mark.parametrize("finish", [None, "unheard_of"])
def test_a_finish_that_nobody_gave_is_not_made_up(finish: str | None) -> None:
    translate = translator()
    translate.feed(chunk({"content": "x"}, finish))
    with pytest.raises(MalformedError):
        translate.finish()
    with pytest.raises(MalformedError):
        translator().finish()


def test_a_stream_is_closed_part_by_part_when_a_refusal_follows_text() -> None:
    translate = translator()
    translate.feed(chunk({"content": "well"}))
    translate.feed(chunk({"refusal": "no"}, "stop"))
    translate.finish()
    assert translate.final is not None
    (message,) = json.loads(responses_openai.out.encode_response(translate.final))["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]
