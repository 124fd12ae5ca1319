"""Gemini's answers as completions and chunks: what becomes what, and what is no answer."""

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
from trunkline.schema.grid import openai_gemini

HEAD = {"responseId": "r1", "modelVersion": "gemini-x"}
USAGE = {
    "promptTokenCount": 5,
    "candidatesTokenCount": 3,
    "thoughtsTokenCount": 4,
    "cachedContentTokenCount": 2,
    "totalTokenCount": 12,
}


def event(*parts: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}}
    if finish is not None:
        candidate["finishReason"] = finish
    for name in ("index", "logprobsResult"):
        if name in fields:
            candidate[name] = fields.pop(name)
    return HEAD | {"candidates": [candidate]} | fields


def text(value: str, **fields: Any) -> dict[str, Any]:
    return {"text": value} | fields


def called(**fields: Any) -> dict[str, Any]:
    return {"functionCall": {"name": "look", "args": {"at": 1.5}} | fields}


def translated(*events: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    translator = openai_gemini.StreamTranslator(created_s=7, **options)
    chunks = [chunk for e in events for chunk in translator.feed(json.dumps(e).encode())]
    chunks += translator.finish()
    for chunk in chunks:
        openai_answer.parse_chunk(chunk)
    return [json.loads(chunk) for chunk in chunks]


def whole(answer: dict[str, Any], choices: int = 1) -> dict[str, Any]:
    data = openai_gemini.translate_answer(json.dumps(answer).encode(), created_s=7, choices=choices)
    openai_answer.parse_completion(data)
    result: dict[str, Any] = json.loads(data)
    return result


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks]


def test_a_stream_of_text() -> None:
    chunks = translated(event(text("he")), event(text("llo"), finish="STOP"), HEAD)
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"content": "he"},
        {"content": "llo"},
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert {(c["id"], c["created"], c["model"]) for c in chunks} == {("r1", 7, "gemini-x")}


