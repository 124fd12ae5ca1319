"""Cheats that are no answers: receipts not opened, verifiers that lie, and many nodes at once.

No engine adds anything here, so these are simulations: time and chance are made up, what decides is
the product's code. Draws are ``verdicts.drawn``, the patience with a node that does not open is
``verifier.core.patience``, standings are ``audit.standing``, what a gateway makes of verdicts is
``gateway.core.standing``, and the scores of the nodes in ``many_nodes`` are those of the arms.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
from tests.support.verifier_hand import VerifierHand, digest_of

from cheats.numbers import Pool
from trunkline.audit.calibration import Calibration
from trunkline.audit.standing import State, update
from trunkline.audit.trials import LEVELS, Trials
from trunkline.crypto.signer import Signer
from trunkline.gateway.core.demands import Verification
from trunkline.gateway.core.standing import Board, Level
from trunkline.sequential import e_bh
from trunkline.verdicts import drawn
from trunkline.verifier.config import VerifierConfig
from trunkline.verifier.core.patience import REFUSED, SILENT, Again, Patience, after_failure

VERIFIERS = 2
RUNS = 101
NODES, CHEATS = 20, 4
NETWORKS = 20
AUDITS = 60
"""Of each node."""
ALPHA_SHARE = 0.05
"""Of e-BH: the share of honest nodes among those named, at most, on average."""

Style = Literal["refuses", "is silent, and signs", "is away, and signs nothing"]
STYLES: tuple[Style, ...] = ("refuses", "is silent, and signs", "is away, and signs nothing")


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a node that does not open what would show its cheat."""

    style: Style
    percent: float
    """Drawn by each verifier."""
    share: float
    """Of its answers that are cheats."""
    answers: float
    """Median number that it had served when the first demand that it did not meet was made."""
    seconds: float
    """From that demand to the verdict."""
    verdict: str
    standing: str


def withholding(calibration: Calibration) -> list[Withheld]:
    """Every style, at two rates, for few and many cheats."""
    return [
        _withheld(calibration, style, percent, share)
        for style in STYLES
        for percent in (1.0, 5.0)
        for share in (1.0, 0.1, 0.01)
    ]


def _withheld(calibration: Calibration, style: Style, percent: float, share: float) -> Withheld:
    rng = np.random.default_rng([round(percent * 100), round(share * 100)])
    served = [_until_drawn(rng, round(percent * 10_000), share) for _ in range(RUNS)]
    took_ms, reason = _waited(style)
    fault = reason == "withheld"
    state = update(State.start(calibration), calibration, None, fault=fault)
    return Withheld(
        style=style,
        percent=percent,
        share=share,
        answers=float(np.median(served)),
        seconds=took_ms / 1000,
        verdict="fail" if fault else "inconclusive",
        standing=f"failed ({state.failed})" if state.failed else "open",
    )


def _until_drawn(rng: np.random.Generator, rate_ppm: int, share: float) -> int:
    """Answers until a cheat is drawn by either verifier; each is a batch of its own."""
    chances = [rng.bytes(32) for _ in range(VERIFIERS)]
    answer = 0
    while True:
        answer += 1
        cheats = rng.random() < share
        if cheats and any(drawn(chance, rate_ppm, answer, 0) for chance in chances):
            return answer


def _waited(style: Style) -> tuple[int, str]:
    """Milliseconds from the first demand to the end of asking, and the reason for it."""
    fields = {field.name: field.default for field in msgspec.structs.fields(VerifierConfig)}
    patience = Patience(
        opening_ms=round(fields["opening_s"] * 1000),
        unreachable_ms=round(fields["unreachable_s"] * 1000),
    )
    reason = REFUSED if style == "refuses" else SILENT
    now_ms, attempts, before = 0, 0, ""
    while True:
        found = after_failure(
            reason,
            asked_ms=0,
            attempts=attempts,
            now_ms=now_ms,
            patience=patience,
            refused_before=before,
            signing=style == "is silent, and signs",
        )
        if not isinstance(found, Again):
            return now_ms, found.reason
        now_ms, attempts, before = found.due_ms, attempts + 1, reason


class Collusion(msgspec.Struct, frozen=True, kw_only=True):
    """Verifiers that say together what is not so."""

    case: str
    standing: str
    """What the gateway makes of it."""
    disputes: int


