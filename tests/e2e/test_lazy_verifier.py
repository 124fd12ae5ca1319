"""A verifier that never runs the model, in a real network: it is caught, and counts no more."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support import lazy_network
from tests.support.network import RunningNetwork, make, running

from trunkline.cli.folder import RoleEntry

pytestmark = [pytest.mark.xdist_group("network"), pytest.mark.timeout(1500)]

CAUGHT_S_MAX = 600.0
LAZY = "mu.localhost/verifier"
HONEST = "lambda.localhost/verifier"
NODES = (("rate_max = 0.1", "rate_max = 1.0"), ("plants_per_day = 24", "plants_per_day = 999"))
VERIFIERS = (("rate_ppm = 50000", "rate_ppm = 1000000"),)
PLANTING = (
    ("probe_per_minute = 0.02", "probe_per_minute = 60.0"),
    ("plant_share = 0.5", "plant_share = 1.0"),
)
IDLE = (("probe_per_minute = 0.02", "probe_per_minute = 0.0"),)


@pytest.fixture(scope="module")
def network(
    tmp_path_factory: pytest.TempPathFactory, model_cache: Path
) -> Iterator[RunningNetwork]:
    """Every answer is audited, and the honest verifier asks and plants all the time."""
    data = tmp_path_factory.mktemp("lazy") / "net"

    def changed(entry: RoleEntry, text: str) -> str:
        asking = IDLE if entry.name == lazy_network.LAZY else PLANTING
        changes = {"node": NODES, "verifier": (*VERIFIERS, *asking)}
        for old, new in changes.get(entry.role, ()):
            assert old in text, old
            text = text.replace(old, new)
        return text

    make(data, model_cache, changed)
    program = (sys.executable, lazy_network.__file__)
    with running(data, model_cache, program=program) as started:
        yield started


def until(look: Callable[[], Any]) -> Any:
    """Look again until there is something: real processes, so there is nothing to be told by."""
    deadline = time.monotonic() + CAUGHT_S_MAX
    while time.monotonic() < deadline:
        if found := look():
            return found
    raise AssertionError(f"not so after {CAUGHT_S_MAX} s")


def conduct(network: RunningNetwork) -> dict[str, Any]:
    """What the log shows of each verifier."""
    return {one["verifier"]: one for one in network.command("audit", "verifiers", "--json").json()}


def test_it_is_caught_by_plants_and_its_verdicts_do_not_count(network: RunningNetwork) -> None:
    lazy = until(
        lambda: next((one for one in (conduct(network)[LAZY],) if not one["counts"]), None)
    )

    assert lazy["missed"] >= 2
    details = {one["detail"] for one in lazy["findings"]}
    assert details == {
        f"passes an answer that was planted as wrong at {node}.localhost/node, "
        f"which {HONEST} failed"
        for node in ("alpha", "beta")
    }
    honest = conduct(network)[HONEST]
    assert (honest["counts"], honest["missed"], honest["findings"]) == (True, 0, [])
    said = network.command("audit", "verifiers")
    assert said.code == 1
    assert f"{LAZY}: its verdicts do not count any more" in said.out

    # The gateway heard of it too, and the nodes, which did as they were asked to, are as before.
    until(lambda: LAZY in [one["node"] for one in at_gateway(network, "alerts")])
    until(lambda: not at_gateway(network, "standings"))


def at_gateway(network: RunningNetwork, what: str) -> Any:
    return network.command("audit", "alerts", "--json").json()["gateway"][what]
