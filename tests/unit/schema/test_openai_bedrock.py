"""Chat Completions to Converse and back: what is said how, what is refused, what is an answer.

Requests are checked against AWS's published shapes (``tests/support/bedrock.py``).
"""

import json
from typing import Any

import pytest
from tests.support.bedrock import USAGE, check, events

from trunkline.base.errors import MalformedError, RequestError, TruncatedError
from trunkline.schema import openai_chat
from trunkline.schema.grid import openai_bedrock
from trunkline.schema.grid.openai_bedrock_answer import Head

HELLO = [{"role": "user", "content": "hello"}]
SAID = [{"role": "user", "content": [{"text": "hello"}]}]
SCHEMA = {"type": "object", "properties": {"at": {"type": "number"}}}
TOOL = {
    "type": "function",
    "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA, "strict": True},
}
PNG = "data:image/png;base64,AAAA"
PDF = "data:application/pdf;base64,BBBB"
HEAD = Head(id="req-1", model="m", created_s=7)


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO} | fields).encode()


def translate(**fields: Any) -> Any:
    made = json.loads(openai_bedrock.translate_request(body(**fields)).body)
    check(made, "ConverseRequest")
    return made


def refused(**fields: Any) -> str | None:
    with pytest.raises(RequestError) as caught:
        openai_bedrock.translate_request(body(**fields))
    assert caught.value.error_code == "unsupported_parameter"
    return caught.value.param


def call(arguments: str = '{"at": 1.50}', call_id: str = "call_1") -> dict[str, Any]:
    function = {"name": "look", "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}


def test_a_plain_request() -> None:
    got = openai_bedrock.translate_request(body(stream=True), model="maker.model-1:0")
    assert (got.model, got.stream) == ("maker.model-1:0", True)
    assert json.loads(got.body) == {"messages": SAID}


def test_parameters() -> None:
    assert translate(
        max_completion_tokens=7,
        temperature=0.5,
        top_p=0.9,
        stop=["a", "b"],
        reasoning_effort="high",
        service_tier="flex",
        user="label",
    ) == {
        "messages": SAID,
        "inferenceConfig": {
            "maxTokens": 7, "temperature": 0.5, "topP": 0.9, "stopSequences": ["a", "b"],
        },
        "outputConfig": {"effort": "high"},
        "serviceTier": {"type": "flex"},
    }  # fmt: skip


def test_structured_output() -> None:
    schema = {"name": "out", "description": "d", "schema": SCHEMA, "strict": True}
    made = translate(response_format={"type": "json_schema", "json_schema": schema})
    told = made["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert json.loads(told.pop("schema")) == SCHEMA
    assert told == {"name": "out", "description": "d"}
    assert translate(response_format={"type": "text"}) == {"messages": SAID}


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (None, None),
        ("auto", {"auto": {}}),
        ("required", {"any": {}}),
        ({"type": "function", "function": {"name": "look"}}, {"tool": {"name": "look"}}),
    ],
)
def test_tools_and_choices(choice: Any, told: Any) -> None:
    fields = {} if choice is None else {"tool_choice": choice}
    config = translate(tools=[TOOL], **fields)["toolConfig"]
    spec = {
        "name": "look", "description": "Looks.", "inputSchema": {"json": SCHEMA}, "strict": True,
    }  # fmt: skip
    assert config["tools"] == [{"toolSpec": spec}]
    assert config.get("toolChoice") == told