def collusion() -> list[Collusion]:
    """One receipt, and each verifier's verdict on it, all of them in the log."""
    one, two, three = (VerifierHand(name) for name in ("one", "two", "three"))
    sisters = [VerifierHand(f"one-{number}", "one.example") for number in range(5)]
    cases: tuple[tuple[str, Sequence[VerifierHand], Sequence[VerifierHand], int | None], ...] = (
        ("honest node, 1 of 2 verifiers fails it", [one], [two], None),
        ("honest node, 1 of 3 fails it", [one], [two, three], None),
        ("honest node, 5 verifiers of one operator fail it, 1 other passes", sisters, [two], None),
        ("honest node, 2 of 3 fail it", [one, two], [three], None),
        ("honest node, 2 of 3 fail it, the policy wants 3", [one, two], [three], 3),
        ("cheat, 1 of 2 passes it", [one], [two], None),
        ("cheat, 1 of 3 passes it", [one, two], [three], None),
        ("cheat, 2 of 3 pass it", [one], [two, three], None),
        ("cheat, all pass it", [], [one, two], None),
    )
    return [_colluded(*case) for case in cases]


def _colluded(
    case: str, failing: Sequence[VerifierHand], passing: Sequence[VerifierHand], agree: int | None
) -> Collusion:
    node = Signer.generate("node.example/node", hashlib.sha256(b"node").digest()).vkey
    board = Board()
    for hand in failing:
        verdict = hand.verdict(node, 1, standing="failed", result="fail")
        board.hear(verdict, digest_of(verdict), logged=True)
    for hand in passing:
        verdict = hand.verdict(node, 1, standing="open", result="pass")
        board.hear(verdict, digest_of(verdict), logged=True)
    policy = Verification(
        verifiers=tuple(hand.policy for hand in (*failing, *passing)), agree=agree
    )
    found = board.standings(policy).get((str(node), "tiny"))
    level = Level.GOOD if found is None else found.level
    word = "asked as before" if level is Level.GOOD else level.word
    return Collusion(case=case, standing=word, disputes=len(board.disputes(policy)))


class Many(msgspec.Struct, frozen=True, kw_only=True):
    """Many nodes looked at together, after so many audited answers of each."""

    arm: str
    share: float
    audits: int
    together: float
    """Share of the cheats that e-BH names."""
    wrongly: float
    """Share of honest nodes among those it names, averaged over networks."""
    alone: float
    """Share of the cheats whose standing has failed by their own test."""


def many_nodes(name: str, cheats: Pool, honest: Pool, share: float) -> list[Many]:
    """``NODES`` nodes of which ``CHEATS`` cheat in ``share`` of their answers."""
    rng = np.random.default_rng(round(share * 1000))
    marks = [AUDITS // 4, AUDITS // 2, AUDITS]
    sums = np.zeros((len(marks), 3))
    for _ in range(NETWORKS):
        states = [State.start(honest.calibration)] * NODES
        bets = list(states)
        for audit in range(1, AUDITS + 1):
            for node in range(NODES):
                pool = cheats if node < CHEATS and rng.random() < share else honest
                answer = pool.answers[rng.integers(len(pool.answers))]
                states[node] = update(states[node], honest.calibration, answer.trials, fault=False)
                bets[node] = _bet_on(bets[node], honest.calibration, answer.trials)
            if audit in marks:
                sums[marks.index(audit)] += _named(bets, states)
    return [
        Many(arm=name, share=share, audits=mark, together=row[0], wrongly=row[1], alone=row[2])
        for mark, row in zip(marks, (sums / NETWORKS).tolist(), strict=True)
    ]


def _bet_on(state: State, calibration: Calibration, trials: Trials) -> State:
    """The same bets as a standing's, which a failure does not end: an e-value may be looked at at
    any time, and what is audited after a failure says as much as what was before."""
    ends = state.ends
    return msgspec.structs.replace(
        state,
        main=state.main.observe(calibration.scores(trials)),
        ends=None if ends is None else ends.observe(np.array(trials.ends) / LEVELS),
    )


def _named(bets: Sequence[State], states: Sequence[State]) -> tuple[float, float, float]:
    found = e_bh([state.wealth for state in bets], ALPHA_SHARE)
    right = sum(node < CHEATS for node in found)
    alone = sum(bool(state.failed) for state in states[:CHEATS])
    return right / CHEATS, (len(found) - right) / max(len(found), 1), alone / CHEATS
