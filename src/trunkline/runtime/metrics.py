"""Metrics: plain numbers kept by a role, shown at ``GET /metrics`` when somebody asks.

Counting costs a dictionary look-up; names and text are made at the scrape. Instruments have
OpenTelemetry's names and units; the text is Prometheus' exposition format 0.0.4, with names as
OpenTelemetry's "Prometheus and OpenMetrics Compatibility" says. It refuses to grow without bound: a
label has at most ``VALUES_MAX`` values, an instrument ``SERIES_MAX`` series, and what comes later
is counted as ``other``. No label is ever content, a key, or an answer's id.
"""

import re
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Literal, TypeVar

import msgspec

from trunkline.base.errors import RequestError
from trunkline.runtime.config import toml_value
from trunkline.runtime.http import Call, Router

Labels = tuple[str, ...]
"""An instrument's label values, in the order of its label names."""

VALUES_MAX: Final = 200
SERIES_MAX: Final = 2000
OTHER: Final = "other"
VALUE_CHARS_MAX: Final = 128

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
METRICS_PATH: Final = "/metrics"

_UNITS: Final = {"s": "_seconds", "By": "_bytes"}
_NOT_NAME: Final = re.compile(r"[^a-zA-Z0-9_]")
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The section ``[telemetry]``, as far as every role has it."""

    metrics: Literal["local", "all", "off"] = "local"
    """Who may read the metrics: callers on this machine, whoever reaches the address, or nobody."""
    metrics_path: str = METRICS_PATH
    """Where they are."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"/[!-~]*", self.metrics_path):
            raise ValueError("metrics_path must be a path: a slash, then ASCII without spaces")


def render_config(config: MetricsConfig) -> list[str]:
    """The section's beginning, as a commented configuration file has it."""
    return [
        "[telemetry]",
        "# Who may read the metrics: callers on this machine (local), all, or nobody (off).",
        f"metrics = {toml_value(config.metrics)}",
        f"metrics_path = {toml_value(config.metrics_path)}",
    ]


class Instrument:
    """What counters, gauges and histograms have in common."""

    __slots__ = ("_known", "labels", "name", "text", "unit")

    def __init__(self, name: str, unit: str, text: str, labels: Labels) -> None:
        """``name`` and ``unit`` as OpenTelemetry writes them; ``text`` says what is measured."""
        self.name = name
        self.unit = unit
        self.text = text
        self.labels = labels
        self._known: list[set[str]] = [set() for _ in labels]

    def bounded(self, values: Labels, series: int) -> Labels:
        """The labels of a series that is new, given how many there are."""
        if series >= SERIES_MAX:
            return (OTHER,) * len(values)
        pairs = zip(self._known, values, strict=True)
        return tuple(self._value(known, value) for known, value in pairs)

    @staticmethod
    def _value(known: set[str], value: str) -> str:
        value = value[:VALUE_CHARS_MAX]
        if value in known or len(known) < VALUES_MAX:
            known.add(value)
            return value
        return OTHER

    @property
    def prometheus(self) -> str:
        """The name in the exposition format."""
        return _NOT_NAME.sub("_", self.name) + _UNITS.get(self.unit, "")


class Counter(Instrument):
    """Counts upwards."""

    __slots__ = ("series",)

    def __init__(self, name: str, unit: str, text: str, labels: Labels) -> None:
        super().__init__(name, unit, text, labels)
        self.series: dict[Labels, int] = {} if labels else {(): 0}

    def add(self, *values: str, by: int = 1) -> None:
        """Count; ``values`` of the labels, in order."""
        series = self.series
        if values not in series:
            values = self.bounded(values, len(series))
        series[values] = series.get(values, 0) + by

    @property
    def prometheus(self) -> str:
        return super().prometheus + "_total"


class Gauge(Instrument):
    """What is so now. Set when somebody looks."""

    __slots__ = ("series",)

    def __init__(self, name: str, unit: str, text: str, labels: Labels) -> None:
        super().__init__(name, unit, text, labels)
        self.series: dict[Labels, float] = {}

    def replace(self, values: Mapping[Labels, float]) -> None:
        """These are all its series now."""
        self.series = dict(list(values.items())[:SERIES_MAX])

    def set(self, value: float) -> None:
        """The value, of a gauge without labels."""
        self.series = {(): value}


