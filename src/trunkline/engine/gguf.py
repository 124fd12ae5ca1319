"""GGUF files: read the directory of one, and derive a copy with its weights widened.

The model file that ships with Trunkline holds 4-bit weights. The CPU kernels for 4-bit weights
quantise the activations to 8 bits, which costs answers (docs/adr/0003-embedded-engine-numerics.md).
Widening the same weights to a float type avoids that, and loses nothing: every value that a block
format can spell is computed here exactly as the engine's own reference dequantiser would.

``read_directory`` believes nothing it reads: every count, length and offset is bounded before use,
and anything else raises ``MalformedError``. Metadata are carried over as raw bytes, except the file
type, which must tell the truth about the new weights.

Specification: the GGUF document of the ggml project, version 3; block layouts: ``ggml-common.h``.
"""

import hashlib
import mmap
import os
import struct
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from trunkline.base.errors import ConfigError, MalformedError

MAGIC = b"GGUF"
VERSION = 3
TENSORS_MAX = 1 << 14
METADATA_MAX = 1 << 12
NAME_BYTES_MAX = 1 << 10
STRING_BYTES_MAX = 1 << 22
ARRAY_ITEMS_MAX = 1 << 21
DIRECTORY_BYTES_MAX = 1 << 28
DIMENSIONS_MAX = 4
ALIGNMENT_DEFAULT = 32
ALIGNMENT_MAX = 1 << 16

_DIGEST_CHUNK_BYTES = 1 << 20


class TensorType(IntEnum):
    """The tensor encodings read or written here, by their number in the file."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q8_0 = 8
    Q6_K = 14


FILE_TYPE = {TensorType.F32: 0, TensorType.F16: 1}
"""``general.file_type`` of a file whose matrices are all of one float type."""

BLOCK: dict[TensorType, tuple[int, int]] = {
    TensorType.F32: (1, 4),
    TensorType.F16: (1, 2),
    TensorType.Q4_0: (32, 18),
    TensorType.Q4_1: (32, 20),
    TensorType.Q8_0: (32, 34),
    TensorType.Q6_K: (256, 210),
}
"""Weights in a block, and bytes in a block."""

_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_UINT32, _STRING, _ARRAY = 4, 8, 9


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the directory. ``shape`` is fastest-varying first, as the file has it."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    """Bytes from the start of the data section."""

    @property
    def weights(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @property
    def size_bytes(self) -> int:
        per_block, block_bytes = BLOCK[self.type]
        return self.weights // per_block * block_bytes


class Directory(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a file but its weights."""

    metadata: dict[str, bytes]
    """Raw encoding of each value, its type number included, in the file's order."""
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int
    """Where the data section starts, in bytes from the start of the file."""


