"""The logits processor in vLLM's hands: what it refuses, and what it leaves of a batch's logits.

vLLM's own types are stood in for, in the shapes of 0.32.0 (``vllm/v1/sample/logits_processor``);
a real vLLM has run it too (``docs/adr/0029``). Needs ``torch``, and says so where it is missing.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from enum import Enum, auto
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trunkline.engine.keyed import ARGUMENT, Keyed, encode
from trunkline.inference.ports import Sampling
from trunkline.sampling import choose

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="no torch here (trunkline[torch]): vLLM's logits processor is not tested",
)
MODULE = "trunkline.engine.vllm_processor"
VOCABULARY = 64


class MoveDirectionality(Enum):
    UNIDIRECTIONAL = auto()
    SWAP = auto()


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    types = ModuleType("vllm.v1.sample.logits_processor")
    types.BatchUpdate = SimpleNamespace
    types.LogitsProcessor = object
    types.MoveDirectionality = MoveDirectionality
    for name in ("vllm", "vllm.v1", "vllm.v1.sample"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, types.__name__, types)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield importlib.import_module(MODULE).KeyedNoise
    sys.modules.pop(MODULE, None)


def params(rule: Sampling | None, *, given: int = 0, **other: object) -> SimpleNamespace:
    """``SamplingParams`` as a request of ours makes them."""
    extra = None if rule is None else {ARGUMENT: encode(Keyed(sampling=rule, given=given))}
    plain = {"temperature": 0.0, "n": 1, "repetition_penalty": 1.0, "bad_words": []}
    return SimpleNamespace(extra_args=extra, **(plain | other))


def update(**changes: object) -> SimpleNamespace:
    return SimpleNamespace(**({"removed": [], "added": [], "moved": []} | changes))


@pytest.mark.parametrize(
    "other",
    [
        {"temperature": 0.5},
        {"n": 2},
        {"repetition_penalty": 1.1},
        {"frequency_penalty": 0.1},
        {"min_tokens": 3},
        {"logit_bias": {1: 1.0}},
        {"allowed_token_ids": [1]},
        {"bad_words": ["a"]},
        {"structured_outputs": object()},
    ],
)
def test_what_else_bends_logits_is_refused(processor: Any, other: dict[str, object]) -> None:
    processor.validate_params(params(Sampling()))
    processor.validate_params(params(None, **other))
    with pytest.raises(ValueError, match=next(iter(other))):
        processor.validate_params(params(Sampling(), **other))


def test_a_value_that_is_none_of_ours_is_refused(processor: Any) -> None:
    with pytest.raises(ValueError, match=ARGUMENT):
        processor.validate_params(SimpleNamespace(extra_args={ARGUMENT: "?"}))


def test_rows_get_the_rules_token_and_others_are_left_alone(processor: Any) -> None:
    import torch

    made = processor(None, torch.device("cpu"), False)
    assert not made.is_argmax_invariant()
    logits = np.random.default_rng(3).normal(0, 3, (3, VOCABULARY)).astype(np.float32)
    untouched = torch.tensor(logits)
    assert made.apply(untouched) is untouched
    warm = Sampling(seed=b"w" * 32, temperature=1.1, top_p=0.9)
    said = Sampling(seed=b"s" * 32, temperature=0.7, frequency_penalty=9.0)
    output: list[int] = []
    added = [
        (0, params(warm), [5, 6], []),
        (1, params(None), [5], []),
        (2, params(said, given=2), [5, 9, 8], output),
    ]
    made.update_state(update(added=added))
    made.update_state(None)
    output += [9]
    # What row 2 asked for is computed in row 0 from now on, and the other way round.
    made.update_state(update(moved=[(0, 2, MoveDirectionality.SWAP)]))
    found = made.apply(torch.tensor(logits))
    counts = {9: 2, 8: 1}
    expected = {
        0: choose(logits[0], said, seed=said.seed, position=3, counts=counts),
        2: choose(logits[2], warm, seed=warm.seed, position=0, counts={}),
    }
    for row, token in expected.items():
        assert int(found[row].argmax()) == token
        assert int(torch.isfinite(found[row]).sum()) == 1
    assert found[1].tolist() == logits[1].tolist()
