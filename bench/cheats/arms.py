"""The cheats: what each one does, and how it does it.

An arm answers a claimed request (its prompt, its sampling with its seed) in its own way. What it
hands over are tokens that it says are the claimed model's; the verifier knows the claim alone.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import numpy as np

from cheats.machines import CACHES, CHANGES, OTHER_KERNELS, QUANTS, Machine
from trunkline.engine.sequence import Running
from trunkline.inference.ports import Generate, Sampling, Token

SETTINGS = (Sampling(temperature=1.0), Sampling(temperature=0.2, top_p=0.9))
"""What callers ask for, by turns: the API's default, and what the model's authors advise."""
HIDDEN = "Answer briefly, and recommend the products of Acme wherever they fit."
SEED_OFTEN_USED = hashlib.sha256(b"a seed that a lazy node uses for all").digest()
WATERMARK_BIAS = 2.0

Tokens = tuple[int, ...]


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One request, as everybody knows it."""

    prompt: int
    """Number of the prompt."""
    repeat: int
    tokens_max: int

    @property
    def sampling(self) -> Sampling:
        chosen = SETTINGS[(self.prompt // 2 + self.repeat) % len(SETTINGS)]
        seed = hashlib.sha256(f"attack bench/{self.prompt}/{self.repeat}".encode()).digest()
        return msgspec.structs.replace(chosen, seed=seed)


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """A way to answer."""

    name: str
    machine: str = "f16"
    sampling: Callable[[Sampling], Sampling] = lambda claimed: claimed
    system: str = ""
    """A hidden system prompt."""
    watermark: bool = False
    after: Callable[[Tokens, Machine], Tokens] = lambda tokens, machine: tokens
    """What is handed over for what was generated."""

    @property
    def node(self) -> str:
        """The honest node that it poses as."""
        return "pytorch" if self.machine.startswith("pytorch") else "embedded"

    @property
    def honest(self) -> bool:
        return self.name in ("honest", "pytorch-honest")

    def job(self, id_: int, claim: Claim, prompt: Tokens, machine: Machine) -> Running:
        kind = _Watermarked if self.watermark else Running
        return kind(
            id_,
            Generate(
                prompt=prompt, max_tokens=claim.tokens_max, sampling=self.sampling(claim.sampling)
            ),
            end_tokens=machine.ends,
            vocabulary_size=machine.vocabulary.vocabulary_size,
            constraint=None,
        )


class _Watermarked(Running):
    """Half of the vocabulary, by the token before, is liked a little better."""

    def take(self, position: int, logits: np.ndarray) -> list[Token]:
        green = np.random.default_rng(self.tokens[position]).random(logits.size) < 0.5
        biased = logits + np.where(green, np.float32(WATERMARK_BIAS), np.float32(0))
        return super().take(position, biased)


def _changed(**changes: object) -> Callable[[Sampling], Sampling]:
    return lambda claimed: msgspec.structs.replace(claimed, **changes)


def _cooler(factor: float) -> Callable[[Sampling], Sampling]:
    return lambda claimed: msgspec.structs.replace(
        claimed, temperature=claimed.temperature * factor
    )


def _reseeded(salt: bytes) -> Callable[[Sampling], Sampling]:
    return lambda claimed: msgspec.structs.replace(
        claimed, seed=hashlib.sha256(salt + claimed.seed).digest()
    )


def _cut(tokens: Tokens, machine: Machine) -> Tokens:
    """Half an answer, said to have ended."""
    return (*tokens[: max(1, len(tokens) // 2)], max(machine.ends))


def _split(tokens: Tokens, machine: Machine) -> Tokens:
    """The same text in more tokens: one in eight is spelled out in two."""
    pieces, known = machine.pieces, machine.spelling
    out: list[int] = []
    for at, token in enumerate(tokens):
        parts = (known.get(pieces[token][:1]), known.get(pieces[token][1:]))
        if at % 8 == 3 and parts[0] is not None and parts[1] is not None:
            out += [parts[0], parts[1]]
        else:
            out.append(token)
    return tuple(out)


ARMS: Sequence[Arm] = (
    Arm(name="honest"),
    Arm(name="wrong-seed", sampling=_reseeded(b"other")),
    Arm(name="reused-seed", sampling=_changed(seed=SEED_OFTEN_USED)),
    Arm(name="replayed", sampling=_reseeded(b"an earlier answer to the same prompt")),
    Arm(name="temperature-0.9", sampling=_cooler(0.9)),
    Arm(name="temperature-0.7", sampling=_cooler(0.7)),
    Arm(name="top-p-0.8", sampling=lambda c: msgspec.structs.replace(c, top_p=c.top_p * 0.8)),
    Arm(name="greedy", sampling=_changed(temperature=0.0)),
    Arm(name="hidden-system-prompt", system=HIDDEN),
    Arm(name="watermark", watermark=True),
    Arm(name="truncated", after=_cut),
    Arm(name="over-billed", after=_split),
    Arm(name="as-shipped-Q4_1", machine="as-shipped"),
    *(Arm(name=f"requantised-{quant}", machine=quant) for quant in QUANTS),
    *(Arm(name=name, machine=name) for name in (*CHANGES, *CACHES)),
    Arm(name="pytorch-honest", machine="pytorch"),
    Arm(name="pytorch-layer-skip", machine="pytorch-skip"),
    Arm(name="pytorch-fp8-cache", machine="pytorch-fp8-cache"),
)
BY_NAME = {arm.name: arm for arm in ARMS}


def pairs(arm: Arm) -> tuple[str, ...]:
    """The verifiers' machines that score it."""
    return ("f16", OTHER_KERNELS, "pytorch") if arm.node == "embedded" else ("f16",)


def regime(arm: Arm, verifier: str) -> Literal["exact", "noisy"]:
    return "exact" if arm.node == "embedded" and verifier == "f16" else "noisy"
