"""Tool calls and documents of an answer: told whole from broken."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.core.values import Gathered, InvalidAnswerError, Values
from trunkline.schema.openai_answer import Delta, FunctionDelta, ReadMessage, ToolCallDelta

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}


def tool(name: str = "f", **more: object) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def values(**request: object) -> Values:
    found = Values.of(json.dumps({"model": "m", "messages": [], **request}).encode())
    assert found is not None
    return found


def called(arguments: str, name: str = "f") -> Gathered:
    gathered = Gathered()
    half = len(arguments) // 2
    for part in (FunctionDelta(name=name), *map(_arguments, (arguments[:half], arguments[half:]))):
        gathered.add(Delta(tool_calls=(ToolCallDelta(index=0, function=part),)))
    return gathered


def _arguments(text: str) -> FunctionDelta:
    return FunctionDelta(arguments=text)


def said(text: str) -> Gathered:
    gathered = Gathered()
    gathered.take(ReadMessage(content=text))
    return gathered


def code_of(found: Values, gathered: Gathered, reason: str) -> str | None:
    try:
        found.check(gathered, reason)
    except InvalidAnswerError as error:
        return error.error_code
    return None


TOOL_CALL = "upstream_invalid_tool_call"
DOCUMENT = "upstream_invalid_json"
SCHEMA = {"name": "s", "schema": PARAMETERS}


def test_a_plain_request_has_no_values() -> None:
    assert Values.of(b'{"model":"m","messages":[]}') is None
    assert Values.of(b'{"model":"m","response_format":{"type":"text"},"tools":null}') is None
    assert Values.of(b"nonsense") is None


@pytest.mark.parametrize(
    ("offered", "arguments", "expected"),
    [
        (tool(), '{"city": "Oslo"}', None),
        (tool(), "{}", None),
        (tool(), "", None),
        (tool(parameters=PARAMETERS), "", TOOL_CALL),
        (tool(), '{"city": "Os', TOOL_CALL),
        (tool(), "[1]", TOOL_CALL),
        (tool(), '{"a":1}{"a":1}', TOOL_CALL),
        (tool(parameters=PARAMETERS), '{"town": 1}', None),
        (tool(parameters=PARAMETERS, strict=True), '{"town": 1}', TOOL_CALL),
        (tool(parameters=PARAMETERS, strict=True), '{"city": "Oslo"}', None),
        (tool("g"), '{"city": "Oslo"}', TOOL_CALL),
        ({"type": "custom", "custom": {"name": "c"}}, '{"city": "Oslo"}', None),
    ],
)
def test_tool_calls(offered: dict[str, Any], arguments: str, expected: str | None) -> None:
    found = values(tools=[offered])
    assert code_of(found, called(arguments), "tool_calls") == expected
    assert code_of(found, called(arguments), "length") is None


def test_a_call_that_is_announced_must_come() -> None:
    found = values(tools=[tool()])
    assert code_of(found, said("text"), "tool_calls") == TOOL_CALL
    assert code_of(found, said("text"), "stop") is None


def test_calls_are_told_apart() -> None:
    gathered = Gathered()
    for index, id_ in ((0, "a"), (0, "b"), (1, "c")):
        for arguments in ('{"n"', ":1}"):
            function = FunctionDelta(name="f" if arguments[0] == "{" else None, arguments=arguments)
            gathered.add(Delta(tool_calls=(ToolCallDelta(index=index, id=id_, function=function),)))
    assert len(gathered.calls) == 3
    assert code_of(values(tools=[tool()]), gathered, "tool_calls") is None


@pytest.mark.parametrize(
    ("format_", "text", "expected"),
    [
        ({"type": "json_object"}, '{"a": 1}', None),
        ({"type": "json_object"}, '{"a": 1', DOCUMENT),
        ({"type": "json_object"}, "```json\n{}\n```", DOCUMENT),
        ({"type": "json_object"}, '"text"', DOCUMENT),
        ({"type": "json_object"}, '{"a": "\ud800"}', DOCUMENT),
        ({"type": "json_schema", "json_schema": SCHEMA}, '{"city": "Oslo"}', None),
        ({"type": "json_schema", "json_schema": SCHEMA}, '{"city": 1}', DOCUMENT),
        ({"type": "json_schema", "json_schema": SCHEMA | {"strict": False}}, '{"city": 1}', None),
        ({"type": "json_schema", "json_schema": SCHEMA | {"strict": False}}, '{"city"', DOCUMENT),
    ],
)
def test_documents(format_: dict[str, Any], text: str, expected: str | None) -> None:
    found = values(response_format=format_)
    assert code_of(found, said(text), "stop") == expected
    assert code_of(found, said(text), "content_filter") is None


def test_a_refusal_and_a_tool_call_are_no_documents() -> None:
    found = values(response_format={"type": "json_object"}, tools=[tool()])
    refusal = Gathered()
    refusal.add(Delta(refusal="No."))
    assert code_of(found, refusal, "stop") is None
    assert code_of(found, called("{}"), "tool_calls") is None


@given(st.binary(max_size=80))
def test_any_request_is_read_or_has_none(raw: bytes) -> None:
    found = Values.of(raw)
    assert found is None or isinstance(found, Values)


@given(st.text(max_size=40))
def test_what_passes_is_a_json_object(text: str) -> None:
    if code_of(values(response_format={"type": "json_object"}), said(text), "stop") is None:
        assert isinstance(msgspec.json.decode(text), dict)
