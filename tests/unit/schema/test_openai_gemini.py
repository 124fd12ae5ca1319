"""Chat Completions requests to generateContent: what is said how, and what is refused."""

import json
from typing import Any

import pytest

from trunkline.base.errors import RequestError
from trunkline.schema import openai_chat
from trunkline.schema.grid import openai_gemini

HELLO = [{"role": "user", "content": "hello"}]
SAID = [{"role": "user", "parts": [{"text": "hello"}]}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
PNG = "data:image/png;base64,AAAA"
SIGNED = {"thoughtSignature": "skip_thought_signature_validator"}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO} | fields).encode()


def translate(**fields: Any) -> Any:
    return json.loads(openai_gemini.translate_request(body(**fields)).body)


def config(**fields: Any) -> Any:
    return translate(**fields)["generationConfig"]


def refused(**fields: Any) -> str | None:
    with pytest.raises(RequestError) as caught:
        openai_gemini.translate_request(body(**fields))
    assert caught.value.error_code == "unsupported_parameter"
    return caught.value.param


def call(arguments: str = '{"at": 1.50}', call_id: str = "call_1") -> dict[str, Any]:
    function = {"name": "look", "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def asked(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


def test_a_plain_request() -> None:
    got = openai_gemini.translate_request(body())
    assert (got.model, got.stream) == ("m", False)
    assert json.loads(got.body) == {"contents": SAID}


def test_model_and_stream_are_said_in_the_url() -> None:
    got = openai_gemini.translate_request(body(stream=True), model="gemini-x")
    assert (got.model, got.stream) == ("gemini-x", True)
    assert json.loads(got.body) == {"contents": SAID}


def test_parameters_that_both_formats_have() -> None:
    assert config(
        max_completion_tokens=7,
        temperature=1.5,
        top_p=0.9,
        top_k=3,
        stop=["a", "b"],
        seed=-7,
        n=3,
        frequency_penalty=0.5,
        presence_penalty=-0.5,
        logprobs=True,
        top_logprobs=4,
        reasoning_effort="high",
    ) == {
        "maxOutputTokens": 7,
        "temperature": 1.5,
        "topP": 0.9,
        "topK": 3,
        "stopSequences": ["a", "b"],
        "seed": -7,
        "candidateCount": 3,
        "frequencyPenalty": 0.5,
        "presencePenalty": -0.5,
        "responseLogprobs": True,
        "logprobs": 4,
        "thinkingConfig": {"thinkingLevel": "HIGH"},
    }


def test_logprobs_without_alternatives() -> None:
    assert config(logprobs=True) == {"responseLogprobs": True}


def test_no_reasoning_is_asked_for_by_name() -> None:
    assert config(reasoning_effort="none") == {"thinkingConfig": {"thinkingBudget": 0}}


def test_structured_output() -> None:
    mime = {"responseMimeType": "application/json"}
    assert config(response_format={"type": "json_object"}) == mime
    schema = {"name": "n", "schema": {"type": "object"}, "strict": True}
    wanted = {"type": "json_schema", "json_schema": schema}
    assert config(response_format=wanted) == mime | {"responseJsonSchema": {"type": "object"}}
    assert "generationConfig" not in translate(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", {"mode": "NONE"}),
        ("auto", {"mode": "AUTO"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "look"}},
            {"mode": "ANY", "allowedFunctionNames": ["look"]},
        ),
    ],
)
def test_tools_and_choices(choice: Any, expected: Any) -> None:
    got = translate(tools=[TOOL], tool_choice=choice)
    declared = {"name": "look", "parametersJsonSchema": {"type": "object"}}
    assert got["tools"] == [{"functionDeclarations": [declared]}]
    assert got["toolConfig"] == {"functionCallingConfig": expected}


@pytest.mark.parametrize(
    ("choice", "mode"), [({}, "VALIDATED"), ({"tool_choice": "required"}, "ANY")]
)
def test_a_strict_tool_is_held_to_its_schema(choice: dict[str, str], mode: str) -> None:
    function = {"name": "f", "description": "d", "strict": True}
    got = translate(tools=[{"type": "function", "function": function}], **choice)
    assert got["tools"] == [{"functionDeclarations": [{"name": "f", "description": "d"}]}]
    assert got["toolConfig"]["functionCallingConfig"]["mode"] == mode


def test_system_prompts() -> None:
    got = translate(
        messages=[
            {"role": "system", "content": "one"},
            {"role": "developer", "content": [{"type": "text", "text": "two"}]},
            *HELLO,
        ]
    )
    assert got == {
        "systemInstruction": {"parts": [{"text": "one"}, {"text": "two"}]},
        "contents": SAID,
    }


