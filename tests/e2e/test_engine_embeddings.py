"""The embedded embedder with its real model."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from trunkline.base.errors import RequestError, UpstreamError
from trunkline.engine.embeddings import (
    CHARACTERS_MAX,
    TEXT_CHARACTERS_MAX,
    TEXTS_MAX,
    EmbeddedEmbedder,
    EmbedderConfig,
    slices,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def embedder() -> AsyncIterator[EmbeddedEmbedder]:
    embedder = EmbeddedEmbedder(EmbedderConfig())
    yield embedder
    await embedder.close()


def vectors(raw: tuple[bytes, ...]) -> np.ndarray:
    return np.stack([np.frombuffer(vector, "<f4") for vector in raw])


async def test_near_texts_are_near_and_vectors_have_unit_length(
    embedder: EmbeddedEmbedder,
) -> None:
    passages = await embedder.embed(
        ["The cat sleeps on the sofa.", "Interest rates rose again."], query=False
    )
    query = await embedder.embed(["where is the cat?"], query=True)
    found = vectors(passages.vectors)
    assert found.shape == (2, 384)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    near, far = found @ vectors(query.vectors)[0]
    assert near > far
    assert passages.tokens > 10


async def test_a_vector_depends_on_its_text_alone(embedder: EmbeddedEmbedder) -> None:
    texts = ["one", "two words", "", "x" * 300, "with\0nul"]
    texts[2] = "drei"
    together = await embedder.embed(texts, query=False)
    alone = [await embedder.embed([text], query=False) for text in reversed(texts)]
    assert together.vectors == tuple(part.vectors[0] for part in reversed(alone))
    assert together.tokens == sum(part.tokens for part in alone)


async def test_the_end_of_a_text_longer_than_the_models_window_counts(
    embedder: EmbeddedEmbedder,
) -> None:
    long = "cat " * 700
    ended = await embedder.embed([long, long + "the dog barks"], query=False)
    one, other = vectors(ended.vectors)
    assert ended.tokens > 2 * 512
    assert not np.allclose(one, other, atol=1e-6)
    assert np.allclose(np.linalg.norm(other), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        ([], "input_count_invalid"),
        (["a"] * (TEXTS_MAX + 1), "input_count_invalid"),
        ([""], "input_empty"),
        (["a" * (TEXT_CHARACTERS_MAX + 1)], "context_length_exceeded"),
        (
            ["a" * TEXT_CHARACTERS_MAX] * (CHARACTERS_MAX // TEXT_CHARACTERS_MAX + 1),
            "context_length_exceeded",
        ),
    ],
)
async def test_refuses_what_it_can_not_embed(
    embedder: EmbeddedEmbedder, texts: list[str], code: str
) -> None:
    with pytest.raises(RequestError) as caught:
        await embedder.embed(texts, query=False)
    assert caught.value.error_code == code


async def test_slices_keep_order_and_bound() -> None:
    texts = ["a" * n for n in (1, 8000, 300, 8192, 5)]
    parts = list(slices(texts))
    assert [text for part in parts for text in part] == texts
    assert [len(part) for part in parts] == [2, 1, 1, 1]


async def test_a_closed_embedder_says_so() -> None:
    embedder = EmbeddedEmbedder(EmbedderConfig())
    await embedder.close()
    with pytest.raises(UpstreamError):
        await embedder.embed(["text"], query=False)