class _Cursor:
    """Reads forward through ``data``, refusing to leave it."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        self._end = min(len(data), DIRECTORY_BYTES_MAX)
        self.at = 0

    def take(self, size: int) -> bytes:
        if size > self._end - self.at:
            raise MalformedError("GGUF: the directory runs past the end of the file")
        self.at += size
        return self._data[self.at - size : self.at]

    def skip(self, size: int) -> None:
        if size > self._end - self.at:
            raise MalformedError("GGUF: the directory runs past the end of the file")
        self.at += size

    def since(self, start: int) -> bytes:
        return self._data[start : self.at]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def bounded(self, limit: int, what: str) -> int:
        value = self.u64()
        if value > limit:
            raise MalformedError(f"GGUF: {value} {what}, at most {limit} are read")
        return value

    def text(self, limit: int) -> str:
        raw = self.take(self.bounded(limit, "bytes of text"))
        try:
            return raw.decode()
        except UnicodeDecodeError:
            raise MalformedError("GGUF: a name is not UTF-8") from None

    def value(self) -> bytes:
        """The raw encoding of one metadata value, with its type number."""
        start = self.at
        kind = self.u32()
        if kind == _ARRAY:
            item = self.u32()
            count = self.bounded(ARRAY_ITEMS_MAX, "items in an array")
            if item == _STRING:
                for _ in range(count):
                    self.skip(self.bounded(STRING_BYTES_MAX, "bytes of text"))
            else:
                self.skip(count * self._scalar(item))
        elif kind == _STRING:
            self.skip(self.bounded(STRING_BYTES_MAX, "bytes of text"))
        else:
            self.skip(self._scalar(kind))
        return self.since(start)

    def _scalar(self, kind: int) -> int:
        # Arrays of arrays are legal in the format and used by no model: refused with the rest.
        size = _SCALAR_BYTES.get(kind)
        if size is None:
            raise MalformedError(f"GGUF: a metadata value has unknown type {kind}")
        return size


def _padded(size: int, alignment: int) -> int:
    return (size + alignment - 1) // alignment * alignment


def read_directory(data: mmap.mmap | bytes) -> Directory:
    """Read the directory of the GGUF file ``data``.

    Raises ``MalformedError`` if it is not one, uses a tensor type not in ``TensorType``, or has a
    tensor that does not lie within the file.
    """
    cursor = _Cursor(data)
    if cursor.take(4) != MAGIC:
        raise MalformedError("not a GGUF file: the first four bytes are wrong")
    version = cursor.u32()
    if version != VERSION:
        raise MalformedError(f"GGUF version {version}; only version {VERSION} is read")
    tensor_count = cursor.bounded(TENSORS_MAX, "tensors")
    metadata_count = cursor.bounded(METADATA_MAX, "metadata entries")
    metadata: dict[str, bytes] = {}
    for _ in range(metadata_count):
        key = cursor.text(NAME_BYTES_MAX)
        if key in metadata:
            raise MalformedError("GGUF: a metadata key occurs twice")
        metadata[key] = cursor.value()
    alignment = _alignment(metadata)
    tensors = tuple(_tensor(cursor, alignment) for _ in range(tensor_count))
    if len({tensor.name for tensor in tensors}) != tensor_count:
        raise MalformedError("GGUF: a tensor name occurs twice")
    data_offset = _padded(cursor.at, alignment)
    for tensor in tensors:
        if data_offset + tensor.offset + tensor.size_bytes > len(data):
            raise MalformedError("GGUF: a tensor runs past the end of the file")
    return Directory(
        metadata=metadata, tensors=tensors, alignment=alignment, data_offset=data_offset
    )


def _alignment(metadata: dict[str, bytes]) -> int:
    raw = metadata.get("general.alignment")
    if raw is None:
        return ALIGNMENT_DEFAULT
    if len(raw) != 8 or int.from_bytes(raw[:4], "little") != _UINT32:
        raise MalformedError("GGUF: general.alignment is not a 32-bit number")
    alignment = int.from_bytes(raw[4:], "little")
    if not 8 <= alignment <= ALIGNMENT_MAX or alignment % 8:
        raise MalformedError(f"GGUF: alignment {alignment} is not usable")
    return alignment


def _tensor(cursor: _Cursor, alignment: int) -> Tensor:
    name = cursor.text(NAME_BYTES_MAX)
    dimensions = cursor.u32()
    if not 1 <= dimensions <= DIMENSIONS_MAX:
        raise MalformedError(f"GGUF: a tensor has {dimensions} dimensions")
    shape = tuple(cursor.bounded(1 << 32, "weights along a dimension") for _ in range(dimensions))
    number = cursor.u32()
    offset = cursor.bounded(1 << 44, "bytes of offset")
    try:
        kind = TensorType(number)
    except ValueError:
        raise MalformedError(f"GGUF: tensor type {number} is not supported") from None
    if 0 in shape or shape[0] % BLOCK[kind][0]:
        raise MalformedError("GGUF: a tensor's row is not a whole number of blocks")
    if offset % alignment:
        raise MalformedError("GGUF: a tensor is not aligned")
    return Tensor(name=name, shape=shape, type=kind, offset=offset)


def dequantise(raw: bytes | memoryview, kind: TensorType) -> NDArray[np.float32]:
    """The float32 weights that ``raw`` spells, flat, in the file's order.

    Each arithmetic step is one float32 operation in the engine's order, so the result equals the
    engine's own reference bit for bit.
    """
    return _DEQUANTISE[kind](np.frombuffer(raw, dtype=np.uint8))


def _from_f32(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    return raw.view("<f4")


def _from_f16(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    return raw.view("<f2").astype(np.float32)


def _half(column: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One little-endian half a row: shape (blocks, 2) to (blocks, 1)."""
    return np.ascontiguousarray(column).view("<f2").astype(np.float32)


