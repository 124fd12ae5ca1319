"""What a node could choose once it knows which of its answers are looked at: nothing."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.support.auditing import NODE, PARTIES, Made, Toy, ToyNode, scored
from tests.support.toy_network import LAMBDA, ToyNetwork, revealed

from trunkline.audit import recompute
from trunkline.audit.calibration import build, encode
from trunkline.crypto.digest import digest
from trunkline.crypto.signer import sign_note
from trunkline.receipts import ReceiptPolicy
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.verdicts import Verdict
from trunkline.verifier import auditing

OTHER_BITS: dict[str, object] = {"bits": "sha256:" + "0" * 64}
BENT = ToyNode(toy=Toy(bent=3.0))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log lacks is not waited for."""
    monkeypatch.setattr(auditing, "SELF_TEST_TRIES_MAX", 0)
    monkeypatch.setattr(auditing, "MEASURE_TRIES_MAX", 0)


async def verdicts(network: ToyNetwork, transport: HttpTransport, count: int) -> list[Verdict]:
    return await verdicts_of(VerifierCaller(transport, await network.verifier(LAMBDA)), count)


async def verdicts_of(caller: VerifierCaller, count: int) -> list[Verdict]:
    found = await revealed(caller, count)
    return [Verdict.open_note(one.note.encode(), LAMBDA.vkey) for one in found]


async def test_the_regime_is_the_one_that_the_log_had_been_told(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.answer(BENT.serve(1))
    network.node.stated = OTHER_BITS
    (verdict,) = await verdicts(network, transport, 1)
    assert (verdict.result, verdict.regime) == ("fail", "exact")


async def test_what_the_log_is_told_later_holds_for_later_answers(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.answer(ToyNode().serve(1))
    network.node.stated = OTHER_BITS
    network.node.answer(ToyNode().serve(2))
    found = await verdicts(network, transport, 2)
    assert [one.regime for one in sorted(found, key=entry_of)] == ["exact", "none"]


def entry_of(verdict: Verdict) -> int:
    assert verdict.drawn
    return verdict.drawn.entry


@pytest.mark.usefixtures("at_once")
async def test_a_self_test_that_is_not_in_the_log_establishes_nothing(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.logs_self_test = False
    network.node.answer(ToyNode().serve(1))
    (verdict,) = await verdicts(network, transport, 1)
    assert verdict.regime != "exact"


async def test_numerics_of_its_own_for_each_answer_make_no_new_subjects(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    keep_noisy(network.folder / LAMBDA.name.replace("/", "-"))
    network.node.toy = Toy(drift=0.02)
    made: list[Made] = [ToyNode(toy=Toy(drift=0.001 * at)).serve(at) for at in (1, 2, 20)]
    for one in made:
        network.node.answer(one)
    found = sorted(await verdicts(network, transport, 3), key=entry_of)
    assert [one.regime for one in found] == ["noisy"] * 3
    # The last are the numerics that the node has stated in the log.
    assert [one.subject.numerics for one in found] == ["toy-0.0", "toy-0.0", "toy-0.02"]
    # Of the two that are one subject, each counts what was before it.
    tokens = [one.evidence.tokens for one in found]
    assert max(tokens[:2]) == sum(len(one.content.tokens[0]) for one in made[:2])


def keep_noisy(folder: Path) -> None:
    """Give the verifier a calibration for any two toys."""
    made = build(
        scored(ToyNode(toy=Toy(drift=0.02)), Toy(), range(40)),
        parties=PARTIES,
        regime="noisy",
        prompts=digest(b""),
        seeds="counted",
    )
    (folder / "calibrations").mkdir(parents=True)
    (folder / "calibrations" / "noisy.json").write_bytes(encode(made))


@pytest.mark.usefixtures("at_once")
async def test_nonces_that_the_log_never_had_are_a_fault(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    assert network.log.entries[0].startswith(b"trunkline.nonces/v1\n")
    network.log.entries[0] = sign_note(b"something else\nin its place\n", NODE)
    network.node.answer(ToyNode().serve(1))
    (verdict,) = await verdicts(network, transport, 1)
    found = [one.name for one in verdict.checks if one.result == "fail"]
    assert (found, verdict.standing) == (["nonce"], "failed")


@pytest.mark.parametrize(
    ("behaviour", "result"), [("private", "not_applicable"), ("made up", "fail")]
)
async def test_what_is_said_to_be_private_is_shown_to_be_in_its_batch(
    network: ToyNetwork, transport: HttpTransport, behaviour: str, result: str
) -> None:
    """Whoever has the receipt knows its leaf, and whether it is private. Nodes of before they
    counted what may be audited say no more."""
    network.node.counts = False
    network.node.state(LAMBDA, counts=msgspec.UNSET)
    made = [ToyNode().serve(at) for at in range(3)]
    network.node.answer(*made)
    network.node.behaviour = behaviour
    found = await verdicts(network, transport, 3)
    assert {one.result for one in found} == {result}
    if result == "not_applicable":
        assert {one.receipt for one in found} == {one.leaf.hex() for one in made}


def closed(made: Made) -> Made:
    """The same answer, of a caller who lets nobody audit it."""
    policy = ReceiptPolicy(mode="private")
    return replace(made, receipt=msgspec.structs.replace(made.receipt, policy=policy))


async def failing(network: ToyNetwork, transport: HttpTransport, count: int) -> set[str]:
    """The checks that fail in ``count`` verdicts, each of which fails its subject, and comes out
    again from its bundle."""
    caller = VerifierCaller(transport, await network.verifier(LAMBDA))
    found = await verdicts_of(caller, count)
    assert {(one.result, one.standing) for one in found} == {("fail", "failed")}
    for one in found:
        bundle = await caller.bundle(one.receipt)
        assert recompute.verdict(one, bundle, await caller.calibration(one.calibration))
    return {check.name for one in found for check in one.checks if check.result == "fail"}


@pytest.mark.parametrize("counts", [True, False])
async def test_what_was_signed_as_open_to_audits_is_not_called_private_afterwards(
    network: ToyNetwork, transport: HttpTransport, counts: bool
) -> None:
    """Nor by a node that has stated that its batches count, and signs one that does not."""
    network.node.counts = counts
    network.node.answer(*(ToyNode().serve(at) for at in range(3)))
    network.node.behaviour = "private"
    assert await failing(network, transport, 3) == {"opened"}


async def test_a_receipt_that_its_batch_contradicts_opens_nothing(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.node.behaviour = "not_audited"
    network.node.answer(closed(ToyNode().serve(1)), audited=1)
    assert await failing(network, transport, 1) == {"opened"}


async def test_what_may_not_be_audited_is_not_drawn(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    made = [ToyNode().serve(at) for at in range(4)]
    network.node.answer(*map(closed, made[:2]), *made[2:])
    found = await verdicts(network, transport, 2)
    assert {one.receipt for one in found} == {one.leaf.hex() for one in made[2:]}
    assert [one.drawn.index for one in found if one.drawn is not msgspec.UNSET] in ([0, 1], [1, 0])
