"""Keyed Gumbel noise: one number for each (seed, position, token id), the same for whoever asks.

The map, version 1, exactly:

1. ``seed`` is 32 bytes, read as eight little-endian 32-bit words s0 … s7.
2. Philox's key is (s0, s1). Its counter is
   ((token id >> 1) ^ s2, position ^ s3, s4, s5): 192 of the seed's bits enter it. The words s6 and
   s7 are not used; seeds are hashes, so 192 bits tell them apart.
3. The output is x0 … x3. An even token id takes (a, b) = (x0, x1), an odd one (x2, x3); the two
   words make a 53-bit integer n = (b >> 5) · 2²⁶ + (a >> 6), in 0 … 2⁵³ − 1.
4. The uniform is u = (n + ½) · 2⁻⁵³, computed as (n · 2⁻⁵³) + 2⁻⁵⁴ in float64 and capped at
   1 − 2⁻⁵³. It lies strictly between 0 and 1. (From n = 2⁵² on, the half is below the spacing of
   float64 there and rounds to even: the value is still one that every IEEE 754 machine agrees on.)
5. The noise is g = −log(−log u), in float64. It lies within −3.7 … 36.8.

Steps 1 to 4 are exact. ``log`` is the C library's or NumPy's: within one unit in the last place,
which moves a token only where two scores are equal to fifteen digits.
"""

import math
import struct

import numpy as np
from numpy.typing import NDArray

from trunkline.sampling.philox import (
    Block,
    Words,
    philox4x32,
    philox4x32_block,
    second_and_fourth,
)

SEED_BYTES = 32
POSITION_MAX = (1 << 32) - 1

GUMBEL_MAX = 36.75
"""No noise exceeds this: −log(−log(1 − 2⁻⁵³)) is 36.73…"""

_TWO_53 = 2.0**-53
_LOG_TWO_32 = 32 * float(np.log(2.0))
_UPPER_MAX = 2.0**32 - 32.0
"""What u is below by more than its upper word, of which it has 27 bits, in units of 2⁻³²."""
_SLACK = 1e-6
_UNIFORM_MAX = 1.0 - 2.0**-53
_FEW = 12
_DENSE_SHARE = 4
"""When at least one id in so many is asked for, whole blocks are cheaper than picking lanes."""


def uniforms(seed: bytes, position: int, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """The uniforms in (0, 1) for ``tokens`` at ``position`` of the answer. Shape as ``tokens``.

    Raises ``ValueError`` for a seed that is not 32 bytes, a position that is not 32 bits or a
    negative token: these are our own callers' mistakes, never the network's.
    """
    if tokens.size == 0:
        return np.zeros(tokens.shape, dtype=np.float64)
    top = int(tokens.max())
    if int(tokens.min()) < 0 or top > POSITION_MAX:
        raise ValueError("a token id is a non-negative 32-bit number")
    if tokens.size <= _FEW:
        return _few_uniforms(seed, position, tokens)
    if top < _DENSE_SHARE * tokens.size:
        blocks = np.arange(top // 2 + 1, dtype=np.uint64)
        low, high = _block_uniforms(seed, position, blocks)
        dense = np.empty(2 * blocks.size, dtype=np.float64)
        dense[0::2] = low
        dense[1::2] = high
        return dense[tokens]
    low, high = _block_uniforms(seed, position, (tokens >> 1).astype(np.uint64))
    return np.where(tokens & 1, high, low)


def _few_uniforms(seed: bytes, position: int, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """As :func:`uniforms`, a token at a time: a hundred array operations cost more than that."""
    counter, key = _counter_and_key(seed, position)
    a, b = np.empty((2, *tokens.shape), dtype=np.uint64)
    for at, token in enumerate(tokens.flat):
        words = philox4x32_block(((int(token) >> 1) ^ counter[0], *counter[1:]), key)
        a.flat[at], b.flat[at] = words[2:] if token & 1 else words[:2]
    return _unit(a, b)


def _block_uniforms(
    seed: bytes, position: int, blocks: NDArray[np.uint64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Uniforms of the even and of the odd token of each block. Shapes as ``blocks``."""
    x0, x1, x2, x3 = philox4x32(*_lanes(seed, position, blocks))
    return _unit(x0, x1), _unit(x2, x3)


def _lanes(seed: bytes, position: int, blocks: NDArray[np.uint64]) -> tuple[Words, tuple[int, int]]:
    """Philox's counters of those blocks, and its key."""
    counter, key = _counter_and_key(seed, position)
    c0, c1, c2, c3 = (np.array([word], dtype=np.uint64) for word in counter)
    return (blocks ^ c0, c1, c2, c3), key


def _counter_and_key(seed: bytes, position: int) -> tuple[Block, tuple[int, int]]:
    """Of block 0."""
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed is {SEED_BYTES} bytes, not {len(seed)}")
    if not 0 <= position <= POSITION_MAX:
        raise ValueError(f"position {position} is not a 32-bit number")
    s0, s1, s2, s3, s4, s5 = struct.unpack_from("<6I", seed)
    return (s2, position ^ s3, s4, s5), (s0, s1)


def _unit(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> NDArray[np.float64]:
    n = ((b >> np.uint64(5)) << np.uint64(26)) | (a >> np.uint64(6))
    # In place: these arrays are as long as the vocabulary, and allocation would show.
    out = n.astype(np.float64)
    out *= _TWO_53
    out += 0.5 * _TWO_53
    return np.minimum(out, _UNIFORM_MAX, out=out)


def gumbels(seed: bytes, position: int, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standard Gumbel noise for ``tokens`` at ``position``. Shape as ``tokens``."""
    noise = uniforms(seed, position, tokens)
    for _ in range(2):
        np.log(noise, out=noise)
        np.negative(noise, out=noise)
    return noise


def reaching(seed: bytes, position: int, z: NDArray[np.float64], floor: float) -> NDArray[np.int64]:
    """All tokens for which z + g at ``position`` is ``floor`` or more, and a few others. Ascending.

    ``z``: of each token of the vocabulary. Cheaper than the noise itself, and leaves out none:
    g ≥ d needs -log u ≤ e⁻ᵈ, thus 1 - u ≤ e⁻ᵈ, and the upper 32 bits of u are enough to see that
    it is not so.
    """
    if not math.isfinite(floor):
        # By a temperature next to 0. Noise is finite, so it decides nothing here.
        return np.flatnonzero(z >= floor)
    # Rounded up by far more than the sums here, the logarithms of the noise and z + g are rounded.
    limits = z - (floor - _SLACK * (1.0 + abs(floor)) - _LOG_TWO_32)
    np.exp(np.minimum(limits, _LOG_TWO_32, out=limits), out=limits)
    blocks = np.arange((z.size + 1) // 2, dtype=np.uint64)
    found = np.zeros(2 * blocks.size, dtype=np.bool_)
    for odd, upper in enumerate(second_and_fourth(*_lanes(seed, position, blocks))):
        above = _UPPER_MAX - upper
        np.less_equal(above[: limits[odd::2].size], limits[odd::2], out=found[odd : z.size : 2])
    return np.flatnonzero(found)
