"""The chat request: what is read, what is refused, what is named."""

import json
from typing import Any

import pytest

from trunkline.base.errors import RequestError
from trunkline.schema import openai_chat, openai_checks, parsing

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": HELLO} | fields).encode()


def refused(raw: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        openai_chat.parse(raw)
    return caught.value


def test_the_view_keeps_the_bytes() -> None:
    raw = body(temperature=0.5, stop="x", max_tokens=7, n=2, seed=-1)
    request = openai_chat.parse(raw)
    assert request.raw == raw
    assert request.messages[0].text == "hello"
    assert (request.stops, request.tokens_max, request.choices) == (("x",), 7, 2)
    assert request.top_logprobs_wanted == -1
    assert "hello" not in repr(request)


def test_content_parts_are_typed() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]
    request = openai_chat.parse(body(messages=[{"role": "user", "content": parts}]))
    assert request.messages[0].text == "a"
    assert openai_chat.parameters_set(request) == {"messages.image_url"}


def test_neutral_values_ask_for_nothing() -> None:
    neutral = {
        "temperature": 1,
        "top_p": 1.0,
        "n": 1,
        "logprobs": False,
        "stop": None,
        "tools": [],
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "store": False,
        "stream": False,
        "frequency_penalty": 0,
        "prediction": None,
        "logit_bias": {},
        "service_tier": "auto",
        "parallel_tool_calls": True,
    }
    assert openai_chat.parameters_set(openai_chat.parse(body(**neutral))) == frozenset()


def test_every_parameter_is_named() -> None:
    given = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 3,
        "min_p": 0.1,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
        "stop": ["x"],
        "seed": 0,
        "tools": [TOOL],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}},
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
        "store": True,
        "frequency_penalty": 1,
        "presence_penalty": -1,
        "prediction": {"type": "content", "content": "x"},
        "logit_bias": {"5": 1},
        "service_tier": "flex",
        "reasoning_effort": "low",
        "verbosity": "high",
        "user": "u",
        "safety_identifier": "s",
        "metadata": {"k": "v"},
        "moderation": {"model": "m"},
        "prompt_cache_key": "k",
        "prompt_cache_options": {"mode": "explicit"},
        "prompt_cache_retention": "24h",
        "web_search_options": {},
        "max_completion_tokens": 4,
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": True},
        "mirostat": 2,
    }
    names = openai_chat.parameters_set(openai_chat.parse(body(**given)))
    finer = {
        "response_format.json_schema",
        "stream_options.include_usage",
        "stream_options.include_obfuscation",
    }
    assert names == set(given) - {"stream_options"} | finer


def test_finer_names_for_tools() -> None:
    strict = {"type": "function", "function": {"name": "a", "strict": True}}
    custom = {"type": "custom", "custom": {"name": "b"}}
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}}
    request = openai_chat.parse(body(tools=[strict, custom], tool_choice=choice))
    assert openai_chat.parameters_set(request) == {
        "tools",
        "tools.strict",
        "tools.custom",
        "tool_choice",
        "tool_choice.allowed_tools",
    }


def test_unknown_fields_are_named() -> None:
    raw = body(zeta=1, alpha=None)
    assert openai_chat.unknown_fields(raw) == ["zeta", "alpha"]
    request = openai_chat.parse(raw)
    assert request.unknown == ("zeta", "alpha")
    assert openai_chat.parameters_set(request) >= {"zeta", "alpha"}


def test_unknown_members_inside_are_named_by_path() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"any": 1}, "pure": 1}}
    parts = [
        {"type": "text", "text": "a", "cache_control": {}},
        {"type": "text", "text": "b", "cache_control": {}},
        {"type": "image_url", "image_url": {"url": "u", "size": 1}, "text": "t"},
    ]
    raw = body(messages=[{"role": "user", "content": parts, "mood": 1}], tools=[tool], **{"a b": 1})
    assert openai_chat.unknown_fields(raw) == [
        "messages.content.cache_control",
        "messages.content.image_url.size",
        "messages.content.text",
        "messages.mood",
        "tools.function.pure",
        "(a field of unusual name)",
    ]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"n": 0}, "n"),
        ({"n": openai_checks.CHOICES_MAX + 1}, "n"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"seed": 2**63}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].name"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": []}]},
            "messages[0].tool_calls",
        ),
        ({"tools": [TOOL, TOOL]}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "z"}}},
            "tool_choice",
        ),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"functions": [{"name": "f"}], "tools": [TOOL]}, "functions"),
        ({"model": ""}, "model"),
        ({"user": "u" * 513}, "user"),
    ],
)
def test_out_of_range_names_the_parameter(fields: dict[str, Any], param: str) -> None:
    error = refused(body(**fields))
    assert error.param == param
    assert error.http_status == 400
    assert error.error_code in {"invalid_value", "missing_required_parameter"}


def test_wrong_types_name_the_parameter_and_repeat_no_value() -> None:
    error = refused(body(messages=[{"role": "secret", "content": "x"}]))
    assert (error.param, error.error_code) == ("messages[0].role", "invalid_value")
    assert "secret" not in error.message
    error = refused(body(temperature="hot"))
    assert (error.param, error.error_code) == ("temperature", "invalid_type")


@pytest.mark.parametrize("raw", [b"", b"[]", b"nul", b'{"model":', b'{"model":"\xff"}', b'"\\'])
def test_what_is_no_object_is_invalid_json(raw: bytes) -> None:
    assert refused(raw).error_code == "invalid_json"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"model":"b"}',
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"mod\\u0065l":"b"}',
    ],
)
def test_a_field_given_twice_is_refused(raw: bytes) -> None:
    assert refused(raw).error_code == "invalid_json"


def test_a_field_name_inside_a_string_is_not_given_twice() -> None:
    raw = body(messages=[{"role": "user", "content": 'say "model", {"model": 1}, [1,2]'}])
    assert openai_chat.parse(raw).model == "m"


def test_deep_and_large_bodies_are_refused_before_they_are_parsed() -> None:
    assert refused(b'{"a":' + b"[" * 100_000).error_code == "invalid_json"
    deep = b"[" * parsing.DEPTH_MAX + b"]" * parsing.DEPTH_MAX
    assert refused(b'{"a":' + deep + b"}").error_code == "too_deep"
    wide = body(logit_bias={str(i): 1 for i in range(1000)}, metadata={"brackets": "[" * 200})
    assert openai_chat.parse(wide).model == "m"
    assert refused(b'{"a":[' + b"[]," * parsing.STRUCTURE_MAX).error_code == "too_complex"
    assert refused(b"{" + b'"a":1,' * (parsing.STRUCTURE_MAX + 1)).error_code == "too_complex"
    error = refused(b" " * (parsing.BODY_BYTES_MAX + 1))
    assert (error.error_code, error.http_status) == ("body_too_large", 413)


BROKEN = (b'"\xff"', b'"\\ud800"', b"[1e]", b"{]}")


@pytest.mark.parametrize("value", BROKEN)
@pytest.mark.parametrize("member", [b"unheard", b"audio"])
def test_a_broken_value_is_refused_also_where_the_view_does_not_look(
    member: bytes, value: bytes
) -> None:
    for raw in (
        b'{"%b":%b,' % (member, value) + body()[1:],
        body()[:-1] + b',"%b":%b}' % (member, value),
    ):
        assert refused(raw).error_code == "invalid_json"


def test_a_number_beyond_all_range_is_only_a_value() -> None:
    assert openai_chat.parse(body()[:-1] + b',"unheard":[1e999]}').unknown == ("unheard",)
