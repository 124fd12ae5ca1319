"""What a configuration says of a model: the same, and within the same bounds, for both roles."""

from pathlib import Path

import msgspec
import pytest

from trunkline.engine.client import _own_name
from trunkline.node import config as node_config
from trunkline.node.config import EmbeddedEngine, NodeConfig, VllmEngine
from trunkline.verifier import config as verifier_config
from trunkline.verifier.config import CheckedWeights, VerifierConfig


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


def test_a_node_before_a_vllm_server_reads_back_as_written(tmp_path: Path) -> None:
    engine = VllmEngine(server="http://127.0.0.1:8000", model_path="m.gguf", sequences=256)
    config = NodeConfig(name="alpha.example/node", operator="alpha.example", engine=engine)
    path = tmp_path / "node.toml"
    path.write_text(node_config.render(config))
    assert node_config.read(path) == config
    assert isinstance(engine, EmbeddedEngine)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "server"),
        ({"server": "127.0.0.1:8000"}, "address"),
        ({"server": "http://a:x"}, "address"),
        ({"server": "http://a:1", "sequences": 1025}, "1024"),
    ],
)
def test_a_vllm_server_that_no_node_takes(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert({"kind": "vllm"} | wrong, VllmEngine)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"compute": "vllm"}, "give both"),
        ({"server": "http://127.0.0.1:8000"}, "give both"),
        ({"compute": "vllm", "server": "127.0.0.1:8000"}, "address"),
        ({"compute": "vllm", "server": "http://a:1", "candidates": 0}, "candidates"),
    ],
)
def test_a_vllm_server_that_no_verifier_takes(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert(wrong, CheckedWeights)


def test_a_verifier_with_a_vllm_server_reads_back_as_written(tmp_path: Path) -> None:
    models = (CheckedWeights(compute="vllm", server="http://127.0.0.1:8000", candidates=64),)
    config = VerifierConfig(
        name="theta.example/verifier",
        operator="theta.example",
        log_url="http://127.0.0.1:1",
        models=(*models, CheckedWeights()),
    )
    path = tmp_path / "verifier.toml"
    path.write_text(verifier_config.render(config))
    assert verifier_config.read(path) == config
