"""Embeddings that can be audited: what the node's own service signs over any embedder, honest or
not, and a toy embedder whose vectors are a function of weights, prefix and text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec
import numpy as np
from numpy.typing import NDArray
from tests.support.auditing import COMMITTED_MS, NODE, Made
from tests.unit.node.harness import attempt

from trunkline.inference.answer import Event
from trunkline.inference.ports import Embedded, Embedder, EmbedderInfo
from trunkline.node.core.content import content, opened, read
from trunkline.node.core.statement import Identity, Sent, bound_request, statement
from trunkline.node.embeddings import MODEL_NAME, EmbeddedEmbeddings
from trunkline.receipts import ReceiptTimes, StreamDigest, bound_bytes
from trunkline.schema.attempt import Limits

DIMENSIONS = 384
IDENTITY = Identity(node=NODE.name, operator="alpha.example", key=str(NODE.vkey))
Matrix = NDArray[np.float32]
Bend = Callable[[Matrix], Matrix]


@dataclass(frozen=True, kw_only=True)
class ToyEmbedder:
    """``ports.Embedder``. ``drift``: of each component, as another build's kernels have it."""

    weights: int = 1
    drift: float = 0.0

    async def model(self) -> EmbedderInfo:
        return EmbedderInfo(
            dimensions=DIMENSIONS,
            numerics=f"toye5-{self.drift}",
            weights_digest=f"sha256:{sha256(b'%d' % self.weights).hexdigest()}",
        )

    async def embed(self, texts: Sequence[str], *, query: bool) -> Embedded:
        vectors = tuple(self._vector(text, query=query).tobytes() for text in texts)
        return Embedded(vectors=vectors, tokens=sum(2 + len(text.split()) for text in texts))

    async def close(self) -> None:
        """Nothing is held."""

    def _vector(self, text: str, *, query: bool) -> Matrix:
        key = repr((self.weights, text)).encode()
        vector = _noise(key) + 0.2 * _noise(key + b"query" if query else key + b"passage")
        vector += self.drift * _noise(key + b"drift")
        return (vector / np.linalg.norm(vector)).astype("<f4")


@dataclass(frozen=True, kw_only=True)
class Cheat:
    """An embedder that says it is ``claims`` and serves something else."""

    claims: Embedder
    really: Embedder | None = None
    """Whose vectors are served; None: those of ``claims``."""
    bend: Bend = np.copy
    """What becomes of them, a row for each text."""
    other_prefix: bool = False
    remembered: str = ""
    """A text that all texts are taken for."""
    tokens: int = 0
    """Billed beyond what it took."""

    async def model(self) -> EmbedderInfo:
        return await self.claims.model()

    async def embed(self, texts: Sequence[str], *, query: bool) -> Embedded:
        taken = [self.remembered or text for text in texts]
        made = await (self.really or self.claims).embed(taken, query=query is not self.other_prefix)
        bent = self.bend(np.stack([np.frombuffer(one, "<f4") for one in made.vectors]))
        honest = await self.claims.embed(texts, query=query)
        return Embedded(
            vectors=tuple(row.astype("<f4").tobytes() for row in bent),
            tokens=honest.tokens + self.tokens,
        )

    async def close(self) -> None:
        """Nothing is held."""


def halved(vectors: Matrix) -> Matrix:
    return vectors[:, : vectors.shape[1] // 2]


def float16(vectors: Matrix) -> Matrix:
    return vectors.astype("<f2").astype("<f4")


def int8(vectors: Matrix) -> Matrix:
    step = np.abs(vectors).max(axis=1, keepdims=True) / 127
    return (np.round(vectors / step) * step).astype("<f4")


def swapped(vectors: Matrix) -> Matrix:
    return vectors[::-1]


def one_bit(vectors: Matrix) -> Matrix:
    bent = vectors.copy()
    bent.view("<u4")[0, 0] ^= 1
    return bent


CHEATS: dict[str, dict[str, object]] = {
    "truncated dimensions": {"bend": halved},
    "rounded to float16": {"bend": float16},
    "rounded to int8": {"bend": int8},
    "one bit": {"bend": one_bit},
    "the other prefix": {"other_prefix": True},
    "swapped order": {"bend": swapped},
    "a cached vector of another text": {"remembered": "something else"},
    "over-billed": {"tokens": 1},
}


async def served(embedder: Embedder, texts: Sequence[str], **request: object) -> Made:
    """What the node's service signs and opens of one call."""
    asked = msgspec.structs.replace(
        attempt({"input": list(texts)} | request, kind="embeddings", model=MODEL_NAME),
        audit=True,
        blinding="5c" * 32,
    )
    work = await EmbeddedEmbeddings(embedder, IDENTITY).prepare(asked)
    sent = _Sent(StreamDigest(bound_bytes(bound_request(asked)), asked.attempt))
    outcome = await work.run(sent)
    at = COMMITTED_MS
    receipt = statement(
        IDENTITY,
        asked,
        outcome,
        Sent(
            request=bound_request(asked),
            chunks=sent.chain.chunks,
            digest=sent.chain.close(),
            times=ReceiptTimes(arrived_ms=at, ended_ms=at, first_token_ms=at),
        ),
        salt=b"\x55" * 32,
    )
    kept = content(asked, receipt, outcome.made)
    assert kept is not None
    return Made(receipt=receipt, content=opened(read(kept.data), None))


class _Sent:
    """``node.work.Output``: what the app gets, as a digest."""

    def __init__(self, chain: StreamDigest) -> None:
        self.chain = chain

    async def event(self, event: Event) -> None:
        assert event.data is not None
        self.chain.update(event.data)

    async def alive(self) -> None:
        """Nobody waits."""

    async def replayed(self, digest: str) -> None:
        raise AssertionError("nothing is taken over in embeddings")

    async def limits(self, limits: Limits) -> None:
        raise AssertionError("the embedded embedder has no limits")


def _noise(key: bytes) -> NDArray[np.float64]:
    seed = int.from_bytes(sha256(key).digest()[:8], "big")
    return np.random.default_rng(seed).standard_normal(DIMENSIONS)
