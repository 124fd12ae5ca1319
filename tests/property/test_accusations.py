"""Which verifiers are voices of their own: honest ones, slow ones, third ones, and those that copy.

Each test says what the log has in which order, and what a gateway that heard all of it makes of the
node. What one verifier says of an answer is told by its places: where it was bound, and where it
showed its verdict.
"""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.verifier_hand import VerifierHand, digest_of

from trunkline.crypto.signer import Signer
from trunkline.gateway.core import accusations
from trunkline.gateway.core.demands import Verification
from trunkline.gateway.core.standing import Board, Level, NodeStanding
from trunkline.verdicts import Logged, Regime, Result, Standing, Verdict

ONE, TWO, THREE = VerifierHand("one"), VerifierHand("two"), VerifierHand("three")
NODE = Signer.generate("a/node", b"\x01" * 32).vkey
POLICY = Verification(verifiers=(ONE.policy, TWO.policy, THREE.policy))
FIRST, SECOND = "aa" * 32, "bb" * 32


def says(hand: VerifierHand, unix_ms: int, receipt: str, standing: Standing = "failed") -> Verdict:
    result: Result = "fail" if standing == "failed" else "pass"
    return hand.verdict(NODE, unix_ms, standing=standing, result=result, receipt=receipt)


def at(committed: int, revealed: int) -> Logged:
    return Logged(committed=committed, revealed=revealed)


def heard(*said: tuple[Verdict, Logged | None]) -> Board:
    board = Board()
    for verdict, logged in said:
        board.hear(verdict, digest_of(verdict), logged=logged)
    return board


def of(board: Board, policy: Verification = POLICY) -> NodeStanding:
    return board.standings(policy)[str(NODE), "tiny"]


def test_honest_verifiers_that_were_bound_before_either_had_shown_quarantine() -> None:
    board = heard((says(ONE, 1, FIRST), at(10, 12)), (says(TWO, 2, FIRST), at(11, 13)))
    assert of(board).level is Level.QUARANTINED


def test_a_liar_and_one_that_copies_every_word_of_it_only_demote() -> None:
    lies = [(says(ONE, n, f"{n:064x}"), at(10 * n, 10 * n + 1)) for n in range(1, 40)]
    copies = [(says(TWO, n, f"{n:064x}"), at(10 * n + 2, 10 * n + 3)) for n in range(1, 40)]
    found = of(heard(*lies, *copies))
    assert found.level is Level.DEMOTED
    assert "could not know" in found.why
    assert found.by == (ONE.name, TWO.name)
    honest = [(says(THREE, n, f"{n:064x}", "good"), at(10 * n, 10 * n + 1)) for n in range(1, 40)]
    assert of(heard(*lies, *copies, *honest)).level is Level.DEMOTED


@pytest.mark.parametrize(
    ("regime", "level"), [("exact", Level.DEMOTED), ("noisy", Level.QUARANTINED)]
)
def test_a_standing_that_a_copy_began_is_no_finding_on_answers_that_pass(
    regime: Regime, level: Level
) -> None:
    """What has failed stays so on later answers. Where one answer is no proof there is nothing
    but the standing."""
    board = heard((says(ONE, 1, FIRST), at(10, 12)), (says(TWO, 2, FIRST), at(20, 21)))
    passed = TWO.verdict(NODE, 3, standing="failed", result="pass", receipt=SECOND)
    passed = msgspec.structs.replace(passed, regime=regime)
    board.hear(passed, digest_of(passed), logged=at(30, 31))
    assert of(board).level is level


def test_one_that_shows_no_commitment_was_bound_where_its_verdict_is() -> None:
    early = (says(ONE, 1, FIRST), at(10, 20))
    assert of(heard(early, (says(TWO, 2, FIRST), at(15, 15)))).level is Level.QUARANTINED
    assert of(heard(early, (says(TWO, 2, FIRST), at(25, 25)))).level is Level.DEMOTED


def test_a_slow_verifier_demotes_and_counts_by_the_first_answer_that_it_failed_by_itself() -> None:
    board = heard((says(ONE, 1, FIRST), at(10, 12)), (says(TWO, 2, FIRST), at(20, 21)))
    assert of(board).level is Level.DEMOTED
    own = says(TWO, 3, SECOND)
    board.hear(own, digest_of(own), logged=at(30, 31))
    assert of(board).level is Level.QUARANTINED
    # And the other one repeats it now: each has said one of its own.
    echo = says(ONE, 4, SECOND)
    board.hear(echo, digest_of(echo), logged=at(40, 41))
    assert of(board).level is Level.QUARANTINED
    # However often it comes late after that.
    for n in range(1, 40):
        for hand, places in ((ONE, at(100 * n, 100 * n + 1)), (TWO, at(100 * n + 2, 100 * n + 3))):
            again = says(hand, 4, f"{n:064x}")
            board.hear(again, digest_of(again), logged=places)
    assert of(board).level is Level.QUARANTINED
    # What it had said by itself it takes back.
    good = says(TWO, 5, "cc" * 32, "good")
    late = says(TWO, 6, FIRST)
    board.hear(good, digest_of(good))
    board.hear(late, digest_of(late), logged=at(50, 51))
    assert of(board).level is Level.DEMOTED


