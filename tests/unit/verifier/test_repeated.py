"""Answers given again, in a whole verifier: passed with their origin, or no way around an audit."""

import msgspec
import pytest
from tests.support.auditing import COMMITTED_MS, NODE, Made, Toy, ToyNode, but
from tests.support.repeating import again, alone
from tests.support.toy_network import LAMBDA, ToyNetwork, honest, revealed
from tests.unit.audit.test_standing import CLEAN, EXACT, TRUST_ANSWERS, WRONG

from trunkline.audit import recompute
from trunkline.audit.findings import passed
from trunkline.audit.judge import moved
from trunkline.audit.repeated import CACHED
from trunkline.audit.standing import State
from trunkline.crypto.signer import sign_note
from trunkline.receipts import BatchBuilder, encode
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.verdicts import Verdict


async def verdicts(network: ToyNetwork, transport: HttpTransport, *on: Made) -> list[Verdict]:
    """The only verifier's on these answers, in this order, with the numbers computed again."""
    caller = VerifierCaller(transport, await network.verifier(LAMBDA))
    found: dict[str, Verdict] = {}
    after = 0
    while not {one.leaf.hex() for one in on} <= found.keys():
        page = await caller.verdicts(after, 10)
        after += len(page.verdicts)
        for one in page.verdicts:
            verdict = Verdict.open_note(one.note.encode(), LAMBDA.vkey)
            measure = await caller.calibration(verdict.calibration)
            recompute.verdict(verdict, await caller.bundle(one.receipt), measure)
            found[one.receipt] = verdict
    return [found[one.leaf.hex()] for one in on]


def by_name(verdict: Verdict) -> dict[str, str]:
    return {check.name: check.result for check in verdict.checks}


