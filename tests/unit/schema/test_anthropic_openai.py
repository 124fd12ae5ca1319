"""Messages to Chat Completions and back: what is said how, and what is refused."""

import json
from typing import Any

import pytest

from trunkline.base.errors import MalformedError, RequestError
from trunkline.schema import openai_answer as openai
from trunkline.schema import openai_chat, sse
from trunkline.schema.errors import Described
from trunkline.schema.grid import anthropic_openai, anthropic_openai_params, openai_openai

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"name": "look", "input_schema": {"type": "object"}, "description": "looks"}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 1.50}}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "max_tokens": 5, "messages": HELLO} | fields).encode()


def translate(**fields: Any) -> Any:
    data = anthropic_openai.translate_request(body(**fields))
    openai_chat.parse(data)
    return json.loads(data)


def user(*blocks: Any) -> list[Any]:
    return [{"role": "user", "content": list(blocks)}]


def test_a_plain_request() -> None:
    assert translate() == {"model": "m", "messages": HELLO, "max_completion_tokens": 5}


def test_parameters_that_both_formats_have() -> None:
    got = translate(
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        stop_sequences=["a", "b"],
        stream=True,
        metadata={"user_id": "u"},
        service_tier="standard_only",
        system="be brief",
        thinking={"type": "disabled"},
        output_config={
            "effort": "low",
            "format": {"type": "json_schema", "schema": {"type": "object"}},
        },
        speed="standard",
        cache_control={"type": "ephemeral"},
    )
    assert got["messages"] == [{"role": "system", "content": "be brief"}, *HELLO]
    del got["messages"]
    assert got == {
        "model": "m",
        "max_completion_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 7,
        "stop": ["a", "b"],
        "stream": True,
        "stream_options": {"include_usage": True},
        "user": "u",
        "service_tier": "default",
        "reasoning_effort": "low",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "output", "schema": {"type": "object"}, "strict": True},
        },
    }


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        (
            {"type": "tool", "name": "look"},
            {"tool_choice": {"type": "function", "function": {"name": "look"}}},
        ),
    ],
)
def test_tools_and_their_choice(choice: Any, expected: Any) -> None:
    got = translate(tools=[{**TOOL, "eager_input_streaming": True}], tool_choice=choice)
    function = {"name": "look", "description": "looks", "parameters": {"type": "object"}}
    assert got["tools"] == [{"type": "function", "function": function}]
    assert {key: got[key] for key in expected} == expected


def test_a_tools_turn_becomes_messages_of_its_own() -> None:
    got = translate(
        tools=[TOOL],
        messages=[
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "looking"},
                    CALL,
                ],
            },
            *user(
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "r", "is_error": True},
                {"type": "tool_result", "tool_use_id": "toolu_2"},
                {"type": "text", "text": "go on", "cache_control": {"type": "ephemeral"}},
            ),
        ],
    )
    assert got["messages"] == [
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "looking"}],
            "reasoning_content": "hm",
            "tool_calls": [
                {
                    "id": "toolu_1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": 1.5}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "r", "is_error": True},
        {"role": "tool", "tool_call_id": "toolu_2", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "go on"}]},
    ]


def test_images_and_documents() -> None:
    base64 = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}
    got = translate(
        messages=user(
            {"type": "image", "source": base64},
            {"type": "image", "source": {"type": "url", "url": "https://e.example/x.png"}},
            {"type": "document", "source": pdf, "title": "t.pdf"},
        )
    )
    assert got["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://e.example/x.png"}},
        {
            "type": "file",
            "file": {"file_data": "data:application/pdf;base64,BBBB", "filename": "t.pdf"},
        },
    ]


RESULT = {"type": "tool_result", "tool_use_id": "t"}
IMAGE = {"type": "image", "source": {"type": "url", "url": "u"}}
TEXT_DOCUMENT = {"type": "text", "media_type": "text/plain", "data": "x"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"mcp_servers": []}, "mcp_servers"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
        ({"thinking": {"type": "adaptive"}}, "thinking"),
        ({"container": "c"}, "container"),
        ({"diagnostics": {}}, "diagnostics"),
        ({"inference_geo": "eu"}, "inference_geo"),
        ({"user_profile_id": "u"}, "user_profile_id"),
        ({"speed": "fast"}, "speed"),
        ({"stop_sequences": list("abcde")}, "stop_sequences"),
        ({"tools": [{**TOOL, "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"tools": [{**TOOL, "input_examples": [{}]}]}, "tools[0].input_examples"),
        ({"tools": [{**TOOL, "allowed_callers": ["x"]}]}, "tools[0].allowed_callers"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "I"}]}, "messages"),
        ({"messages": user({"type": "text", "text": "x"}, RESULT)}, "messages[0].content[1]"),
        ({"messages": user({**RESULT, "content": [IMAGE]})}, "messages[0].content[0].content"),
        (
            {"messages": user({"type": "image", "source": {"type": "file", "file_id": "f"}})},
            "messages[0].content[0].source",
        ),
        (
            {"messages": user({"type": "document", "source": TEXT_DOCUMENT})},
            "messages[0].content[0].source",
        ),
        (
            {
                "messages": user(
                    {"type": "document", "source": TEXT_DOCUMENT, "citations": {"enabled": True}}
                )
            },
            "messages[0].content[0].citations",
        ),
        (
            {"messages": user({"type": "document", "source": TEXT_DOCUMENT, "context": "c"})},
            "messages[0].content[0].context",
        ),
        (
            {"messages": user({"type": "text", "text": "x", "citations": [{}]})},
            "messages[0].content[0].citations",
        ),
        (
            {"messages": [{"role": "assistant", "content": [CALL, {"type": "text", "text": "x"}]}]},
            "messages[0].content[1]",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}
                ]
            },
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{**CALL, "caller": {"type": "c"}}]}]},
            "messages[0].content[0].caller",
        ),
    ],
)
def test_what_can_not_be_said_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        anthropic_openai.translate_request(body(**fields))
    assert (caught.value.param, caught.value.error_code) == (param, "unsupported_parameter")