def _from_q4_0(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    blocks = raw.reshape(-1, 18)
    nibbles = np.concatenate((blocks[:, 2:] & 15, blocks[:, 2:] >> 4), axis=1)
    return ((nibbles.astype(np.float32) - np.float32(8)) * _half(blocks[:, 0:2])).reshape(-1)


def _from_q4_1(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    blocks = raw.reshape(-1, 20)
    out = np.empty((len(blocks), 32), dtype=np.float32)
    out[:, :16] = blocks[:, 4:] & 15
    out[:, 16:] = blocks[:, 4:] >> 4
    out *= _half(blocks[:, 0:2])
    out += _half(blocks[:, 2:4])
    return out.reshape(-1)


def _from_q8_0(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    blocks = raw.reshape(-1, 34)
    out = np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)
    out *= _half(blocks[:, 0:2])
    return out.reshape(-1)


def _from_q6_k(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """256 weights: 128 bytes of low nibbles, 64 of high bit pairs, 16 int8 scales, one half."""
    blocks = raw.reshape(-1, 210)
    low = blocks[:, :128].reshape(-1, 2, 2, 32)
    high = blocks[:, 128:192].reshape(-1, 2, 32)
    scale = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    scale = (_half(blocks[:, 208:210]) * scale).reshape(-1, 2, 8)
    out = np.empty((len(blocks), 2, 4, 32), dtype=np.float32)
    for quarter in range(4):
        nibble = low[:, :, quarter % 2] >> 4 if quarter >= 2 else low[:, :, quarter % 2] & 15
        bits = (high >> (2 * quarter)) & 3
        out[:, :, quarter] = (nibble | (bits << 4)).astype(np.float32) - np.float32(32)
        out[:, :, quarter, :16] *= scale[:, :, 2 * quarter, None]
        out[:, :, quarter, 16:] *= scale[:, :, 2 * quarter + 1, None]
    return out.reshape(-1)


_DEQUANTISE: dict[TensorType, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
    TensorType.F32: _from_f32,
    TensorType.F16: _from_f16,
    TensorType.Q4_0: _from_q4_0,
    TensorType.Q4_1: _from_q4_1,
    TensorType.Q8_0: _from_q8_0,
    TensorType.Q6_K: _from_q6_k,
}


def file_digest(path: Path) -> str:
    """``sha256:<hex>`` of the file at ``path``."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_DIGEST_CHUNK_BYTES):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def widen(source: Path, target: Path, kind: TensorType) -> str:
    """Write ``source`` to ``target`` with every matrix widened to ``kind``; returns its digest.

    ``kind`` is F16 or F32. Vectors (norms) keep their type, as the engine expects of them. The file
    appears whole or not at all: it is written beside its place, synced, and renamed.

    Raises ``MalformedError`` for an unreadable source, ``ConfigError`` when the folder can not be
    written.
    """
    with (
        source.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        directory = read_directory(data)
        try:
            return _write_widened(data, directory, target, kind)
        except OSError as error:
            raise ConfigError(
                f"can not write derived weights to {target.parent}: {error}"
            ) from None


def _write_widened(data: mmap.mmap, directory: Directory, target: Path, kind: TensorType) -> str:
    new_types = [kind if len(t.shape) > 1 else t.type for t in directory.tensors]
    header, padding = _header(directory, new_types, FILE_TYPE[kind])
    digest = hashlib.sha256()
    with NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as out:
        temporary = Path(out.name)
        try:
            for part in (header, padding):
                digest.update(part)
                out.write(part)
            for tensor, new_type in zip(directory.tensors, new_types, strict=True):
                start = directory.data_offset + tensor.offset
                raw = data[start : start + tensor.size_bytes]
                if new_type is not tensor.type:
                    values = dequantise(raw, tensor.type)
                    raw = values.astype("<f2" if new_type is TensorType.F16 else "<f4").tobytes()
                raw += bytes(_padded(len(raw), directory.alignment) - len(raw))
                digest.update(raw)
                out.write(raw)
            out.flush()
            os.fsync(out.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    # A crash before this line leaves a stray temporary file, after it the whole derived file.
    temporary.replace(target)
    return f"sha256:{digest.hexdigest()}"


def _header(
    directory: Directory, new_types: list[TensorType], file_type: int
) -> tuple[bytes, bytes]:
    """The new file's directory, and the zeros between it and the data."""
    metadata = dict(directory.metadata)
    metadata["general.file_type"] = struct.pack("<II", _UINT32, file_type)
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(directory.tensors), len(metadata))]
    for key, value in metadata.items():
        parts += (_text(key), value)
    offset = 0
    for tensor, new_type in zip(directory.tensors, new_types, strict=True):
        rank = len(tensor.shape)
        parts.append(_text(tensor.name))
        parts.append(struct.pack(f"<I{rank}QIQ", rank, *tensor.shape, new_type, offset))
        moved = Tensor(name=tensor.name, shape=tensor.shape, type=new_type, offset=offset)
        offset += _padded(moved.size_bytes, directory.alignment)
    header = b"".join(parts)
    return header, bytes(_padded(len(header), directory.alignment) - len(header))


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw
