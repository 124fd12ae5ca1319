"""The Messages request: what is read, and what is refused by name."""

import json
from typing import Any

import pytest

from trunkline.base.errors import RequestError
from trunkline.schema import anthropic_messages as messages

TOOL = {"name": "look", "input_schema": {"type": "object"}}


def body(**fields: Any) -> bytes:
    hello = [{"role": "user", "content": "hello"}]
    return json.dumps({"model": "m", "max_tokens": 5, "messages": hello} | fields).encode()


def blocks(role: str, *content: dict[str, Any]) -> bytes:
    return body(messages=[{"role": role, "content": list(content)}])


def test_the_view_keeps_the_bytes() -> None:
    raw = body(temperature=1, top_k=3, stream=True)
    request = messages.parse(raw)
    assert request.raw == raw
    assert request.streams
    assert request.messages[0].blocks == (messages.TextBlock(text="hello"),)
    assert "hello" not in repr(request)


def test_unknown_fields_are_named() -> None:
    assert messages.unknown_fields(body(mcp_servers=[], betas=[])) == ["mcp_servers", "betas"]
    assert messages.parse(body(mcp_servers=[])).unknown == ("mcp_servers",)


@pytest.mark.parametrize(
    ("raw", "param", "code"),
    [
        (body(temperature=1.5), "temperature", "invalid_value"),
        (body(top_p=-1), "top_p", "invalid_value"),
        (body(top_k=-1), "top_k", "invalid_value"),
        (body(max_tokens=-1), "max_tokens", "invalid_value"),
        (body(max_tokens="5"), "max_tokens", "invalid_type"),
        (body(max_tokens=None), "max_tokens", "invalid_type"),
        (body(messages=[]), "messages", "invalid_value"),
        (body(stop_sequences=[""]), "stop_sequences", "invalid_value"),
        (body(tools=[TOOL, TOOL]), "tools", "invalid_value"),
        (body(tools=[{**TOOL, "name": "a b"}]), "tools[0].name", "invalid_value"),
        (body(tools=[{**TOOL, "input_schema": 1}]), "tools[0].input_schema", "invalid_type"),
        (body(tools=[{**TOOL, "type": "bash_20250124"}]), "tools[0].type", "unsupported_parameter"),
        (body(tool_choice={"type": "any"}), "tool_choice", "invalid_value"),
        (
            body(tools=[TOOL], tool_choice={"type": "tool", "name": "z"}),
            "tool_choice.name",
            "invalid_value",
        ),
        (body(tools=[TOOL], tool_choice={"type": "tool"}), "tool_choice.name", "invalid_value"),
        (
            blocks("user", {"type": "text", "text": "x", "mood": 1}),
            "messages[0].content[0].mood",
            "unsupported_parameter",
        ),
        (
            blocks("user", {"type": "container_upload", "file_id": "f"}),
            "messages[0].content[0].type",
            "unsupported_parameter",
        ),
        (
            blocks("user", {"type": "thinking", "thinking": "x", "signature": "s"}),
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (
            blocks("assistant", {"type": "tool_use", "id": "", "name": "n", "input": {}}),
            "messages[0].content[0].id",
            "invalid_value",
        ),
        (
            blocks("assistant", {"type": "tool_use", "id": "i", "name": "n", "input": 1}),
            "messages[0].content[0].input",
            "invalid_type",
        ),
        (blocks("user"), "messages[0].content", "invalid_value"),
        (body(model=""), "model", "invalid_value"),
    ],
)
def test_a_refusal_names_the_parameter(raw: bytes, param: str, code: str) -> None:
    with pytest.raises(RequestError) as caught:
        messages.parse(raw)
    assert (caught.value.param, caught.value.error_code) == (param, code)
