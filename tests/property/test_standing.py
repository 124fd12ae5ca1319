"""What verdicts come to: whatever the order, the repetitions and the liars.

The reference counts, by plain loops over the whole stream, whose newest word on which subject is
what; the board must agree with it under every order, and no single operator may quarantine.
"""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.verifier_hand import VerifierHand, digest_of

from trunkline.crypto.keys import VerifierKey
from trunkline.crypto.signer import Signer
from trunkline.gateway.core.demands import Verification
from trunkline.gateway.core.standing import (
    AHEAD_MS_MAX,
    Board,
    Level,
    NodeStanding,
    Place,
    is_early,
)
from trunkline.verdicts import Kind, Logged, Result, Standing, Verdict

HANDS = [
    VerifierHand("one", "red"),
    VerifierHand("two", "red"),
    VerifierHand("three", "green"),
    VerifierHand("four", "blue"),
]
NODES = [Signer.generate(f"{name}/node", bytes([number]) * 32).vkey
         for number, name in enumerate(("a", "b"))]  # fmt: skip
APART = Logged(committed=1, revealed=2)
"""Places that are no copy of each other."""
RECEIPT = "ab" * 32
POLICY = Verification(verifiers=tuple(hand.policy for hand in HANDS))


@st.composite
def verdicts(draw: st.DrawFn) -> Verdict:
    hand = draw(st.sampled_from(HANDS))
    standing: Standing = draw(st.sampled_from(("good", "failed", "open")))
    result: Result = draw(st.sampled_from(("pass", "fail", "inconclusive", "not_applicable")))
    kind: Kind = draw(st.sampled_from(("replay", "opening")))
    return hand.verdict(
        draw(st.sampled_from(NODES)),
        draw(st.integers(0, 20)),
        standing=standing,
        result=result,
        kind=kind,
        receipt=draw(st.sampled_from(("aa", "bb", "cc"))) * 32,
        configuration=draw(st.sampled_from(("calibrated", "other"))),
    )


def board_of(stream: list[Verdict], *, logged: bool = True) -> Board:
    board = Board()
    for verdict in stream:
        board.hear(verdict, digest_of(verdict), logged=APART if logged else None)
    return board


def failing_operators(stream: list[Verdict], place: Place) -> set[str]:
    """Operators with a verifier whose newest ``failed`` on a subject there, by an answer that
    fails, no later ``good`` took back."""
    found = set()
    for hand in HANDS:
        own = [v for v in stream if v.key == str(hand.key)]
        for subject in {v.subject for v in own if (v.subject.key, v.subject.model) == place}:
            said = [v for v in own if v.subject == subject]
            failing = [v for v in said if (v.standing, v.result) == ("failed", "fail")]
            failed = [v.unix_ms for v in failing if v.kind != "opening"]
            good = [v.unix_ms for v in said if v.standing == "good"]
            if failed and (not good or max(failed) >= max(good)):
                found.add(hand.operator)
    return found


@given(st.lists(verdicts(), max_size=25), st.randoms(use_true_random=False))
def test_order_and_repetitions_do_not_matter(stream: list[Verdict], chance: object) -> None:
    again = [*stream, *stream[::2]]
    chance.shuffle(again)  # type: ignore[attr-defined]
    one, other = board_of(stream), board_of(again)
    assert one.standings(POLICY) == other.standings(POLICY)
    assert one.disputes(POLICY) == other.disputes(POLICY)
    assert one.support() == other.support()


@given(st.lists(verdicts(), max_size=25))
def test_a_node_is_quarantined_exactly_when_two_operators_fail_it(stream: list[Verdict]) -> None:
    found = board_of(stream).standings(POLICY)
    for node in NODES:
        place = (str(node), "tiny")
        operators = failing_operators(stream, place)
        quarantined = place in found and found[place].level is Level.QUARANTINED
        assert quarantined == (len(operators) >= 2)
        if len(operators) == 1:
            assert found[place].level is Level.DEMOTED


@given(st.lists(verdicts(), max_size=25), st.randoms(use_true_random=False))
def test_what_is_not_proved_to_be_logged_demotes_and_its_proof_quarantines(
    stream: list[Verdict], chance: object
) -> None:
    board = board_of(stream, logged=False)
    levels = {place: standing.level for place, standing in board.standings(POLICY).items()}
    assert Level.QUARANTINED not in levels.values()
    wanted = set(board.unproved(POLICY))
    proved = [verdict for verdict in stream if digest_of(verdict) in wanted]
    chance.shuffle(proved)  # type: ignore[attr-defined]
    for verdict in proved:
        board.hear(verdict, digest_of(verdict), logged=APART)
    assert board.unproved(POLICY) == ()
    full = board_of(stream).standings(POLICY)
    assert {p: s.level for p, s in board.standings(POLICY).items()} == {
        p: s.level for p, s in full.items()
    }


