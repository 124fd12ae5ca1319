"""Shared by all tests: deterministic Hypothesis, loopback only, ports, and one real network."""

import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from tests.support.network import RunningNetwork, free_port_base, running

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run: a red build is red again tomorrow. Fresh ones on request.
hypothesis.settings.register_profile("fixed", deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("fresh", deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the world outside fails, rather than depend on it."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guarded(self: socket.socket, address: Any) -> None:
        _refuse_outside(self, address)
        connect(self, address)

    def guarded_ex(self: socket.socket, address: Any) -> int:
        _refuse_outside(self, address)
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_ex)


def _refuse_outside(used: socket.socket, address: Any) -> None:
    if used.family not in (socket.AF_INET, socket.AF_INET6):
        return
    try:
        inside = ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        inside = address[0] == "localhost"
    if not inside:
        pytest.fail(f"a test tried to connect to {address[0]}")


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of published test vectors; fails where it is configured and absent."""
    named = os.environ.get("TRUNKLINE_VECTORS")
    path = Path(named) if named else ROOT.parent / "shared" / "vectors"
    if not path.is_dir():
        if named:
            pytest.fail(f"TRUNKLINE_VECTORS is {named}, and there is no such folder")
        pytest.skip("no test vectors here: set TRUNKLINE_VECTORS to their folder")
    return path


@pytest.fixture
def port_base() -> int:
    """First of sixteen free ports."""
    return free_port_base()


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of derived model files for every network of the session."""
    named = os.environ.get("TRUNKLINE_TEST_CACHE")
    return Path(named) if named else tmp_path_factory.getbasetemp().parent / "model-cache"


@pytest.fixture(scope="session")
def network(
    tmp_path_factory: pytest.TempPathFactory, model_cache: Path
) -> Iterator[RunningNetwork]:
    """A real network, shared by the tests of one worker: leave it as you found it, and ready."""
    with running(tmp_path_factory.mktemp("network") / "data", model_cache) as started:
        yield started
