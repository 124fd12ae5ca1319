"""Embeddings, audited: are the vectors what the model makes of these texts?

The verifier's embedder makes them again. Each input's vector is one trial, by its distance from the
verifier's own: cosine, clipped. In the exact regime, which holds where the receipt's numerics (the
fingerprint of its embedder's self-test) are the verifier's own, one bit makes a mismatch. Elsewhere
kernels round otherwise, and only what exceeds the calibrated noise, again and again, is evidence.

What needs no model's opinion is exact in both: the digests, how many vectors of how many numbers
there are, usage, and the bytes that the app was sent, made again from the vectors.

Pure but for :func:`measure`, which waits for the embedder that it is given.
"""

import math
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.audit.content import REQUEST, RESPONSE, bound, check_request
from trunkline.audit.findings import either, failed, inconclusive
from trunkline.audit.trials import LEVELS, Trials
from trunkline.base.errors import BadResponseError, MalformedError, RequestError
from trunkline.crypto.encoding import decode_base64
from trunkline.inference.ports import Embedder, EmbedderInfo
from trunkline.receipts import Receipt, StreamDigest, bound_bytes
from trunkline.schema import openai_embeddings
from trunkline.schema.audit import OpenedContent
from trunkline.schema.openai_embeddings import EmbeddingsRequest
from trunkline.verdicts import Check

FORMAT: Final = "openai.embeddings"
"""The client's format in receipts of embeddings, and in no others."""
VECTORS: Final = "vectors"
USAGE: Final = "usage"
BINDING: Final = frozenset({REQUEST, RESPONSE, VECTORS})
"""Checks without which the opened vectors are not the ones that were sent: they are no trials."""

CLIP: Final = 0.001
"""Cosine distance that counts as wholly wrong. Honest kernels differ by less than a tenth of it
(``bench/calibrate_embeddings.py``), another prefix or text by ten times as much."""

LENGTH_SLACK: Final = 0.001
"""How far a vector's length may be from one. A cosine says nothing of it, and who compares by the
dot product would be misled by it."""

NO_EMBEDDER: Final = "the verifier has no embedder"
OTHER_WEIGHTS: Final = "the verifier has other weights than the receipt names"
NOT_EMBEDDABLE: Final = "the model could not have served the request that was opened"
NOT_THE_VECTORS: Final = "what was opened is not what was sent"


class Remade(msgspec.Struct, frozen=True, kw_only=True):
    """What the verifier's embedder makes of a request."""

    model: EmbedderInfo | None = None
    unreachable: str = ""
    """Why there are no vectors; empty: there are."""
    vectors: tuple[bytes, ...] = ()
    """Little-endian float32, one per text."""
    tokens: int = 0

    def __repr__(self) -> str:
        return f"Remade({len(self.vectors)} vectors)"


def is_embedding(receipt: Receipt) -> bool:
    """Whether the receipt is of embeddings."""
    return receipt.request.format == FORMAT


async def measure(receipt: Receipt, content: OpenedContent, embedder: Embedder) -> Remade:
    """Make the vectors again. Raises the embedder's errors, ``RequestError`` excepted."""
    model = await embedder.model()
    if model.weights_digest != receipt.model.weights:
        return Remade(model=model, unreachable=OTHER_WEIGHTS)
    try:
        request = _request(content)
        embedded = await embedder.embed(request.texts or (), query=_is_query(request))
    except RequestError:
        return Remade(model=model, unreachable=NOT_EMBEDDABLE)
    return Remade(model=model, vectors=embedded.vectors, tokens=embedded.tokens)


def check(receipt: Receipt, content: OpenedContent, remade: Remade | None) -> list[Check]:
    """All checks but the comparison itself, in order. ``remade``: None without an embedder."""
    found = _found(content)
    return [
        check_request(receipt, content),
        _shape(content, found, remade),
        _response(receipt, content, found),
        _usage(receipt, remade),
    ]


def is_bound(receipt: Receipt, content: OpenedContent) -> bool:
    """Whether request and vectors are what the receipt was signed for."""
    checks = check(receipt, content, None)
    return all(one.result == "pass" for one in checks if one.name in (REQUEST, RESPONSE))


def trials(
    content: OpenedContent, remade: Remade | None, checks: Sequence[Check], *, clip: float
) -> Trials | None:
    """The trials of the vectors; None where there is nothing to compare, or what was opened is not
    what was sent."""
    found = _found(content)
    sent = all(one.result == "pass" for one in checks if one.name in BINDING)
    if remade is None or remade.unreachable or not sent or found is None:
        return None
    return compare(found, remade.vectors, clip=clip)