def test_a_newer_failure_needs_no_new_proof_until_the_first_was_taken_back() -> None:
    one, _, three, _ = HANDS
    board = board_of([hand.verdict(NODES[0], 5, standing="failed") for hand in (one, three)])
    again = one.verdict(NODES[0], 7, standing="failed")
    board.hear(again, digest_of(again))
    place = (str(NODES[0]), "tiny")
    assert board.standings(POLICY)[place].level is Level.QUARANTINED
    assert board.unproved(POLICY) == ()

    back = one.verdict(NODES[0], 6, standing="good")
    board.hear(back, digest_of(back))
    found = board.standings(POLICY)[place]
    assert found.level is Level.DEMOTED
    assert "not proved" in found.why
    assert board.unproved(POLICY) == (digest_of(again),)


def test_no_operator_holds_up_the_proofs_of_another_by_how_much_it_says() -> None:
    one, two, three, _ = HANDS
    many = [
        hand.verdict(
            NODES[0],
            time,
            standing="failed",
            configuration=f"made up {time}",
            receipt=f"{time:064x}",
        )
        for time in range(100, 120)
        for hand in (one, two)
    ]
    few = [three.verdict(node, time, standing="failed") for time, node in enumerate(NODES)]
    wanted = board_of([*many, *few], logged=False).unproved(POLICY)
    assert len(wanted) == len(many) + len(few)
    places = [wanted.index(digest_of(verdict)) for verdict in few]
    assert places[1] < 2 <= places[0] < 4


def test_no_proof_is_wanted_of_what_only_demotes() -> None:
    failed = [hand.verdict(NODES[0], 5, standing="failed") for hand in HANDS]
    withheld = [hand.verdict(NODES[0], 5, standing="failed", kind="opening") for hand in HANDS]
    demoting = Verification(verifiers=POLICY.verifiers, on_fail="demote")
    board = board_of([*failed, *withheld], logged=False)
    assert board.unproved(demoting) == ()
    assert set(board.unproved(POLICY)) == set(map(digest_of, failed))


def test_a_time_that_has_not_come_is_early_beyond_what_clocks_differ_by() -> None:
    verdict = HANDS[0].verdict(NODES[0], 1_000_000)
    assert not is_early(verdict, 1_000_000 - AHEAD_MS_MAX)
    assert is_early(verdict, 1_000_000 - AHEAD_MS_MAX - 1)


@given(st.lists(verdicts(), max_size=25))
def test_what_supports_the_board_is_all_that_it_needs(stream: list[Verdict]) -> None:
    board = board_of(stream)
    kept = [verdict for verdict in stream if digest_of(verdict) in board.support()]
    again = board_of(kept)
    assert again.standings(POLICY) == board.standings(POLICY)
    assert again.disputes(POLICY) == board.disputes(POLICY)


@given(st.lists(verdicts(), max_size=25))
def test_one_operator_alone_quarantines_nobody(stream: list[Verdict]) -> None:
    red = [verdict for verdict in stream if verdict.operator == "red"]
    levels = {standing.level for standing in board_of(red).standings(POLICY).values()}
    assert Level.QUARANTINED not in levels


@given(st.lists(verdicts(), max_size=25))
def test_newer_words_of_all_verifiers_restore_every_node(stream: list[Verdict]) -> None:
    board = board_of(stream)
    for node in NODES:
        for hand in HANDS:
            for configuration in ("calibrated", "other"):
                good = hand.verdict(
                    node, 21, standing="good", result="pass", configuration=configuration
                )
                board.hear(good, digest_of(good))
    assert board.standings(POLICY) == {}
    assert board.disputes(POLICY) == []


def said(
    policy: Verification, *stream: Verdict, node: VerifierKey = NODES[0]
) -> NodeStanding | None:
    return board_of(list(stream)).standings(policy).get((str(node), "tiny"))


def changed(verdict: Verdict, **members: str) -> Verdict:
    """The same about a subject that differs in these."""
    subject = msgspec.structs.replace(verdict.subject, **members)
    return msgspec.structs.replace(verdict, subject=subject)


@pytest.mark.parametrize(
    "members",
    [{"numerics": "m"}, {"weights": "sha256:" + "1" * 64}, {"key": str(HANDS[0].key)}],
    ids=["numerics", "weights", "key"],
)
def test_what_took_a_failed_subject_s_place_restores_the_node_once_it_is_good(
    members: dict[str, str],
) -> None:
    one, _, three, _ = HANDS
    failed = [hand.verdict(NODES[0], 5, standing="failed", result="fail") for hand in (one, three)]
    good = [changed(hand.verdict(NODES[0], 6, standing="good"), **members) for hand in (one, three)]
    for found in (said(POLICY, *failed, good[0]), said(POLICY, *good[:1], *failed)):
        assert found is not None
        assert found.level is Level.DEMOTED
        assert found.by == (three.name,), "each takes back its own word alone"
    assert said(POLICY, *failed, *good) is None
    # Who goes on under the old one is spoken of again.
    assert said(POLICY, *failed, *good, one.verdict(NODES[0], 7, standing="failed")) is not None