def test_media() -> None:
    got = translate(
        messages=asked(
            {"type": "text", "text": "what"},
            {"type": "image_url", "image_url": {"url": PNG, "detail": "auto"}},
            {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE"}},
        )
    )
    assert got["contents"][0]["parts"] == [
        {"text": "what"},
        {"inlineData": {"mimeType": "image/png", "data": "AAAA"}},
        {"inlineData": {"mimeType": "audio/wav", "data": "BBBB"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "JVBE"}},
    ]


def test_calls_and_results() -> None:
    got = translate(
        tools=[TOOL],
        messages=[
            *HELLO,
            {"role": "assistant", "content": "so", "tool_calls": [call(), call("", "call_2")]},
            {"role": "tool", "tool_call_id": "call_1", "content": "a", "name": "look"},
            {"role": "tool", "tool_call_id": "call_2", "content": "b", "is_error": True},
            *HELLO,
        ],
    )
    first = {"id": "call_1", "name": "look", "args": {"at": 1.5}}
    second = {"id": "call_2", "name": "look", "args": {}}
    results = [
        {"id": "call_1", "name": "look", "response": {"output": "a"}},
        {"id": "call_2", "name": "look", "response": {"error": "b"}},
    ]
    assert got["contents"][1:] == [
        {
            "role": "model",
            "parts": [{"text": "so"}, {"functionCall": first} | SIGNED, {"functionCall": second}],
        },
        {"role": "user", "parts": [{"functionResponse": result} for result in results]},
        *SAID,
    ]


def test_arguments_keep_their_bytes() -> None:
    history = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call()]}, *HELLO]
    made = openai_gemini.translate_request(body(messages=history))
    assert b'"args":{"at": 1.50}' in made.body


def test_an_earlier_refusal_is_something_said() -> None:
    turn = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": "!"}
    got = translate(messages=[*HELLO, turn, *HELLO])
    assert got["contents"][1] == {"role": "model", "parts": [{"text": "no"}, {"text": "!"}]}


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {"1": 2}},
        {"min_p": 0.1},
        {"verbosity": "low"},
        {"service_tier": "flex"},
        {"store": True},
        {"modalities": ["text", "audio"]},
        {"prediction": {"type": "content", "content": "x"}},
        {"web_search_options": {}},
        {"reasoning_effort": "max"},
        {"n": 9},
        {"seed": 2**40},
        {"mirostat": 2},
        {"functions": [{"name": "f"}]},
        {"parallel_tool_calls": False, "tools": [TOOL]},
    ],
)
def test_what_can_not_be_said_is_refused_by_name(fields: dict[str, Any]) -> None:
    assert refused(**fields) == next(iter(fields))


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "name": "Ann"}, "name"),
        ({"role": "user", "content": ""}, "content"),
        ({"role": "system", "content": "later"}, "role"),
        ({"role": "function", "name": "f", "content": "x"}, "role"),
        (
            {"role": "assistant", "content": "x", "function_call": {"name": "f", "arguments": ""}},
            "function_call",
        ),
        (
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
            "reasoning_content",
        ),
        (
            {"role": "assistant", "content": None, "tool_calls": [call("[1]")]},
            "tool_calls[0].function.arguments",
        ),
        (
            {
                "role": "assistant",
                "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "n", "input": ""}}],
            },
            "tool_calls[0].type",
        ),
        ({"role": "tool", "tool_call_id": "c", "content": "x"}, "tool_call_id"),
    ],
)
def test_messages_that_can_not_be_said(message: dict[str, Any], param: str) -> None:
    assert refused(messages=[*HELLO, message, *HELLO]) == f"messages[1].{param}"


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "image_url", "image_url": {"url": "https://a.example"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "data:image/gif;base64,AA"}}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}, "image_url.detail"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id"),
        ({"type": "file", "file": {"file_data": "data:text/csv;base64,AA"}}, "file.file_data"),
        ({"type": "file", "file": {"file_data": "x", "filename": "a.pdf"}}, "file.filename"),
    ],
)
def test_parts_that_can_not_be_said(part: dict[str, Any], param: str) -> None:
    assert refused(messages=asked(part)) == f"messages[0].content[0].{param}"


def test_names_begin_as_gemini_wants_them() -> None:
    tool = {"type": "function", "function": {"name": "1st"}}
    assert refused(tools=[tool]) == "tools[0].function.name"


def test_a_conversation_must_end_with_the_caller() -> None:
    assert refused(messages=[*HELLO, {"role": "assistant", "content": "so"}]) == "messages"
    assert refused(messages=[{"role": "system", "content": "x"}]) == "messages"


def test_every_known_name_is_honoured_or_refused_on_purpose() -> None:
    finer = {name for name in openai_gemini.HONOURED if "." in name}
    assert openai_gemini.HONOURED - finer <= openai_chat.FIELDS
    assert not openai_gemini.HONOURED & openai_chat.HINTS
