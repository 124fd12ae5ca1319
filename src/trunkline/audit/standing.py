"""Standing: what all evidence so far says of a subject, and how it is lost and won back.

Never one answer alone (design §8). Each audited answer's trials are bet on; all bets are fixed, so
a state is a function of the trials in their order, to the last bit.

*Failing.* Judged after each answer. A subject fails when its wealth reaches 1/α: of a test of the
mean (Ville: an honest subject ever gets there with chance at most α), in the noisy regime mixed
with that of the end trials, 7/8 to 1/8. Or when the detector of a change alarms, whose promise is a
run length and not an α: it finds who was honest for long, and in the exact regime it takes one
mismatch at any time to mean something, if the calibration has about 3,200 clean answers. It takes
one score an answer, the mean: tokens of one answer go together, and it forgets what came before. Or
at once by a fault that needs no statistics: an opening that does not fit its receipt, an account
that does not add up, an answer withheld.

*Trust.* ``good`` is a test too: that answers are at fault at a rate of ``trust_rate`` or more has
been refuted at ``trust_alpha``, and in the noisy regime that the scores' mean is twice the honest
one's bound. Until then the standing is ``open``. After a failure both begin anew, and only their
success restores; the test that failed then starts afresh. With the defaults (10 %, 0.01) that
takes 47 answers without a fault, whoever is honest gets there, and a node that goes on cheating at
10 % of answers is restored with chance at most 1 %. Who cheats in fewer may be, and fails again at
the next that is found.

What is promised is about *drawn* answers. Whoever picks the answers that are looked at picks their
mean too: those are judged, and only their faults come here (``judge.Case.picked``).

Evidence of disjoint shards could be multiplied (``Wealth.merged``); a state is one stream.
"""

from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from trunkline.audit.calibration import Calibration
from trunkline.audit.trials import LEVELS, Trials
from trunkline.base.errors import MalformedError
from trunkline.crypto.canonical import decode_canonical
from trunkline.sequential import (
    FRACTIONS,
    ChangeTest,
    Detector,
    MeanTest,
    Wealth,
    decode_detector,
    decode_wealth,
    encode_detector,
    encode_wealth,
)
from trunkline.verdicts import Regime, Standing, StandingEvidence, decimal
from trunkline.verdicts.record import Count, Digest

STATE_BYTES_MAX: Final = 64 * 1024
EXACT_ALARM: Final = (0.9375,)
"""One bold bet: a mismatch multiplies by 15/16 over the honest rate."""
TRUST_FRACTIONS: Final = (0.9375,)
ENDS_MEAN: Final = 0.52
"""Of end trials: 1/2, and what another engine's noise may add."""
ENDS_SHARE: Final = 0.125

