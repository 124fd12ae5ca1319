"""The embedded embedder: ``ports.Embedder`` over a child process of its own.

The process starts with the first call: a node whose callers never embed does not pay for it. It is
another process than the engine's, so that neither one's fault or load is the other's.
"""

import asyncio
from collections.abc import Iterator, Sequence

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    Error,
    OverloadedError,
    RequestError,
    UpstreamError,
)
from trunkline.engine.child import Child
from trunkline.engine.frames import (
    Embed,
    EmbedderReady,
    EmbedderSetup,
    Failed,
    FromChild,
    Vectors,
    raised,
)
from trunkline.inference.ports import Embedded, EmbedderInfo

TEXTS_MAX = 2048
TEXT_CHARACTERS_MAX = 8192
"""One text. At worst a character is a token, and a token takes about 3 ms. A text longer than the
model's window is embedded whole, window by window: nothing of it is cut off."""

CHARACTERS_MAX = 1 << 18
"""All texts of one call together."""

_WORKER = "trunkline.engine.embedding_worker"
_SLICE_CHARACTERS = TEXT_CHARACTERS_MAX
"""Text handed to the process at once: it answers in between, so that calls share it evenly."""

_FLOAT_BYTES = 4


class EmbedderConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded embedder's part of a node's configuration."""

    threads: int = 1
    calls_max: int = 32
    """Calls in progress or waiting; beyond, callers are told to come back."""
    start_timeout_s: float = 60.0
    stall_timeout_s: float = 60.0
    """Silence, while there is work, after which the process is taken for hung and restarted."""


class EmbeddedEmbedder:
    """multilingual-e5-small in 4 bits: 384 dimensions, unit length, deterministic."""

    def __init__(self, config: EmbedderConfig) -> None:
        self._config = config
        self._calls = 0
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[Vectors]] = {}
        self._ready = EmbedderReady(dimensions=0, weights="", numerics="")
        self._turn = asyncio.Lock()
        self._child = Child(
            module=_WORKER,
            setup=EmbedderSetup(threads=config.threads),
            replies=msgspec.msgpack.Decoder(FromChild),
            on_frame=self._on_frame,
            on_lost=self._on_lost,
            busy=lambda: bool(self._waiting),
            start_timeout_s=config.start_timeout_s,
            stall_timeout_s=config.stall_timeout_s,
            environment={"OMP_NUM_THREADS": str(config.threads), "OMP_WAIT_POLICY": "passive"},
        )

    async def model(self) -> EmbedderInfo:
        """What the process has loaded; it is started for it. Raises ``ConfigError`` where it can
        not be, and ``UpstreamError``."""
        await self._child.ready()
        return EmbedderInfo(
            dimensions=self._ready.dimensions,
            numerics=self._ready.numerics,
            weights_digest=self._ready.weights,
        )

    async def embed(self, texts: Sequence[str], *, query: bool) -> Embedded:
        """As ``ports.Embedder.embed``. ``query``: for searching with, not for being found.

        Raises ``RequestError`` for no, too many or too long texts, ``OverloadedError`` when too
        many calls are in progress, ``UpstreamError`` when the process failed.
        """
        check(texts)
        if self._calls >= self._config.calls_max:
            raise OverloadedError(
                f"{self._config.calls_max} calls are in progress; that is the embedder's limit",
                code="embedder_queue_full",
            )
        self._calls += 1
        try:
            await self._child.ready()
            vectors: list[bytes] = []
            tokens = 0
            for some in slices(texts):
                async with self._turn:
                    part = await self._slice(some, query=query)
                vectors += part.vectors
                tokens += part.tokens
            return Embedded(vectors=tuple(vectors), tokens=tokens)
        finally:
            self._calls -= 1

    async def close(self) -> None:
        await self._child.close()

    async def _slice(self, texts: list[str], *, query: bool) -> Vectors:
        self._last_id += 1
        id_ = self._last_id
        future: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = future
        try:
            if not self._child.send(Embed(id=id_, texts=texts, query=query)):
                raise UpstreamError("the embedder's process is gone", code="embedder_crashed")
            part = await future
        finally:
            del self._waiting[id_]
        size = self._ready.dimensions * _FLOAT_BYTES
        if len(part.vectors) != len(texts) or any(len(v) != size for v in part.vectors):
            raise BadResponseError("the embedder's answer does not fit the question")
        return part

    def _on_frame(self, frame: FromChild) -> None:
        match frame:
            case Vectors():
                future = self._waiting.get(frame.id)
                if future and not future.done():
                    future.set_result(frame)
            case Failed():
                self._fail(frame.id, raised(frame))
            case EmbedderReady():
                self._ready = frame
            case _:
                pass

    def _on_lost(self, error: UpstreamError) -> None:
        for id_ in list(self._waiting):
            self._fail(id_, UpstreamError(error.message, code="embedder_crashed"))

    def _fail(self, id_: int, error: Error) -> None:
        future = self._waiting.get(id_)
        if future and not future.done():
            future.set_exception(error)


def slices(texts: Sequence[str]) -> Iterator[list[str]]:
    """``texts`` in order, in lists of at least one text and, beyond that, bounded length."""
    some: list[str] = []
    characters = 0
    for text in texts:
        if some and characters + len(text) > _SLICE_CHARACTERS:
            yield some
            some, characters = [], 0
        some.append(text)
        characters += len(text)
    if some:
        yield some


def check(texts: Sequence[str]) -> None:
    """Refuse what can not be embedded, before it costs anything. Raises ``RequestError``."""
    if not 1 <= len(texts) <= TEXTS_MAX:
        raise RequestError(
            f"{len(texts)} texts to embed; from 1 to {TEXTS_MAX} are taken",
            code="input_count_invalid",
            param="input",
        )
    longest = max(len(text) for text in texts)
    if min(len(text) for text in texts) == 0:
        raise RequestError("a text to embed is empty", code="input_empty", param="input")
    if longest > TEXT_CHARACTERS_MAX or sum(len(text) for text in texts) > CHARACTERS_MAX:
        raise RequestError(
            f"texts to embed are too long: at most {TEXT_CHARACTERS_MAX} characters each and"
            f" {CHARACTERS_MAX} together",
            code="context_length_exceeded",
            param="input",
        )