def test_a_conversation_takes_turns() -> None:
    made = translate(
        messages=[
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": [
                {"type": "text", "text": "see"},
                {"type": "image_url", "image_url": {"url": PNG}},
                {"type": "file", "file": {"file_data": PDF, "filename": "report"}},
                {"type": "file", "file": {"file_data": PDF}},
            ]},
            {"role": "assistant", "content": "I look", "tool_calls": [call(), call("", "a b")]},
            {"role": "tool", "tool_call_id": "call_1", "content": "seen"},
            {"role": "tool", "tool_call_id": "a b", "content": "not", "is_error": True},
            {"role": "user", "content": "and?"},
        ]
    )  # fmt: skip
    assert made["system"] == [{"text": "be kind"}]
    user, assistant, last = made["messages"]
    assert user["content"] == [
        {"text": "see"},
        {"image": {"format": "png", "source": {"bytes": "AAAA"}}},
        {"document": {"format": "pdf", "name": "report", "source": {"bytes": "BBBB"}}},
        {"document": {"format": "pdf", "name": "file-3", "source": {"bytes": "BBBB"}}},
    ]
    text, first, second = assistant["content"]
    assert text == {"text": "I look"}
    assert first["toolUse"] == {"toolUseId": "call_1", "name": "look", "input": {"at": 1.5}}
    assert second["toolUse"]["input"] == {}
    assert [next(iter(block)) for block in last["content"]] == ["toolResult", "toolResult", "text"]
    assert last["content"][1]["toolResult"]["status"] == "error"
    assert last["content"][1]["toolResult"]["toolUseId"] == second["toolUse"]["toolUseId"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 1.5}, "temperature"),
        ({"seed": 1}, "seed"),
        ({"n": 2}, "n"),
        ({"top_k": 3}, "top_k"),
        ({"logprobs": True}, "logprobs"),
        ({"reasoning_effort": "none"}, "reasoning_effort"),
        ({"service_tier": "scale"}, "service_tier"),
        ({"tools": [TOOL], "tool_choice": "none"}, "tool_choice"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"response_format": {"type": "json_object"}}, "response_format.json_object"),
        ({"messages": [*HELLO, {"role": "system", "content": "x"}]}, "messages[1].role"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "name": "bo", "content": "x"}]}, "messages[0].name"),
        (
            {"messages": [{"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
    ],
)  # fmt: skip
def test_what_can_not_be_said_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields) == param


def test_names_that_are_too_long() -> None:
    tool = {"type": "function", "function": {"name": "x" * 65}}
    assert refused(tools=[tool]) == "tools[0].function.name"


def test_honoured_names_are_known_ones() -> None:
    assert openai_bedrock.HONOURED.isdisjoint(openai_chat.HINTS)


def chunks(*told: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    made = openai_bedrock.StreamTranslator(HEAD, **options)
    found = [data for each in told for data in made.feed(json.dumps(each).encode())]
    return [json.loads(data) for data in [*found, *made.finish()]]


def test_a_stream_of_text() -> None:
    told = chunks(*events(["Hel", "lo"]), include_usage=True)
    deltas = [chunk["choices"][0]["delta"] for chunk in told[:-1]]
    assert deltas == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert told[-2]["choices"][0]["finish_reason"] == "stop"
    assert (told[-1]["usage"]["prompt_tokens"], told[-1]["usage"]["total_tokens"]) == (3, 5)
    assert {(chunk["id"], chunk["model"], chunk["created"]) for chunk in told} == {
        ("req-1", "m", 7)
    }


def test_a_stream_of_calls_beside_thoughts() -> None:
    told = [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockDelta": {"delta": {"reasoningContent": {"text": "hm"}},
                               "contentBlockIndex": 0}},
        {"contentBlockStart": {"start": {"toolUse": {"toolUseId": "t1", "name": "look"}},
                               "contentBlockIndex": 1}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": '{"at"'}}, "contentBlockIndex": 1}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": ":1}"}}, "contentBlockIndex": 1}},
        {"contentBlockStop": {"contentBlockIndex": 1}},
        {"messageStop": {"stopReason": "tool_use"}},
        {"somethingNew": {"x": 1}},
    ]  # fmt: skip
    made = openai_bedrock.StreamTranslator(HEAD)
    found = [json.loads(d) for each in told[:-1] for d in made.feed(json.dumps(each).encode())]
    calls = [c["choices"][0]["delta"].get("tool_calls") for c in found if c["choices"][0]["delta"]]
    arguments = "".join(call[0]["function"]["arguments"] for call in calls if call)
    assert json.loads(arguments) == {"at": 1}
    assert found[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert made.skipped == ("reasoning_content",)
    assert made.finish() == []


@pytest.mark.parametrize("count", range(4))
def test_a_stream_without_its_stop_is_truncated(count: int) -> None:
    with pytest.raises(TruncatedError):
        chunks(*events(["Hello"])[:count])


@pytest.mark.parametrize(
    "told",
    [
        events(["a"])[1:],
        [*events(["a"]), events(["a"])[1]],
        events(["a"], stop="malformed_tool_use"),
        [{"messageStart": {}}, {"contentBlockDelta": {"delta": {"toolUse": {"input": "x"}},
                                                      "contentBlockIndex": 0}}],
        [{"messageStart": {}}, {"messageStart": {}}],
        [{"messageStart": {}}, {"contentBlockStart": {"start": {"toolUse": {"toolUseId": "t",
          "name": "n"}}, "contentBlockIndex": 0}}, {"messageStop": {"stopReason": "tool_use"}}],
    ],
)  # fmt: skip
def test_what_is_no_answer(told: list[dict[str, Any]]) -> None:
    with pytest.raises(MalformedError):
        chunks(*told)


def whole(content: list[dict[str, Any]], stop: str = "end_turn") -> dict[str, Any]:
    answer = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": stop,
        "usage": USAGE | {"cacheReadInputTokens": 10, "cacheWriteInputTokens": 1},
        "metrics": {"latencyMs": 3},
    }
    check(answer, "ConverseResponse")
    found: dict[str, Any] = json.loads(
        openai_bedrock.translate_answer(json.dumps(answer).encode(), HEAD)
    )
    return found


def test_a_whole_answer() -> None:
    use = {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": 1}}}
    thought = {"reasoningContent": {"reasoningText": {"text": "hm"}}}
    answer = whole([thought, {"text": "I look"}, use], stop="tool_use")
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "I look"
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"at": 1}
    assert choice["finish_reason"] == "tool_calls"
    assert answer["usage"]["prompt_tokens"] == 14
    assert answer["usage"]["prompt_tokens_details"] == {
        "cached_tokens": 10,
        "cache_write_tokens": 1,
    }


@pytest.mark.parametrize(
    ("stop", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
    ],
)
def test_finish_reasons(stop: str, finish: str) -> None:
    assert whole([{"text": "a"}], stop)["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"output":{}}', b'{"output":{"message":{}}}']
)
def test_other_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        openai_bedrock.translate_answer(data, HEAD)
