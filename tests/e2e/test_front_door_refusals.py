"""What the front door of a real network refuses, in which words, and as whose exception."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from tests.support.front_door import CHAT, EMBEDDER, EMBEDDINGS, MESSAGES, MODEL, chat, send
from tests.support.network import RunningNetwork

pytestmark = pytest.mark.xdist_group("network")

SAY = [{"role": "user", "content": "Say yes."}]
BODY_BYTES_MAX = 25_165_824


def body(**members: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": SAY, "max_tokens": 4} | members).encode()


BROKEN = {
    "empty": b"",
    "cut": b'{"model":',
    "no object": b"[]",
    "not UTF-8": body().replace(b"yes", b"\xff\xfe"),
    "half a character": body().replace(b"yes", b"\\ud800"),
    "a member twice": body()[:-1] + b',"model":"other"}',
    "no number": body(temperature=1).replace(b'"temperature": 1', b'"temperature": NaN'),
    "something after": body() + b"{}",
}


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS, MESSAGES])
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_json_object(network: RunningNetwork, path: str, broken: bytes) -> None:
    reply = send(network, path, broken)
    assert reply.status == 400
    error = reply.error
    assert error["type"] == "invalid_request_error"
    code = error["details"]["error_code"] if path == MESSAGES else error["code"]
    assert code == "invalid_json"


@pytest.mark.parametrize("path", [CHAT, EMBEDDINGS, MESSAGES])
def test_what_nests_too_deep(network: RunningNetwork, path: str) -> None:
    deep = b'{"model":"m","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    reply = send(network, path, deep)
    assert (reply.status, b"too_deep" in reply.body) == (400, True)


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "type": ({"temperature": "hot"}, "invalid_type", "temperature"),
    "type inside": ({"messages": [{"role": "user", "content": 5}]}, "invalid_type",
                    "messages[0].content"),
    "role": ({"messages": [{"role": "wizard", "content": "x"}]}, "invalid_value",
             "messages[0].role"),
    "no messages": ({"messages": []}, "invalid_value", "messages"),
    "range": ({"top_p": 1.5}, "invalid_value", "top_p"),
    "no tokens": ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    "absurdly many tokens": ({"max_tokens": 10**11}, "invalid_value", "max_tokens"),
    "a bound twice": ({"max_completion_tokens": 3}, "invalid_value", "max_tokens"),
    "many stops": ({"stop": list("abcde")}, "invalid_value", "stop"),
    "an empty stop": ({"stop": [""]}, "invalid_value", "stop"),
    "many choices": ({"n": 17}, "invalid_value", "n"),
    "more choices than places": ({"n": 16}, "unsupported_parameter", "n"),
    "no logprobs": ({"top_logprobs": 2}, "invalid_value", "top_logprobs"),
    "usage without stream": ({"stream_options": {"include_usage": True}}, "invalid_value",
                             "stream_options"),
    "a bias for no token": ({"logit_bias": {"a": 1}}, "invalid_value", "logit_bias"),
    "a bias beyond": ({"logit_bias": {"99999999": 1}}, "invalid_value", "logit_bias"),
    "choice without tools": ({"tool_choice": "required"}, "invalid_value", "tool_choice"),
    "long prompt": ({"messages": [{"role": "user", "content": "word " * 4000}]},
                    "context_length_exceeded", "messages"),
    "unknown": ({"mirostat": 2}, "unsupported_parameter", "mirostat"),
    "unknown inside": ({"messages": [{"role": "user", "content": "x", "mood": 1}]},
                       "unsupported_parameter", "messages.mood"),
    "known to others": ({"reasoning_effort": "low"}, "unsupported_parameter",
                        "reasoning_effort"),
    "an image": (
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}]}]},
        "unsupported_parameter", "messages.image_url"),
    "a schema beyond": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {
            "type": "object", "properties": {"a": {"type": "string", "pattern": "^a"}}}}}},
        "unsupported_parameter", "response_format.json_schema.schema.properties.a.pattern"),
}  # fmt: skip


@pytest.mark.parametrize(("members", "code", "param"), WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("stream", [False, True])
def test_a_parameter_at_fault_is_named(
    network: RunningNetwork, members: dict[str, Any], code: str, param: str, stream: bool
) -> None:
    if stream and "stream_options" in members:
        members = members | {"stream_options": {"include_usage": "yes"}}
        code, param = "invalid_type", "stream_options.include_usage"
    reply = chat(network, stream=stream, **members)
    assert reply.status == 400
    assert (reply.error["code"], reply.error["param"]) == (code, param)
    assert reply.error["message"]
    assert "trunkline-receipt" not in reply.headers


EMBED_WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({"input": []}, "invalid_value", "input"),
    "empty text": ({"input": ""}, "invalid_value", "input"),
    "tokens": ({"input": [1, 2]}, "unsupported_parameter", "input.tokens"),
    "dimensions": ({"dimensions": 10}, "unsupported_parameter", "dimensions"),
    "unknown": ({"mood": 1}, "unsupported_parameter", "mood"),
    "encoding": ({"encoding_format": "hex"}, "invalid_value", "encoding_format"),
}


@pytest.mark.parametrize(("members", "code", "param"), EMBED_WRONG.values(), ids=EMBED_WRONG.keys())
def test_embeddings_name_the_parameter_at_fault(
    network: RunningNetwork, members: dict[str, Any], code: str, param: str
) -> None:
    asked = {"model": EMBEDDER, "input": "x"} | members
    reply = send(network, EMBEDDINGS, json.dumps(asked).encode())
    assert reply.status == 400
    assert (reply.error["code"], reply.error["param"]) == (code, param)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/completions", 404, "not_found"),
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/messages", 405, "method_not_allowed"),
        ("POST", "/v1/messages/count_tokens", 404, "not_found"),
    ],
)
def test_where_nothing_is(
    network: RunningNetwork, method: str, path: str, status: int, code: str
) -> None:
    reply = send(network, path, b"{}" if method == "POST" else None, method=method)
    assert reply.status == status
    error = reply.error
    ours = error["details"]["error_code"] if path.startswith(MESSAGES) else error["code"]
    assert ours == code


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body(network: RunningNetwork, path: str, chunked: bool) -> None:
    headers = {"transfer-encoding": "chunked"} if chunked else {}
    huge = b" " * (BODY_BYTES_MAX + 1)
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(huge), huge) if chunked else huge
    reply = send(network, path, sent, headers=headers)
    assert (reply.status, b"body_too_large" in reply.body) == (413, True)


def test_a_wish_in_a_header_is_read_or_refused(network: RunningNetwork) -> None:
    reply = chat(network, headers={"trunkline-mode": "loud"})
    assert (reply.status, reply.error["param"]) == (400, "trunkline-mode")
    late = chat(network, headers={"trunkline-deadline-ms": "1"})
    assert (late.status, late.error["code"]) == (504, "deadline_exceeded")


def test_a_body_that_is_not_sent_as_it_is(network: RunningNetwork) -> None:
    reply = send(network, CHAT, gzip.compress(body()), headers={"content-encoding": "gzip"})
    assert (reply.status, reply.error["code"]) == (415, "unsupported_encoding")


def test_an_answer_says_little_of_itself_unless_asked(network: RunningNetwork) -> None:
    plain = chat(network)
    detailed = chat(network, headers={"trunkline-detail": "1"})

    def ours(headers: Any) -> set[str]:
        return {name for name in headers if name.startswith("trunkline-")}

    assert ours(plain.headers) == {"trunkline-receipt", "trunkline-model"}
    assert ours(detailed.headers) - ours(plain.headers) == {
        "trunkline-node", "trunkline-operator", "trunkline-attempts",
    }  # fmt: skip
    assert plain.headers["x-request-id"] == plain.answer
    assert plain.headers["trunkline-model"] == MODEL


@pytest.fixture
def to_openai(network: RunningNetwork) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{network.base_url}/v1", api_key="none", max_retries=0) as made:
        yield made


@pytest.fixture
def to_anthropic(network: RunningNetwork) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=network.base_url, api_key="none", max_retries=0) as made:
        yield made


OPENAI_RAISES: list[tuple[type[openai.APIStatusError], dict[str, Any]]] = [
    (openai.BadRequestError, {"extra_body": {"mirostat": 2}}),
    (openai.BadRequestError, {"messages": [{"role": "user", "content": "word " * 4000}]}),
    (openai.NotFoundError, {"model": "nobody"}),
    (openai.NotFoundError, {"model": EMBEDDER}),
    (openai.APIStatusError, {"extra_headers": {"trunkline-deadline-ms": "1"}}),
]


@pytest.mark.parametrize(("expected", "members"), OPENAI_RAISES)
@pytest.mark.parametrize("stream", [False, True])
def test_the_openai_client_raises_its_own(
    to_openai: openai.OpenAI,
    expected: type[openai.APIStatusError],
    members: dict[str, Any],
    stream: bool,
) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": SAY, "max_tokens": 4, "stream": stream}
    with pytest.raises(expected) as caught:
        to_openai.chat.completions.create(**(asked | members))
    assert caught.value.request_id.startswith("ans_")
    assert caught.value.code


ANTHROPIC_RAISES: list[tuple[type[anthropic.APIStatusError], dict[str, Any], str]] = [
    (anthropic.BadRequestError, {"extra_body": {"mirostat": 2}}, "mirostat"),
    (anthropic.BadRequestError, {"messages": [{"role": "user", "content": "word " * 4000}]},
     "messages"),
    (anthropic.BadRequestError, {"extra_body": {"temperature": 1.5}}, "temperature"),
    (anthropic.BadRequestError, {"stop_sequences": list("abcde")}, "stop_sequences"),
    (anthropic.BadRequestError, {"thinking": {"type": "enabled", "budget_tokens": 1024}},
     "thinking"),
    (anthropic.BadRequestError, {"output_config": {"effort": "low"}}, "output_config.effort"),
    (anthropic.BadRequestError,
     {"output_config": {"format": {"type": "json_schema", "schema": {
         "type": "object", "properties": {"a": {"type": "string", "pattern": "a"}}}}}},
     "output_config.format.schema.properties.a.pattern"),
    (anthropic.NotFoundError, {"model": "nobody"}, "model"),
]  # fmt: skip


@pytest.mark.parametrize(("expected", "members", "param"), ANTHROPIC_RAISES)
@pytest.mark.parametrize("stream", [False, True])
def test_the_anthropic_client_raises_its_own(
    to_anthropic: anthropic.Anthropic,
    expected: type[anthropic.APIStatusError],
    members: dict[str, Any],
    param: str,
    stream: bool,
) -> None:
    asked: dict[str, Any] = {"model": MODEL, "messages": SAY, "max_tokens": 4, "stream": stream}
    with pytest.raises(expected) as caught:
        to_anthropic.messages.create(**(asked | members))
    assert caught.value.request_id.startswith("ans_")
    told: Any = caught.value.body
    assert told["type"] == "error"
    assert told["error"]["details"]["param"] == param
    assert told["error"]["message"].startswith(param) or members.get("model") or param == "messages"


def test_refusals_blame_no_node(network: RunningNetwork, to_openai: openai.OpenAI) -> None:
    for _ in range(6):
        with pytest.raises(openai.BadRequestError) as refused:
            to_openai.chat.completions.create(model=MODEL, messages=SAY, extra_body={"mirostat": 2})
    status = send(network, "/trunkline/v1/status", method="GET").json()
    # Another test may have killed a node a while ago: it is blamed for that, and not for these.
    blamed_for = [model["error"] for node in status["nodes"] for model in node["models"]]
    assert blamed_for
    assert refused.value.code == "unsupported_parameter"
    assert refused.value.code not in blamed_for
