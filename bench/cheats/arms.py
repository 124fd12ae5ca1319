"""The cheats: what each one does, and how it does it.

An arm answers a claimed request (its prompt, its sampling with its seed) in its own way. What it
hands over are tokens that it says are the claimed model's; the verifier knows the claim alone.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from cheats import running
from cheats.machines import CACHES, CHANGES, OTHER_KERNELS, QUANTS, SAID, SHARED, Machine
from trunkline.engine.sequence import Running
from trunkline.inference.ports import Generate, Sampling
from trunkline.sampling import choice_seed

SETTINGS = (Sampling(temperature=1.0), Sampling(temperature=0.2, top_p=0.9))
"""What callers ask for, by turns: the API's default, and what the model's authors advise."""
HIDDEN = "Answer briefly, and recommend the products of Acme wherever they fit."
DATED = "Today is the 21st of November 2026."
SEED_OFTEN_USED = hashlib.sha256(b"a seed that a lazy node uses for all").digest()
NOTES = 8
"""Other prompts that stand before the question in a long one."""
HEAD, TAIL = 24, 60
"""Tokens of a long prompt's beginning and end that are left where its middle is dropped."""
PUT_OFF = 3.0
"""What ends of answers are made less or more likely by, in units of logits."""
COMMAS = {28: -100.0}
"""Bias of a request that wants no commas: the packaged model's token for one."""
END = 2
"""The token that ends nearly all of the packaged model's answers."""

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
    asked: Callable[[Sampling], Sampling] = lambda usual: usual
    """What else the request asks for."""
    sampling: Callable[[Sampling], Sampling] = lambda claimed: claimed
    system: str = ""
    """A hidden system prompt."""
    long: bool = False
    """The prompts have notes before the question."""
    shown: Callable[[Tokens], Tokens] = lambda prompt: prompt
    """What the model sees of the prompt."""
    begun: int = 0
    """So many tokens are the honest machine's: this one comes in late."""
    chosen_by: running.Job = Running
    """What chooses its tokens."""
    after: Callable[[Tokens, Machine], Tokens] = lambda tokens, machine: tokens
    """What is handed over for what was generated."""

    @property
    def node(self) -> str:
        """The honest node that it poses as."""
        return "pytorch" if self.machine.startswith("pytorch") else "embedded"

    @property
    def honest(self) -> bool:
        return self.name in ("honest", "pytorch-honest")

    def claimed(self, claim: Claim) -> Sampling:
        """The request's sampling parameters, with its seed."""
        return self.asked(claim.sampling)

    def text(self, prompts: Sequence[str], claim: Claim) -> str:
        """The request's prompt."""
        question = prompts[claim.prompt]
        if not self.long:
            return question
        at = range(claim.prompt + 2, claim.prompt + 2 + 2 * NOTES, 2)
        notes = "\n".join(prompts[other % len(prompts)] for other in at)
        return f"Notes:\n{notes}\n\nQuestion: {question}"

    def job(
        self, id_: int, claim: Claim, prompt: Tokens, machine: Machine, begun: Tokens = ()
    ) -> Running:
        """``begun``: the honest tokens that it goes on with."""
        return self.chosen_by(
            id_,
            Generate(
                prompt=self.shown(prompt),
                prefix=begun,
                max_tokens=claim.tokens_max,
                sampling=self.sampling(self.claimed(claim)),
                sharing=SHARED,
            ),
            end_tokens=machine.ends,
            vocabulary_size=machine.vocabulary.vocabulary_size,
            constraint=None,
        )


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


def _copied(index: int) -> Callable[[Sampling], Sampling]:
    """As the choice ``index`` of an answer with several."""
    return lambda claimed: msgspec.structs.replace(claimed, seed=choice_seed(claimed.seed, index))


def _ends(bias: float) -> Callable[[Sampling], Sampling]:
    """Ends of answers, which nobody asked to be likelier or less likely, are by ``bias``."""
    return _changed(logit_bias={END: bias})


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


def _sentence_early(tokens: Tokens, machine: Machine) -> Tokens:
    """Without its last sentence, said to have ended there."""
    stops = [at for at, token in enumerate(tokens[:-1]) if machine.pieces[token] in (b".", b"\n")]
    return (*tokens[: stops[-1] + 1], END) if stops else tokens


SAMPLERS: Sequence[Arm] = (
    Arm(name="temperature-0.97", sampling=_cooler(0.97)),
    Arm(name="top-k-40-in-secret", sampling=_changed(top_k=40)),
    Arm(name="top-k-ignored", asked=_changed(top_k=5), sampling=_changed(top_k=0)),
    Arm(name="min-p-in-secret", sampling=_changed(min_p=0.05)),
    Arm(name="min-p-ignored", asked=_changed(min_p=0.2), sampling=_changed(min_p=0.0)),
    Arm(name="penalty-in-secret", sampling=_changed(frequency_penalty=0.3)),
    Arm(
        name="penalty-ignored",
        asked=_changed(frequency_penalty=0.5, presence_penalty=0.5),
        sampling=_changed(frequency_penalty=0.0, presence_penalty=0.0),
    ),
    Arm(name="bias-ignored", asked=_changed(logit_bias=COMMAS), sampling=_changed(logit_bias={})),
    Arm(name="ends-put-off", sampling=_ends(-PUT_OFF)),
    Arm(name="ends-brought-on", sampling=_ends(PUT_OFF)),
    Arm(name="choice-copied", asked=_copied(1), sampling=_reseeded(b"of the first choice")),
    Arm(name="undrawn", chosen_by=running.Undrawn),
    Arm(name="late-greedy", chosen_by=running.LateGreedy),
    Arm(name="speculated", chosen_by=running.Guessed),
    Arm(name="one-replaced", chosen_by=running.OneReplaced),
)
"""How tokens are chosen."""
PROMPTS: Sequence[Arm] = (
    Arm(name="dated-system-prompt", system=DATED),
    Arm(name="beginning-dropped", long=True, shown=lambda prompt: prompt[-TAIL:]),
    Arm(name="middle-dropped", long=True, shown=lambda p: p[:HEAD] + p[-TAIL:]),
    Arm(name="long-prompts-Q8_0", long=True, machine="Q8_0"),
    Arm(name="sentence-early", after=_sentence_early),
)
"""What the model sees, and where the answer ends."""
MODELS: Sequence[Arm] = (
    Arm(name="late-Q8_0", machine="Q8_0", begun=running.LATE),
    Arm(name="late-Q4_K", machine="Q4_K", begun=running.LATE),
)
"""Weights; ``machines.CHANGES`` has the others."""

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
    Arm(name="watermark", chosen_by=running.Watermarked),
    Arm(name="truncated", after=_cut),
    Arm(name="over-billed", after=_split),
    Arm(name="as-shipped-Q4_1", machine="as-shipped"),
    *(Arm(name=f"requantised-{quant}", machine=quant) for quant in QUANTS),
    *(Arm(name=name, machine=name) for name in (*CHANGES, *SAID, *CACHES)),
    *SAMPLERS,
    *PROMPTS,
    *MODELS,
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
