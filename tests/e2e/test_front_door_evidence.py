"""Every kind of answer has evidence that verifies offline, against the bytes the app holds."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.front_door import (
    ASK_WEATHER,
    CHAT,
    EMBEDDER,
    EMBEDDINGS,
    MESSAGES,
    MODEL,
    WEATHER,
    WEATHER_SCHEMA,
    Reply,
    results,
    send,
    verify,
)
from tests.support.network import RunningNetwork

pytestmark = pytest.mark.xdist_group("network")

TOOL = {"name": "weather", "input_schema": WEATHER_SCHEMA}
CHAT_ASKED: dict[str, Any] = {"model": MODEL, "messages": ASK_WEATHER, "max_tokens": 60}
TOOLS_ASKED = CHAT_ASKED | {
    "tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False,
}  # fmt: skip
JSON_FORM = {"type": "json_schema", "json_schema": {"name": "city", "schema": WEATHER_SCHEMA}}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "whole": (CHAT, CHAT_ASKED | {"max_tokens": 4}),
    "stream": (CHAT, CHAT_ASKED | {"max_tokens": 4, "stream": True}),
    "choices": (CHAT, CHAT_ASKED | {"max_tokens": 3, "n": 3, "logprobs": True}),
    "choices in a stream": (CHAT, CHAT_ASKED | {"max_tokens": 3, "n": 2, "stream": True}),
    "tools": (CHAT, TOOLS_ASKED),
    "tools in a stream": (
        CHAT, TOOLS_ASKED | {"stream": True},
    ),
    "a document": (CHAT, CHAT_ASKED | {"response_format": JSON_FORM}),
    "embeddings": (EMBEDDINGS, {"model": EMBEDDER, "input": ["one", "two"]}),
    "Anthropic": (MESSAGES, CHAT_ASKED | {"max_tokens": 4}),
    "Anthropic in a stream": (MESSAGES, CHAT_ASKED | {"max_tokens": 4, "stream": True}),
    "Anthropic with tools": (
        MESSAGES, CHAT_ASKED | {"tools": [TOOL], "tool_choice": {"type": "any"}},
    ),
}  # fmt: skip


def answered(network: RunningNetwork, path: str, asked: dict[str, Any]) -> tuple[bytes, Reply]:
    body = json.dumps(asked).encode()
    reply = send(network, path, body)
    assert reply.status == 200, reply.body
    return body, reply


@pytest.mark.parametrize(("path", "asked"), KINDS.values(), ids=KINDS.keys())
def test_the_answer_verifies(network: RunningNetwork, path: str, asked: dict[str, Any]) -> None:
    request, reply = answered(network, path, asked)
    report = verify(network, reply.answer, request=request)

    assert (report.outcome, report.state) == ("pass", "final"), report.steps
    assert results(report)["request"] == "pass"
    held = verify(network, reply.answer, request=request, response=reply.body)
    # What a node signed can not be told from a translation, and nobody claims that it can.
    expected = "inconclusive" if path == MESSAGES else "pass"
    assert held.outcome == results(held)["response"] == expected, held.steps


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "another word": lambda body: body.replace(b'"content":"', b'"content":"Not ', 1),
    "another end": lambda body: body.replace(b'"length"', b'"stop"', 1),
    "another count": lambda body: body.replace(b'"completion_tokens":4', b'"completion_tokens":3'),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_was_changed_does_not(
    network: RunningNetwork, change: Callable[[bytes], bytes]
) -> None:
    request, reply = answered(network, CHAT, CHAT_ASKED | {"max_tokens": 4})
    changed = change(reply.body)
    assert changed != reply.body
    report = verify(network, reply.answer, request=request, response=changed)
    assert (report.outcome, results(report)["response"]) == ("fail", "fail")
    asked = verify(network, reply.answer, request=request + b" ")
    assert (asked.outcome, results(asked)["request"]) == ("fail", "fail")


def test_the_command_agrees(network: RunningNetwork) -> None:
    _, reply = answered(network, MESSAGES, CHAT_ASKED | {"max_tokens": 2})
    done = network.command("verify", reply.answer, "--wait", "60", "--json")
    assert done.code == 0, done.out
    assert done.json()["outcome"] == "pass"


def test_evidence_holds_no_content_unless_it_was_asked_to(network: RunningNetwork) -> None:
    word = "heliotrope"
    asked = {"model": MODEL, "messages": [{"role": "user", "content": word}], "max_tokens": 2}
    body = json.dumps(asked).encode()
    for headers, kept in (({}, False), ({"trunkline-keep": "bodies"}, True)):
        answer = send(network, CHAT, body, headers=headers).answer
        file = send(network, f"/trunkline/v1/receipts/{answer}?wait_s=60", method="GET").json()
        assert (file["parts"][0]["bodies"] is not None) is kept
