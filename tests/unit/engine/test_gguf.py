"""GGUF: a small file written here by hand, widened, and torn in every way."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.engine.gguf import (
    TensorType,
    dequantise,
    file_digest,
    read_directory,
    widen,
)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def q4_1(scale: float, minimum: float, nibbles: list[int]) -> bytes:
    packed = bytes(low | high << 4 for low, high in zip(nibbles[:16], nibbles[16:], strict=True))
    return struct.pack("<ee", scale, minimum) + packed


NIBBLES = [(7 * i) % 16 for i in range(32)]
MATRIX = q4_1(0.5, -2.0, NIBBLES) + q4_1(0.25, 1.0, NIBBLES[::-1])
VECTOR = struct.pack("<4f", 1, 2, 3, 4)


def small_file() -> bytes:
    metadata = [
        text("general.architecture") + struct.pack("<I", 8) + text("llama"),
        text("general.file_type") + struct.pack("<II", 4, 3),
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"),
        text("some.numbers") + struct.pack("<IIQ3f", 9, 6, 3, 1, 2, 3),
    ]
    tensors = [
        text("matrix") + struct.pack("<IQQIQ", 2, 32, 2, TensorType.Q4_1, 0),
        text("norm") + struct.pack("<IQIQ", 1, 4, TensorType.F32, 64),
    ]
    head = (
        b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + b"".join(metadata + tensors)
    )
    head += bytes(-len(head) % 32)
    return head + MATRIX + bytes(64 - len(MATRIX)) + VECTOR + bytes(16)


EXPECTED = [0.5 * n - 2 for n in NIBBLES] + [0.25 * n + 1 for n in NIBBLES[::-1]]


@pytest.mark.parametrize("kind", [TensorType.F16, TensorType.F32])
def test_widening_keeps_values_and_metadata(tmp_path: Path, kind: TensorType) -> None:
    source, target = tmp_path / "in.gguf", tmp_path / "out.gguf"
    source.write_bytes(small_file())
    assert widen(source, target, kind) == file_digest(target)
    before, data = read_directory(small_file()), target.read_bytes()
    after = read_directory(data)
    assert {**before.metadata, "general.file_type": b""} == {
        **after.metadata,
        "general.file_type": b"",
    }
    assert after.metadata["general.file_type"] == struct.pack("<II", 4, 1 if kind == 1 else 0)
    assert [(t.name, t.shape, t.type) for t in after.tensors] == [
        ("matrix", (32, 2), kind),
        ("norm", (4,), TensorType.F32),
    ]
    values = [
        dequantise(data[after.data_offset + t.offset :][: t.size_bytes], t.type).tolist()
        for t in after.tensors
    ]
    assert values == [EXPECTED, [1, 2, 3, 4]]
    assert [path.name for path in tmp_path.iterdir() if path not in (source, target)] == []


def test_q4_0_q8_0_and_q6_k_spell_what_the_formats_say() -> None:
    q4_0 = struct.pack("<e", 2.0) + bytes(0x10 * 15 + 3 for _ in range(16))
    assert dequantise(q4_0, TensorType.Q4_0).tolist() == [-10.0] * 16 + [14.0] * 16
    q8_0 = struct.pack("<e32b", 0.5, *range(-16, 16))
    assert dequantise(q8_0, TensorType.Q8_0).tolist() == [i / 2 for i in range(-16, 16)]
    # All low nibbles 1, all high pairs 2: 1 + 32 - 32 = 1, times scale i, times 0.5.
    q6_k = (
        bytes([0x11]) * 128 + bytes([0b10101010]) * 64 + bytes(range(16)) + struct.pack("<e", 0.5)
    )
    expected = [i / 2 for i in range(16) for _ in range(16)]
    assert dequantise(q6_k, TensorType.Q6_K).tolist() == expected


def test_every_truncation_is_malformed() -> None:
    whole = small_file()
    for size in range(len(whole) - 16):
        with pytest.raises(MalformedError):
            read_directory(whole[:size])


@given(st.integers(0, len(small_file()) - 1), st.integers(1, 255))
def test_a_flipped_byte_is_a_value_or_malformed(at: int, mask: int) -> None:
    torn = bytearray(small_file())
    torn[at] ^= mask
    try:
        directory = read_directory(bytes(torn))
    except MalformedError:
        return
    for tensor in directory.tensors:
        assert directory.data_offset + tensor.offset + tensor.size_bytes <= len(torn)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GGUF\x03", b"GGUF\x02"),
        (struct.pack("<QQ", 2, 4), struct.pack("<QQ", 2**40, 4)),
        (struct.pack("<QQ", 2, 4), struct.pack("<QQ", 2, 2**40)),
        (struct.pack("<IQQI", 2, 32, 2, 3), struct.pack("<IQQI", 2, 32, 2, 77)),
        (struct.pack("<IQQI", 2, 32, 2, 3), struct.pack("<IQQI", 2, 33, 2, 3)),
        (struct.pack("<IQQI", 2, 32, 2, 3), struct.pack("<IQQI", 2, 32, 2**32, 3)),
    ],
)
def test_lies_in_the_directory_are_malformed(old: bytes, new: bytes) -> None:
    whole = small_file()
    assert whole.count(old) == 1
    with pytest.raises(MalformedError):
        read_directory(whole.replace(old, new))


def test_an_unwritable_folder_is_the_operators_to_fix(tmp_path: Path) -> None:
    source = tmp_path / "in.gguf"
    source.write_bytes(small_file())
    with pytest.raises(ConfigError):
        widen(source, tmp_path / "missing" / "out.gguf", TensorType.F32)


def test_float16_values_survive() -> None:
    halves = np.array([0.1, -3.5, 65504], dtype="<f2")
    assert (dequantise(halves.tobytes(), TensorType.F16) == halves.astype(np.float32)).all()
