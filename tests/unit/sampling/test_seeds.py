"""Seeds: tags keep the three kinds apart, and each input counts."""

import hashlib

import pytest

from trunkline.sampling import answer_seed, choice_seed, seed_from_caller

A, B, C = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32


def test_answer_seed_is_the_documented_hash() -> None:
    assert (
        answer_seed(A, B, C)
        == hashlib.sha256(b"trunkline/sampling-seed/answer/v1\0" + A + B + C).digest()
    )


def test_every_input_and_its_place_counts() -> None:
    seeds = {
        answer_seed(A, B, C),
        answer_seed(B, A, C),
        answer_seed(A, C, B),
        choice_seed(A, 0),
        choice_seed(A, 1),
        choice_seed(B, 0),
        seed_from_caller(0),
        seed_from_caller(-1),
        seed_from_caller(2**63 - 1),
    }
    assert len(seeds) == 9
    assert {len(seed) for seed in seeds} == {32}


def test_refuses_lengths_and_ranges() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        answer_seed(A[:-1], B, C)
    with pytest.raises(ValueError, match="64-bit"):
        seed_from_caller(2**63)
    with pytest.raises(ValueError, match="32 bytes"):
        choice_seed(b"", 0)
    with pytest.raises(ValueError, match="32-bit"):
        choice_seed(A, -1)
