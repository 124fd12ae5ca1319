"""Anthropic's answers as completions and chunks: what becomes what, and what is no answer."""

import json
from typing import Any

import pytest

from trunkline.base.errors import (
    BadResponseError,
    MalformedError,
    RateLimitedError,
    TimedOutError,
    TruncatedError,
    UpstreamError,
)
from trunkline.schema import openai_answer
from trunkline.schema.grid import anthropic_openai, openai_anthropic

START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 1, "cache_read_input_tokens": 3},
    },
}
STOP = {"type": "message_stop"}


def ended(reason: str | None = "end_turn", **fields: Any) -> dict[str, Any]:
    delta = {"stop_reason": reason, "stop_sequence": None} | fields
    return {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}}


def block(index: int, kind: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": index, "content_block": kind},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def text(value: str) -> dict[str, Any]:
    return {"type": "text_delta", "text": value}


def partial(value: str) -> dict[str, Any]:
    return {"type": "input_json_delta", "partial_json": value}


def use(number: int = 1) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": "look", "input": {}}


TEXT = {"type": "text", "text": ""}


def translated(*events: dict[str, Any], include_usage: bool = False) -> list[dict[str, Any]]:
    translator = openai_anthropic.StreamTranslator(created_s=7, include_usage=include_usage)
    chunks = [chunk for event in events for chunk in translator.feed(json.dumps(event).encode())]
    chunks += translator.finish()
    for chunk in chunks:
        openai_answer.parse_chunk(chunk)
    return [json.loads(chunk) for chunk in chunks]


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks]


def test_a_stream_of_text() -> None:
    chunks = translated(
        START, {"type": "ping"}, *block(0, TEXT, text("he"), text(""), text("llo")), ended(), STOP
    )
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"content": "he"},
        {"content": "llo"},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert {(c["id"], c["created"], c["model"]) for c in chunks} == {("msg_1", 7, "claude-x")}


def test_a_stream_of_calls() -> None:
    chunks = translated(
        START,
        *block(0, TEXT, text("so")),
        *block(1, use(1), partial(""), partial('{"at"'), partial(": 1}")),
        *block(2, use(2)),
        ended("tool_use"),
        STOP,
    )
    calls = [delta["tool_calls"][0] for delta in deltas(chunks) if "tool_calls" in delta]
    assert [(call["index"], call.get("id")) for call in calls] == [
        (0, "toolu_1"), (0, None), (0, None), (1, "toolu_2"), (1, None),
    ]  # fmt: skip
    assert [call["function"]["arguments"] for call in calls] == ["", '{"at"', ": 1}", "", "{}"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_usage_counts_the_whole_prompt() -> None:
    (*_, last) = translated(
        START,
        *block(0, TEXT, text("x")),
        ended() | {"usage": {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}}},
        STOP,
        include_usage=True,
    )
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 8,
        "completion_tokens": 9,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
    ],
)
def test_finish_reasons(reason: str, finish: str) -> None:
    (*_, last) = translated(START, ended(reason, stop_sequence="END"), STOP)
    choice = last["choices"][0]
    assert choice["finish_reason"] == finish
    assert choice.get("stop_reason") == ("END" if reason == "stop_sequence" else None)


def test_thoughts_and_novelties_are_left_out_and_named() -> None:
    translator = openai_anthropic.StreamTranslator(created_s=7)
    events = [
        START,
        *block(0, {"type": "thinking", "thinking": "", "signature": ""},
               {"type": "thinking_delta", "thinking": "hm"},
               {"type": "signature_delta", "signature": "s"}),
        *block(1, {"type": "hologram", "input": [1]}, {"type": "light_delta", "light": 1}),
        {"type": "weather", "index": "far", "message": 3},
        *block(2, TEXT, text("x"), {"type": "citations_delta", "citation": {}}),
        ended(),
        STOP,
        {"type": "ping"},
    ]  # fmt: skip
    chunks = [chunk for event in events for chunk in translator.feed(json.dumps(event).encode())]
    translator.finish()
    assert b"hm" not in b"".join(chunks)
    assert len(chunks) == 3
    assert set(translator.skipped) == {
        "thinking", "thinking_delta", "signature_delta", "hologram", "light_delta", "weather",
        "citations_delta", "ping",
    }  # fmt: skip


