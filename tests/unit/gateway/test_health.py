"""What the gateway learns of deployments: kept apart by node and model, and kept over a restart."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.health import (
    AUTH,
    BUSY,
    CUT,
    MISSING,
    REFUSED,
    STALLED,
    ManualClock,
    attempt,
    deployment,
)

from trunkline.gateway.core.actions import Failure
from trunkline.gateway.core.breaker import Admission, BreakerPolicy, Fault, State
from trunkline.gateway.core.deadline import UNKNOWN
from trunkline.gateway.core.ending import HEDGE_LOST
from trunkline.gateway.core.normal import SAMPLES_MIN
from trunkline.gateway.core.outlier import OutlierPolicy
from trunkline.gateway.health import OUTRUN_MAX, Health
from trunkline.gateway.health_file import decode

RECOVERY_S = BreakerPolicy().cooldown_s_max + BreakerPolicy().slow_start_s
"""The longest that a breaker keeps a sound deployment away, and its slow return."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def health(clock: ManualClock) -> Health:
    return Health(clock)


def test_bad_credentials_bench_the_deployment_and_are_said(health: Health) -> None:
    attempt(health, deployment(), AUTH)
    found = health.of("a", "m")
    assert (found.state, found.fault, found.error) == (State.OPEN, Fault.AUTH, "upstream_auth")
    assert found.left_s == BreakerPolicy().lasting_s
    health.heard_of("a")
    assert health.of("a", "m").admission is Admission.NO, "a poll says nothing of the key"


def test_whoever_is_outrun_time_and_again_and_finishes_nothing_is_left(health: Health) -> None:
    for _ in range(OUTRUN_MAX):
        attempt(health, deployment(), HEDGE_LOST)
    attempt(health, deployment())
    for _ in range(OUTRUN_MAX):
        attempt(health, deployment(), HEDGE_LOST)
    assert (health.of("a", "m").state, health.of("a", "m").failures) == (State.CLOSED, 0)
    for _ in range(BreakerPolicy().failures):
        attempt(health, deployment(), HEDGE_LOST)
    assert (health.of("a", "m").state, health.of("a", "m").error) == (State.OPEN, "hedge_lost")


def test_a_missing_model_benches_only_that_model(health: Health) -> None:
    attempt(health, deployment(model="other"))
    attempt(health, deployment(), MISSING)
    assert health.of("a", "m").admission is Admission.NO
    assert health.of("a", "other").admission is Admission.FREE


def test_a_refused_connection_is_the_whole_nodes(health: Health) -> None:
    attempt(health, deployment(model="other"))
    attempt(health, deployment(node="b"))
    attempt(health, deployment(), REFUSED)
    assert health.of("a", "other").admission is Admission.NO
    assert health.of("b", "m").admission is Admission.FREE


def test_a_rate_limit_benches_nothing(health: Health) -> None:
    for _ in range(10):
        attempt(health, deployment(), BUSY)
    assert health.of("a", "m").admission is Admission.FREE


def test_limits_follow_what_is_normal_and_hedging_may_ask(health: Health) -> None:
    where = deployment()
    assert health.of("a", "m").limits == UNKNOWN
    assert health.normal_s(where) is None
    for _ in range(2 * SAMPLES_MIN):
        attempt(health, where)
    found = health.of("a", "m", exact=True).limits
    assert found.gap_s is not None
    assert found.gap_s < 2
    assert health.normal_s(where) == pytest.approx(0.11, rel=0.06)
    assert health.of("b", "m", exact=True).limits.gap_s == found.gap_s, "the floor, for a peer too"


def test_who_was_given_up_on_is_waited_for_longer_until_that_is_not_needed(health: Health) -> None:
    where = deployment()
    for _ in range(2 * SAMPLES_MIN):
        attempt(health, where)
    before_s = health.of("a", "m").limits.gap_s
    assert before_s is not None
    attempt(health, where, STALLED)
    assert health.of("a", "m").expected(0) == UNKNOWN, "the last resort gets all the time there is"
    assert health.of("a", "m").limits.gap_s == 2 * before_s
    attempt(health, where)
    assert health.of("a", "m").limits.gap_s == before_s


def test_one_that_fails_often_is_ejected_for_a_while(health: Health, clock: ManualClock) -> None:
    for number in range(40):
        clock.now_s += 0.5
        attempt(health, deployment("good"))
        attempt(health, deployment("bad"), CUT if number % 2 else None)
    found = health.of("bad", "m")
    assert (found.admission, found.fault) == (Admission.NO, Fault.OUTLIER)
    assert found.error == "outlier_success_rate"
    assert health.of("good", "m").admission is Admission.FREE
    clock.now_s += OutlierPolicy().base_s
    assert health.of("bad", "m").admission is Admission.PROBE
    attempt(health, deployment("bad"))
    assert health.of("bad", "m").share == BreakerPolicy().share_min
    clock.now_s += BreakerPolicy().slow_start_s
    assert health.of("bad", "m").share == 1.0


