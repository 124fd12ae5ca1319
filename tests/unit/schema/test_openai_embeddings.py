"""The embeddings request and response."""

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import BadResponseError, MalformedError, RequestError
from trunkline.schema import openai_embeddings as embeddings


def body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "input": "text"} | fields).encode()


def test_one_text_or_several() -> None:
    assert embeddings.parse(body()).texts == ("text",)
    assert embeddings.parse(body(input=["a", "b"])).texts == ("a", "b")
    assert "text" not in repr(embeddings.parse(body()))


def test_tokens_are_kept_and_named() -> None:
    for tokens in ([1, 2], [[1], [2, 3]]):
        request = embeddings.parse(body(input=tokens))
        assert request.texts is None
        assert embeddings.parameters_set(request) == {"input.tokens"}


def test_every_parameter_is_named() -> None:
    given = {"dimensions": 4, "encoding_format": "base64", "user": "u", "truncate": "END"}
    request = embeddings.parse(body(**given))
    assert embeddings.parameters_set(request) == set(given)
    assert embeddings.unknown_fields(body(**given)) == ["truncate"]
    neutral = embeddings.parse(body(encoding_format="float", user=None))
    assert embeddings.parameters_set(neutral) == frozenset()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", ""]}, "input[1]"),
        ({"input": ["a", 1]}, "input"),
        ({"input": [[]]}, "input[0]"),
        ({"input": [[-1]]}, "input[0]"),
        ({"input": ["a"] * (embeddings.INPUTS_MAX + 1)}, "input"),
        ({"input": [[1] * 200_000] * 2}, "input"),
        ({"dimensions": 0}, "dimensions"),
        ({"model": ""}, "model"),
        ({"encoding_format": "int8"}, "encoding_format"),
        ({"user": "u" * 513}, "user"),
    ],
)
def test_out_of_range_names_the_parameter(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as caught:
        embeddings.parse(body(**fields))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "vector", [b"\0", struct.pack("<f", float("nan")), struct.pack("<f", float("inf"))]
)
def test_a_vector_that_is_none_is_not_sent(vector: bytes) -> None:
    with pytest.raises(BadResponseError):
        embeddings.encode_response([vector], model="m", tokens=1, base64=False)


vectors = st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False)))


@given(vectors, st.booleans())
def test_vectors_are_read_back_to_the_bit(numbers: list[list[float]], base64: bool) -> None:
    sent = [struct.pack(f"<{len(one)}f", *one) for one in numbers]
    data = embeddings.encode_response(sent, model="m", tokens=1, base64=base64)
    assert embeddings.decode_vectors(data) == tuple(sent)


@given(st.binary() | st.text().map(str.encode))
def test_what_is_no_response_is_refused_as_such(data: bytes) -> None:
    with pytest.raises(MalformedError):
        embeddings.decode_vectors(data)


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 1, "embedding": [0.5]}],
        [{"index": 0, "embedding": [0.5]}, {"index": 0, "embedding": [0.5]}],
        [{"index": 0, "embedding": [1e300]}],
        [{"index": 0, "embedding": "*"}],
        [{"index": 0, "embedding": "AAA="}],
        [{"index": 0, "embedding": "AACAfw=="}],
        [{"index": 0, "embedding": [[0.5]]}],
        [{"embedding": [0.5]}],
        {},
    ],
)
def test_vectors_that_no_node_of_ours_sends_are_refused(data: object) -> None:
    with pytest.raises(MalformedError):
        embeddings.decode_vectors(json.dumps({"data": data}).encode())


def test_a_number_that_no_float_can_hold_is_refused() -> None:
    with pytest.raises(MalformedError):
        embeddings.decode_vectors(b'{"data":[{"index":0,"embedding":[1e400]}]}')
