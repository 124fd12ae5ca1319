"""The rule on tensors against the reference: the same bits of noise, and the same tokens.

The integers are compared wherever this runs, since operators alone make them. What needs ``torch``
says so where it is missing (``trunkline[torch]``)."""

import importlib.util
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.engine import keyed_torch
from trunkline.inference.ports import Sampling
from trunkline.sampling import choose, gumbels, uniforms
from trunkline.sampling.noise import POSITION_MAX

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="no torch here (trunkline[torch]): the rule on tensors is not tested",
)
VOCABULARY = 1001


def test_products_are_those_of_whole_numbers() -> None:
    for word in (0, 1, 0xFFFF, 0x10000, 0xDEADBEEF, 0xFFFFFFFF):
        for factor in (0xD2511F53, 0xCD9E8D57, 0xFFFFFFFF):
            high, low = keyed_torch._product(np.array([word], dtype=np.int64), factor)
            assert (int(high[0]) << 32) + int(low[0]) == word * factor


@given(st.binary(min_size=32, max_size=32), st.integers(0, POSITION_MAX), st.integers(0, 2**31 - 9))
def test_the_integers_of_the_noise_are_the_references(
    seed: bytes, position: int, block: int
) -> None:
    s = [np.array([[one]], dtype=np.int64) for one in np.frombuffer(seed, dtype="<u4")]
    blocks = np.arange(block, block + 8, dtype=np.int64)[None, :]
    x0, x1, x2, x3 = keyed_torch.philox4x32(
        (blocks ^ s[2], np.int64(position) ^ s[3], s[4], s[5]), (s[0], s[1])
    )
    for odd, n in ((0, keyed_torch.units(x0, x1)), (1, keyed_torch.units(x2, x3))):
        ours = np.minimum(n[0].astype(np.float64) * 2.0**-53 + 2.0**-54, 1.0 - 2.0**-53)
        assert ours.tolist() == uniforms(seed, position, 2 * blocks[0] + odd).tolist()


def logits_of(seed: int, *, ties: bool) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(0.0, 3.0, VOCABULARY)
    return (np.round(drawn * 2) / 2 if ties else drawn).astype(np.float32)


RULES: list[dict[str, object]] = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.2, "top_p": 0.9},
    {"temperature": 1.3, "top_k": 7},
    {"temperature": 0.8, "min_p": 0.05},
    {"top_p": 0.0},
    {"top_p": 0.7, "top_k": 40, "min_p": 0.02},
    {"temperature": 0.0, "frequency_penalty": 1.5, "presence_penalty": 0.5},
    {"temperature": 2.0, "logit_bias": {3: 4.0, 1000: -2.0, 5: 0.25}},
    {"temperature": 100.0, "min_p": 1.0},
    {"top_k": 5000},
]


@needs_torch
def test_noise_is_the_references_to_the_last_place_of_a_logarithm() -> None:
    import torch

    seeds = [bytes([at]) * 32 for at in (0, 7, 255)]
    found = keyed_torch.gumbels(seeds, [0, 1, 70_000], torch.zeros(3, 49_152)).numpy()
    for row, (seed, position) in enumerate(zip(seeds, (0, 1, 70_000), strict=True)):
        expected = gumbels(seed, position, np.arange(49_152))
        np.testing.assert_allclose(found[row], expected, rtol=1e-14, atol=1e-15)


@needs_torch
@pytest.mark.parametrize("ties", [False, True])
def test_each_row_gets_the_references_token_in_any_company(ties: bool) -> None:
    import torch

    rules = [Sampling(seed=bytes([at]) * 32, **rule) for at, rule in enumerate(RULES * 8)]
    positions = [at * 37 for at in range(len(rules))]
    said = [Counter({at % VOCABULARY: 2, 4: 1}) for at in range(len(rules))]
    logits = np.stack([logits_of(at, ties=ties) for at in range(len(rules))])
    found = keyed_torch.choose(torch.tensor(logits), rules, positions=positions, counts=said)
    assert found.tolist() == [
        choose(logits[at], rule, seed=rule.seed, position=positions[at], counts=said[at])
        for at, rule in enumerate(rules)
    ]


@needs_torch
def test_a_bias_on_tokens_that_there_are_not_is_let_be() -> None:
    import torch

    rule = Sampling(temperature=0.0, logit_bias={VOCABULARY: 50.0, 2: 50.0})
    found = keyed_torch.choose(torch.zeros(1, VOCABULARY), [rule], positions=[0], counts=[{}])
    assert found.tolist() == [2]