Reason = Literal["", "wealth", "drift", "fault"]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """One subject's evidence. Make one with :meth:`start`."""

    calibration: str
    """Digest of what it was held against."""
    regime: Regime
    answers: int
    """Whose trials the tests but trust have taken; ``tokens`` likewise."""
    tokens: int
    failed: Reason
    """Empty: not failed now."""
    failed_at: int
    """Trials taken when it failed; 0: not failed now."""
    failures: int
    """How often it has failed, restored or not."""
    main: Wealth
    detector: Detector
    ends: Wealth | None
    """Noisy regime alone; so is ``trust_scores``."""
    trust: Wealth
    """Of answers at fault."""
    trust_scores: Wealth | None

    @classmethod
    def start(cls, calibration: Calibration) -> "State":
        """Before any evidence."""
        noisy = calibration.regime == "noisy"
        alpha, mu0 = float(calibration.alpha), calibration.mu0
        trust_alpha = float(calibration.trust_alpha)
        trust = MeanTest(
            mu0=float(calibration.trust_rate),
            alpha=trust_alpha,
            side="below",
            fractions=TRUST_FRACTIONS,
        )
        twice = MeanTest(mu0=min(2 * mu0, 0.5), alpha=trust_alpha, side="below")
        return cls(
            calibration=calibration.digest,
            regime=calibration.regime,
            answers=0,
            tokens=0,
            failed="",
            failed_at=0,
            failures=0,
            main=Wealth.start(MeanTest(mu0=mu0, alpha=alpha)),
            detector=Detector.start(
                ChangeTest(
                    mu0=mu0,
                    run_length=float(calibration.run_length),
                    kind="cusum",
                    fractions=FRACTIONS if noisy else EXACT_ALARM,
                )
            ),
            ends=Wealth.start(MeanTest(mu0=ENDS_MEAN, alpha=alpha)) if noisy else None,
            trust=Wealth.start(trust),
            trust_scores=Wealth.start(twice) if noisy else None,
        )

    @property
    def wealth(self) -> float:
        """The bet against the subject: an e-value, and a failure from 1/α on."""
        if self.ends is None:
            return self.main.e_value
        return (1 - ENDS_SHARE) * self.main.e_value + ENDS_SHARE * self.ends.e_value

    @property
    def level(self) -> float:
        """Of the detector."""
        levels = np.array(self.detector.levels)
        # In order, as everywhere that bits count.
        return float(np.add.accumulate(levels)[-1]) / levels.size

    @property
    def trusted(self) -> bool:
        scores = self.trust_scores
        return self.trust.failed and (scores is None or scores.failed)

    @property
    def standing(self) -> Standing:
        if self.failed:
            return "failed"
        return "good" if self.trusted else "open"

    @property
    def evidence(self) -> StandingEvidence:
        """As a verdict states it."""
        return StandingEvidence(
            detector=decimal(self.level),
            failed_at=self.failed_at,
            samples=self.main.samples,
            tokens=self.tokens,
            wealth=decimal(self.wealth),
        )


def update(
    state: State,
    calibration: Calibration,
    trials: Trials | None,
    *,
    fault: bool,
    passed: bool = False,
    closed: bool = False,
) -> State:
    """The state after one more audited answer.

    ``trials``: None where the answer could not be scored. ``fault``: a check failed that needs no
    statistics. ``passed``: there was nothing to score, and every check passed. ``closed``: the
    node's terms do not let it be verified, so that no trust is left. An answer of which
    nothing was found out leaves everything as it was, and so does one whose scores no calibration
    gives a meaning: else whoever names numerics that nobody knows would be trusted.

    Raises ``ValueError`` for a state of another calibration: see :func:`adopt`.
    """
    if state.calibration != calibration.digest:
        raise ValueError("a state goes on under the calibration that it was started with")
    if closed:
        return _distrusted(state, calibration)
    if calibration.regime == "none":
        trials = None
    if trials is None and not fault and not passed:
        return state
    scores = np.zeros(0) if trials is None else calibration.scores(trials)
    at_fault = fault or (calibration.regime == "exact" and bool(scores.any()))
    state = _trust(state, scores, at_fault=at_fault)
    if state.failed:
        return _restored(state, calibration) if state.trusted else state
    state = _bet(state, scores, trials)
    reason = _reason(state, calibration, fault=fault)
    return _failed(state, calibration, reason) if reason else state


def adopt(state: State, calibration: Calibration) -> State:
    """Go on under another calibration: tests begin anew, and a failure stays one."""
    fresh = State.start(calibration)
    return msgspec.structs.replace(
        fresh, failed=state.failed, failed_at=state.failed_at, failures=state.failures
    )


def _distrusted(state: State, calibration: Calibration) -> State:
    fresh = State.start(calibration)
    return msgspec.structs.replace(state, trust=fresh.trust, trust_scores=fresh.trust_scores)


def _trust(state: State, scores: np.ndarray, *, at_fault: bool) -> State:
    # What has been refuted stays so until a failure: no use in going on.
    answers = state.trust if state.trust.failed else state.trust.observe([float(at_fault)])
    tokens = state.trust_scores
    if tokens is not None and not tokens.failed:
        tokens = tokens.observe(scores)
    return msgspec.structs.replace(state, trust=answers, trust_scores=tokens)


