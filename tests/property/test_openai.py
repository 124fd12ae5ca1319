"""The OpenAI format: any bytes give a value or a named refusal, and chunks say what was put in."""

import json
import struct
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError, RequestError
from trunkline.schema import openai_answer as answer
from trunkline.schema import openai_chat, openai_embeddings, sse

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 30)
    | st.floats(allow_nan=False)
    | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(["type", "role"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PART = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}),
    st.fixed_dictionaries(
        {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": TEXT})}
    ),
)
MESSAGE = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "developer", "assistant"]), "content": TEXT}
    ),
    st.fixed_dictionaries(
        {"role": st.just("user"), "content": TEXT | st.lists(PART, min_size=1, max_size=3)}
    ),
    st.fixed_dictionaries(
        {"role": st.just("tool"), "content": TEXT, "tool_call_id": st.just("call_1")}
    ),
)
REQUEST = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(MESSAGE, min_size=1, max_size=4)},
    optional={
        "temperature": st.none() | st.floats(0, 2),
        "top_p": st.none() | st.floats(0, 1),
        "n": st.none() | st.integers(1, 16),
        "seed": st.none() | st.integers(-(2**63), 2**63 - 1),
        "stop": st.none() | st.text(min_size=1, max_size=4),
        "max_tokens": st.none() | st.integers(1, 100),
        "logprobs": st.booleans(),
        "store": st.booleans(),
    },
)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for parse in (openai_chat.parse, openai_embeddings.parse):
        try:
            parse(raw)
        except RequestError as error:
            assert error.error_code


@given(REQUEST, st.sampled_from([*sorted(openai_chat.FIELDS), "other"]), JSON)
def test_any_value_in_any_field_is_read_or_refused(
    request: dict[str, Any], field: str, value: Any
) -> None:
    raw = json.dumps(request | {field: value}).encode()
    try:
        parsed = openai_chat.parse(raw)
    except RequestError as error:
        assert error.error_code
        assert error.param is None or len(error.param) < 200
        return
    assert parsed.raw == raw
    assert isinstance(openai_chat.parameters_set(parsed), frozenset)


@given(REQUEST)
def test_the_view_agrees_with_the_bytes(request: dict[str, Any]) -> None:
    parsed = openai_chat.parse(json.dumps(request).encode())
    assert parsed.unknown == ()
    assert [message.role for message in parsed.messages] == [m["role"] for m in request["messages"]]
    for field in ("temperature", "top_p", "n", "seed", "stop", "max_tokens"):
        assert getattr(parsed, field) == request.get(field)
    named = openai_chat.parameters_set(parsed)
    neutral = {"temperature": 1, "top_p": 1, "n": 1, "logprobs": False, "store": False}
    for field in set(request) - {"model", "messages"}:
        value = request[field]
        assert (field in named) == (value is not None and value != neutral.get(field))


@given(st.integers(0, 15), TEXT, st.booleans())
def test_a_chunk_says_what_was_put_in_on_one_line(index: int, text: str, usage: bool) -> None:
    writer = answer.ChunkWriter(id=text, created_s=1, model=text, include_usage=usage)
    data = writer.content(index, text)
    assert data == writer.content(index, text)
    assert sse.SseParser().feed(sse.encode(data=data))[0].data == data
    chunk = answer.parse_chunk(data)
    assert (chunk.id, chunk.model) == (text, text)
    assert (chunk.choices[0].index, chunk.choices[0].delta.content) == (index, text)
    call = answer.parse_chunk(writer.tool_call(index, 3, id=text, name=text, arguments=text))
    assert call.choices[0].delta.tool_calls == (
        answer.ToolCallDelta(
            index=3,
            id=text,
            type="function",
            function=answer.FunctionDelta(name=text, arguments=text),
        ),
    )


@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_chunk_is_read_or_malformed(data: bytes) -> None:
    for parse in (answer.parse_chunk, answer.parse_completion):
        try:
            parse(data)
        except MalformedError as error:
            assert "does not parse" in error.message


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=4)))
def test_vectors_survive_as_numbers(vectors: list[list[float]]) -> None:
    packed = [struct.pack(f"<{len(vector)}f", *vector) for vector in vectors]
    data = openai_embeddings.encode_response(packed, model="m", tokens=1, base64=False)
    got = [item["embedding"] for item in msgspec.json.decode(data)["data"]]
    # Through float32 again, as a client holds them; -0.0 may come back as 0, which is equal to it.
    assert [
        list(struct.unpack(f"<{len(vector)}f", struct.pack(f"<{len(vector)}f", *vector)))
        for vector in got
    ] == vectors
