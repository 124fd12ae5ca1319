"""PyTorch in the place of llama.cpp: the same weights, computed by another's kernels.

What a verifier's calibration needs: an honest engine whose logits differ as honest engines' do.
``batcher.Memory`` over a ``LlamaForCausalLM`` of the transformers library, in float32 on the CPU,
filled from the same GGUF file; token ids are the file's. Everything else of the engine (batching,
sampling, scoring, grammars) is shared.

A reference, not a server: it computes each sequence alone, and is not exact. Its self-test says so
(``engine_not_exact``), so that what it checks is judged in the noisy regime.

An optional extra, ``trunkline[torch]``; without it, ``ConfigError`` says what to install.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import mmap
import os
import platform
import struct
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trunkline.base.errors import ConfigError, CorruptStateError, MalformedError
from trunkline.engine.gguf import Directory, Tensor, dequantise, read_directory

if TYPE_CHECKING:
    from torch import Tensor as Array
    from transformers import LlamaForCausalLM

REQUIREMENT = "trunkline[torch]"
PIECE_TOKENS = 128
"""Rows in a piece of a prompt."""

_ARCHITECTURE = "llama"
_FORMATS = {4: "<I", 5: "<i", 6: "<f", 10: "<Q"}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def check_installed() -> None:
    """Raise ``ConfigError`` unless both libraries are there."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(f"the engine's pytorch needs {package}: pip install '{REQUIREMENT}'")


def load(path: Path, *, threads: int) -> "LlamaForCausalLM":
    """The model in the GGUF file at ``path``, in float32.

    Raises ``ConfigError`` if it is not a Llama model, or uses what is not known here.
    """
    check_installed()
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        try:
            directory = read_directory(data)
            shape = _Shape(directory)
            config = LlamaConfig(
                vocab_size=shape.vocabulary,
                hidden_size=shape.width,
                intermediate_size=shape.inner,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.key_heads,
                rms_norm_eps=shape.epsilon,
                max_position_embeddings=shape.context,
                tie_word_embeddings=shape.tied,
                rope_parameters={"rope_type": "default", "rope_theta": shape.rope_base},
            )
            # Weights that are about to be replaced are not worth drawing.
            with torch.device("meta"):
                model = LlamaForCausalLM(config)
            state = {
                _name(tensor.name): torch.from_numpy(_values(data, directory, tensor, shape))
                for tensor in directory.tensors
            }
        except MalformedError as error:
            raise ConfigError(f"the model file {path.name} is unusable: {error}") from None
    if shape.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    model.model.rotary_emb = LlamaRotaryEmbedding(config=config)
    return model.eval()


def numerics(weights_digest: str, pipeline: int, advice: Sequence[float]) -> str:
    """The fingerprint of what decides a logit here, as ``weights.numerics``: ``torch-<hex>``."""
    import torch

    deciding = {
        "pipeline": pipeline,
        "advice": list(advice),
        "torch": torch.__version__,
        "transformers": importlib.metadata.version("transformers"),
        "weights": weights_digest,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "libc": os.confstr("CS_GNU_LIBC_VERSION"),
    }
    raw = json.dumps(deciding, sort_keys=True, separators=(",", ":")).encode()
    return f"torch-{hashlib.sha256(raw).hexdigest()[:32]}"


