"""Gemini as a provider, held against the types of its own published client.

Nothing here reaches Google, and its client (``google-genai``) is not among our dependencies. The
member names below are those of its types in version 3.4.0, as they stand on the wire; requests and
scripted answers that pass here were checked against those types themselves when they were written.
"""

import json
from collections.abc import Mapping
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.conformance.test_provider_anthropic import answered

from trunkline.schema import sse
from trunkline.schema.grid import openai_gemini

Members = Mapping[str, Any]
"""Members of a wire type: None for a plain value, a type for an object or a list of them."""

FREE: None = None
BLOB: Members = {"mimeType": None, "data": None}
CALL: Members = {"id": None, "name": None, "args": FREE}
RESULT: Members = {"id": None, "name": None, "response": FREE}
PART: Members = {
    "text": None,
    "thought": None,
    "thoughtSignature": None,
    "inlineData": BLOB,
    "functionCall": CALL,
    "functionResponse": RESULT,
}
CONTENT: Members = {"role": None, "parts": PART}
GENERATION_CONFIG: Members = {
    "candidateCount": None,
    "frequencyPenalty": None,
    "logprobs": None,
    "maxOutputTokens": None,
    "presencePenalty": None,
    "responseJsonSchema": FREE,
    "responseLogprobs": None,
    "responseMimeType": None,
    "seed": None,
    "stopSequences": None,
    "temperature": None,
    "thinkingConfig": {"thinkingBudget": None, "thinkingLevel": None},
    "topK": None,
    "topP": None,
}
DECLARATION: Members = {"name": None, "description": None, "parametersJsonSchema": FREE}
CALLING: Members = {"mode": None, "allowedFunctionNames": None}
REQUEST: Members = {
    "contents": CONTENT,
    "systemInstruction": CONTENT,
    "generationConfig": GENERATION_CONFIG,
    "tools": {"functionDeclarations": DECLARATION},
    "toolConfig": {"functionCallingConfig": CALLING},
}
SCORED: Members = {"token": None, "tokenId": None, "logProbability": None}
CANDIDATE: Members = {
    "index": None,
    "content": CONTENT,
    "finishReason": None,
    "safetyRatings": {"category": None, "probability": None},
    "logprobsResult": {"chosenCandidates": SCORED, "topCandidates": {"candidates": SCORED}},
}
COUNT: Members = {"modality": None, "tokenCount": None}
RESPONSE: Members = {
    "candidates": CANDIDATE,
    "promptFeedback": {"blockReason": None},
    "usageMetadata": {
        "promptTokenCount": None,
        "promptTokensDetails": COUNT,
        "candidatesTokenCount": None,
        "thoughtsTokenCount": None,
        "cachedContentTokenCount": None,
        "totalTokenCount": None,
    },
    "modelVersion": None,
    "responseId": None,
}

HEAD = {"modelVersion": "gemini-3-pro", "responseId": "mAitaLmkHPPlz7IPvtfUqQ4"}
SCORES = {
    "chosenCandidates": [{"token": "I", "tokenId": 235285, "logProbability": -0.25}],
    "topCandidates": [{"candidates": [{"token": "A", "tokenId": 7, "logProbability": -1.5}]}],
}
EVENTS: list[dict[str, Any]] = [
    HEAD
    | {
        "candidates": [
            {"content": {"parts": [{"text": "let me see", "thought": True}], "role": "model"}}
        ],
        "usageMetadata": {"promptTokenCount": 10, "totalTokenCount": 14, "thoughtsTokenCount": 4},
    },
    HEAD
    | {
        "candidates": [
            {
                "content": {"parts": [{"text": "I l"}], "role": "model"},
                "logprobsResult": SCORES,
            }
        ]
    },
    HEAD | {"candidates": [{"content": {"parts": [{"text": "oök."}], "role": "model"}}]},
    HEAD
    | {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {
                            "functionCall": {"name": "look", "args": {"at": [1, 2.5]}},
                            "thoughtSignature": "EqQBCqEB",
                        },
                        {"functionCall": {"id": "fc_2", "name": "wait", "args": {}}},
                    ],
                    "role": "model",
                }
            }
        ]
    },
    HEAD
    | {
        "candidates": [
            {
                "content": {"parts": [{"text": ""}], "role": "model"},
                "finishReason": "STOP",
                "safetyRatings": [
                    {"category": "HARM_CATEGORY_HARASSMENT", "probability": "NEGLIGIBLE"}
                ],
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 10,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
            "candidatesTokenCount": 20,
            "thoughtsTokenCount": 4,
            "cachedContentTokenCount": 3,
            "totalTokenCount": 34,
        },
    },
]
WHOLE: dict[str, Any] = EVENTS[-1] | {
    "candidates": [
        EVENTS[-1]["candidates"][0]
        | {
            "content": {
                "parts": [
                    part for event in EVENTS for part in event["candidates"][0]["content"]["parts"]
                ],
                "role": "model",
            }
        }
    ]
}
BLOCKED: dict[str, Any] = HEAD | {
    "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
    "usageMetadata": {"promptTokenCount": 10, "totalTokenCount": 10},
}
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
                    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
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
            {"role": "tool", "tool_call_id": "call_1", "content": "a cat"},
            {"role": "user", "content": "and?"},
        ],
        "max_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 4,
        "stop": "END",
        "seed": 7,
        "n": 2,
        "frequency_penalty": 0.5,
        "presence_penalty": 0.5,
        "logprobs": True,
        "top_logprobs": 2,
        "reasoning_effort": "minimal",
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
        },
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "look",
                    "description": "looks",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
    },
    {
        "messages": [{"role": "user", "content": "hello"}],
        "reasoning_effort": "none",
        "tools": [{"type": "function", "function": {"name": "look", "strict": True}}],
    },
]


