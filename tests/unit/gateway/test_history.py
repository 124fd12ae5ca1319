"""What follows from attempts that are over: who is waited for, how long, and when it is enough."""

import pytest

from trunkline.gateway.core.actions import Failure
from trunkline.gateway.core.history import BACKOFF_S_MAX, PREVIOUS_MAX, History
from trunkline.schema.attempt import PreviousAttempt

AWAY = Failure(code="upstream_refused", message="", refused=True)
AWAY_S = 20.0
BROKEN = Failure(code="upstream_failed", message="")


def failed(history: History, failure: Failure, *, node: str = "a", barren: bool = True) -> None:
    past = PreviousAttempt(attempt="att_1", node=node, error=failure.code)
    history.add(past, "m", failure, barren=barren)


def test_attempts_that_somebody_was_there_for_are_counted() -> None:
    history = History()
    for _ in range(5):
        failed(history, BROKEN)
        assert not history.spent(6, AWAY_S, 0.0)
    failed(history, BROKEN)
    assert history.spent(6, AWAY_S, 0.0)


@pytest.mark.parametrize("code", ["upstream_refused", "upstream_unavailable"])
def test_those_who_are_away_are_waited_for(code: str) -> None:
    history = History()
    for _ in range(12):
        failed(history, Failure(code=code, message=""))
        assert not history.spent(6, AWAY_S, 100.0)
    assert not history.spent(6, AWAY_S, 100.0 + AWAY_S - 0.1)
    assert history.spent(6, AWAY_S, 100.0 + AWAY_S)


def test_nobody_is_waited_for_where_the_operator_says_so() -> None:
    history = History()
    for count in range(6):
        assert not history.spent(6, 0.0, 100.0)
        failed(history, AWAY)
        assert history.spent(6, 0.0, 100.0) is (count == 5)


def test_a_token_begins_the_count_and_the_patience_anew() -> None:
    history = History()
    for _ in range(6):
        failed(history, AWAY)
        history.spent(6, AWAY_S, 0.0)
    failed(history, BROKEN, barren=False)
    assert not history.spent(6, AWAY_S, AWAY_S)
    for _ in range(6):
        failed(history, AWAY)
        assert not history.spent(6, AWAY_S, AWAY_S + 1.0)


def test_a_receipt_bounds_the_attempts_whatever_became_of_them() -> None:
    history = History()
    for _ in range(PREVIOUS_MAX):
        failed(history, AWAY, barren=False)
    assert history.spent(6, AWAY_S, 0.0)


def test_back_off_runs_from_the_places_own_failure() -> None:
    history = History()
    assert history.delay_s(("a", "m"), 0.0) == 0.0
    failed(history, AWAY)
    history.spent(6, AWAY_S, 10.0)
    failed(history, AWAY, node="b")
    history.spent(6, AWAY_S, 10.05)
    # What was spent on the other one is no wait for this one.
    assert history.delay_s(("a", "m"), 10.05) == pytest.approx(0.05)
    assert history.delay_s(("a", "m"), 11.0) == 0.0
    for _ in range(30):
        failed(history, AWAY)
        history.spent(6, AWAY_S, 20.0)
    assert history.delay_s(("a", "m"), 20.0) == BACKOFF_S_MAX


def test_many_places_are_gone_round_slowly_enough_to_outlast_a_restart() -> None:
    history, now_s = History(), 0.0
    names = [f"n{at}" for at in range(12)]
    while not history.spent(6, AWAY_S, now_s):
        node = min(names, key=lambda name: (history.tried.count((name, "m")), name))
        now_s += history.delay_s((node, "m"), now_s)
        failed(history, AWAY, node=node)
    assert now_s >= AWAY_S / 2