def why_not(remade: Remade | None) -> str:
    """Why there are no trials."""
    return NO_EMBEDDER if remade is None else remade.unreachable or NOT_THE_VECTORS


def compare(said: Sequence[bytes], made: Sequence[bytes], *, clip: float) -> Trials:
    """The trials of one answer: ``said`` by the node, ``made`` by the verifier, of one shape.

    A trial's level is the distance, clipped at ``clip`` and rounded in the node's favour; a
    mismatch is any vector with another bit.
    """
    levels = tuple(
        0 if one == other else int(min(distance(one, other), clip) / clip * LEVELS)
        for one, other in zip(said, made, strict=True)
    )
    return Trials(
        bins=(0,) * len(levels),
        ends=(),
        margins=levels,
        mismatches=sum(one != other for one, other in zip(said, made, strict=True)),
        tokens=len(levels),
    )


def distance(one: bytes, other: bytes) -> float:
    """Cosine distance of two vectors of finite float32, from 0 to 2; 1 where one has no direction.

    Sums are rounded once, so that every machine computes the same.
    """
    a, b = _numbers(one), _numbers(other)
    norms = _length(one) * _length(other)
    if not norms:
        return 1.0
    cosine = math.fsum(x * y for x, y in zip(a, b, strict=True)) / norms
    return max(0.0, 1.0 - cosine)


def _shape(content: OpenedContent, found: list[bytes] | None, remade: Remade | None) -> Check:
    """One vector per text, each of finite numbers, as many as the model has dimensions, and of
    length one."""
    if found is None:
        return failed(VECTORS, "what was opened is no vectors")
    try:
        texts = _request(content).texts or ()
    except RequestError:
        return failed(VECTORS, NOT_EMBEDDABLE)
    if len(found) != len(texts):
        return failed(VECTORS, "not one vector for each text")
    if not all(math.isfinite(number) for one in found for number in _numbers(one)):
        return failed(VECTORS, "a vector is not finite")
    if not all(abs(_length(one) - 1.0) <= LENGTH_SLACK for one in found):
        return failed(VECTORS, "a vector is not of length one")
    if remade is None or remade.model is None or remade.unreachable:
        return inconclusive(VECTORS, why_not(remade))
    size = remade.model.dimensions * 4
    return either(
        VECTORS,
        all(len(one) == size for one in found),
        yes="a vector of the model's dimensions for each text",
        no="not as many dimensions as the model has",
    )


def _response(receipt: Receipt, content: OpenedContent, found: list[bytes] | None) -> Check:
    """What the app was sent holds these vectors, and the receipt's count of tokens."""
    if found is None or receipt.response.chunks != 1:
        return failed(RESPONSE, "an embeddings answer is one message of vectors")
    try:
        sent = openai_embeddings.encode_response(
            found,
            model=receipt.model.served,
            tokens=receipt.usage.prompt,
            base64=_request(content).base64,
        )
    except (RequestError, BadResponseError):
        return failed(RESPONSE, "no answer can be made of these vectors")
    chain = StreamDigest(bound_bytes(receipt.request.digest), receipt.attempt)
    chain.update(sent)
    return bound(receipt, content, RESPONSE, "response.digest", chain.close())


def _usage(receipt: Receipt, remade: Remade | None) -> Check:
    said = receipt.usage
    if not said.counted or said.completion or said.cached:
        return failed(USAGE, "embeddings have no completion, and all their tokens are counted")
    if remade is None or remade.unreachable:
        return inconclusive(USAGE, why_not(remade))
    return either(
        USAGE,
        said.prompt == remade.tokens,
        yes="as many tokens as billed",
        no="not as many tokens as were billed",
    )


def _request(content: OpenedContent) -> EmbeddingsRequest:
    return openai_embeddings.parse(bytes(content.request))


def _is_query(request: EmbeddingsRequest) -> bool:
    return request.input_type == "query"


def _found(content: OpenedContent) -> list[bytes] | None:
    """The opened vectors; None for what is not base64 of whole numbers, all of one length."""
    try:
        found = [decode_base64(one) for one in content.vectors]
    except MalformedError:
        return None
    sizes = {len(one) for one in found}
    return found if found and len(sizes) == 1 and not next(iter(sizes)) % 4 else None


def _length(vector: bytes) -> float:
    return math.sqrt(math.fsum(x * x for x in _numbers(vector)))


def _numbers(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 4}f", vector)
