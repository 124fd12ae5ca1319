"""Metrics against the official Prometheus parser, and their bounds."""

from collections.abc import Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from trunkline.runtime.metrics import OTHER, SERIES_MAX, VALUES_MAX, Metrics, MetricsConfig


def parsed(metrics: Metrics) -> dict[str, Metric]:
    families: Iterable[Metric] = text_string_to_metric_families(metrics.render().decode())
    return {family.name: family for family in families}


def test_a_counter_has_prometheus_name_and_every_label() -> None:
    metrics = Metrics()
    counter = metrics.counter("trunkline.room.things", "{thing}", "Things", "error.type", "who")
    counter.add("", 'a "quoted"\\\nname')
    counter.add("", 'a "quoted"\\\nname', by=2)
    (sample,) = parsed(metrics)["trunkline_room_things"].samples
    assert sample.name == "trunkline_room_things_total"
    assert sample.labels == {"error_type": "", "who": 'a "quoted"\\\nname'}
    assert sample.value == 3


def test_a_counter_without_labels_is_shown_before_it_counts() -> None:
    metrics = Metrics()
    metrics.counter("trunkline.room.things", "{thing}", "Things")
    (sample,) = parsed(metrics)["trunkline_room_things"].samples
    assert sample.value == 0


def test_a_histogram_counts_upwards_and_sums() -> None:
    metrics = Metrics()
    times = metrics.histogram("trunkline.room.time", "s", "Time", (0.1, 1.0), "model")
    for value in (0.05, 0.1, 0.5, 7.0):
        times.record(value, "m")
    family = parsed(metrics)["trunkline_room_time_seconds"]
    assert family.type == "histogram"
    found = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert found == {
        "0.1": 2,
        "1.0": 3,
        "+Inf": 4,
        "trunkline_room_time_seconds_sum": pytest.approx(7.65),
        "trunkline_room_time_seconds_count": 4,
    }


def test_labels_that_others_make_up_do_not_grow_without_bound() -> None:
    metrics = Metrics()
    counter = metrics.counter("trunkline.room.things", "{thing}", "Things", "code", "model")
    for number in range(3 * SERIES_MAX):
        counter.add(f"code-{number}", "m" * 10_000)
    assert len(counter.series) == VALUES_MAX + 1
    assert sum(counter.series.values()) == 3 * SERIES_MAX
    assert (OTHER, "m" * 128) in counter.series
    pairs = metrics.counter("trunkline.room.pairs", "{pair}", "Pairs", "one", "two")
    for number in range(VALUES_MAX * VALUES_MAX):
        pairs.add(str(number // VALUES_MAX), str(number % VALUES_MAX))
    assert len(pairs.series) <= SERIES_MAX + 1
    assert sum(pairs.series.values()) == VALUES_MAX * VALUES_MAX


@pytest.mark.parametrize("path", ["metrics", "", "/two words", "/ü", "/a\nb"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="metrics_path"):
        MetricsConfig(metrics_path=path)