def completion(finish: str | None, stop: str | None = None, **message: Any) -> bytes:
    said = {"role": "assistant", "content": None, **message}
    choice = {"index": 0, "message": said, "finish_reason": finish, "stop_reason": stop}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage}).encode()


CALLS = [{"id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}]


@pytest.mark.parametrize(
    ("data", "reason", "sequence"),
    [
        (completion("stop", content="x"), "end_turn", None),
        (completion("stop", "###", content="x"), "stop_sequence", "###"),
        (completion("length", content="x"), "max_tokens", None),
        (completion("content_filter"), "refusal", None),
        (completion("stop", refusal="no"), "refusal", None),
        (completion("tool_calls", tool_calls=CALLS), "tool_use", None),
        (completion("stop", tool_calls=CALLS), "tool_use", None),
    ],
)
def test_why_an_answer_stopped(data: bytes, reason: str, sequence: str | None) -> None:
    message = json.loads(anthropic_openai.translate_answer(data, message_id="msg_1"))
    assert (message["stop_reason"], message["stop_sequence"]) == (reason, sequence)


@pytest.mark.parametrize(
    "data",
    [
        completion(None, content="x"),
        completion("because", content="x"),
        completion(
            "tool_calls", tool_calls=[{**CALLS[0], "function": {"name": "f", "arguments": "["}}]
        ),
        b'{"choices":[]}',
        b"<html>",
    ],
)
def test_no_answer_is_forged(data: bytes) -> None:
    with pytest.raises(MalformedError):
        anthropic_openai.translate_answer(data, message_id="msg_1")


WRITER = openai.ChunkWriter(id="c", created_s=1, model="m")


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [WRITER.content(0, "x")],
        [WRITER.content(1, "x")],
        [WRITER.tool_arguments(0, 0, "{}")],
        [
            WRITER.tool_call(0, 0, id="a", name="f"),
            WRITER.tool_call(0, 1, id="b", name="g"),
            WRITER.tool_arguments(0, 0, "{}"),
        ],
        [b'{"error":{"message":"x"}}'],
        [b"[DONE]"],
    ],
)
def test_no_stream_is_forged(chunks: list[bytes]) -> None:
    translator = anthropic_openai.StreamTranslator(message_id="msg_1")
    with pytest.raises(MalformedError):
        for chunk in chunks:
            translator.feed(chunk)
        translator.finish()


def test_a_stream_is_written_byte_for_byte() -> None:
    translator = anthropic_openai.StreamTranslator(message_id="msg_1")
    chunks = [WRITER.role(0), WRITER.content(0, "hi"), WRITER.finish(0, "stop", stop_reason="#")]
    assert b"".join(map(translator.feed, chunks)) + translator.finish() == (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1",'
        b'"type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,'
        b'"stop_sequence":null,"usage":{"input_tokens":0,"output_tokens":0}}}\n\n'
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,'
        b'"content_block":{"type":"text","text":""}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,'
        b'"delta":{"type":"text_delta","text":"hi"}}\n\n'
        b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":'
        b'"stop_sequence","stop_sequence":"#"},"usage":{"input_tokens":0,"output_tokens":0}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )


def test_the_identity_changes_nothing() -> None:
    raw = json.dumps({"model": "m", "messages": HELLO, "mirostat": 2}).encode()
    assert openai_openai.translate_request(raw) is raw
    assert openai_openai.translate_answer(raw) is raw
    translator = openai_openai.StreamTranslator()
    (event, done) = sse.SseParser().feed(translator.feed(b'{"a":1}') + translator.finish())
    assert (event.data, event.id, done.data) == (b'{"a":1}', None, sse.DONE_DATA)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stop", "stop_sequences"),
        ("stop_reason", "stop_reason"),
        ("max_completion_tokens", "max_tokens"),
        ("reasoning_effort", "output_config.effort"),
        ("response_format", "output_config.format"),
        ("response_format.json_schema.schema.items[3]", "output_config.format.schema.items[3]"),
        ("tools[2].function.strict", "tools[2].strict"),
        ("tools[2].function.parameters.items", "tools[2].input_schema.items"),
        ("messages[1].content", "messages[1].content"),
    ],
)
def test_errors_name_parameters_as_the_caller_does(theirs: str, ours: str) -> None:
    error = Described(status=400, code="c", message=f"{theirs}: is wrong", param=theirs)
    told = anthropic_openai_params.caller_words(error)
    assert (told.param, told.message) == (ours, f"{ours}: is wrong")


def test_errors_about_no_parameter_stay_as_they_are() -> None:
    error = Described(status=503, code="c", message="stop: the presses")
    assert anthropic_openai_params.caller_words(error) == error
