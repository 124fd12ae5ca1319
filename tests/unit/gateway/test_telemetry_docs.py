"""``docs/operate/telemetry.md`` and the code name the same metrics, of the same kind and labels."""

import re
from pathlib import Path

from structlog.testing import capture_logs
from tests.support.fake_node import FakeNode
from tests.support.gateway import gateway_over

from trunkline.log.app import LogGauges
from trunkline.node.telemetry import NodeGauges, NodeTelemetry
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.logger import get_logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.otlp_export import Exporter, Target
from trunkline.verifier.telemetry import VerifierGauges

DOCUMENT = Path(__file__).parents[3] / "docs/operate/telemetry.md"
ROW = re.compile(r"\| `([a-z_.]+)` \| (\w+) \| `([^`]+)` \| ([^|]*) \| ([^|]+) \|")
MADE = re.compile(r"metrics\.(?:counter|gauge|histogram)\(\s*\"([a-z_.]+)\"")
BODY = b'{"model":"tiny","messages":[{"role":"user","content":"say it"}]}'


async def test_every_metric_is_documented_as_it_is(tmp_path: Path) -> None:
    metrics = Metrics()
    transport = HttpTransport()
    exporter = Exporter(
        transport,
        Target(endpoint="http://127.0.0.1:1", headers=(), service="s"),
        metrics,
        interval_s=3600,
        clock=SystemClock(),
        randomness=SystemRandomness(),
        logger=get_logger("gateway"),
    )
    async with FakeNode("alpha") as node, gateway_over([node], tmp_path, metrics=metrics) as stack:
        with capture_logs() as lines:
            assert (await stack.http.post("/v1/chat/completions", BODY)).status == 200
    await exporter.stop()
    await transport.aclose()
    NodeTelemetry(metrics)
    NodeGauges(metrics)
    LogGauges(metrics)
    VerifierGauges(metrics)
    text = DOCUMENT.read_text(encoding="utf-8")
    documented = {
        name: (kind, unit, tuple(re.findall(r"`([^`]+)`", labels)), said)
        for name, kind, unit, labels, said in ROW.findall(text)
    }
    for one in metrics.all:
        made = (type(one).__name__.lower(), one.unit, one.labels, one.text)
        assert documented[one.name] == made
    (line,) = [line for line in lines if line["event"] == "answer.ended"]
    for field in line.keys() - {"event", "log_level", "room"}:
        assert f"`{field}`" in text


def test_every_name_in_the_sources_is_documented() -> None:
    sources = (DOCUMENT.parents[2] / "src/trunkline").rglob("*.py")
    named = {name for path in sources for name in MADE.findall(path.read_text(encoding="utf-8"))}
    rows = ROW.findall(DOCUMENT.read_text(encoding="utf-8"))
    assert named == {name for name, *_ in rows}
