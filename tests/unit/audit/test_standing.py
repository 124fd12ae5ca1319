"""Standing: lost by evidence, by an alarm or by a fault, and won back by new evidence."""

import pytest
from tests.support.auditing import PARTIES, PROMPTS, exact

from trunkline.audit.calibration import Calibration, build, unmeasured
from trunkline.audit.standing import State, adopt, decode_state, encode_state, update
from trunkline.audit.trials import LEVELS, Trials
from trunkline.base.errors import MalformedError

EXACT = exact(3_200)
CLEAN = Trials(bins=(1,) * 40, ends=(20_000,), margins=(0,) * 40, mismatches=0, tokens=40)
WRONG = Trials(bins=(1,) * 40, ends=(20_000,), margins=(0,) * 39 + (9,), mismatches=1, tokens=40)
BAD = Trials(bins=(1,) * 40, ends=(20_000,), margins=(LEVELS // 2,) * 40, mismatches=40, tokens=40)
PRETENDED = Trials(bins=(1,) * 40, ends=(LEVELS,), margins=(0,) * 40, mismatches=0, tokens=40)
TRUST_ANSWERS = 47


def noisy() -> Calibration:
    some = Trials(
        bins=(1,) * 40, ends=(0,), margins=(0,) * 38 + (600,) * 2, mismatches=2, tokens=40
    )
    return build([some] * 200, parties=PARTIES, regime="noisy", prompts=PROMPTS, seeds="")


def after(state: State, calibration: Calibration, *answers: Trials) -> State:
    for one in answers:
        state = update(state, calibration, one, fault=False)
    return state


def test_standing_is_open_until_trust_is_earned() -> None:
    state = State.start(EXACT)
    assert state.standing == "open"
    state = after(state, EXACT, *[CLEAN] * (TRUST_ANSWERS - 1))
    assert state.standing == "open"
    assert after(state, EXACT, CLEAN).standing == "good"


@pytest.mark.parametrize("before", [0, 10, 1_000])
def test_one_mismatch_after_any_honest_time_fails_in_the_exact_regime(before: int) -> None:
    state = after(State.start(EXACT), EXACT, *[CLEAN] * before)
    state = after(state, EXACT, WRONG)
    assert (state.standing, state.failed) == ("failed", "drift")
    assert state.evidence.failed_at == before + 1


def test_with_a_small_calibration_it_takes_two() -> None:
    small = exact(500)
    state = after(State.start(small), small, *[CLEAN] * 10, WRONG)
    assert state.standing == "open"
    assert after(state, small, WRONG).standing == "failed"


def test_trust_is_won_back_by_new_evidence_alone() -> None:
    state = after(State.start(EXACT), EXACT, *[CLEAN] * 100, WRONG)
    state = after(state, EXACT, *[CLEAN] * (TRUST_ANSWERS - 1))
    assert state.standing == "failed"
    state = after(state, EXACT, CLEAN)
    assert (state.standing, state.failures, state.evidence.failed_at) == ("good", 1, 0)
    assert (state.main.samples, state.evidence.tokens) == (0, 0)
    again = after(state, EXACT, WRONG)
    assert (again.standing, again.failures) == ("failed", 2)


def test_who_goes_on_cheating_is_not_restored() -> None:
    state = after(State.start(EXACT), EXACT, WRONG)
    for _ in range(50):
        state = after(state, EXACT, *[CLEAN] * 4, WRONG)
    assert state.standing == "failed"
    assert state.trust.e_value < 1e-6


def test_a_fault_fails_at_once_and_counts_against_trust() -> None:
    state = update(State.start(EXACT), EXACT, None, fault=True)
    assert (state.standing, state.failed, state.evidence.failed_at) == ("failed", "fault", 1)
    state = after(state, EXACT, *[CLEAN] * 20)
    state = update(state, EXACT, None, fault=True)
    state = after(state, EXACT, *[CLEAN] * (TRUST_ANSWERS - 1))
    assert state.standing == "failed"
    assert after(state, EXACT, *[CLEAN] * 30).standing == "good"


def test_an_answer_of_which_nothing_was_found_out_changes_nothing() -> None:
    state = after(State.start(EXACT), EXACT, CLEAN)
    assert update(state, EXACT, None, fault=False) == state


def test_noisy_evidence_accumulates() -> None:
    measure = noisy()
    state = after(State.start(measure), measure, *[CLEAN] * 20)
    assert state.standing == "open"
    state = after(state, measure, BAD)
    assert state.standing == "failed"
    assert state.evidence.tokens == 21 * 40


def test_ends_that_the_model_would_not_have_made_fail_in_the_end() -> None:
    measure = noisy()
    state, answers = State.start(measure), 0
    while state.standing != "failed" and answers < 100:
        state = after(state, measure, PRETENDED)
        answers += 1
    assert state.failed == "wealth"
    assert 10 <= answers <= 30


def test_without_scores_only_faults_and_clean_answers_count() -> None:
    measure = unmeasured(PARTIES)
    state = State.start(measure)
    for _ in range(TRUST_ANSWERS):
        state = update(state, measure, None, fault=False, passed=True)
    assert state.standing == "good"
    assert update(state, measure, None, fault=True).standing == "failed"


@pytest.mark.parametrize("measure", [EXACT, noisy(), unmeasured(PARTIES)], ids=lambda m: m.regime)
def test_a_state_goes_on_after_it_was_saved(measure: Calibration) -> None:
    state = State.start(measure)
    for one in (CLEAN, WRONG, CLEAN, BAD, PRETENDED):
        state = after(state, measure, one)
        again = decode_state(encode_state(state), measure)
        assert again == state
        assert after(again, measure, CLEAN) == after(state, measure, CLEAN)


def test_a_state_of_another_calibration_is_refused_and_can_be_adopted() -> None:
    state = after(State.start(EXACT), EXACT, WRONG)
    other = exact(9_000)
    with pytest.raises(MalformedError):
        decode_state(encode_state(state), other)
    with pytest.raises(ValueError, match="calibration"):
        update(state, other, CLEAN, fault=False)
    adopted = adopt(state, other)
    assert (adopted.standing, adopted.failures, adopted.main.samples) == ("failed", 1, 0)
    assert after(adopted, other, *[CLEAN] * TRUST_ANSWERS).standing == "good"


def test_bytes_that_are_no_state_are_refused() -> None:
    data = encode_state(State.start(EXACT))
    for wrong in (b"", b"{}", data + b" ", data.replace(b'"failed":""', b'"failed":"drift"')):
        with pytest.raises(MalformedError):
            decode_state(wrong, EXACT)