class Buckets:
    """One series of a histogram."""

    __slots__ = ("counts", "total")

    def __init__(self, bounds: int) -> None:
        self.counts = [0] * (bounds + 1)
        """Of each bucket by itself; the last is everything above the highest bound."""
        self.total = 0.0


class Histogram(Instrument):
    """How values are distributed over fixed buckets."""

    __slots__ = ("bounds", "series")

    def __init__(
        self, name: str, unit: str, text: str, labels: Labels, bounds: tuple[float, ...]
    ) -> None:
        """``bounds``: the highest value of each bucket but the last, rising."""
        super().__init__(name, unit, text, labels)
        self.bounds = bounds
        self.series: dict[Labels, Buckets] = {}

    def record(self, value: float, *values: str) -> None:
        """Take in one value; ``values`` of the labels, in order."""
        found = self.series.get(values)
        if found is None:
            values = self.bounded(values, len(self.series))
            found = self.series.setdefault(values, Buckets(len(self.bounds)))
        found.counts[bisect_left(self.bounds, value)] += 1
        found.total += value


Metric = Counter | Gauge | Histogram
M = TypeVar("M", Counter, Gauge, Histogram)


class Metrics:
    """The instruments of one process."""

    def __init__(self) -> None:
        self.all: list[Metric] = []
        self.refresh: list[Callable[[], Awaitable[None]]] = []
        """Each sets gauges to what is so now."""

    def counter(self, name: str, unit: str, text: str, *labels: str) -> Counter:
        return self._add(Counter(name, unit, text, labels))

    def gauge(self, name: str, unit: str, text: str, *labels: str) -> Gauge:
        return self._add(Gauge(name, unit, text, labels))

    def histogram(
        self, name: str, unit: str, text: str, bounds: tuple[float, ...], *labels: str
    ) -> Histogram:
        return self._add(Histogram(name, unit, text, labels, bounds))

    async def look(self) -> None:
        """Set every gauge to what is so now."""
        for refresh in self.refresh:
            await refresh()

    def render(self) -> bytes:
        """The exposition. Call :meth:`look` before."""
        lines: list[str] = []
        for metric in self.all:
            name = metric.prometheus
            help_ = metric.text.replace("\\", "\\\\").replace("\n", "\\n")
            kind = type(metric).__name__.lower()
            lines += (f"# HELP {name} {help_}", f"# TYPE {name} {kind}")
            lines += _histogram(name, metric) if isinstance(metric, Histogram) else (
                f"{name}{_braces(metric.labels, values)} {_number(value)}"
                for values, value in metric.series.items()
            )  # fmt: skip
        return ("\n".join(lines) + "\n").encode()

    def add_route(self, router: Router, config: MetricsConfig) -> None:
        """Serve them, as far as the configuration lets anybody read them."""
        if config.metrics == "off":
            return

        async def show(call: Call) -> None:
            if config.metrics == "local" and not call.local:
                raise RequestError(
                    "metrics are for callers on this machine, unless [telemetry] says otherwise",
                    code="local_only",
                    status=403,
                )
            await self.look()
            await call.reply(200, self.render(), CONTENT_TYPE, [("cache-control", "no-store")])

        router.add("GET", config.metrics_path, show)

    def _add(self, metric: M) -> M:
        self.all.append(metric)
        return metric


def _histogram(name: str, metric: Histogram) -> Iterable[str]:
    bounds = [*map(_number, metric.bounds), "+Inf"]
    for values, buckets in metric.series.items():
        count = 0
        for bound, within in zip(bounds, buckets.counts, strict=True):
            count += within
            yield f"{name}_bucket{_braces((*metric.labels, 'le'), (*values, bound))} {count}"
        labels = _braces(metric.labels, values)
        yield f"{name}_sum{labels} {_number(buckets.total)}"
        yield f"{name}_count{labels} {count}"


def _braces(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = (
        f'{_NOT_NAME.sub("_", name)}="{value.translate(_ESCAPES)}"'
        for name, value in zip(names, values, strict=True)
    )
    return "{" + ",".join(pairs) + "}"


def _number(value: float) -> str:
    return str(int(value)) if isinstance(value, int) else repr(float(value))
