"""What computes: the embedded engine's own parts in this process, over honest or other weights.

The same batcher, choices and scores as in the engine's child process; only what computes logits,
and what a cheat does around it, differ.
"""

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from cheats import files
from trunkline.audit.replay import text_of
from trunkline.base.errors import Error
from trunkline.engine import llama, torch_memory, weights
from trunkline.engine.batcher import Batcher, Event, Job, Memory
from trunkline.engine.worker import PIECE_TOKENS
from trunkline.inference.messages import prompt_messages
from trunkline.inference.ports import Sharing
from trunkline.inference.template import ChatTemplate
from trunkline.schema import openai_chat

SLOTS = 8
CONTEXT_TOKENS = 1024
LAYERS_SKIPPED = (14, 15)

QUANTS = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q3_K", "Q2_K")
CHANGES: dict[str, files.Change] = {
    "skip-1": files.skipping(15),
    "skip-4": files.skipping(10, 13, 16, 19),
    "shaken-2%": files.shaken(0.02),
    "shaken-10%": files.shaken(0.1),
    "shaken-0.5%": files.shaken(0.005),
    "pruned-5%": files.pruned(0.05),
    "pruned-30%": files.pruned(0.3),
    "low-rank-90%": files.of_rank(0.9),
    "bfloat16": files.brain_floats,
    "embedding-4-bit": files.four_bit_embedding,
}
SAID = {"rope-base-2%": files.rope_base(1.02)}
"""Other metadata, and the same weights."""
CACHES = {"kv-q8_0": 8, "kv-q4_0": 2}
"""The library's numbers of these cache types, which the engine itself never asks for."""
SHARED = Sharing(scope="bench")
"""Prompts begin with the template's own words, which are computed once."""
OTHER_KERNELS = "other-kernels"
"""The honest weights by kernels that the engine does not use: no flash attention, many rows. As
near to another build or processor of llama.cpp as one machine comes."""
TORCH = ("pytorch", "pytorch-skip", "pytorch-fp8-cache")


class Class(msgspec.Struct, frozen=True, kw_only=True):
    """What a calibration says of an honest engine."""

    configuration: str
    numerics: str
    """How the fingerprints of all alike begin."""


MODEL = weights.MODEL_NAME
CLASSES = {
    "f16": Class(configuration="embedded", numerics="llama-"),
    OTHER_KERNELS: Class(configuration="other kernels of the embedded", numerics="llama-"),
    "pytorch": Class(configuration="pytorch", numerics="torch-"),
}


class Machine:
    """A loaded model. ``close`` gives its memory back."""

    def __init__(
        self, name: str, memory: Memory, vocabulary: llama.Model, piece_tokens: int
    ) -> None:
        self.name = name
        self.vocabulary = vocabulary
        self.ends = frozenset(vocabulary.end_tokens())
        self._memory = memory
        self._piece_tokens = piece_tokens

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes each token stands for."""
        return self.vocabulary.pieces()

    @cached_property
    def spelling(self) -> dict[bytes, int]:
        """A token for each piece."""
        return {piece: token for token, piece in enumerate(self.pieces) if piece}

    def run(
        self, jobs: Sequence[Job], done: Callable[[int, list[Event]], None]
    ) -> tuple[float, int]:
        """Run ``jobs``, handing over each one's events when it ended. CPU seconds and tokens."""
        for slot in range(SLOTS):
            self._memory.forget(slot, 0)
        batcher = Batcher(
            self._memory, slots=SLOTS, piece_tokens=self._piece_tokens, queue_jobs_max=len(jobs)
        )
        found: dict[int, list[Event]] = {job.id: [] for job in jobs}
        waiting = {job.id: job for job in jobs}
        for job in jobs:
            batcher.add(job)
        begun, tokens = time.process_time(), 0
        while batcher.busy:
            for moves in (batcher.advance_answers(), batcher.advance_prompt()):
                for id_, outcome in moves:
                    if isinstance(outcome, Error):
                        raise outcome
                    found[id_] += outcome
                    tokens += len(outcome)
            for id_ in [id_ for id_, job in waiting.items() if job.ended]:
                del waiting[id_]
                done(id_, found.pop(id_))
        return time.process_time() - begun, tokens

    def close(self) -> None:
        if isinstance(self._memory, llama.Context):
            self._memory.close()
        del self._memory
        self.vocabulary.close()
        gc.collect()


