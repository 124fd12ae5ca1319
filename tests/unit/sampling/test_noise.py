"""The noise map's fixed points: its documented steps, its ends, and what it refuses."""

import struct

import numpy as np
import pytest

from trunkline.sampling import gumbels, uniforms
from trunkline.sampling.noise import GUMBEL_MAX, _unit
from trunkline.sampling.philox import philox4x32

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
