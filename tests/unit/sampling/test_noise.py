"""The noise map's fixed points: its documented steps, its ends, and what it refuses."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sampling import gumbels, uniforms
from trunkline.sampling.noise import GUMBEL_MAX, _unit, reaching
from trunkline.sampling.philox import philox4x32, philox4x32_block, second_and_fourth

SEED = bytes(range(32))


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, dtype=np.int64)


@pytest.mark.parametrize(
    ("token", "position"), [(0, 0), (1, 0), (2, 0), (49151, 7), (5, 2**32 - 1)]
)
def test_follows_the_documented_steps(token: int, position: int) -> None:
    s = struct.unpack("<8I", SEED)
    counter = [(token >> 1) ^ s[2], position ^ s[3], s[4], s[5]]
    x = [int(w[0]) for w in philox4x32(tuple(np.array([[c] for c in counter], np.uint64)), s[:2])]
    a, b = x[2:] if token & 1 else x[:2]
    n = (b >> 5) * 2**26 + (a >> 6)
    assert uniforms(SEED, position, ids(token))[0] == min(n * 2.0**-53 + 2.0**-54, 1 - 2.0**-53)


def test_known_values_do_not_change() -> None:
    # Frozen: a change of the map would break the replay of every answer ever signed.
    assert [u.hex() for u in uniforms(SEED, 3, ids(0, 1, 40000))] == [
        "0x1.7d8d260d7c1f3p-2",
        "0x1.4bb34d97912b4p-4",
        "0x1.82c1f7557f67ap-1",
    ]


def test_uniform_is_open_at_both_ends() -> None:
    full = np.array([0xFFFFFFFF], np.uint64)
    none = np.array([0], np.uint64)
    assert 0.0 < _unit(none, none)[0] == 2.0**-54
    assert 1.0 > _unit(full, full)[0] == 1 - 2.0**-53
    assert np.isfinite(-np.log(-np.log(_unit(none, none))))[0]
    assert -np.log(-np.log(_unit(full, full)))[0] < GUMBEL_MAX


def test_uniforms_are_uniform_and_positions_independent() -> None:
    u = uniforms(SEED, 11, np.arange(49152))
    v = uniforms(SEED, 12, np.arange(49152))
    assert abs(u.mean() - 0.5) < 0.005
    assert abs(u.var() - 1 / 12) < 0.005
    assert abs(np.corrcoef(u, v)[0, 1]) < 0.02
    assert abs(np.corrcoef(u[0::2], u[1::2])[0, 1]) < 0.02


def test_every_used_word_of_the_seed_matters() -> None:
    base = gumbels(SEED, 0, ids(1, 2, 3))
    for word in range(6):
        other = bytearray(SEED)
        other[4 * word] ^= 1
        assert (gumbels(bytes(other), 0, ids(1, 2, 3)) != base).all()


def test_no_tokens_no_noise() -> None:
    assert gumbels(SEED, 0, ids()).size == 0


@pytest.mark.parametrize(
    ("seed", "position", "token"),
    [(b"short", 0, 0), (SEED, -1, 0), (SEED, 2**32, 0), (SEED, 0, -1)],
)
def test_refuses_what_is_out_of_range(seed: bytes, position: int, token: int) -> None:
    with pytest.raises(ValueError, match=r"seed|position|token"):
        uniforms(seed, position, ids(token))


WORDS = st.integers(0, 2**32 - 1)


@given(st.lists(st.tuples(WORDS, WORDS, WORDS, WORDS), min_size=1, max_size=4), WORDS, WORDS)
def test_a_lane_alone_and_two_of_its_words_are_those_of_all(
    lanes: list[tuple[int, int, int, int]], k0: int, k1: int
) -> None:
    counter = tuple(np.array(word, np.uint64) for word in zip(*lanes, strict=True))
    words = philox4x32(counter, (k0, k1))
    assert [tuple(map(int, lane)) for lane in zip(*words, strict=True)] == [
        philox4x32_block(lane, (k0, k1)) for lane in lanes
    ]
    second, fourth = second_and_fourth(counter, (k0, k1))
    assert (second.tolist(), fourth.tolist()) == (words[1].tolist(), words[3].tolist())


def test_words_that_are_the_same_in_all_lanes_need_not_be_repeated() -> None:
    lanes = np.arange(9, dtype=np.uint64)
    one = (np.array([7], np.uint64), np.array([8], np.uint64), np.array([2**32 - 1], np.uint64))
    whole = philox4x32((lanes, *(np.full(9, word[0]) for word in one)), (1, 2))
    assert [word.tolist() for word in philox4x32((lanes, *one), (1, 2))] == [
        word.tolist() for word in whole
    ]


def test_few_tokens_have_the_noise_that_they_have_among_many() -> None:
    for many in (np.arange(300), np.arange(0, 90_000, 300)):
        noise = gumbels(SEED, 9, many)
        assert noise.tobytes() == b"".join(gumbels(SEED, 9, ids(one)).tobytes() for one in many)
    assert uniforms(SEED, 9, np.array([[4, 5], [6, 7]])).shape == (2, 2)


@given(
    position=st.integers(0, 2**32 - 1),
    size=st.integers(1, 700),
    spread=st.sampled_from([0.0, 0.5, 5.0, 300.0]),
    above=st.sampled_from([-3.5, -1.0, 0.0, 2.0, 9.0, 40.0]),
)
def test_none_that_reaches_the_floor_is_left_out(
    position: int, size: int, spread: float, above: float
) -> None:
    z = np.random.default_rng(position).normal(scale=spread, size=size) if spread else np.ones(size)
    scores = z + gumbels(SEED, position, np.arange(size))
    for floor in (float(z.max()) + above, float(scores.max()), float(np.median(scores))):
        found = reaching(SEED, position, z, floor)
        assert (np.diff(found) > 0).all()
        assert set(np.flatnonzero(scores >= floor)) <= set(found.tolist())


def test_few_are_taken_for_reaching_the_floor_that_do_not() -> None:
    z = np.random.default_rng(5).normal(scale=3.0, size=49_152)
    best = z + gumbels(SEED, 5, np.arange(z.size))
    assert 1 <= reaching(SEED, 5, z, float(best.max())).size <= 40
