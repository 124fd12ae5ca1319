"""What a configuration says of a model: the same, and within the same bounds, for both roles."""

import msgspec
import pytest

from trunkline.engine.client import _own_name
from trunkline.node.config import EmbeddedEngine
from trunkline.verifier.config import CheckedWeights


@pytest.mark.parametrize("kind", [EmbeddedEngine, CheckedWeights])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"context_tokens": 63}, "context_tokens"),
        ({"context_tokens": 1_000_001}, "context_tokens"),
        ({"threads": 0}, "threads"),
        ({"threads": 257}, "threads"),
        ({"model": "mine"}, "model_path"),
        ({"layers": 3}, "unknown field"),
    ],
)
def test_what_no_role_takes(kind, wrong, said):
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert({"kind": "embedded"} | wrong if kind is EmbeddedEngine else wrong, kind)


@pytest.mark.parametrize("kind", [EmbeddedEngine, CheckedWeights])
def test_what_both_take(kind):
    given = {"model_path": "m.gguf", "model": "mine", "context_tokens": 64, "threads": 256}
    tagged = {"kind": "embedded"} if kind is EmbeddedEngine else {}
    made = msgspec.convert(tagged | given, kind)
    assert {name: getattr(made, name) for name in given} == given
    assert made == kind(**given)


def test_a_model_without_a_name_has_its_files():
    assert _own_name("/models/large.v2.gguf") == "large.v2"
    assert _own_name("") == "smollm2-135m-instruct"
