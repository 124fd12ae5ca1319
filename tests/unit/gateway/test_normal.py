"""Quantiles within their stated error, forgetting, and what stands in where little is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.core.normal import (
    ERROR_SHARE,
    MEMORY,
    SAMPLES_MIN,
    SECONDS_MAX,
    SECONDS_MIN,
    SIZES,
    Measure,
    Normal,
    Quantiles,
    Timings,
    size_class,
)

seconds = st.floats(SECONDS_MIN, SECONDS_MAX)


def seen(*samples: float) -> Quantiles:
    quantiles = Quantiles()
    for sample in samples:
        quantiles.add(sample)
    return quantiles


@given(st.lists(seconds, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_its_error_of_the_exact_one(samples: list[float], q: float) -> None:
    found = seen(*samples).quantile(q)
    assert found is not None
    # Which of two neighbours a quantile names is a matter of definition: either is exact.
    exact = sorted(samples)
    rank = q * len(samples)
    near = exact[max(int(rank) - 1, 0) : min(int(rank), len(exact) - 1) + 1] or exact[:1]
    slack = ERROR_SHARE * (1 + 1e-9)
    assert near[0] * (1 - slack) <= found <= near[-1] * (1 + slack)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True)))
def test_any_number_is_taken_and_memory_is_bounded(samples: list[float]) -> None:
    quantiles = seen(*samples)
    assert quantiles.weight == len(samples)
    found = quantiles.quantile(0.5)
    assert (found is None) == (not samples)
    assert found is None or 0 < found <= SECONDS_MAX * (1 + ERROR_SHARE)
    assert len(quantiles.dump()) < 250


def test_what_changed_is_learnt_and_the_past_forgotten() -> None:
    quantiles = seen(*[0.1] * 10_000)
    for _ in range(3 * MEMORY):
        quantiles.add(5.0)
    assert quantiles.quantile(0.5) == pytest.approx(5.0, rel=ERROR_SHARE)
    assert quantiles.weight <= 2 * MEMORY


@given(st.lists(seconds, max_size=100), st.lists(seconds, max_size=100))
def test_merging_is_seeing_both(ours: list[float], theirs: list[float]) -> None:
    merged = seen(*ours)
    merged.merge(seen(*theirs))
    assert merged.dump() == seen(*ours, *theirs).dump()


@given(st.lists(seconds, max_size=100))
def test_a_dump_reads_back(samples: list[float]) -> None:
    quantiles = seen(*samples)
    assert Quantiles.of(quantiles.dump()).dump() == quantiles.dump()


def test_few_samples_say_nothing_and_larger_requests_answer_for_smaller_ones() -> None:
    normal = Normal()
    for _ in range(SAMPLES_MIN - 1):
        normal.add(Measure.READ, 1.0, 2)
    assert normal.quantile(Measure.READ, 0.99, 2) is None
    normal.add(Measure.READ, 1.0, 2)
    assert normal.quantile(Measure.READ, 0.99, 2) == pytest.approx(1.0, rel=ERROR_SHARE)
    assert normal.quantile(Measure.READ, 0.99, 0) == pytest.approx(1.0, rel=ERROR_SHARE)
    assert normal.quantile(Measure.READ, 0.99, 3) is None, "a long prompt may take longer"
    again = Normal.of(normal.dump())
    assert again.dump() == normal.dump()
    normal.fade(0.5)
    assert normal.quantile(Measure.READ, 0.99, 2) is None


def test_sizes_and_timings() -> None:
    assert [size_class(n) for n in (0, 4096, 4097, 10**9)] == [0, 0, 1, SIZES - 1]
    assert Timings(accept_s=0.0, gap_s=1.0).taken() == (
        (Measure.ACCEPT, 0.0),
        (Measure.GAP, 1.0),
    )
