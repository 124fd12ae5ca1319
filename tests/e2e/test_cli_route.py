"""``trunkline route explain`` on a real network."""

import pytest
from tests.support.front_door import MODEL
from tests.support.network import RunningNetwork

from trunkline.gateway.explain import GETS_CALLS

pytestmark = pytest.mark.xdist_group("network")


def test_a_model_is_explained(network: RunningNetwork) -> None:
    done = network.command("route", "explain", "--model", MODEL, "--json")
    assert done.code == 0, done.err
    found = done.json()
    assert (found["model"], found["kind"], found["virtual"]) == (MODEL, "chat", False)
    assert [one["place"] for one in found["deployments"]] == [1, 2]
    # Another test may have killed one of them a while ago: then it says so, and comes last.
    for one in found["deployments"]:
        assert one["state"] == "healthy" or one["reason"], one
    unwell = [one["state"] not in GETS_CALLS for one in found["deployments"]]
    assert unwell == sorted(unwell), found["deployments"]
    assert found["outcome"].startswith(f"asks {MODEL} at ")
    assert found["policy"]["file"].endswith("routing.toml")
    shown = network.command("route", "explain", "--model", MODEL)
    assert shown.code == 0
    assert found["outcome"] in shown.out
    for one in found["deployments"]:
        assert one["node"] in shown.out


def test_a_model_nobody_serves_is_refused(network: RunningNetwork) -> None:
    done = network.command("route", "explain", "--model", "model-z")
    assert done.code == 1
    assert "refused: no node serves it" in done.out
    assert "none serves it" in done.out