@pytest.mark.parametrize(
    "members",
    [{"configuration": "other"}, {"model": "other"}, {"node": "another/node", "numerics": "m"}],
    ids=["configuration", "model", "node"],
)
def test_what_is_beside_a_failed_subject_restores_nothing(members: dict[str, str]) -> None:
    failed = HANDS[0].verdict(NODES[0], 5, standing="failed")
    good = changed(HANDS[0].verdict(NODES[0], 6, standing="good"), **members)
    assert said(POLICY, failed, good) is not None


def test_a_subject_without_a_configuration_is_restored_by_the_same_with_one() -> None:
    """Nothing that it did not open, before it was measured, can be won back otherwise."""
    hand = HANDS[0]
    failed = hand.verdict(NODES[0], 5, standing="failed", kind="opening", configuration="")
    good = hand.verdict(NODES[0], 6, standing="good")
    assert said(POLICY, failed) is not None
    assert said(POLICY, failed, good) is None
    assert said(POLICY, good, msgspec.structs.replace(failed, unix_ms=7)) is not None
    measured = hand.verdict(NODES[0], 5, standing="failed")
    unmeasured = hand.verdict(NODES[0], 6, standing="good", configuration="")
    assert said(POLICY, measured, unmeasured) is not None


def test_a_dispute_is_over_once_what_took_the_subject_s_place_is_good() -> None:
    one, _, three, _ = HANDS
    stream = [
        one.verdict(NODES[0], 5, result="pass", receipt=RECEIPT),
        three.verdict(NODES[0], 5, result="fail", receipt=RECEIPT),
    ]
    assert board_of(stream).disputes(POLICY)
    later = changed(three.verdict(NODES[0], 6, standing="good"), numerics="m")
    assert board_of([*stream, later]).disputes(POLICY) == []


def test_a_verifier_that_is_not_named_is_not_heard() -> None:
    stranger = VerifierHand("stranger").verdict(NODES[0], 5, standing="failed", result="fail")
    assert said(POLICY, stranger) is None


def test_the_policy_says_how_far_verdicts_go() -> None:
    one, _, three, _ = HANDS
    failed = [hand.verdict(NODES[0], 5, standing="failed") for hand in (one, three)]
    verifiers = POLICY.verifiers
    only_demote = Verification(verifiers=verifiers, on_fail="demote")
    only_say = Verification(verifiers=verifiers, on_fail="alert")
    all_three = Verification(verifiers=verifiers, agree=3)
    alone = Verification(verifiers=(one.policy,))
    found = said(POLICY, *failed)
    assert found is not None
    assert found.level is Level.QUARANTINED
    assert found.by == (one.name, three.name)
    for policy in (only_demote, all_three):
        found = said(policy, *failed)
        assert found is not None
        assert found.level is Level.DEMOTED
    assert said(only_say, *failed) is None
    found = said(alone, *failed)
    assert found is not None, "who names one verifier believes one verifier"
    assert found.level is Level.QUARANTINED


def test_withholding_has_a_consequence_of_its_own() -> None:
    stream = [
        hand.verdict(NODES[0], 5, standing="failed", result="fail", kind="opening")
        for hand in (HANDS[0], HANDS[2])
    ]
    demoted = said(POLICY, *stream)
    assert demoted is not None
    assert demoted.level is Level.DEMOTED
    strict = said(Verification(verifiers=POLICY.verifiers, on_withheld="quarantine"), *stream)
    assert strict is not None
    assert strict.level is Level.QUARANTINED


def test_a_third_opinion_ends_a_dispute() -> None:
    one, _, three, four = HANDS
    against = one.verdict(NODES[0], 5, result="fail", receipt=RECEIPT)
    for_it = three.verdict(NODES[0], 6, result="pass", receipt=RECEIPT)
    third = four.verdict(NODES[0], 7, result="pass", receipt=RECEIPT)
    board = board_of([against, for_it])
    (dispute,) = board.disputes(POLICY)
    assert dispute.by == (one.name, three.name)
    assert dispute.place == (str(NODES[0]), "tiny")
    board.hear(third, digest_of(third))
    assert board.disputes(POLICY) == []


def test_a_failed_answer_demotes_until_a_newer_one_passes() -> None:
    one = HANDS[0]
    found = said(POLICY, one.verdict(NODES[0], 5, result="fail"))
    assert found is not None
    assert found.level is Level.DEMOTED
    again = said(POLICY, one.verdict(NODES[0], 5, result="fail"),
                 one.verdict(NODES[0], 6, result="pass", receipt="cd" * 32))  # fmt: skip
    assert again is None
