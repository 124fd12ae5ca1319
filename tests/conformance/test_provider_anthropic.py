"""Anthropic as a provider, held against its own published client.

Nothing here reaches Anthropic: requests are checked against the request types of the official
client, and the scripted answers are ones that the client itself reads, so that a fake can not
drift from the format that it stands for.
"""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pydantic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import (
    MessageCreateParamsNonStreaming,
    MessageCreateParamsStreaming,
)
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from trunkline.schema import sse
from trunkline.schema.grid import openai_anthropic

ASK = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
USAGE = {
    "input_tokens": 10,
    "output_tokens": 1,
    "cache_creation_input_tokens": 2,
    "cache_read_input_tokens": 3,
    "service_tier": "standard",
}
EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_01",
            "type": "message",
            "role": "assistant",
            "model": "claude-x",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": USAGE,
        },
    },
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "thinking", "thinking": "", "signature": ""},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "let me see"},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "signature_delta", "signature": "EqQB"},
    },
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "I l"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "oök."}},
    {"type": "content_block_stop", "index": 1},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "toolu_01", "name": "look", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": ""},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"at": [1, '},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": "2.5]}"},
    },
    {"type": "content_block_stop", "index": 2},
    {
        "type": "content_block_start",
        "index": 3,
        "content_block": {"type": "tool_use", "id": "toolu_02", "name": "wait", "input": {}},
    },
    {"type": "content_block_stop", "index": 3},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "tool_use", "stop_sequence": None},
        "usage": {"output_tokens": 89, "output_tokens_details": {"thinking_tokens": 20}},
    },
    {"type": "message_stop"},
]
PING = {"type": "ping"}


def stream() -> bytes:
    told = [EVENTS[0], PING, *EVENTS[1:]]
    return b"".join(
        sse.encode(event=event["type"], data=json.dumps(event).encode()) for event in told
    )


def pieces(body: bytes) -> Iterator[bytes]:
    return (body[i : i + 1] for i in range(len(body)))


def answered(body: bytes, kind: str) -> httpx2.Client:
    def reply(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": kind}, content=pieces(body))

    return httpx2.Client(transport=httpx2.MockTransport(reply))


def vendor_message() -> Message:
    """What Anthropic's own client makes of the scripted stream."""
    client = anthropic.Anthropic(
        api_key="test",
        base_url="http://provider.test",
        max_retries=0,
        http_client=answered(stream(), "text/event-stream"),
    )
    with client, client.messages.stream(**ASK) as reading:  # type: ignore[arg-type]
        return reading.get_final_message()


def chunks() -> list[bytes]:
    translator = openai_anthropic.StreamTranslator(created_s=7, include_usage=True)
    made = [
        chunk
        for event in sse.SseParser().feed(stream())
        for chunk in translator.feed(event.data or b"")
    ]
    return made + translator.finish()


def test_the_scripted_events_are_the_vendors_own() -> None:
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(RawMessageStreamEvent)
    for event in EVENTS:
        adapter.validate_python(event, strict=True)


def test_both_clients_read_the_same_answer() -> None:
    theirs = vendor_message()
    body = b"".join(sse.encode(data=chunk) for chunk in chunks()) + sse.DONE
    client = openai.OpenAI(
        api_key="test",
        base_url="http://gateway.test",
        max_retries=0,
        http_client=answered(body, "text/event-stream"),
    )
    asked: Any = [{"role": "user", "content": "hello"}]
    with client, client.chat.completions.stream(model="m", messages=asked) as reading:
        ours = reading.get_final_completion()
    (choice,) = ours.choices
    assert (ours.id, ours.model) == (theirs.id, theirs.model)
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "".join(b.text for b in theirs.content if b.type == "text")
    assert [
        (call.id, call.function.name, json.loads(call.function.arguments))
        for call in choice.message.tool_calls or ()
    ] == [(b.id, b.name, b.input) for b in theirs.content if b.type == "tool_use"]
    assert ours.usage is not None
    assert (ours.usage.prompt_tokens, ours.usage.completion_tokens) == (15, 89)
    assert ours.usage.prompt_tokens_details is not None
    assert ours.usage.prompt_tokens_details.cached_tokens == 3
    assert ours.usage.completion_tokens_details is not None
    assert ours.usage.completion_tokens_details.reasoning_tokens == 20


def test_the_chunks_are_what_the_openai_client_types() -> None:
    for chunk in chunks():
        ChatCompletionChunk.model_validate_json(chunk, strict=True)


def test_a_whole_message_says_the_same() -> None:
    message = vendor_message()
    data = openai_anthropic.translate_answer(message.to_json(indent=None).encode(), created_s=7)
    completion = ChatCompletion.model_validate_json(data, strict=True)
    (choice,) = completion.choices
    assert choice.message.content == "I loök."
    assert [call.type for call in choice.message.tool_calls or ()] == ["function", "function"]
    assert completion.usage is not None
    assert completion.usage.total_tokens == 104


REQUESTS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "hello"}]},
    {
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is this"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
                    {"type": "image_url", "image_url": {"url": "https://a.example/b.png"}},
                    {
                        "type": "file",
                        "file": {"file_data": "data:application/pdf;base64,JVBERg==",
                                 "filename": "a.pdf"},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": "I look",
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "look", "arguments": '{"at": 1}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "a cat", "is_error": False},
            {"role": "developer", "content": "say it in verse"},
            {"role": "user", "content": "and?"},
        ],
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "stop": "END",
        "user": "u-1",
        "service_tier": "default",
        "reasoning_effort": "xhigh",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
        },
        "tools": [{"type": "function", "function": {"name": "look", "strict": True}}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": False,
    },
    {
        "messages": [{"role": "user", "content": "hello"}],
        "reasoning_effort": "none",
        "stream": True,
    },
]  # fmt: skip
UNNAMED = {"temperature", "top_p", "top_k"}
"""Fields of the API that the client's newest types no longer name."""


@pytest.mark.parametrize("request_", REQUESTS)
def test_requests_are_what_the_client_would_send(request_: dict[str, Any]) -> None:
    raw = json.dumps({"model": "m"} | request_).encode()
    body = json.loads(openai_anthropic.translate_request(raw))
    kind: Any = (
        MessageCreateParamsStreaming if "stream" in body else MessageCreateParamsNonStreaming
    )
    # Held until all is read: the lists in what it returns are checked then, and need it.
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(kind)
    known = {name: value for name, value in body.items() if name not in UNNAMED}
    # A member that the types do not know would be missing.
    assert read(adapter.validate_python(known)) == known


def read(value: Any) -> Any:
    """The checked value as plain lists and objects."""
    if isinstance(value, dict):
        return {name: read(member) for name, member in value.items()}
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return [read(item) for item in value]
