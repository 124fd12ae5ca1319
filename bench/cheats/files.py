"""Other weights from the same file: requantised by the engine's own quantiser, or tampered with.

Rows of 576 weights do not divide into the 256 of a K-quant's block. As the engine's own tool does,
such matrices get the next type that fits, and the shared input and output embedding keeps 8 bits.
"""

import ctypes
import mmap
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trunkline.engine import llama
from trunkline.engine.gguf import ALIGNMENT_DEFAULT, MAGIC, VERSION, dequantise, read_directory

F16 = 1
ROPE_BASE = "llama.rope.freq_base"
TYPES = {
    "Q4_0": 2, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8,
    "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20,
}  # fmt: skip
"""By their numbers in the file."""
NARROW = {"Q2_K": "IQ4_NL", "Q3_K": "IQ4_NL", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}

Weights = NDArray[np.float32]
Change = Callable[[str, Weights], Weights]
"""Of a tensor's name and weights, what stands in their place."""


class Quantiser:
    """The engine's own ``ggml_quantize_chunk``."""

    def __init__(self) -> None:
        self._dll = ctypes.CDLL(str(llama.library_path()))
        for name in ("ggml_type_size", "ggml_blck_size"):
            getattr(self._dll, name).restype = ctypes.c_int64
        self._dll.ggml_quantize_chunk.restype = ctypes.c_size_t
        self._dll.ggml_quantize_chunk.argtypes = [
            ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
            ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
        ]  # fmt: skip

    def fitting(self, name: str, width: int) -> int:
        """The number of type ``name``, or of what stands in for it in rows of ``width``."""
        number = TYPES[name]
        return number if width % self._dll.ggml_blck_size(number) == 0 else TYPES[NARROW[name]]

    def quantise(self, weights: Weights, number: int) -> bytes:
        """``weights``, shape (rows, width), in blocks."""
        rows, width = weights.shape
        flat = np.ascontiguousarray(weights, dtype=np.float32)
        size = self._dll.ggml_type_size(number) * width // self._dll.ggml_blck_size(number) * rows
        out = ctypes.create_string_buffer(size)
        written = self._dll.ggml_quantize_chunk(number, flat.ctypes.data, out, 0, rows, width, None)
        assert written == size
        return out.raw


def derive(
    source: Path,
    target: Path,
    *,
    quant: str = "",
    change: Change | None = None,
    said: Callable[[Mapping[str, bytes]], Mapping[str, bytes]] | None = None,
) -> Path:
    """Write ``source``'s model to ``target``: matrices as ``quant`` (else float16) after
    ``change``, with what ``said`` puts into the place of metadata. What is there already is taken
    as it is."""
    if target.exists():
        return target
    quantiser = Quantiser()
    with (
        source.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        directory = read_directory(data)
        entries, blobs, offset = [], [], 0
        for tensor in directory.tensors:
            start = directory.data_offset + tensor.offset
            values = dequantise(data[start : start + tensor.size_bytes], tensor.type)
            values = values.reshape(tensor.shape[::-1])
            if change is not None:
                values = change(tensor.name, values)
            number, raw = 0, values.astype("<f4").tobytes()
            if values.ndim > 1:
                number, raw = F16, values.astype("<f2").tobytes()
                if quant:
                    wanted = "Q8_0" if tensor.name == "token_embd.weight" else quant
                    number = quantiser.fitting(wanted, values.shape[1])
                    raw = quantiser.quantise(values, number)
            rank = len(tensor.shape)
            entries.append(
                _text(tensor.name)
                + struct.pack(f"<I{rank}QIQ", rank, *tensor.shape, number, offset)
            )
            blobs.append(raw + bytes(-len(raw) % ALIGNMENT_DEFAULT))
            offset += len(blobs[-1])
        keys = dict(directory.metadata)
        keys.update(said(keys) if said else {})
        metadata = b"".join(_text(key) + value for key, value in keys.items())
        head = MAGIC + struct.pack("<IQQ", VERSION, len(directory.tensors), len(keys))
    header = head + metadata + b"".join(entries)
    partial = target.with_suffix(".partial")
    with partial.open("wb") as out:
        out.write(header + bytes(-len(header) % ALIGNMENT_DEFAULT))
        out.writelines(blobs)
    partial.replace(target)
    return target


def skipping(*layers: int) -> Change:
    """Layers that add nothing: what is left is a smaller model."""
    ends = {
        f"blk.{layer}.{part}.weight" for layer in layers for part in ("attn_output", "ffn_down")
    }
    return lambda name, values: np.zeros_like(values) if name in ends else values


def shaken(share: float) -> Change:
    """Each matrix with noise of ``share`` of its own spread: a stand-in for other training."""

    def change(name: str, values: Weights) -> Weights:
        if values.ndim == 1:
            return values
        noise = np.random.default_rng(len(name)).standard_normal(values.shape, dtype=np.float32)
        return values + np.float32(share * values.std()) * noise

    return change


def pruned(share: float) -> Change:
    """The smallest weights of each matrix left out."""

    def change(name: str, values: Weights) -> Weights:
        if values.ndim == 1:
            return values
        sizes = np.abs(values)
        return np.where(sizes < np.quantile(sizes, share), np.float32(0), values)

    return change


def of_rank(share: float) -> Change:
    """The last matrix of each feed-forward part by its largest singular values alone, which is
    faster."""

    def change(name: str, values: Weights) -> Weights:
        if ".ffn_down" not in name:
            return values
        # By its shorter side: a whole decomposition takes minutes for all of them.
        tall = values if values.shape[0] > values.shape[1] else values.T
        _, directions = np.linalg.eigh((tall.T @ tall).astype(np.float64))
        kept = directions[:, -round(share * directions.shape[1]) :].astype(np.float32)
        less = tall @ kept @ kept.T
        return less if tall is values else np.ascontiguousarray(less.T)

    return change


def brain_floats(name: str, values: Weights) -> Weights:
    """Rounded to bfloat16, as many servers run what they say is float16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return (rounded << np.uint32(16)).view(np.float32)


def four_bit_embedding(name: str, values: Weights) -> Weights:
    """Only the shared input and output embedding has 4 bits, in blocks of 32."""
    if name != "token_embd.weight":
        return values
    blocks = values.reshape(-1, 32)
    scale = np.maximum(np.abs(blocks).max(axis=1, keepdims=True), np.float32(1e-12)) / 7
    return (np.round(blocks / scale) * scale).reshape(values.shape).astype(np.float32)


def rope_base(factor: float) -> Callable[[Mapping[str, bytes]], Mapping[str, bytes]]:
    """Positions turn by another base, as for a longer context."""

    def said(metadata: Mapping[str, bytes]) -> Mapping[str, bytes]:
        kind, base = struct.unpack("<If", metadata[ROPE_BASE])
        return {ROPE_BASE: struct.pack("<If", kind, base * factor)}

    return said


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()
