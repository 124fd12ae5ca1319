"""Limits that follow what is normal: floors, bounds, patience, and what the stopwatch measures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.core.deadline import (
    GAP_DEAR_FLOOR_S,
    GAP_FLOOR_S,
    PATIENCE_MAX,
    READ_FLOOR_S,
    UNKNOWN,
    Stage,
    Stopwatch,
    Timeouts,
    connect_limit_s,
    head_limit_s,
    learnt,
    more_patience,
    stage_limit_s,
    waited_for,
)
from trunkline.gateway.core.normal import SAMPLES_MIN, SIZES, Measure, Normal, Timings
from trunkline.gateway.core.policy import TimeoutPolicy

TIMEOUTS = Timeouts()
POLICY = TimeoutPolicy(margin=4.0, floor_s=0.5)


def usual(seconds: float, count: int = SAMPLES_MIN, size: int = 0) -> Normal:
    normal = Normal()
    for measure in Measure:
        for _ in range(count):
            normal.add(measure, seconds, size)
    return normal


def test_the_unknown_get_the_configured_bounds() -> None:
    found = learnt(usual(0.1, SAMPLES_MIN - 1), Normal(), POLICY, patience={}, exact=True)
    assert found == UNKNOWN
    assert stage_limit_s(Stage.FIRST_TOKEN, TIMEOUTS, found) == TIMEOUTS.first_token_s
    assert connect_limit_s(TIMEOUTS, found) == TIMEOUTS.connect_s
    assert head_limit_s(TIMEOUTS, found) == TIMEOUTS.head_s


def test_a_fast_deployments_stall_is_noticed_soon() -> None:
    found = learnt(usual(0.05), Normal(), POLICY, patience={}, exact=True)
    assert stage_limit_s(Stage.NEXT_EVENT, TIMEOUTS, found) == GAP_FLOOR_S
    assert stage_limit_s(Stage.FIRST_TOKEN, TIMEOUTS, found) == READ_FLOOR_S
    dear = learnt(usual(0.05), Normal(), POLICY, patience={}, exact=False)
    assert stage_limit_s(Stage.NEXT_EVENT, TIMEOUTS, dear) == GAP_DEAR_FLOOR_S


def test_a_slow_one_is_given_its_time_and_a_long_prompt_more_than_a_short_one_proved() -> None:
    found = learnt(usual(3.0), Normal(), POLICY, patience={}, exact=True)
    assert stage_limit_s(Stage.FIRST_TOKEN, TIMEOUTS, found) == pytest.approx(12.0, rel=0.06)
    assert stage_limit_s(Stage.FIRST_TOKEN, TIMEOUTS, found, SIZES - 1) == TIMEOUTS.first_token_s


def test_a_new_one_is_judged_by_its_peers_with_more_tolerance() -> None:
    own = learnt(usual(1.0), Normal(), POLICY, patience={}, exact=True)
    new = learnt(Normal(), usual(1.0), POLICY, patience={}, exact=True)
    assert own.gap_s is not None
    assert new.gap_s == 2 * own.gap_s


def test_adapting_can_be_switched_off() -> None:
    off = TimeoutPolicy(adapt=False)
    assert learnt(usual(0.1), Normal(), off, patience={}, exact=True) == UNKNOWN


@given(
    st.floats(0, 1e4),
    st.sampled_from(Stage),
    st.integers(0, SIZES - 1),
    st.floats(1, PATIENCE_MAX),
    st.floats(0, 100),
)
def test_never_under_the_floor_nor_over_the_bound(
    seconds: float, stage: Stage, size: int, patience: float, crowd: float
) -> None:
    # The configured bound is the operator's word, also where it is below our floors.
    found = learnt(
        usual(seconds, size=size), Normal(), POLICY, patience={Measure.GAP: patience}, exact=True
    )
    for each in (TIMEOUTS, Timeouts(idle_s=0.1, first_token_s=0.1, first_event_s=0.1)):
        bound_s = stage_limit_s(stage, each)
        limit_s = stage_limit_s(stage, each, found, size)
        assert min(POLICY.floor_s, bound_s) <= limit_s <= bound_s
        assert connect_limit_s(each, found) <= each.connect_s
        assert head_limit_s(each, found) <= each.head_s


def test_patience_doubles_then_creeps_up_to_its_bound() -> None:
    grown = [1.0]
    for _ in range(40):
        grown.append(more_patience(grown[-1], probing=False))
    assert grown[:4] == [1.0, 2.0, 4.0, 5.0]
    assert grown[-1] == PATIENCE_MAX
    assert more_patience(1.0, probing=True) == 1.25
    assert waited_for(Stage.NEXT_EVENT.value) is Measure.GAP
    assert waited_for("upstream_refused") is None


def test_the_stopwatch_times_the_node_and_not_the_app() -> None:
    watch = Stopwatch(10.0, 2)
    watch.accepted(10.5)
    watch.token(11.5)
    watch.token(12.0)
    watch.excuse(8.0)
    assert watch.waiting_since_s == 20.0
    watch.token(20.1)
    found = watch.read()
    assert found == Timings(
        size=2, accept_s=0.5, read_s=1.0, first_token_s=1.5, gap_s=0.5, whole_s=None
    )


def test_a_whole_answer_says_nothing_of_first_tokens() -> None:
    watch = Stopwatch(0.0, 0)
    watch.accepted(1.0)
    watch.whole(9.0)
    assert watch.read() == Timings(accept_s=1.0, whole_s=8.0)
