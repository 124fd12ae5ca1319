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
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_MULTIPLIERS = (np.uint64(_M0), np.uint64(_M1))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS_TO_MIX = 2
_LOW = np.uint64(0xFFFFFFFF)
_HIGH_SHIFT = np.uint64(32)

Block = tuple[int, int, int, int]
Words = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Ten rounds over each lane of ``counter`` under one ``key``.

    Words are 32-bit values held in uint64 arrays, least significant word first, so that the
    products of a round need no casts. Their shapes broadcast together; the result has the common
    shape.
    """
    (c0, c1, c2, c3), (k0, k1) = _before_the_last_round(counter, key)
    product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
    return (
        (product1 >> _HIGH_SHIFT) ^ c1 ^ k0,
        product1 & _LOW,
        (product0 >> _HIGH_SHIFT) ^ c3 ^ k1,
        product0 & _LOW,
    )


def philox4x32_block(counter: Block, key: tuple[int, int]) -> Block:
    """:func:`philox4x32` of one lane."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        product0, product1 = c0 * _M0, c2 * _M1
        c0, c1 = (product1 >> 32) ^ c1 ^ k0, product1 & 0xFFFFFFFF
        c2, c3 = (product0 >> 32) ^ c3 ^ k1, product0 & 0xFFFFFFFF
        k0 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF
        k1 = (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def second_and_fourth(
    counter: Words, key: tuple[int, int]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Words 1 and 3 of :func:`philox4x32`, for a little less."""
    (c0, _, c2, _), _ = _before_the_last_round(counter, key)
    return (c2 * _MULTIPLIERS[1]) & _LOW, (c0 * _MULTIPLIERS[0]) & _LOW


def _before_the_last_round(
    counter: Words, key: tuple[int, int]
) -> tuple[Words, tuple[np.uint64, np.uint64]]:
    """The counter's words after nine rounds, and the key of the tenth."""
    c0, c1, c2, c3 = counter
    keys = [
        (
            np.uint64((key[0] + at * _KEY_STEPS[0]) & 0xFFFFFFFF),
            np.uint64((key[1] + at * _KEY_STEPS[1]) & 0xFFFFFFFF),
        )
        for at in range(ROUNDS)
    ]
    # What is the same in all lanes is computed once: two rounds mix it into every word.
    for k0, k1 in keys[:_ROUNDS_TO_MIX]:
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (product1 >> _HIGH_SHIFT) ^ c1 ^ k0, (product0 >> _HIGH_SHIFT) ^ c3 ^ k1
        c1, c3 = product1 & _LOW, product0 & _LOW
    # In place and with two scratch arrays: this runs over half a vocabulary for every token, and
    # memory traffic is what it costs.
    shape = np.broadcast_shapes(*(word.shape for word in counter))
    c0, c1, c2, c3 = (np.array(np.broadcast_to(word, shape)) for word in (c0, c1, c2, c3))
    product0, product1 = np.empty(shape, np.uint64), np.empty(shape, np.uint64)
    for k0, k1 in keys[_ROUNDS_TO_MIX:-1]:
        np.multiply(c0, _MULTIPLIERS[0], out=product0)
        np.multiply(c2, _MULTIPLIERS[1], out=product1)
        np.right_shift(product1, _HIGH_SHIFT, out=c0)
        c0 ^= c1
        c0 ^= k0
        np.right_shift(product0, _HIGH_SHIFT, out=c2)
        c2 ^= c3
        c2 ^= k1
        np.bitwise_and(product1, _LOW, out=c1)
        np.bitwise_and(product0, _LOW, out=c3)
    return (c0, c1, c2, c3), keys[-1]
