"""The breaker: its table is total, and its counting trips and recovers as documented."""

from itertools import product

import pytest

from trunkline.gateway.core.breaker import (
    TRANSITIONS,
    Admission,
    Breaker,
    BreakerPolicy,
    Fault,
    Signal,
    State,
)

POLICY = BreakerPolicy(failures=3, cooldown_s=1.0, cooldown_s_max=4.0, probe_s_max=10.0)


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(POLICY)


def test_every_state_knows_every_signal() -> None:
    assert set(TRANSITIONS) == set(product(State, Signal))


def test_failures_in_a_row_open_it(breaker: Breaker) -> None:
    breaker.failed(0.0)
    breaker.failed(0.0)
    breaker.succeeded(0.0)
    breaker.failed(0.0)
    breaker.failed(0.0)
    assert breaker.admission(0.0) is Admission.FREE
    breaker.failed(0.0)
    assert breaker.admission(0.5) is Admission.NO


def test_a_refused_connection_opens_it_at_once(breaker: Breaker) -> None:
    breaker.failed(0.0, Fault.REFUSED)
    assert breaker.state is State.OPEN


def test_one_probe_at_a_time_after_the_cooldown(breaker: Breaker) -> None:
    breaker.failed(0.0, Fault.REFUSED)
    assert breaker.admission(1.0) is Admission.PROBE
    breaker.started(1.0)
    assert breaker.admission(1.1) is Admission.NO
    assert breaker.admission(11.1) is Admission.PROBE, "a probe never heard of is forgotten"


def test_a_failed_probe_doubles_the_cooldown_up_to_its_bound(breaker: Breaker) -> None:
    breaker.failed(0.0, Fault.REFUSED)
    now_s = 0.0
    for wait_s in (1.0, 2.0, 4.0, 4.0):
        assert breaker.admission(now_s + wait_s - 0.01) is Admission.NO
        now_s += wait_s
        assert breaker.admission(now_s) is Admission.PROBE
        breaker.started(now_s)
        breaker.failed(now_s)


def test_a_successful_probe_closes_it_and_forgets(breaker: Breaker) -> None:
    breaker.failed(0.0, Fault.REFUSED)
    assert breaker.admission(1.0) is Admission.PROBE
    breaker.started(1.0)
    breaker.succeeded(1.0)
    assert breaker.admission(1.0) is Admission.FREE
    breaker.failed(1.0)
    assert breaker.state is State.CLOSED


def test_an_abandoned_probe_makes_room_for_another(breaker: Breaker) -> None:
    breaker.failed(0.0, Fault.REFUSED)
    assert breaker.admission(1.0) is Admission.PROBE
    breaker.started(1.0)
    breaker.abandoned()
    assert breaker.admission(1.1) is Admission.PROBE


def test_news_of_the_node_lets_a_probe_through_early(breaker: Breaker) -> None:
    breaker.failed(0.0, Fault.REFUSED)
    breaker.heard_of()
    assert breaker.admission(0.1) is Admission.PROBE


def test_bad_credentials_bench_it_for_long_and_a_poll_changes_nothing(breaker: Breaker) -> None:
    breaker.failed(0.0, Fault.AUTH)
    breaker.heard_of()
    assert breaker.admission(29.9) is Admission.NO
    assert breaker.admission(30.0) is Admission.PROBE
    breaker.started(30.0)
    breaker.failed(30.0, Fault.AUTH)
    assert breaker.left_s(30.0) == 60.0


def test_what_comes_back_gets_its_share_over_a_window(breaker: Breaker) -> None:
    assert breaker.share(0.0) == 1.0
    breaker.failed(0.0, Fault.REFUSED)
    assert breaker.admission(1.0) is Admission.PROBE
    breaker.started(1.0)
    breaker.succeeded(1.0)
    shares = [breaker.share(1.0 + passed_s) for passed_s in (0.0, 15.0, 30.0)]
    assert shares == [0.1, 0.5, 1.0]


def test_an_outlier_stays_away_for_its_time(breaker: Breaker) -> None:
    breaker.eject(0.0, 60.0)
    breaker.succeeded(1.0)
    breaker.heard_of()
    assert breaker.admission(59.9) is Admission.NO
    assert breaker.admission(60.0) is Admission.PROBE
    breaker.started(60.0)
    breaker.succeeded(61.0)
    assert breaker.admission(61.0) is Admission.FREE


def test_it_outlives_its_process(breaker: Breaker) -> None:
    breaker.failed(100.0, Fault.AUTH)
    kept = breaker.dump(110.0)
    again = Breaker.of(POLICY, kept, now_s=0.0, age_s=5.0, rest_s=2.0)
    assert (again.state, again.fault, again.left_s(0.0)) == (State.OPEN, Fault.AUTH, 15.0)
    late = Breaker.of(POLICY, kept, now_s=0.0, age_s=500.0, rest_s=2.0)
    assert late.admission(1.9) is Admission.NO, "the first call of a new process is no probe"
    assert late.admission(2.0) is Admission.PROBE


def test_a_rest_after_a_restart_is_longer_than_a_short_cool_down(breaker: Breaker) -> None:
    breaker.failed(0.0, Fault.REFUSED)
    again = Breaker.of(POLICY, breaker.dump(0.5), now_s=0.0, age_s=0.0, rest_s=50.0)
    assert again.admission(49.9) is Admission.NO
    assert again.admission(50.0) is Admission.PROBE


def test_a_silence_opens_it_at_once_until_a_poll_could_tell(breaker: Breaker) -> None:
    breaker.failed(0.0, Fault.SILENT)
    assert breaker.admission(3.9) is Admission.NO
    breaker.heard_of()
    assert breaker.admission(3.9) is Admission.PROBE


def test_a_success_beside_the_failure_is_no_return(breaker: Breaker) -> None:
    breaker.failed(0.0, Fault.SILENT)
    breaker.succeeded(0.1)
    assert (breaker.state, breaker.share(0.1)) == (State.CLOSED, 1.0)
