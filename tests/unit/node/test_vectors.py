"""Embeddings as a provider sends them: one vector for each input, or no answer."""

import base64
import json

import pytest

from trunkline.base.errors import BadResponseError
from trunkline.node.core.vectors import check_embeddings, inputs


def answer(*vectors: object, indexes: list[int] | None = None, model: str = "m") -> bytes:
    places = range(len(vectors)) if indexes is None else indexes
    data = [{"index": at, "embedding": one} for at, one in zip(places, vectors, strict=True)]
    return json.dumps({"model": model, "data": data}).encode()


TWO = ([0.5, 1.0], [2, -3.5])
BYTES = base64.b64encode(bytes(8)).decode()


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ("text", 1),
        (["a", "b", "c"], 3),
        ([1, 2, 3], 1),
        ([[1, 2], [3]], 2),
        ([], 1),
        (7, None),
    ],
)
def test_how_many_vectors_are_asked_for(given: object, count: int | None) -> None:
    assert inputs(json.dumps({"model": "m", "input": given}).encode()) == count


@pytest.mark.parametrize(
    "body",
    [answer(*TWO), answer(*TWO, indexes=[1, 0]), answer(BYTES, BYTES), answer(*TWO, model="m-v2")],
)
def test_one_vector_for_each_input_is_an_answer(body: bytes) -> None:
    assert check_embeddings(body, 2, ["m"]).model.startswith("m")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (answer(), "upstream_empty"),
        (answer([], []), "upstream_empty"),
        (answer(TWO[0]), "upstream_bad_chunk"),
        (answer(*TWO, *TWO), "upstream_bad_chunk"),
        (answer(*TWO, indexes=[0, 0]), "upstream_bad_chunk"),
        (answer([0.5], [0.5, 1.0]), "upstream_bad_chunk"),
        (answer([None, 1.0], TWO[1]), "upstream_bad_chunk"),
        (answer(["a", "b"], TWO[1]), "upstream_bad_chunk"),
        (answer("***", BYTES), "upstream_bad_chunk"),
        (answer(*TWO).replace(b"-3.5", b"1e999"), "upstream_bad_chunk"),
        (answer(*TWO).replace(b"-3.5", b"NaN"), "upstream_bad_chunk"),
        (answer(*TWO, model="other"), "upstream_wrong_model"),
        (b"<html>", "upstream_bad_chunk"),
    ],
)
def test_anything_else_is_none(body: bytes, code: str) -> None:
    with pytest.raises(BadResponseError) as caught:
        check_embeddings(body, 2, ["m"])
    assert caught.value.error_code == code
