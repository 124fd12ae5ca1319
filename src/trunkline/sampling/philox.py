"""Philox4x32-10: a block cipher for noise, so that any draw can be had without the ones before it.

A counter-based generator: 128 bits of counter and 64 of key give 128 bits of output, ten rounds of
multiply and exclusive-or. Nothing is carried from one draw to the next, which is what makes
sampling noise addressable by (seed, position, token), and lets a verifier compute one token's
noise alone.

Not a cryptographic cipher. Its input seeds are hashes that neither side could choose; it is only
asked to be well distributed and the same everywhere.

Specification: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011);
known answers: the Random123 distribution, ``kat_vectors``.
"""

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HIGH_SHIFT = np.uint64(32)

Words = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Ten rounds over each lane of ``counter`` under one ``key``.

    Words are 32-bit values held in uint64 arrays, least significant word first, so that the
    products of a round need no casts. Their shapes broadcast together; the result has the common
    shape.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product0 = c0 * _MULTIPLIERS[0]
        product1 = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> _HIGH_SHIFT) ^ c1 ^ np.uint64(k0),
            product1 & _LOW,
            (product0 >> _HIGH_SHIFT) ^ c3 ^ np.uint64(k1),
            product0 & _LOW,
        )
        k0 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF
        k1 = (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    c0, c1, c2, c3 = np.broadcast_arrays(c0, c1, c2, c3)
    return c0, c1, c2, c3