async def test_an_answer_given_again_passes_with_its_origin(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    origin = honest(1)
    (signed,) = network.node.answer(origin)
    repeats = [again(origin, number, signed=signed) for number in (50, 51)]
    network.node.answer(*repeats)
    made, *given = await verdicts(network, transport, origin, *repeats)
    for one in given:
        assert (one.kind, one.regime, one.result) == ("replay", "exact", "pass"), one.checks
        assert by_name(one)["cached"] == by_name(one)["nonce"] == "pass"
        assert one.subject == made.subject
        assert one.evidence.samples in (0, made.evidence.samples), "what is repeated counts once"


@pytest.mark.parametrize("late", [True, False])
async def test_an_origin_that_was_not_in_the_log_by_then_fails_the_node(
    network: ToyNetwork, transport: HttpTransport, late: bool
) -> None:
    """It would be logged once the answer is drawn, and hardly ever be drawn itself."""
    origin = honest(1)
    signed = alone(origin)
    made = again(origin, signed=signed)
    network.node.answer(made)
    if late:
        network.log.append(signed.batch.encode())
    (found,) = await verdicts(network, transport, made)
    assert (found.kind, found.result, found.standing) == ("accounting", "fail", "failed")


@pytest.mark.parametrize("shows", ["nothing", "no origin", "another's"])
async def test_the_word_cached_alone_frees_of_nothing(
    network: ToyNetwork, transport: HttpTransport, shows: str
) -> None:
    """A node that calls answers cached, and has nothing, or nothing of this one, to show."""
    first, other = honest(1), honest(2)
    network.node.answer(first, other)
    lie = again(first)
    opened = {
        "nothing": lie,
        "no origin": but(lie, origin=None),
        "another's": but(lie, origin=again(other).content.origin),
    }
    caller = VerifierCaller(transport, await network.verifier(LAMBDA))
    before = Verdict.open_note((await revealed(caller, 1))[0].note.encode(), LAMBDA.vkey)
    network.node.behaviour = "not_kept" if shows == "nothing" else "opens"
    network.node.answer(opened[shows])
    while (await caller.info()).verdicts < 3:
        await caller.verdicts(2, 1)
    found = Verdict.open_note((await caller.verdict(lie.leaf.hex())).note.encode(), LAMBDA.vkey)
    assert (found.result, found.standing) == ("fail", "failed")
    assert found.kind == ("opening" if shows == "nothing" else "accounting")
    assert found.subject == before.subject, "what it can win back by answers"


async def test_a_node_that_never_said_that_it_keeps_them_fails_for_none_of_them(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    """One of before that was asked of it: an upgrade of verifiers alone fails no honest node."""
    origin = honest(1)
    network.node.state(LAMBDA, whole=msgspec.UNSET)
    (signed,) = network.node.answer(origin)
    network.node.behaviour = "not_kept"
    made = again(origin, signed=signed)
    network.node.answer(made)
    plain, found = await verdicts(network, transport, origin, made)
    assert plain.result == "fail", "what any node keeps"
    assert (found.kind, found.result) == ("opening", "inconclusive")


async def test_one_bad_answer_given_to_all_is_found_each_time(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    origin = ToyNode(toy=Toy(bent=3.0)).serve(1)
    (signed,) = network.node.answer(origin)
    made = again(origin, signed=signed)
    network.node.answer(made)
    (found,) = await verdicts(network, transport, made)
    assert (found.result, by_name(found)["replay"]) == ("fail", "fail")


CHEAP = Toy(bent=3.0)
"""Another model than the receipts say."""
MADE = (passed("replay", ""),)
GIVEN_AGAIN = (*MADE, passed(CACHED, ""))


@pytest.mark.parametrize("calls_cached", [False, True])
async def test_who_calls_all_that_it_answers_cached_is_held_to_as_much(
    network: ToyNetwork, transport: HttpTransport, calls_cached: bool
) -> None:
    """What is given again moves no standing, and saves nothing: before each there is an origin in
    the log, which is drawn like any answer and moves it. One for each, since no two are asked
    alike."""
    answers = [ToyNode(toy=CHEAP).serve(number) for number in range(3)]
    signed = [network.node.answer(one)[0] for one in answers]
    given = [
        again(origin, 50 + number, signed=signed[number])
        for number, origin in enumerate(answers)
        if calls_cached
    ]
    if given:
        network.node.answer(*given)
    found = await verdicts(network, transport, *answers, *given)
    assert {one.result for one in found} == {"fail"}
    assert "failed" in {one.standing for one in found[: len(answers)]}
    assert max(one.evidence.samples for one in found) <= len(answers)


async def test_an_origin_that_nobody_can_draw_is_none(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    """It says that it may be audited, and its batch that it may not: it is in no draw."""
    origin = ToyNode(toy=CHEAP).serve(1)
    builder = BatchBuilder(NODE.name)
    builder.add(encode(origin.receipt))
    sealed = builder.seal(previous=None, unix_ms=COMMITTED_MS + 2000, audited=0)
    (signed,) = sealed.signed(sign_note(sealed.text, NODE))
    network.log.append(signed.batch.encode())
    made = again(origin, signed=signed)
    network.node.answer(made)
    (found,) = await verdicts(network, transport, made)
    assert (found.result, found.standing, by_name(found)["cached"]) == ("fail", "failed", "fail")


def test_what_is_given_again_neither_wins_nor_loses_standing() -> None:
    """Else a node that has failed would answer one question, and repeat that; and whoever knows one
    bad answer would ask for it again and again."""
    start = State.start(EXACT)
    failed = moved(start, EXACT, WRONG, MADE, picked=False)
    good = start
    for _ in range(TRUST_ANSWERS):
        good = moved(good, EXACT, CLEAN, MADE, picked=False)
    assert [one.standing for one in (start, failed, good)] == ["open", "failed", "good"]
    for state in (start, failed, good):
        for trials in (CLEAN, WRONG):
            assert moved(state, EXACT, trials, GIVEN_AGAIN, picked=False) == state


async def test_what_was_sent_in_its_place_fails_the_node(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    origin = honest(1)
    (signed,) = network.node.answer(origin)
    lie = again(origin, signed=signed, said=ToyNode(toy=Toy(bent=3.0)).serve(1))
    told = lie.receipt
    agrees = (told.response.chunks, told.response.finish) == (
        origin.receipt.response.chunks, origin.receipt.response.finish,
    )  # fmt: skip
    network.node.answer(lie)
    (found,) = await verdicts(network, transport, lie)
    assert (found.result, found.standing) == ("fail", "failed")
    assert by_name(found)["repeated" if agrees else "cached"] == "fail"