@pytest.mark.parametrize("count", range(6))
def test_a_stream_that_stops_early_is_truncated(count: int) -> None:
    events = [START, *block(0, TEXT, text("x")), ended()][:count]
    with pytest.raises(TruncatedError):
        translated(*events)


def test_no_finish_comes_before_the_end() -> None:
    translator = openai_anthropic.StreamTranslator(created_s=7)
    for event in (START, *block(0, TEXT, text("x")), ended()):
        for chunk in translator.feed(json.dumps(event).encode()):
            assert json.loads(chunk)["choices"][0]["finish_reason"] is None


@pytest.mark.parametrize(
    "events",
    [
        [ended()],
        [STOP],
        [START, START],
        [START, STOP],
        [START, ended("pause_turn"), STOP],
        [START, ended(None), STOP],
        [START, *block(0, TEXT)[:1], ended(), STOP],
        [START, *block(1, TEXT)],
        [START, *block(0, TEXT)[:1], *block(1, TEXT)],
        [START, *block(0, TEXT)[1:]],
        [START, *block(0, TEXT, partial("{}"))],
        [START, *block(0, {"type": "text", "text": 1})],
        [START, *block(0, {"type": "tool_use", "name": "x", "input": {}})],
        [START, *block(0, use() | {"input": [1]})],
        [START | {"message": None}],
        [{}],
    ],
)
def test_what_is_no_answer(events: list[dict[str, Any]]) -> None:
    with pytest.raises(MalformedError) as caught:
        translated(*events)
    assert caught.value.error_code in ("bad_chunk", "bad_completion", "bad_tool_call")


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("overloaded_error", UpstreamError),
        ("api_error", UpstreamError),
        ("rate_limit_error", RateLimitedError),
        ("timeout_error", TimedOutError),
        ("something_else", BadResponseError),
    ],
)
def test_an_error_in_the_stream_is_that_error(kind: str, error: type[UpstreamError]) -> None:
    event = {"type": "error", "error": {"type": kind, "message": "a secret prompt"}}
    with pytest.raises(UpstreamError) as caught:
        translated(START, event)
    assert type(caught.value) is error
    assert "secret" not in caught.value.message


def whole(**fields: Any) -> dict[str, Any]:
    message = START["message"] | {"stop_reason": "end_turn"} | fields  # type: ignore[operator]
    data = openai_anthropic.translate_answer(json.dumps(message).encode(), created_s=7)
    openai_answer.parse_completion(data)
    result: dict[str, Any] = json.loads(data)
    return result


def test_a_whole_answer() -> None:
    got = whole(
        content=[
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "text", "text": "a"},
            {"type": "text", "text": "b"},
            use() | {"input": {"at": 1.5}},
        ],
        stop_reason="tool_use",
    )
    assert (got["id"], got["created"], got["model"]) == ("msg_1", 7, "claude-x")
    (choice,) = got["choices"]
    assert choice["message"]["content"] == "ab"
    (made,) = choice["message"]["tool_calls"]
    assert (made["id"], made["function"]["name"]) == ("toolu_1", "look")
    assert json.loads(made["function"]["arguments"]) == {"at": 1.5}
    assert choice["finish_reason"] == "tool_calls"
    assert (got["usage"]["prompt_tokens"], got["usage"]["completion_tokens"]) == (8, 1)


def test_a_refused_answer_is_filtered() -> None:
    got = whole(stop_reason="refusal", stop_details={"type": "refusal", "explanation": "why"})
    assert got["choices"][0]["finish_reason"] == "content_filter"
    assert got["choices"][0]["message"]["content"] is None
    back = anthropic_openai.translate_answer(json.dumps(got).encode(), message_id="m")
    assert json.loads(back)["stop_reason"] == "refusal"


@pytest.mark.parametrize("reason", [None, "pause_turn", "why_not"])
def test_a_whole_answer_without_known_end_is_none(reason: str | None) -> None:
    with pytest.raises(MalformedError):
        whole(stop_reason=reason)


@pytest.mark.parametrize("data", [b"", b"[]", b'{"id":1}', b'{"type":"error","error":{}}'])
def test_other_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        openai_anthropic.translate_answer(data, created_s=7)
