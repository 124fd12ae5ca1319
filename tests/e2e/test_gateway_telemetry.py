"""Metrics, traces and lines of a real gateway: held against the official Prometheus parser and
OpenTelemetry's own protocol classes."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault
from tests.support.gateway import Stack, gateway_over

from trunkline.base.errors import Error
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.http import Call, Receive, Router, Scope, Send
from trunkline.runtime.logger import get_logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.otlp_export import TRACES_WAITING_MAX, Exporter, Target
from trunkline.runtime.server import serving

SECRET = "a password that somebody typed"
BODY = json.dumps(
    {"model": "tiny", "stream": True, "messages": [{"role": "user", "content": SECRET}]}
).encode()
CHAT = "/v1/chat/completions"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


class Receiver:
    """An OTLP/HTTP receiver. Decodes by the official classes; ``statuses`` come before 200."""

    def __init__(self, *statuses: int) -> None:
        self.spans: list[tuple[dict[str, Any], Span]] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.headers: list[str | None] = []
        self.bodies = b""
        self._statuses = list(statuses)
        self._router = Router(self._refuse)
        self._router.add("POST", "/v1/traces", self._traces)
        self._router.add("POST", "/v1/metrics", self._metrics)

    async def startup(self) -> None: ...

    async def shutdown(self) -> None: ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._router.dispatch(Call(scope, receive, send))

    async def _traces(self, call: Call) -> None:
        body = await call.body(1 << 24)
        assert call.header("content-type") == "application/json"
        self.headers.append(call.header("x-key"))
        if self._statuses:
            await call.reply(self._statuses.pop(0), b"{}")
            return
        self.bodies += body
        found = ExportTraceServiceRequest()
        json_format.Parse(json.dumps(_ids(json.loads(body))), found)
        for resource in found.resource_spans:
            about = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.spans += [(about, span) for one in resource.scope_spans for span in one.spans]
        await call.reply(200, b'{"partialSuccess":{}}')

    async def _metrics(self, call: Call) -> None:
        body = await call.body(1 << 24)
        self.bodies += body
        self.metrics.append(json_format.Parse(body, ExportMetricsServiceRequest()))
        await call.reply(200, b"{}")

    async def _refuse(self, call: Call, error: Error) -> None:
        await call.reply(500, error.error_code.encode())


def _ids(value: Any) -> Any:
    """OTLP's JSON has ids as hexadecimal digits; the classes' own JSON has base64."""
    if isinstance(value, dict):
        return {
            key: base64.b64encode(bytes.fromhex(found)).decode()
            if key in ("traceId", "spanId", "parentSpanId")
            else _ids(found)
            for key, found in value.items()
        }
    return [_ids(one) for one in value] if isinstance(value, list) else value


def attributes(span: Span) -> dict[str, Any]:
    found = {}
    for one in span.attributes:
        found[one.key] = getattr(one.value, str(one.value.WhichOneof("value")))
    return found


@pytest.fixture
async def alpha() -> AsyncIterator[FakeNode]:
    async with FakeNode("alpha") as node:
        yield node


@pytest.fixture
async def beta() -> AsyncIterator[FakeNode]:
    async with FakeNode("beta") as node:
        yield node


async def samples(stack: Stack) -> dict[tuple[str, ...], float]:
    """Name and label values of each series, and its value."""
    reply = await stack.http.get("/metrics")
    assert reply.status == 200
    return {
        (one.name, *one.labels.values()): one.value
        for family in text_string_to_metric_families(reply.body.decode())
        for one in family.samples
    }


async def traced(
    alpha: FakeNode, beta: FakeNode, data: Path, receiver: Receiver, **headers: str
) -> list[tuple[dict[str, Any], Span]]:
    """One answer whose first attempt fails, and what the receiver got of it."""
    alpha.will(Fault.CUT, after=2)
    transport, metrics = HttpTransport(), Metrics()
    async with serving(receiver, shutdown_grace_s=1.0) as url:
        exporter = Exporter(
            transport,
            Target(endpoint=url, headers=(("x-key", "k"),), service="the-gateway"),
            metrics,
            interval_s=3600,
            clock=SystemClock(),
            randomness=SystemRandomness(),
            logger=get_logger("gateway"),
        )
        async with gateway_over([alpha, beta], data, metrics=metrics, exporter=exporter) as stack:
            reply = await stack.http.post(CHAT, BODY, **headers)
            assert reply.status == 200
            assert b"[DONE]" in reply.body
        await transport.aclose()
    return receiver.spans


async def test_an_answer_is_a_span_with_one_below_it_for_each_attempt(
    alpha: FakeNode, beta: FakeNode, tmp_path: Path
) -> None:
    receiver = Receiver()
    spans = await traced(alpha, beta, tmp_path, receiver, traceparent=PARENT)
    assert {about["service.name"] for about, _ in spans} == {"the-gateway"}
    assert receiver.headers == ["k"]
    whole, first, second = (span for _, span in spans)
    assert whole.trace_id.hex() == TRACE
    assert whole.parent_span_id.hex() == PARENT.split("-")[2]
    assert whole.name == "chat tiny"
    assert whole.kind == Span.SPAN_KIND_SERVER
    said = attributes(whole)
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == "tiny"
    assert said["gen_ai.usage.output_tokens"] > 0
    assert "error.type" not in said
    for span in (first, second):
        assert span.parent_span_id == whole.span_id
        assert span.kind == Span.SPAN_KIND_CLIENT
        assert whole.start_time_unix_nano <= span.start_time_unix_nano
        assert span.start_time_unix_nano <= span.end_time_unix_nano <= whole.end_time_unix_nano
    assert attributes(first)["trunkline.node"] == alpha.name
    assert attributes(first)["error.type"] == "upstream_truncated"
    assert first.status.code == 2
    assert attributes(second)["trunkline.node"] == beta.name
    # Each node is told its own attempt's span.
    told = [*alpha.traceparents, *beta.traceparents]
    assert told == [f"00-{TRACE}-{span.span_id.hex()}-01" for span in (first, second)]


async def test_nothing_that_was_written_is_in_traces_metrics_or_lines(
    alpha: FakeNode, beta: FakeNode, tmp_path: Path
) -> None:
    receiver = Receiver()
    with capture_logs() as lines:
        await traced(alpha, beta, tmp_path, receiver)
    everything = receiver.bodies.decode() + repr(lines)
    assert "chat tiny" in everything
    assert "answer.ended" in everything
    assert SECRET not in everything


async def test_what_the_receiver_will_not_take_now_is_sent_again(
    alpha: FakeNode, beta: FakeNode, tmp_path: Path
) -> None:
    receiver = Receiver(503)
    transport, metrics = HttpTransport(), Metrics()
    async with serving(receiver, shutdown_grace_s=1.0) as url:
        exporter = Exporter(
            transport,
            Target(endpoint=url, headers=(), service="the-gateway"),
            metrics,
            interval_s=3600,
            clock=SystemClock(),
            randomness=SystemRandomness(),
            logger=get_logger("gateway"),
        )
        async with gateway_over(
            [alpha, beta], tmp_path, metrics=metrics, exporter=exporter
        ) as stack:
            assert (await stack.http.post(CHAT, BODY)).status == 200
            await exporter.stop()
            assert receiver.spans == []
            exporter.start()
        await transport.aclose()
    assert len(receiver.spans) == 2


async def test_an_app_that_says_not_to_be_sampled_is_not(
    alpha: FakeNode, beta: FakeNode, tmp_path: Path
) -> None:
    unsampled = PARENT[:-1] + "0"
    spans = await traced(alpha, beta, tmp_path, Receiver(), traceparent=unsampled)
    assert spans == []
    assert [*alpha.traceparents, *beta.traceparents] == [unsampled, unsampled]


async def test_metrics_count_what_happened(alpha: FakeNode, beta: FakeNode, tmp_path: Path) -> None:
    alpha.will(Fault.CUT, after=2)
    async with gateway_over([alpha, beta], tmp_path) as stack:
        with capture_logs() as lines:
            assert (await stack.http.post(CHAT, BODY)).status == 200
            unknown = BODY.replace(b"tiny", b"made-up-by-an-app")
            assert (await stack.http.post(CHAT, unknown)).status == 404
        found = await samples(stack)
        assert b"made-up-by-an-app" not in (await stack.http.get("/metrics")).body
    assert found["trunkline_gateway_answers_total", "survived", ""] == 1
    assert found["trunkline_gateway_attempts_total", alpha.name, "upstream_truncated"] == 1
    assert found["trunkline_gateway_attempts_total", beta.name, ""] == 1
    assert found["trunkline_gateway_calls_refused_total", "model_not_found"] == 1
    about = ("chat", "trunkline", "tiny")
    assert found["gen_ai_client_operation_duration_seconds_count", *about, ""] == 1
    assert found["gen_ai_client_operation_time_to_first_chunk_seconds_count", *about] == 1
    assert found["gen_ai_client_token_usage_count", *about, "output"] == 1
    assert found["trunkline_gateway_node_ready", alpha.name] == 1
    (line,) = [line for line in lines if line["event"] == "answer.ended"]
    assert line["attempts_failed"] == 1
    assert line["served_model"] == "tiny"
    assert line["operator"] == beta.operator
    assert line["completion_tokens"] > 0
    assert line["tenant"] == ""
    assert "error" not in line


async def test_a_queue_that_is_full_drops_and_counts() -> None:
    metrics = Metrics()
    exporter = Exporter(
        HttpTransport(),
        Target(endpoint="http://127.0.0.1:1", headers=(), service="s"),
        metrics,
        interval_s=3600,
        clock=SystemClock(),
        randomness=SystemRandomness(),
        logger=get_logger("gateway"),
    )
    for _ in range(TRACES_WAITING_MAX + 3):
        exporter.offer(list)
    assert b"trunkline_telemetry_traces_dropped_total 3" in metrics.render()
