"""What a run has made so far, as lines of JSON in a folder: whole lines count, the rest is redone.

FOLDER/run.json                      what the run was begun with; another may not go on in it
FOLDER/answers/ARM.jsonl             {"prompt", "repeat", "tokens"}
FOLDER/calibration/NODE-VERIFIER.json
FOLDER/scores/ARM.VERIFIER.jsonl     {"prompt", "repeat", "scores"}
FOLDER/cpu.jsonl                     {"phase", "arm", "machine", "tokens", "seconds"}
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from trunkline.inference.ports import TokenScore

Key = tuple[int, int]
"""Prompt and repeat."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    prompt: int
    repeat: int
    tokens: tuple[int, ...]


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    prompt: int
    repeat: int
    scores: list[TokenScore]


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    phase: str
    arm: str
    machine: str
    tokens: int
    seconds: float


class Run(msgspec.Struct, frozen=True, kw_only=True):
    prompts: str
    """Digest of the prompts' file."""
    tokens_max: int


_R = TypeVar("_R", Answer, Scores, Cpu)


class Store:
    """A run's folder."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder = folder
        for part in ("answers", "calibration", "scores", "models"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        said = folder / "run.json"
        if not said.exists():
            said.write_bytes(msgspec.json.encode(run))
        if msgspec.json.decode(said.read_bytes(), type=Run) != run:
            raise SystemExit(f"{folder} holds a run with other prompts or lengths; take another")

    def answers(self, arm: str) -> list[Answer]:
        return list(_read(self.folder / "answers" / f"{arm}.jsonl", Answer))

    def add_answer(self, arm: str, answer: Answer) -> None:
        _append(self.folder / "answers" / f"{arm}.jsonl", answer)

    def scores(self, arm: str, verifier: str) -> list[Scores]:
        return list(_read(self.folder / "scores" / f"{arm}.{verifier}.jsonl", Scores))

    def add_scores(self, arm: str, verifier: str, scores: Scores) -> None:
        _append(self.folder / "scores" / f"{arm}.{verifier}.jsonl", scores)

    def cpu(self) -> list[Cpu]:
        return list(_read(self.folder / "cpu.jsonl", Cpu))

    def add_cpu(self, cpu: Cpu) -> None:
        _append(self.folder / "cpu.jsonl", cpu)

    def calibration(self, node: str, verifier: str) -> Path:
        return self.folder / "calibration" / f"{node}-{verifier}.json"


def keys(records: Sequence[Answer | Scores]) -> set[Key]:
    return {(record.prompt, record.repeat) for record in records}


def _read(path: Path, kind: type[_R]) -> Iterator[_R]:
    if not path.exists():
        return
    decoder = msgspec.json.Decoder(kind)
    with path.open("rb") as lines:
        for line in lines:
            # A run that was ended in the middle of a line.
            if line.endswith(b"\n"):
                yield decoder.decode(line)


def _append(path: Path, record: _R) -> None:
    line = msgspec.json.encode(record) + b"\n"
    with path.open("ab+") as out:
        out.seek(0, 2)
        if out.tell():
            out.seek(-1, 2)
            if out.read(1) != b"\n":
                out.write(b"\n")
        out.write(line)