def _bet(state: State, scores: np.ndarray, trials: Trials | None) -> State:
    if trials is None:
        return state
    ends = state.ends
    if ends is not None:
        ends = ends.observe(np.array(trials.ends) / LEVELS)
    return msgspec.structs.replace(
        state,
        answers=state.answers + 1,
        tokens=state.tokens + trials.tokens,
        main=state.main.observe(scores),
        detector=state.detector.observe(_averaged(scores)),
        ends=ends,
    )


def _averaged(scores: np.ndarray) -> np.ndarray:
    """One score for the answer, shape (1,) or (0,): the mean, added up in order."""
    return np.add.accumulate(scores)[-1:] / max(scores.size, 1)


def _reason(state: State, calibration: Calibration, *, fault: bool) -> Reason:
    if fault:
        return "fault"
    if state.wealth >= 1 / float(calibration.alpha):
        return "wealth"
    return "drift" if state.detector.alarmed else ""


def _failed(state: State, calibration: Calibration, reason: Reason) -> State:
    """Evidence stays as it stands; trust has to be won from here."""
    return msgspec.structs.replace(
        _distrusted(state, calibration),
        failed=reason,
        failed_at=max(1, state.main.samples),
        failures=state.failures + 1,
    )


def _restored(state: State, calibration: Calibration) -> State:
    fresh = State.start(calibration)
    return msgspec.structs.replace(
        fresh, failures=state.failures, trust=state.trust, trust_scores=state.trust_scores
    )


class _Saved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    answers: Count
    calibration: Digest
    detector: str
    ends: str
    failed: Reason
    failed_at: Count
    failures: Count
    main: str
    regime: Regime
    tokens: Count
    trust: str
    trust_scores: str
    type: Literal["trunkline.standing/v1"] = "trunkline.standing/v1"


SavedState = Annotated[str, msgspec.Meta(max_length=STATE_BYTES_MAX)]


def encode_state(state: State) -> bytes:
    """``state`` as canonical JSON, for a store and for a bundle."""
    return msgspec.json.encode(
        _Saved(
            answers=state.answers,
            calibration=state.calibration,
            detector=encode_detector(state.detector).decode(),
            ends=_optional(state.ends),
            failed=state.failed,
            failed_at=state.failed_at,
            failures=state.failures,
            main=encode_wealth(state.main).decode(),
            regime=state.regime,
            tokens=state.tokens,
            trust=encode_wealth(state.trust).decode(),
            trust_scores=_optional(state.trust_scores),
        )
    )


def decode_state(data: bytes, calibration: Calibration) -> State:
    """The state that ``data`` spells, of ``calibration``. Raises :class:`MalformedError`.

    That its numbers come from any trials is not shown: for that, repeat them from the first.
    """
    saved = decode_canonical(data, _Saved, bytes_max=STATE_BYTES_MAX, what="a standing")
    state = State(
        calibration=saved.calibration,
        regime=saved.regime,
        answers=saved.answers,
        tokens=saved.tokens,
        failed=saved.failed,
        failed_at=saved.failed_at,
        failures=saved.failures,
        main=decode_wealth(saved.main.encode()),
        detector=decode_detector(saved.detector.encode()),
        ends=decode_wealth(saved.ends.encode()) if saved.ends else None,
        trust=decode_wealth(saved.trust.encode()),
        trust_scores=decode_wealth(saved.trust_scores.encode()) if saved.trust_scores else None,
    )
    if encode_state(state) != data or not _same_tests(state, State.start(calibration)):
        raise MalformedError("a standing that this calibration does not lead to")
    return state


def _same_tests(state: State, fresh: State) -> bool:
    return (
        (state.calibration, state.regime) == (fresh.calibration, fresh.regime)
        and state.main.test == fresh.main.test
        and state.detector.test == fresh.detector.test
        and _test(state.ends) == _test(fresh.ends)
        and state.trust.test == fresh.trust.test
        and _test(state.trust_scores) == _test(fresh.trust_scores)
        and bool(state.failed) == bool(state.failed_at)
    )


def _test(wealth: Wealth | None) -> MeanTest | None:
    return None if wealth is None else wealth.test


def _optional(wealth: Wealth | None) -> str:
    return "" if wealth is None else encode_wealth(wealth).decode()
