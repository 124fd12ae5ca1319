"""The second engine as far as it can be tested without its libraries, which are an extra: what a
file's tensors are called and how they lie there, and what is said when the libraries are missing.

That its logits are those of the first engine, up to rounding, is shown by ``bench/attacks.py``."""

import importlib.util
import struct
from collections.abc import Callable

import numpy as np
import pytest

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.engine import torch_memory
from trunkline.engine.gguf import Directory, Tensor, TensorType


def number(value: float) -> bytes:
    kind, layout = (4, "<I") if isinstance(value, int) else (6, "<f")
    return kind.to_bytes(4, "little") + struct.pack(layout, value)


def directory(**changes: bytes) -> Directory:
    numbers = {
        "embedding_length": 8,
        "feed_forward_length": 16,
        "block_count": 1,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "context_length": 64,
        "rope.freq_base": 10000.0,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    metadata = {f"llama.{name}": number(value) for name, value in numbers.items()}
    metadata["general.architecture"] = struct.pack("<IQ", 8, 5) + b"llama"
    tensors = (
        Tensor(name="token_embd.weight", shape=(8, 100), type=TensorType.F32, offset=0),
        Tensor(name="blk.0.attn_q.weight", shape=(8, 8), type=TensorType.F32, offset=3200),
    )
    return Directory(metadata={**metadata, **changes}, tensors=tensors, alignment=32, data_offset=0)


def test_a_llama_files_shape_is_read() -> None:
    shape = torch_memory._Shape(directory())
    assert (shape.vocabulary, shape.width, shape.inner, shape.layers) == (100, 8, 16, 1)
    assert (shape.heads, shape.key_heads, shape.context, shape.tied) == (2, 1, 64, True)
    assert shape.rope_base == 10000.0
    assert shape.epsilon == pytest.approx(1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"general.architecture": struct.pack("<IQ", 8, 5) + b"gemma"},
        {"llama.block_count": b""},
        {"llama.block_count": struct.pack("<IQ", 8, 1) + b"1"},
        {"llama.rope.freq_base": number(1)[:-1]},
    ],
)
def test_another_architecture_or_a_missing_number_is_refused(changes: dict[str, bytes]) -> None:
    with pytest.raises(MalformedError):
        torch_memory._Shape(directory(**changes))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
        ("blk.17.attn_output.weight", "model.layers.17.self_attn.o_proj.weight"),
        ("blk.0.ffn_gate.weight", "model.layers.0.mlp.gate_proj.weight"),
    ],
)
def test_tensors_have_their_names_in_transformers(name: str, theirs: str) -> None:
    assert torch_memory._name(name) == theirs


@pytest.mark.parametrize("name", ["rope_freqs.weight", "blk.0.attn_q.bias", "blk.0.ssm.weight", ""])
def test_a_tensor_that_would_be_left_out_is_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        torch_memory._name(name)


def test_rotated_pairs_move_half_a_head_apart() -> None:
    # Two heads of four rows: neighbours 0,1 and 2,3 of each rotate together.
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)
    moved = torch_memory._split_halves(rows, 2)
    assert moved[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    there: Callable[[str], object] = lambda name: None if name == missing else object()  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", there)
    with pytest.raises(ConfigError, match=r"trunkline\[torch\]"):
        torch_memory.check_installed()