def load(name: str, folder: Path) -> Machine:
    """The machine ``name``; files that it needs are made in ``folder``."""
    library = llama.Library(llama.library_path(), log=print)
    source = weights.locate("")
    honest = weights.prepare(source, "f16", folder).path
    if name in TORCH:
        vocabulary = llama.Model(library, honest)
        return Machine(name, _torch(name, honest), vocabulary, torch_memory.PIECE_TOKENS)
    path = honest
    if name == "as-shipped":
        path = source
    elif name in QUANTS:
        path = files.derive(source, folder / f"{name}.gguf", quant=name)
    elif name in CHANGES:
        path = files.derive(source, folder / f"{name}.gguf", change=CHANGES[name])
    elif name in SAID:
        path = files.derive(source, folder / f"{name}.gguf", said=SAID[name])
    llama.CACHE_TYPE.update(CACHES)
    model = llama.Model(library, path)
    piece_tokens = 128 if name == OTHER_KERNELS else PIECE_TOKENS
    settings = llama.Settings(
        sequences=SLOTS,
        context_tokens=CONTEXT_TOKENS + 256,
        ubatch_tokens=piece_tokens,
        cache_type=name if name in CACHES else "f16",
        flash_attention=name != OTHER_KERNELS,
    )
    return Machine(name, llama.Context(model, settings), model, piece_tokens)


def weights_digest(folder: Path) -> str:
    """Of the honest weights."""
    return weights.prepare(weights.locate(""), "f16", folder).digest


def surplus(answers: Iterable[Sequence[int]], folder: Path) -> float:
    """The largest share by which an answer has more tokens than its text takes."""
    library = llama.Library(llama.library_path(), log=print)
    model = llama.Model(library, weights.prepare(weights.locate(""), "f16", folder).path)
    pieces, most = model.pieces(), 0.0
    for tokens in answers:
        spelled = sum(bool(pieces[token]) for token in tokens)
        needed = len(model.tokenize(text_of(tokens, pieces), parse_special=False))
        most = max(most, (spelled - needed) / max(needed, 1))
    model.close()
    return round(most, 4)


def rendered(machine: Machine, prompt: str, system: str = "") -> tuple[int, ...]:
    """The prompt's tokens, as a node and a verifier render it."""
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": prompt})
    body = msgspec.json.encode({"model": "m", "messages": messages})
    vocabulary = machine.vocabulary
    template = ChatTemplate(
        vocabulary.chat_template(),
        bos_text=vocabulary.token_text("bos"),
        eos_text=vocabulary.token_text("eos"),
    )
    tokens: list[int] = []
    for part in template.render(prompt_messages(openai_chat.parse(body)), created_s=0):
        tokens += vocabulary.tokenize(part.text, parse_special=part.control)
    return tuple(tokens)


def _torch(name: str, path: Path) -> Memory:
    import torch

    model = torch_memory.load(path, threads=1)
    if name == "pytorch-skip":
        kept = [layer for at, layer in enumerate(model.model.layers) if at not in LAYERS_SKIPPED]
        for at, layer in enumerate(kept):
            layer.self_attn.layer_idx = at
        model.model.layers = torch.nn.ModuleList(kept)
        model.config.num_hidden_layers = len(kept)
        model.config.layer_types = None
    if name == "pytorch-fp8-cache":
        return _EightBitCache(model, sequences=SLOTS)
    return torch_memory.TorchMemory(model, sequences=SLOTS)


class _EightBitCache(torch_memory.TorchMemory):
    """Keys and values lose all but 8 bits (e4m3) once they are in the cache."""

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        outputs: Sequence[bool],
    ) -> None:
        import torch

        super().decode(tokens, positions, sequences, outputs)
        for sequence in set(sequences):
            fresh = sequences.count(sequence)
            for layer in self._caches[sequence].layers:
                for held in (layer.keys, layer.values):
                    new = held[..., -fresh:, :]
                    new.copy_(new.to(torch.float8_e4m3fn).to(held.dtype))