def test_the_third_that_a_dispute_asks_ends_it_and_is_no_second_voice_by_it() -> None:
    failed, passed = says(ONE, 1, FIRST), says(TWO, 2, FIRST, "open")
    third = says(THREE, 3, FIRST)
    board = heard((failed, at(10, 12)), (passed, at(11, 13)))
    assert len(board.disputes(POLICY)) == 1
    board.hear(third, digest_of(third), logged=at(20, 21))
    assert board.disputes(POLICY) == []
    assert of(board).level is Level.DEMOTED
    own = says(THREE, 4, SECOND)
    board.hear(own, digest_of(own), logged=at(30, 31))
    assert of(board).level is Level.QUARANTINED


def test_who_contradicts_what_it_may_have_known_copies_nobody() -> None:
    passed, failed = says(ONE, 1, FIRST, "open"), says(TWO, 2, FIRST)
    board = heard((passed, at(1, 2)), (failed, at(5, 6)), (says(THREE, 3, FIRST), at(4, 7)))
    assert of(board).level is Level.QUARANTINED


def test_one_that_shows_all_it_says_at_once_makes_no_copies_of_two_honest_ones() -> None:
    rash = says(THREE, 1, FIRST), at(1, 2)
    honest = (says(ONE, 2, FIRST), at(10, 12)), (says(TWO, 3, FIRST), at(11, 13))
    assert of(heard(rash, *honest)).level is Level.QUARANTINED
    three = Verification(verifiers=POLICY.verifiers, agree=3)
    assert of(heard(rash, *honest), three).level is Level.DEMOTED


def test_a_place_that_is_not_proved_yet_is_fetched_and_decides_nothing_before() -> None:
    first, copy = says(ONE, 1, FIRST), says(TWO, 2, FIRST)
    older = says(ONE, 0, SECOND)
    board = heard((older, at(1, 2)), (first, None), (copy, at(20, 21)))
    assert of(board).level is Level.DEMOTED
    assert "not proved" in of(board).why
    assert digest_of(first) in board.unproved(POLICY)
    board.hear(first, digest_of(first), logged=at(10, 11))
    assert of(board).level is Level.DEMOTED
    assert "could not know" in of(board).why
    assert board.unproved(POLICY) == ()


def test_withheld_and_failed_are_no_copies_of_each_other() -> None:
    strict = Verification(verifiers=POLICY.verifiers, on_withheld="quarantine")
    kinds = [
        hand.verdict(NODE, 1, standing="failed", kind="opening", receipt=FIRST)
        for hand in (ONE, TWO)
    ]
    board = heard((says(ONE, 1, FIRST), at(1, 2)), (kinds[0], at(3, 4)), (kinds[1], at(5, 6)))
    assert of(board, strict).level is Level.DEMOTED
    board = heard((says(ONE, 1, FIRST), at(1, 2)), (kinds[0], at(3, 6)), (kinds[1], at(4, 7)))
    assert of(board, strict).level is Level.QUARANTINED


def test_what_a_liar_said_long_ago_is_still_no_voice_of_who_copied_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However much it says since: of its many verdicts the oldest are no voices any more, but
    are remembered for as long as the copies are."""
    monkeypatch.setattr(accusations, "CHARGES_MAX", 3)
    said = [(says(ONE, n, f"{n:064x}"), at(10 * n, 10 * n + 1)) for n in range(1, 10)]
    copy = says(TWO, 1, f"{1:064x}"), at(15, 16)
    assert of(heard(said[0], copy, *said[1:])).level is Level.DEMOTED
    book = accusations.Accusations()
    for verdict, logged in (said[0], copy, *said[1:]):
        book.hear(verdict, accusations.Mark(verdict.unix_ms, digest_of(verdict)), logged)
    kept = [*said[-3:], said[0], copy]
    assert book.support() == {digest_of(verdict) for verdict, _ in kept}


places = st.integers(0, 12).flatmap(
    lambda committed: st.integers(committed, 13).map(lambda shown: at(committed, shown))
)
claims = st.tuples(
    st.builds(
        says,
        st.sampled_from((ONE, TWO, THREE)),
        st.integers(0, 9),
        st.sampled_from((FIRST, SECOND, "cc" * 32)),
        st.sampled_from(("failed", "failed", "good")),
    ),
    places,
)


@given(st.lists(claims, max_size=12, unique_by=lambda one: digest_of(one[0])), st.randoms())
def test_any_order_and_any_way_to_the_proofs_comes_to_the_same(
    said: list[tuple[Verdict, Logged]], chance: random.Random
) -> None:
    """Proofs of what is asked for alone lead to where proofs of everything do."""
    where = {digest_of(verdict): (verdict, logged) for verdict, logged in said}
    full = heard(*said)
    shuffled = [(verdict, None) for verdict, _ in said]
    chance.shuffle(shuffled)
    board = heard(*shuffled)
    while wanted := board.unproved(POLICY):
        verdict, logged = where[chance.choice(wanted)]
        board.hear(verdict, digest_of(verdict), logged=logged)
    levels = {place: standing.level for place, standing in board.standings(POLICY).items()}
    assert levels == {p: standing.level for p, standing in full.standings(POLICY).items()}
