"""The drill that swaps a model, whole: seven processes, real models, real verdicts."""

import pytest
from tests.support.network import command, free_port_base

pytestmark = [pytest.mark.xdist_group("network"), pytest.mark.timeout(1200)]


def test_a_node_that_cheats_under_live_traffic_is_quarantined_and_no_call_fails() -> None:
    done = command(
        "drill", "swap-model", "--json", "--port-base", str(free_port_base()), timeout_s=1000
    )

    assert done.code == 0, done.out + done.err
    result = done.json()
    assert result["caught"]
    assert result["failed"] == 0
    assert result["afterwards"] == 0
    assert result["cheated_tokens"] > 0
    codes = [alert["code"] for alert in result["alerts"]]
    assert codes[0] == "node_quarantined", result["alerts"]
    assert {alert["node"] for alert in result["alerts"]} == {result["node"]}
