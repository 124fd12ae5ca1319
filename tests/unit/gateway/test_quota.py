"""What an account allows: stated, configured, and taught by refusals."""

import pytest

from trunkline.gateway.core.quota import BACKOFF_S, Cost, Meter
from trunkline.schema.attempt import Limits, Quota

ONE = Cost(input_tokens=10, output_tokens=10)


def test_an_unknown_account_allows_anything() -> None:
    meter = Meter()
    for _ in range(1000):
        assert meter.opens_s(ONE, 0.0) == 0.0
        meter.spend(ONE, 0.0)
    assert meter.rate_s(ONE, 0.0) == float("inf")


def test_requests_and_tokens_bind_separately() -> None:
    meter = Meter()
    meter.configure(100, 50, None)
    meter.spend(ONE, 0.0)
    meter.spend(ONE, 0.0)
    assert meter.opens_s(ONE, 0.0) > 60.0
    assert meter.opens_s(Cost(input_tokens=5), 0.0) == 0.0
    assert meter.rate_s(ONE, 0.0) == pytest.approx(50 / 20 / 60)


def test_settling_returns_what_was_not_used() -> None:
    meter = Meter()
    meter.configure(None, 50, None)
    spent = meter.spend(Cost(input_tokens=10, output_tokens=40), 0.0)
    assert meter.opens_s(ONE, 1.0) > 60.0
    meter.settle(spent, Cost(input_tokens=10, output_tokens=5))
    assert meter.opens_s(ONE, 1.0) == 1.0


def test_a_refused_request_gives_its_tokens_back_and_keeps_its_count() -> None:
    meter = Meter()
    meter.configure(1, 20, None)
    spent = meter.spend(ONE, 0.0)
    meter.refund(spent, requests=False)
    assert meter.windows["tokens", 60.0].room(0.0) == 20
    assert meter.windows["requests", 60.0].room(0.0) == 0
    meter.refund(spent, requests=True)
    assert meter.opens_s(ONE, 0.0) == 0.0


def test_stated_limits_make_windows_and_places() -> None:
    meter = Meter()
    stated = (
        Quota(unit="requests", limit=5, remaining=1, reset_ms=2000),
        Quota(unit="output_tokens", limit=15, window_ms=1000),
        Quota(unit="concurrency", limit=3),
        Quota(unit="tokens", remaining=90),
    )
    meter.stated(Limits(quotas=stated), 0.0)
    assert meter.concurrency == 3
    assert meter.opens_s(ONE, 0.0) == 0.0
    meter.spend(ONE, 0.0)
    assert meter.opens_s(ONE, 0.5) == 2.0
    meter.configure(None, None, 7)
    assert meter.concurrency == 7


def test_a_refusal_that_a_window_explains_teaches_nothing_more() -> None:
    meter = Meter()
    said = Limits(quotas=(Quota(unit="requests", limit=5, remaining=0, reset_ms=3000),))
    meter.stated(said, 0.0)
    assert not meter.refused(None, ONE, 0.0, 0.0, alone=True)
    assert meter.opens_s(ONE, 0.0) == 3.0
    assert meter.opens_s(ONE, 3.0) == 3.0


def test_retry_after_is_kept_to_and_success_shortens_the_next_pause() -> None:
    meter = Meter()
    assert meter.refused(4.0, ONE, 0.0, 0.0, alone=False)
    assert meter.opens_s(ONE, 0.0) == 4.0
    meter.succeeded()
    # Among many it costs a place, and no time.
    assert meter.refused(None, ONE, 10.0, 10.0, alone=False)
    assert meter.opens_s(ONE, 10.0) == 10.0
    meter.succeeded()
    assert meter.refused(None, ONE, 11.0, 11.0, alone=True)
    assert meter.opens_s(ONE, 11.0) >= 11.0 + BACKOFF_S
    # A second in a row costs time whatever runs there.
    assert meter.refused(None, ONE, 100.0, 100.0, alone=False)
    assert meter.opens_s(ONE, 100.0) == 100.0 + 2 * BACKOFF_S


def test_refusals_without_a_word_teach_a_rate_that_grows_again() -> None:
    meter = Meter()
    for number in range(21):
        meter.spend(ONE, number * 0.1)
    meter.refused(None, ONE, 2.0, 2.0, alone=True)
    taught = meter.rate_s(ONE, 2.0)
    assert 4 < taught < 10
    assert meter.rate_s(ONE, 62.0) == 2 * taught
    meter.refused(None, ONE, 62.0, 62.0, alone=True)
    assert meter.rate_s(ONE, 62.0) < 2 * taught
    starts, now_s = 0, 100.0
    while now_s < 110.0:
        now_s = max(meter.opens_s(ONE, now_s), now_s + 1e-6)
        meter.spend(ONE, now_s)
        starts += 1
    assert starts <= 10 * meter.rate_s(ONE, 110.0) + 1
    later_s = 3600.0
    meter.spend(ONE, later_s)
    assert meter.rate_s(ONE, later_s) == float("inf")


def test_echoes_of_one_refusal_teach_once() -> None:
    """Twenty were under way when the first was refused."""
    meter = Meter()
    for _ in range(20):
        meter.spend(ONE, 0.0)
    for number in range(20):
        meter.refused(None, ONE, 0.0, 0.1 + number / 100, alone=False)
    # One pause of the first length, not twenty doublings.
    assert meter.opens_s(ONE, 0.3) < 1.0
