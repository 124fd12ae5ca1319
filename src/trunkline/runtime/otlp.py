"""OTLP/HTTP in its JSON encoding (OpenTelemetry Protocol 1.x): spans and metrics as bytes.

The JSON form is as stable as the binary one, and needs no library at run time: ADR 0016 says why
there is none. Integers of 64 bits are strings, ids hexadecimal digits, enumerations numbers, as
the protocol's "JSON Protobuf Encoding" asks. Pure: what sends them is :mod:`otlp_export`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from trunkline.runtime.metrics import Counter, Histogram, Metric

Value = str | bool | int | float
Attributes = Mapping[str, Value]

TRACES_PATH: Final = "/v1/traces"
METRICS_PATH: Final = "/v1/metrics"
SCOPE: Final = "trunkline"

SERVER: Final = 2
CLIENT: Final = 3
_ERROR: Final = 2
_CUMULATIVE: Final = 2


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span. No content in any field."""

    trace: str
    span: str
    parent: str | None
    name: str
    kind: int
    """``SERVER`` or ``CLIENT``."""
    start_ns: int
    """Nanoseconds since the Unix epoch, as :attr:`end_ns`."""
    end_ns: int
    attributes: Attributes
    error: str | None = None
    """Stable code of what it ended with; None: it went well."""


class _Value(msgspec.Struct, frozen=True, omit_defaults=True):
    stringValue: str | None = None
    boolValue: bool | None = None
    intValue: str | None = None
    doubleValue: float | None = None


class _Attribute(msgspec.Struct, frozen=True):
    key: str
    value: _Value


class _Status(msgspec.Struct, frozen=True, omit_defaults=True):
    code: int = 0


class _Span(msgspec.Struct, frozen=True, omit_defaults=True):
    traceId: str
    spanId: str
    name: str
    kind: int
    startTimeUnixNano: str
    endTimeUnixNano: str
    attributes: list[_Attribute]
    parentSpanId: str | None = None
    status: _Status | None = None


class _Scope(msgspec.Struct, frozen=True):
    name: str
    version: str


class _Resource(msgspec.Struct, frozen=True):
    attributes: list[_Attribute]


class _ScopeSpans(msgspec.Struct, frozen=True):
    scope: _Scope
    spans: list[_Span]


class _ResourceSpans(msgspec.Struct, frozen=True):
    resource: _Resource
    scopeSpans: list[_ScopeSpans]


class _Traces(msgspec.Struct, frozen=True):
    resourceSpans: list[_ResourceSpans]


class _Point(msgspec.Struct, frozen=True, omit_defaults=True):
    attributes: list[_Attribute]
    startTimeUnixNano: str
    timeUnixNano: str
    asInt: str | None = None
    asDouble: float | None = None
    count: str | None = None
    sum: float | None = None
    bucketCounts: list[str] | None = None
    explicitBounds: list[float] | None = None


class _Points(msgspec.Struct, frozen=True, omit_defaults=True):
    dataPoints: list[_Point]
    aggregationTemporality: int | None = None
    isMonotonic: bool | None = None


class _Metric(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    description: str
    unit: str
    sum: _Points | None = None
    gauge: _Points | None = None
    histogram: _Points | None = None


class _ScopeMetrics(msgspec.Struct, frozen=True):
    scope: _Scope
    metrics: list[_Metric]


class _ResourceMetrics(msgspec.Struct, frozen=True):
    resource: _Resource
    scopeMetrics: list[_ScopeMetrics]


class _AllMetrics(msgspec.Struct, frozen=True):
    resourceMetrics: list[_ResourceMetrics]


def encode_spans(resource: Attributes, version: str, spans: Iterable[Span]) -> bytes:
    """An ``ExportTraceServiceRequest``. ``resource`` says who speaks."""
    scope = _ScopeSpans(_Scope(SCOPE, version), [_span(span) for span in spans])
    found = _ResourceSpans(_Resource(_attributes(resource)), [scope])
    return msgspec.json.encode(_Traces([found]))


def encode_metrics(
    resource: Attributes, version: str, metrics: Sequence[Metric], start_ns: int, now_ns: int
) -> bytes:
    """An ``ExportMetricsServiceRequest``, cumulative since ``start_ns``, without empty ones."""
    shown = [_metric(metric, str(start_ns), str(now_ns)) for metric in metrics if metric.series]
    scope = _ScopeMetrics(_Scope(SCOPE, version), shown)
    found = _ResourceMetrics(_Resource(_attributes(resource)), [scope])
    return msgspec.json.encode(_AllMetrics([found]))


def _span(span: Span) -> _Span:
    return _Span(
        traceId=span.trace,
        spanId=span.span,
        parentSpanId=span.parent,
        name=span.name,
        kind=span.kind,
        startTimeUnixNano=str(span.start_ns),
        endTimeUnixNano=str(span.end_ns),
        attributes=_attributes(span.attributes),
        status=None if span.error is None else _Status(_ERROR),
    )


def _metric(metric: Metric, start: str, now: str) -> _Metric:
    if isinstance(metric, Histogram):
        points = [
            _Point(
                attributes=_labels(metric, values),
                startTimeUnixNano=start,
                timeUnixNano=now,
                count=str(sum(buckets.counts)),
                sum=buckets.total,
                bucketCounts=[str(count) for count in buckets.counts],
                explicitBounds=list(metric.bounds),
            )
            for values, buckets in metric.series.items()
        ]
        return _Metric(
            metric.name, metric.text, metric.unit, histogram=_Points(points, _CUMULATIVE)
        )
    if isinstance(metric, Counter):
        sums = [
            _Point(_labels(metric, values), start, now, asInt=str(value))
            for values, value in metric.series.items()
        ]
        return _Metric(
            metric.name, metric.text, metric.unit, sum=_Points(sums, _CUMULATIVE, isMonotonic=True)
        )
    shown = [
        _Point(_labels(metric, values), start, now, asDouble=float(value))
        for values, value in metric.series.items()
    ]
    return _Metric(metric.name, metric.text, metric.unit, gauge=_Points(shown))


def _labels(metric: Metric, values: Sequence[str]) -> list[_Attribute]:
    # An empty label is one that does not apply, in Prometheus' model; here it is left out.
    pairs = zip(metric.labels, values, strict=True)
    return _attributes({name: value for name, value in pairs if value})


def _attributes(attributes: Attributes) -> list[_Attribute]:
    return [_Attribute(key, _value(value)) for key, value in attributes.items()]


def _value(value: Value) -> _Value:
    if isinstance(value, bool):
        return _Value(boolValue=value)
    if isinstance(value, int):
        return _Value(intValue=str(value))
    if isinstance(value, float):
        return _Value(doubleValue=value)
    return _Value(stringValue=value)