def test_usage_comes_last_and_counts_thoughts() -> None:
    early = {"promptTokenCount": 5}
    (*_, last) = translated(
        event(text("x"), usageMetadata=early),
        event(finish="STOP", usageMetadata=USAGE),
        include_usage=True,
    )
    assert last["choices"] == []
    assert last["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }


def test_calls_come_whole_and_finish_as_calls() -> None:
    chunks = translated(
        event(text("so"), called(id="fc_1")), event(called(args=None)), event(finish="STOP")
    )
    calls = [delta["tool_calls"][0] for delta in deltas(chunks) if "tool_calls" in delta]
    assert [(c["index"], c["id"]) for c in calls] == [(0, "fc_1"), (1, "call_r1_0_1")]
    assert [json.loads(c["function"]["arguments"]) for c in calls] == [{"at": 1.5}, {}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_choices_are_kept_apart() -> None:
    chunks = translated(
        event(text("a")), event(text("b"), index=1, finish="MAX_TOKENS"), event(finish="STOP"),
        choices=2,
    )  # fmt: skip
    assert [
        (c["index"], c["delta"].get("content"), c["finish_reason"])
        for chunk in chunks
        for c in chunk["choices"]
    ] == [
        (0, "", None), (0, "a", None), (1, "", None), (1, "b", None), (1, None, "length"),
        (0, None, "stop"),
    ]  # fmt: skip


SCORED = {
    "chosenCandidates": [{"token": "h", "tokenId": 1, "logProbability": -0.25}],
    "topCandidates": [{"candidates": [{"token": "y", "tokenId": 2, "logProbability": -2}]}],
}
TOKEN = {
    "token": "h",
    "logprob": -0.25,
    "bytes": None,
    "top_logprobs": [{"token": "y", "logprob": -2.0, "bytes": None}],
}


def test_logprobs() -> None:
    chunks = translated(event(text("h"), logprobsResult=SCORED), event(finish="STOP"))
    assert chunks[1]["choices"][0]["logprobs"]["content"] == [TOKEN]
    (choice,) = whole(event(text("h"), finish="STOP", logprobsResult=SCORED))["choices"]
    assert choice["logprobs"]["content"] == [TOKEN]


def test_scores_without_text_go_with_the_end() -> None:
    chunks = translated(event(called(), finish="STOP", logprobsResult=SCORED))
    assert chunks[-1]["choices"][0]["logprobs"]["content"] == [TOKEN]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
    ],
)
def test_finish_reasons(reason: str, finish: str) -> None:
    (*_, last) = translated(event(finish=reason))
    assert last["choices"][0]["finish_reason"] == finish
    assert whole(event(finish=reason))["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize("reason", ["OTHER", "MALFORMED_FUNCTION_CALL", "CONTINUATION", "NEW"])
def test_a_failed_answer_is_none(reason: str) -> None:
    with pytest.raises(MalformedError):
        translated(event(text("x"), finish=reason))
    with pytest.raises(MalformedError):
        whole(event(text("x"), finish=reason))


def test_a_blocked_prompt_is_filtered() -> None:
    answer = HEAD | {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": USAGE}
    chunks = translated(answer, choices=2)
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, "content_filter"] * 2
    choices = whole(answer, choices=2)["choices"]
    assert [choice["finish_reason"] for choice in choices] == ["content_filter"] * 2


def test_thoughts_and_media_are_left_out_and_named() -> None:
    translator = openai_gemini.StreamTranslator(created_s=7)
    parts = [text("hm", thought=True), {"inlineData": {"data": ""}}, text("x"), {"newPart": 1}]
    made = translator.feed(json.dumps(event(*parts, finish="STOP")).encode())
    assert b"hm" not in b"".join(made)
    assert len(made) == 3
    assert set(translator.skipped) == {"thought", "inline_data"}


@pytest.mark.parametrize("events", [[], [event(text("x"))], [HEAD]])
def test_a_stream_that_stops_early_is_truncated(events: list[dict[str, Any]]) -> None:
    with pytest.raises(TruncatedError):
        translated(*events)


def test_every_choice_must_finish() -> None:
    with pytest.raises(TruncatedError):
        translated(event(finish="STOP"), choices=2)
    with pytest.raises(MalformedError):
        whole(event(finish="STOP"), choices=2)


@pytest.mark.parametrize(
    "events",
    [
        [event(text("x"), index=1)],
        [event(finish="STOP"), event(text("x"))],
        [event({"functionCall": {"args": {}}})],
        [event(called(args=[1]))],
        [event(text("x")), HEAD | {"promptFeedback": {"blockReason": "OTHER"}}],
        [HEAD | {"candidates": 1}],
    ],
)
def test_what_is_no_answer(events: list[dict[str, Any]]) -> None:
    with pytest.raises(MalformedError) as caught:
        translated(*events)
    assert caught.value.error_code in ("bad_chunk", "bad_tool_call")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ("RESOURCE_EXHAUSTED", RateLimitedError),
        ("UNAVAILABLE", UpstreamError),
        ("DEADLINE_EXCEEDED", TimedOutError),
        ("INVALID_ARGUMENT", BadResponseError),
    ],
)
def test_an_error_in_the_stream_is_that_error(status: str, error: type[UpstreamError]) -> None:
    failed = {"error": {"code": 500, "status": status, "message": "a secret prompt"}}
    with pytest.raises(UpstreamError) as caught:
        translated(event(text("x")), failed)
    assert type(caught.value) is error
    assert "secret" not in caught.value.message


def test_a_whole_answer() -> None:
    got = whole(
        event(
            text("hm", thought=True), text("a"), text("b"), called(), finish="STOP",
            usageMetadata=USAGE,
        )
    )  # fmt: skip
    assert (got["id"], got["created"], got["model"]) == ("r1", 7, "gemini-x")
    (choice,) = got["choices"]
    assert choice["message"]["content"] == "ab"
    (made,) = choice["message"]["tool_calls"]
    assert (made["id"], json.loads(made["function"]["arguments"])) == ("call_r1_0_0", {"at": 1.5})
    assert choice["finish_reason"] == "tool_calls"
    assert got["usage"]["total_tokens"] == 12


@pytest.mark.parametrize("data", [b"", b"[]", b'{"candidates":1}', b"{}"])
def test_other_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        openai_gemini.translate_answer(data, created_s=7)
