"""Philox4x32-10 against the known answers that the Random123 distribution publishes."""

import numpy as np
import pytest

from trunkline.sampling.philox import Words, philox4x32

# Random123, tests/kat_vectors, "philox4x32 10": counter, key, output.
KNOWN_ANSWERS = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def lanes(rows: list[list[int]]) -> Words:
    columns = np.array(rows, dtype=np.uint64).T
    return columns[0], columns[1], columns[2], columns[3]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_known_answer(counter: str, key: str, expected: str) -> None:
    k0, k1 = words(key)
    out = philox4x32(lanes([words(counter)]), (k0, k1))
    assert [int(word[0]) for word in out] == words(expected)


def test_lanes_do_not_influence_each_other() -> None:
    counters = [words(counter) for counter, _, _ in KNOWN_ANSWERS]
    together = np.array(philox4x32(lanes(counters), (7, 9)))
    for lane, counter in enumerate(counters):
        alone = np.array(philox4x32(lanes([counter]), (7, 9)))
        assert (together[:, lane] == alone[:, 0]).all()
