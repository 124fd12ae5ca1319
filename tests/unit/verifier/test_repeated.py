"""Answers given again, in a whole verifier: passed with their origin, or no way around an audit."""

import msgspec
import pytest
from tests.support.auditing import Made, Toy, ToyNode, but
from tests.support.repeating import again, alone
from tests.support.toy_network import LAMBDA, ToyNetwork, honest

from trunkline.audit import recompute
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
    before = Verdict.open_note(
        (await caller.verdicts(0, 20)).verdicts[0].note.encode(), LAMBDA.vkey
    )
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