failures = st.lists(
    st.tuples(st.sampled_from([None, CUT, REFUSED, STALLED, BUSY]), st.floats(0, 20)), max_size=40
)


@given(failures)
def test_a_sound_deployment_always_gets_its_full_share_back(
    past: list[tuple[Failure | None, float]],
) -> None:
    clock = ManualClock()
    health = Health(clock)
    for failure, passed_s in past:
        clock.now_s += passed_s
        attempt(health, deployment(), failure)
    began_s = clock.now_s
    # Calls come each second, and it is sound from now on.
    while health.of("a", "m").share < 1 or health.of("a", "m").state is not State.CLOSED:
        assert clock.now_s - began_s <= RECOVERY_S + 2
        if health.of("a", "m").admission is not Admission.NO:
            attempt(health, deployment())
        clock.now_s += 1.0


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.booleans(), st.floats(0, 5)),
        min_size=100,
        max_size=300,
    )
)
def test_ejections_leave_half_of_a_models_deployments(
    past: list[tuple[str, bool, float]],
) -> None:
    clock = ManualClock()
    health = Health(clock)
    for node, failed, passed_s in past:
        clock.now_s += passed_s
        # Half of what goes to a and b fails, in no order.
        attempt(health, deployment(node), CUT if failed and node in "ab" else None)
        found = [health.of(each, "m") for each in "abcd"]
        ejected = [each for each in found if each.fault is Fault.OUTLIER]
        assert len(ejected) <= 2
        assert [found[2].admission, found[3].admission] == [Admission.FREE, Admission.FREE]


def restarted(health: Health, down_s: float) -> Health:
    """Another process, ``down_s`` seconds later."""
    kept = decode(msgspec.json.encode(health.snapshot()))
    assert kept is not None
    later = ManualClock()
    later.now_s += down_s
    again = Health(later)
    again.restore(kept, ["a", "b"])
    return again


def test_a_restart_forgets_neither_what_is_bad_nor_what_is_normal(health: Health) -> None:
    for _ in range(2 * SAMPLES_MIN):
        attempt(health, deployment("b"))
        attempt(health, deployment("gone"))
    attempt(health, deployment(), REFUSED)
    again = restarted(health, 2.0)
    assert again.of("a", "m").admission is Admission.NO, "no probe as the first call"
    assert again.of("a", "m").error == "upstream_refused"
    assert again.normal_s(deployment("b")) == health.normal_s(deployment("b"))
    assert again.normal_s(deployment("gone")) is None, "it is no longer configured"


def test_what_is_old_is_forgotten(health: Health) -> None:
    for _ in range(2 * SAMPLES_MIN):
        attempt(health, deployment("b"))
    assert restarted(health, 3600.0).normal_s(deployment("b")) is not None
    assert restarted(health, 7 * 24 * 3600.0).normal_s(deployment("b")) is None


@given(failures)
def test_a_snapshot_reads_back(past: list[tuple[Failure | None, float]]) -> None:
    clock = ManualClock()
    health = Health(clock)
    for failure, passed_s in past:
        clock.now_s += passed_s
        attempt(health, deployment(), failure)
    snapshot = health.snapshot()
    assert decode(msgspec.json.encode(snapshot)) == snapshot


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_snapshot_or_none(data: bytes) -> None:
    found = decode(data)
    assert found is None or found.version == 1


numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**20), 10**20)


@given(numbers, numbers, st.lists(st.tuples(st.integers(), numbers), max_size=5), st.integers())
def test_absurd_numbers_in_a_snapshot_are_harmless(
    cooldown_s: float, left_s: float, buckets: list[tuple[int, float]], written_ms: int
) -> None:
    data = msgspec.json.encode(
        {
            "type": "trunkline.health", "version": 1, "written_ms": written_ms,
            "deployments": [
                {
                    "node": "a", "model": "m", "error": "x", "ejections": -7,
                    "first_token_s": left_s,
                    "breaker": {
                        "state": "open", "failures": -1, "cooldown_s": cooldown_s,
                        "left_s": left_s, "returned_s": cooldown_s, "fault": "outlier",
                    },
                    "normal": [["gap", 0, buckets], ["other", 9, buckets]],
                }
            ],
        }
    )  # fmt: skip
    found = decode(data)
    clock = ManualClock()
    health = Health(clock)
    if found is not None:
        health.restore(found, ["a"])
    clock.now_s += BreakerPolicy().lasting_s_max
    assert health.of("a", "m").admission is not Admission.NO
    attempt(health, deployment())
    clock.now_s += BreakerPolicy().slow_start_s
    assert health.of("a", "m").share == 1.0
