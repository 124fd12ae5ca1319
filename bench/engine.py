"""Which numerics for the embedded engine: measures the candidates and prints the decision's table.

    python bench/engine.py CACHE_FOLDER [--quick]

For each candidate: whether generation is exact (tokens one by one, in company and from a prefix,
against one prefill, compared bit for bit), how fast it is, how near to float32 weights its
distributions are, and how many of twenty plain questions it answers rightly. ``--quick`` leaves out
the questions. The outcome is recorded in docs/adr/0003-embedded-engine-numerics.md.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.base.errors import Error
from trunkline.engine import llama, weights
from trunkline.engine.batcher import Batcher
from trunkline.engine.sequence import Running
from trunkline.inference.ports import Generate, Sampling, Token

SLOTS = 8
CONTEXT_TOKENS = 1024
PIECE_TOKENS = 32
PREFILL_TOKENS = 640
"""Beyond 512, where the library has another attention path for lone rows on several threads."""

GENERATED_TOKENS = 16
SPEED_ROUNDS = 16

CANDIDATES = (
    ("as_shipped", "f16"),
    ("f16", "f16"),
    ("f32", "f16"),
    ("f32", "f32"),
)
"""Weights, and the type of the attention cache."""

QUESTIONS = (
    ("What is the capital of France?", ("paris",)),
    ("What is 2+2?", ("4", "four")),
    ("What color is the sky on a clear day?", ("blue",)),
    ("How many days are in a week?", ("7", "seven")),
    ("What is the capital of Italy?", ("rome",)),
    ("Who wrote Romeo and Juliet?", ("shakespeare",)),
    ("What is the largest planet in the solar system?", ("jupiter",)),
    ("What is the chemical formula of water?", ("h2o", "h₂o")),
    ("What is the opposite of hot?", ("cold",)),
    ("What is the capital of Japan?", ("tokyo",)),
    ("How many months are in a year?", ("12", "twelve")),
    ("What planet do we live on?", ("earth",)),
    ("What gas do humans need to breathe?", ("oxygen",)),
    ("What is the first month of the year?", ("january",)),
    ("What is the capital of Germany?", ("berlin",)),
    ("What is frozen water called?", ("ice",)),
    ("Who painted the Mona Lisa?", ("leonardo", "vinci")),
    ("What language is spoken in Brazil?", ("portuguese",)),
    ("How many legs does a spider have?", ("8", "eight")),
    ("What is the capital of Spain?", ("madrid",)),
)
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
FILLER_TEXT = "The keeper of the light climbed the stairs each evening and wrote down the weather. "


class Row(msgspec.Struct, kw_only=True):
    """One line of the table. Rates are tokens a second."""

    name: str
    megabytes: int
    exact: bool
    one: float
    eight: float
    prefill: float
    divergence: float
    right: int


class Bench:
    """One candidate, loaded."""

    def __init__(self, library: llama.Library, path: Path, cache_type: str, threads: int) -> None:
        self.model = llama.Model(library, path)
        self.context = llama.Context(
            self.model,
            llama.Settings(
                sequences=SLOTS,
                context_tokens=CONTEXT_TOKENS,
                ubatch_tokens=PIECE_TOKENS,
                threads=threads,
                cache_type=cache_type,
            ),
        )
        self.ends = frozenset(self.model.end_tokens())

    def close(self) -> None:
        self.context.close()
        self.model.close()

    def batcher(self) -> Batcher:
        for slot in range(SLOTS):
            self.context.forget(slot, 0)
        return Batcher(
            self.context, slots=SLOTS, piece_tokens=PIECE_TOKENS, queue_jobs_max=len(QUESTIONS)
        )

    def answers(self, jobs: list[Generate]) -> tuple[dict[int, list[Token]], float]:
        """What each job yields, all run together, and the seconds it took."""
        batcher = self.batcher()
        for id_, job in enumerate(jobs):
            batcher.add(
                Running(
                    id_,
                    job,
                    end_tokens=self.ends,
                    vocabulary_size=self.model.vocabulary_size,
                    constraint=None,
                )
            )
        found: dict[int, list[Token]] = {id_: [] for id_ in range(len(jobs))}
        started = time.perf_counter()
        while batcher.busy:
            for moves in (batcher.advance_answers(), batcher.advance_prompt()):
                for id_, outcome in moves:
                    if isinstance(outcome, Error):
                        raise outcome
                    found[id_] += outcome
        return found, time.perf_counter() - started

    def text(self) -> tuple[int, ...]:
        return self.model.tokenize(FILLER_TEXT * 60, parse_special=False)


def scored(prompt: tuple[int, ...], prefix: tuple[int, ...] = ()) -> Generate:
    return Generate(
        prompt=prompt,
        prefix=prefix,
        max_tokens=GENERATED_TOKENS,
        sampling=Sampling(seed=b"\x05" * 32, top_logprobs=20, logit_bias={0: -100, 2: -100}),
    )


def bits(tokens: list[Token]) -> list[tuple[int, str, list[str]]]:
    return [(t.token, t.logprob.hex(), [o.logprob.hex() for o in t.top]) for t in tokens]


def exact(bench: Bench, second: Bench) -> bool:
    """Whether company, prefix, piece borders and (in ``second``) threads leave every bit alone."""
    prompt = bench.text()[:PREFILL_TOKENS]
    reference = bench.answers([scored(prompt)])[0][0]
    tokens = tuple(t.token for t in reference)
    company = [scored(bench.text()[at : at + 3 * at]) for at in (5, 17, 40, 63)]
    same = True
    for cut in (1, 7, GENERATED_TOKENS - 1):
        shared = bench.answers([*company, scored(prompt, tokens[:cut]), *company[:3]])[0]
        same = same and bits(shared[len(company)]) == bits(reference)
    return same and bits(second.answers([scored(prompt)])[0][0]) == bits(reference)


def rate(bench: Bench, count: int) -> float:
    prompt = bench.text()[:2]
    job = Generate(
        prompt=prompt,
        max_tokens=SPEED_ROUNDS,
        sampling=Sampling(temperature=0, logit_bias={0: -100, 2: -100}),
    )
    _, seconds = bench.answers([job] * count)
    return count * SPEED_ROUNDS / seconds


def prefill_rate(bench: Bench) -> float:
    prompt = bench.text()[: 8 * PIECE_TOKENS]
    _, seconds = bench.answers(
        [Generate(prompt=prompt, max_tokens=1, sampling=Sampling(temperature=0))]
    )
    return len(prompt) / seconds


def distributions(bench: Bench) -> NDArray[np.float64]:
    """Log-probabilities along a dialogue, shape (positions, vocabulary)."""
    turns = "".join(chat(question) + f"{words[0]}.<|im_end|>\n" for question, words in QUESTIONS)
    tokens = bench.model.tokenize(turns, parse_special=True)[: 6 * PIECE_TOKENS]
    bench.batcher()
    rows = []
    for at in range(0, len(tokens), PIECE_TOKENS):
        piece = tokens[at : at + PIECE_TOKENS]
        places = range(at, at + len(piece))
        bench.context.decode(piece, places, [0] * len(piece), [True] * len(piece))
        rows += [bench.context.logits(row).astype(np.float64) for row in range(len(piece))]
    x = np.stack(rows)
    x -= x.max(axis=1, keepdims=True)
    out: NDArray[np.float64] = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return out


def chat(question: str) -> str:
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def right_answers(bench: Bench) -> int:
    system = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n"
    jobs = [
        Generate(
            prompt=bench.model.tokenize(system + chat(question), parse_special=True),
            max_tokens=32,
            sampling=Sampling(temperature=0),
        )
        for question, _ in QUESTIONS
    ]
    found, _ = bench.answers(jobs)
    pieces = bench.model.pieces()
    right = 0
    for id_, (_, accepted) in enumerate(QUESTIONS):
        said = b"".join(pieces[t.token] for t in found[id_]).decode(errors="replace").lower()
        right += any(word in said for word in accepted)
    return right


def measure(library: llama.Library, cache: Path, *, quick: bool) -> Iterator[Row]:
    reference: NDArray[np.float64] | None = None
    # The last candidate, all float32, is what the others are compared with: so it goes first.
    for kind, cache_type in reversed(CANDIDATES):
        prepared = weights.prepare(weights.locate(""), kind, cache)
        bench = Bench(library, prepared.path, cache_type, threads=1)
        second = Bench(library, prepared.path, cache_type, threads=2)
        mine = distributions(bench)
        reference = mine if reference is None else reference
        yield Row(
            name=f"{kind}, {cache_type} cache",
            megabytes=prepared.path.stat().st_size >> 20,
            exact=exact(bench, second),
            one=rate(bench, 1),
            eight=rate(bench, SLOTS),
            prefill=prefill_rate(bench),
            divergence=float((np.exp(reference) * (reference - mine)).sum(axis=1).mean()),
            right=-1 if quick else right_answers(bench),
        )
        second.close()
        bench.close()


def main(arguments: list[str]) -> int:
    folders = [argument for argument in arguments if not argument.startswith("-")]
    if len(folders) != 1:
        print(__doc__)
        return 2
    library = llama.Library(llama.library_path(), log=print)
    print(library.system_info())
    print("| weights | MiB | exact | alone | batch of 8 | prefill | divergence | right of 20 |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in measure(library, Path(folders[0]), quick="--quick" in arguments):
        print(
            f"| {row.name} | {row.megabytes} | {'yes' if row.exact else 'NO'} | {row.one:.0f}"
            f" | {row.eight:.0f} | {row.prefill:.0f} | {row.divergence:.5f} | {row.right} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