class TorchMemory:
    """``batcher.Memory``: a cache per sequence, and the forward pass that fills it."""

    def __init__(self, model: "LlamaForCausalLM", *, sequences: int) -> None:
        from transformers import DynamicCache

        self.model = model
        self._caches = [DynamicCache(config=model.config) for _ in range(sequences)]
        self._logits: dict[int, NDArray[np.float32]] = {}

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        outputs: Sequence[bool],
    ) -> None:
        """As ``llama.Context.decode``."""
        self._logits = {}
        for sequence in sorted(set(sequences)):
            rows = [row for row, its in enumerate(sequences) if its == sequence]
            if self.length(sequence) != positions[rows[0]]:
                raise CorruptStateError("a piece does not follow what is in the cache")
            kept = [at for at, row in enumerate(rows) if outputs[row]]
            logits = self.forward([tokens[row] for row in rows], sequence, kept)
            for index, at in enumerate(kept):
                self._logits[rows[at]] = logits[index].numpy()

    def forward(self, tokens: Sequence[int], sequence: int, kept: Sequence[int]) -> "Array":
        """Logits of the ``kept`` rows, shape (kept, vocabulary), after putting ``tokens`` behind
        the sequence's cache."""
        import torch

        return self.model(
            input_ids=torch.tensor([tokens]),
            past_key_values=self._caches[sequence],
            use_cache=True,
            # An index: the output layer is a fifth of the work.
            logits_to_keep=torch.tensor(kept, dtype=torch.long),
        ).logits[0]

    def logits(self, index: int) -> NDArray[np.float32]:
        """As ``llama.Context.logits``."""
        return self._logits[index]

    def forget(self, sequence: int, from_position: int) -> None:
        """As ``llama.Context.forget``."""
        from transformers import DynamicCache

        if from_position == 0:
            self._caches[sequence] = DynamicCache(config=self.model.config)
        elif from_position < self.length(sequence):
            # Negative: how many to drop.
            self._caches[sequence].crop(from_position - self.length(sequence))

    def copy(self, source: int, target: int) -> None:
        """As ``llama.Context.copy``."""
        self._caches[target] = deepcopy(self._caches[source])

    def swap(self, one: int, other: int) -> None:
        """As ``llama.Context.swap``."""
        caches = self._caches
        caches[one], caches[other] = caches[other], caches[one]

    def length(self, sequence: int) -> int:
        """Positions held for ``sequence``."""
        return int(self._caches[sequence].get_seq_length())


class _Shape:
    """What a Llama file says of its shape. Raises ``MalformedError``."""

    def __init__(self, directory: Directory) -> None:
        self._metadata = directory.metadata
        architecture = directory.metadata.get("general.architecture", b"")[12:]
        if architecture != _ARCHITECTURE.encode():
            raise MalformedError("only models of the llama architecture are computed by pytorch")
        tensors = {tensor.name: tensor for tensor in directory.tensors}
        self.vocabulary = tensors["token_embd.weight"].shape[1]
        self.tied = "output.weight" not in tensors
        self.width = int(self._number("embedding_length"))
        self.inner = int(self._number("feed_forward_length"))
        self.layers = int(self._number("block_count"))
        self.heads = int(self._number("attention.head_count"))
        self.key_heads = int(self._number("attention.head_count_kv"))
        self.context = int(self._number("context_length"))
        self.rope_base = self._number("rope.freq_base")
        self.epsilon = self._number("attention.layer_norm_rms_epsilon")

    def _number(self, name: str) -> float:
        raw = self._metadata.get(f"{_ARCHITECTURE}.{name}", b"")
        layout = _FORMATS.get(int.from_bytes(raw[:4], "little"))
        if layout is None or len(raw) != 4 + struct.calcsize(layout):
            raise MalformedError(f"GGUF: no number {name}")
        (value,) = struct.unpack(layout, raw[4:])
        return float(value)


def _name(name: str) -> str:
    """A tensor's name in transformers. Raises ``MalformedError`` for one not known."""
    match name.split("."):
        case ["blk", layer, part, "weight"] if part in _LAYER:
            return f"model.layers.{layer}.{_LAYER[part]}.weight"
        case [part, "weight"] if part in _WHOLE:
            return f"{_WHOLE[part]}.weight"
        case _:
            raise MalformedError(f"GGUF: tensor {name} is no part of a Llama model")


def _values(
    data: mmap.mmap, directory: Directory, tensor: Tensor, shape: _Shape
) -> NDArray[np.float32]:
    """The tensor's weights as transformers wants them, (out, in) or (width,)."""
    start = directory.data_offset + tensor.offset
    flat = dequantise(data[start : start + tensor.size_bytes], tensor.type)
    values = flat.reshape(tensor.shape[::-1])
    if ".attn_q." in tensor.name:
        values = _split_halves(values, shape.heads)
    elif ".attn_k." in tensor.name:
        values = _split_halves(values, shape.key_heads)
    return np.array(values)


def _split_halves(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows of each head from the file's order, in which a rotation's two are neighbours, into
    transformers', in which they are half a head apart."""
    rows, width = values.shape
    paired = values.reshape(heads, rows // heads // 2, 2, width)
    return paired.swapaxes(1, 2).reshape(rows, width)