def unknown(value: Any, members: Members | None, path: str = "") -> list[str]:
    """Paths of what ``value`` holds that the wire type does not have."""
    if members is None:
        return []
    if isinstance(value, list):
        return [found for item in value for found in unknown(item, members, path)]
    if not isinstance(value, dict):
        return [path]
    return [
        found
        for name, member in value.items()
        for found in (
            unknown(member, members[name], f"{path}.{name}")
            if name in members
            else [f"{path}.{name}"]
        )
    ]


def body(request: dict[str, Any]) -> Any:
    raw = json.dumps({"model": "m"} | request).encode()
    return json.loads(openai_gemini.translate_request(raw).body)


@pytest.mark.parametrize("request_", REQUESTS)
def test_requests_hold_what_the_types_have(request_: dict[str, Any]) -> None:
    assert unknown(body(request_), REQUEST) == []


@pytest.mark.parametrize("answer", [*EVENTS, WHOLE, BLOCKED])
def test_scripted_answers_hold_what_the_types_have(answer: dict[str, Any]) -> None:
    assert unknown(answer, RESPONSE) == []


def stream() -> bytes:
    return b"".join(b"data: %b\r\n\r\n" % json.dumps(event).encode() for event in EVENTS)


def chunks() -> list[bytes]:
    translator = openai_gemini.StreamTranslator(created_s=7, include_usage=True)
    made = [
        chunk
        for event in sse.SseParser().feed(stream())
        for chunk in translator.feed(event.data or b"")
    ]
    return made + translator.finish()


def test_the_chunks_are_what_the_openai_client_types() -> None:
    for chunk in chunks():
        ChatCompletionChunk.model_validate_json(chunk, strict=True)


def test_the_openai_client_reads_the_stream_as_the_whole() -> None:
    data = openai_gemini.translate_answer(json.dumps(WHOLE).encode(), created_s=7)
    expected = ChatCompletion.model_validate_json(data, strict=True)
    told = b"".join(sse.encode(data=chunk) for chunk in chunks()) + sse.DONE
    client = openai.OpenAI(
        api_key="test",
        base_url="http://gateway.test",
        max_retries=0,
        http_client=answered(told, "text/event-stream"),
    )
    asked: Any = [{"role": "user", "content": "hello"}]
    with client, client.chat.completions.stream(model="m", messages=asked) as reading:
        got = reading.get_final_completion()
    mine, theirs = got.choices[0], expected.choices[0]
    assert (got.id, got.model, got.usage) == (expected.id, expected.model, expected.usage)
    assert mine.finish_reason == theirs.finish_reason == "tool_calls"
    assert mine.message.content == theirs.message.content == "I loök."
    assert [
        (call.id, call.function.name, json.loads(call.function.arguments))
        for call in mine.message.tool_calls or ()
    ] == [
        ("call_mAitaLmkHPPlz7IPvtfUqQ4_0_0", "look", {"at": [1, 2.5]}),
        ("fc_2", "wait", {}),
    ]
    assert got.usage is not None
    assert got.usage.total_tokens == 34
    assert mine.logprobs is not None
    assert mine.logprobs.content is not None
    assert mine.logprobs.content[0].top_logprobs[0].token == "A"


def test_a_blocked_prompt_is_read_as_filtered() -> None:
    data = openai_gemini.translate_answer(json.dumps(BLOCKED).encode(), created_s=7)
    completion = ChatCompletion.model_validate_json(data, strict=True)
    assert completion.choices[0].finish_reason == "content_filter"
