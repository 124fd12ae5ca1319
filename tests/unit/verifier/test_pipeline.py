"""A whole verifier over real connections, with a toy model: from a logged receipt to a verdict."""

import msgspec
import pytest
from tests.support.auditing import Toy, ToyNode
from tests.support.toy_network import (
    LAMBDA,
    MU,
    NU,
    POLICY,
    ToyNetwork,
    honest,
    revealed,
)

from trunkline.audit import recompute
from trunkline.base.errors import UpstreamError, VerificationError
from trunkline.crypto.signer import Signer, sign_note
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.schema.audit import AskedAudit
from trunkline.tlog.policy import Policy
from trunkline.verdicts import (
    COMMITMENT_TYPE,
    DRAW_TYPE,
    VERDICT_TYPE,
    Chain,
    Commitment,
    Draw,
    Verdict,
    chain_of,
    examine,
    plain_checkpoint,
)
from trunkline.verifier import chains


async def alone(
    network: ToyNetwork, transport: HttpTransport, **settings: object
) -> VerifierCaller:
    return VerifierCaller(transport, await network.verifier(LAMBDA, **settings))


async def test_honest_answers_pass_and_their_numbers_come_out_again(network, transport):
    network.node.answer(honest(1), honest(2))
    caller = await alone(network, transport)

    found = await revealed(caller, 2)

    verdicts = [Verdict.open_note(one.note.encode(), LAMBDA.vkey) for one in found]
    assert {one.result for one in verdicts} == {"pass"}
    assert {one.regime for one in verdicts} == {"exact"}
    assert {one.receipt for one in verdicts} == {honest(1).leaf.hex(), honest(2).leaf.hex()}
    for one in verdicts:
        bundle = await caller.bundle(one.receipt)
        recompute.verdict(one, bundle, await caller.calibration(one.calibration))
    assert [one.number for one in found] == [1, 2]


async def test_everything_is_in_the_log_in_its_order(network, transport):
    network.node.answer(honest(1))
    caller = await alone(network, transport)
    (found,) = await revealed(caller, 1)

    log = network.log
    assert log.entries[found.entry] == found.note.encode()
    order = [log.entries.index(log.statements(kind)[0]) for kind in (
        DRAW_TYPE, COMMITMENT_TYPE, VERDICT_TYPE,
    )]  # fmt: skip
    assert order == sorted(order)
    commitment = Commitment.open_note(log.statements(COMMITMENT_TYPE)[0], LAMBDA.vkey)
    assert commitment.binds(log.statements(VERDICT_TYPE)[0])
    assert found.commitment.encode() == log.statements(COMMITMENT_TYPE)[0], "told byte by byte"
    # Nothing is drawn from statements: the log comes to rest.
    assert len(log.statements(DRAW_TYPE)) == 1


def draw_by(
    signer: Signer, network: ToyNetwork, from_: int, *, announced: Chain | None = None
) -> bytes:
    """A draw of everything since ``from_``, by no chain, signed."""
    plain = plain_checkpoint(network.log.checkpoint(), Policy.parse(POLICY))
    draw = Draw(
        checkpoint=plain.decode(),
        from_=from_,
        key=str(signer.vkey),
        next=announced or msgspec.UNSET,
        operator=signer.name.partition("/")[0],
        rate_ppm=1_000_000,
        to=len(network.log.entries),
        unix_ms=1,
    )
    return sign_note(draw.text(), signer)


async def chained(network: ToyNetwork, transport: HttpTransport, url: str) -> list[Draw]:
    """Answers, until a verifier drew by a chain, and its verdicts on all of them."""
    caller, numbers = VerifierCaller(transport, url), iter(range(1, 20))
    draws: list[Draw] = []
    told = 0
    while not draws or len(draws[-1].chances()) < draws[-1].to - draws[-1].from_:
        network.node.answer(honest(next(numbers)))
        told += 1
        found = await revealed(caller, told)
        assert {Verdict.open_note(one.note.encode(), LAMBDA.vkey).result for one in found} == {
            "pass"
        }
        for number in range(4):
            network.log.append(b"somebody's\nentry %d of %d\n" % (number, told))
        draws = [Draw.open_note(one, LAMBDA.vkey) for one in network.log.statements(DRAW_TYPE)]
    return draws


async def test_draws_are_made_by_a_chain_that_was_announced_before(network, transport):
    url = await network.verifier(LAMBDA)
    caller = VerifierCaller(transport, url)

    draws = await chained(network, transport, url)

    policy = Policy.parse(POLICY)
    for one in (await caller.verdicts(0)).verdicts:
        verdict = Verdict.open_note(one.note.encode(), LAMBDA.vkey)
        assert verdict.drawn is not msgspec.UNSET
        note = await caller.draw(verdict.drawn.draw)
        recompute.draw(verdict, note, LAMBDA.vkey, policy)
        for wrong in (
            {"entry": 10**6},
            {"draw": "sha256:" + "0" * 64},
            {"by": str(MU.vkey)},
        ):
            other = msgspec.structs.replace(
                verdict, drawn=msgspec.structs.replace(verdict.drawn, **wrong)
            )
            with pytest.raises(VerificationError):
                recompute.draw(other, note, LAMBDA.vkey, policy)
    with pytest.raises(UpstreamError):
        await caller.draw("sha256:" + "0" * 64)
    (announced,) = [draw.announced() for draw in draws if draw.announced() is not None]
    assert draws[-1].shown() == (announced,)
    assert draws[0].shown() == ()
    (found,) = examine(network.log.entries, [LAMBDA.vkey], Policy.parse(POLICY))
    assert found.findings == ()
    assert found.unchained < found.draws


async def test_a_chain_that_came_too_late_is_announced_again_further_ahead(
    network, transport, monkeypatch
):
    monkeypatch.setattr(chains, "AHEAD_ENTRIES", 0)
    monkeypatch.setattr(chains, "LATE_FACTOR", 16)
    url = await network.verifier(LAMBDA)

    draws = await chained(network, transport, url)

    assert len([draw for draw in draws if draw.announced() is not None]) == 2
    (found,) = examine(network.log.entries, [LAMBDA.vkey], Policy.parse(POLICY))
    assert found.findings == ()


async def test_a_verifier_that_draws_otherwise_than_by_its_chain_is_reported_and_left_alone(
    network, transport
):
    ahead = chain_of(b"\x5e" * 32, len(network.log.entries) + 1)
    announcing = draw_by(MU, network, 0, announced=ahead)
    network.log.append(announcing)
    network.node.answer(honest(1))
    drawn = draw_by(MU, network, Draw.open_note(announcing, MU.vkey).to)
    network.log.append(drawn)
    url = await network.verifier(LAMBDA, [(MU, "http://127.0.0.1:1")], rate_ppm=0)
    caller = VerifierCaller(transport, url)

    while not (found := (await caller.alerts(0)).alerts):
        await caller.verdicts(0, 0.05)

    assert [(one.kind, one.about) for one in found] == [("gap", MU.name)]
    assert "otherwise than by the chain" in found[0].detail
    assert (await caller.info()).waiting == 0


async def test_a_node_that_does_not_know_of_chains_is_drawn_as_it_knows(network, transport):
    network.node.state(LAMBDA, chains=msgspec.UNSET, rate_ppm=500_000)
    url = await network.verifier(LAMBDA)
    caller = VerifierCaller(transport, url)
    for number in range(12):
        network.node.answer(honest(number))
        for pad in range(4):
            network.log.append(b"somebody's\nentry %d of %d\n" % (pad, number))
        while (await caller.info()).followed < len(network.log.entries):
            await caller.verdicts(10**6, 0.05)
    last = network.log.entries.index(network.log.statements("trunkline.batch/v1")[-1])

    async def all_drawn() -> list[Draw]:
        return [Draw.open_note(one, LAMBDA.vkey) for one in network.log.statements(DRAW_TYPE)]

    while (draws := await all_drawn())[-1].to <= last or (await caller.info()).waiting:
        await caller.verdicts(10**6, 0.05)
    assert any(draw.shown() for draw in draws)
    batches = [
        index
        for index, entry in enumerate(network.log.entries)
        if entry.startswith(b"trunkline.batch/v1\n")
    ]
    expected = {
        honest(number).leaf.hex()
        for number, entry in enumerate(batches)
        for draw in draws
        if draw.chosen(entry, 1, rate_ppm_max=500_000, chance=draw.randomness())
    }
    assert {one.receipt for one in await revealed(caller, len(expected))} == expected


async def test_two_verifiers_audit_what_either_drew_and_agree(network, transport):
    network.node.answer(honest(1))
    one = await network.verifier(LAMBDA, [(MU, "http://127.0.0.1:1")], rate_ppm=0)
    other = await network.verifier(MU, [(LAMBDA, "http://127.0.0.1:1")])

    for url, signer in ((one, LAMBDA), (other, MU)):
        caller = VerifierCaller(transport, url)
        (found,) = await revealed(caller, 1)
        verdict = Verdict.open_note(found.note.encode(), signer.vkey)
        assert verdict.result == "pass"
        assert verdict.drawn is not msgspec.UNSET
        assert verdict.drawn.by == str(MU.vkey)
        assert (await caller.alerts(0)).alerts == ()


async def test_what_is_withheld_counts_against_what_the_nodes_answers_are_about(network, transport):
    """What is held against a subject of its own could never be won back by answers."""
    network.node.answer(honest(1))
    caller = await alone(network, transport)
    (opened,) = await revealed(caller, 1)
    network.node.behaviour = "not_kept"
    network.node.answer(honest(2))

    _, withheld = await revealed(caller, 2)

    before, after = (
        Verdict.open_note(one.note.encode(), LAMBDA.vkey) for one in (opened, withheld)
    )
    assert (after.kind, after.standing) == ("opening", "failed")
    assert after.subject == before.subject
    assert after.subject.configuration == "toy exact"


@pytest.mark.parametrize(
    ("behaviour", "result", "kind"),
    [
        ("refuses", "fail", "opening"),
        ("lies", "fail", "opening"),
        ("not_audited", "fail", "opening"),
        ("not_kept", "fail", "opening"),
        ("cheats", "fail", "replay"),
    ],
)
async def test_a_node_that_does_not_open_what_it_signed_fails(
    network, transport, behaviour, result, kind
):
    network.node.answer(honest(1))
    network.node.answer(honest(2))
    network.node.behaviour = behaviour
    caller = await alone(network, transport)

    found = await revealed(caller, 2)

    # Whoever opens the first one for both has opened that.
    second = next((one for one in found if one.receipt == honest(2).leaf.hex()), found[-1])
    verdict = Verdict.open_note(second.note.encode(), LAMBDA.vkey)
    assert (verdict.result, verdict.kind, verdict.standing) == (result, kind, "failed")
    bundle = await caller.bundle(verdict.receipt)
    recompute.verdict(verdict, bundle, await caller.calibration(verdict.calibration))


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ({"rate_ppm": 999}, "999 receipts of a million"),
        ({"keep_s": 60}, "60 s"),
        ({"verifiers": (str(MU.vkey),)}, "do not name this verifier"),
    ],
)
async def test_a_node_whose_terms_are_too_small_is_not_blamed_and_not_verified(
    network, transport, terms, why
):
    network.node.state(LAMBDA, **terms)
    network.node.answer(honest(1))
    network.node.behaviour = "refuses"
    caller = await alone(network, transport)

    (found,) = await revealed(caller, 1)

    verdict = Verdict.open_note(found.note.encode(), LAMBDA.vkey)
    assert (verdict.result, verdict.kind, verdict.standing) == ("not_applicable", "opening", "open")
    (check,) = verdict.checks
    assert check.name == "terms"
    assert why in check.detail
    bundle = await caller.bundle(verdict.receipt)
    recompute.verdict(verdict, bundle, await caller.calibration(verdict.calibration))
    assert network.node.asked == 0
    (alert,) = (await caller.alerts(0)).alerts
    assert (alert.kind, alert.about) == ("terms", "alpha.example/node")


async def test_a_node_is_drawn_at_its_own_rate_where_that_is_lower(network, transport):
    network.node.state(LAMBDA, rate_ppm=500_000)
    made = [honest(number) for number in range(8)]
    network.node.answer(*made)
    caller = await alone(network, transport)
    # Terms hold for what comes after them: here everything is drawn again.
    network.node.state(LAMBDA)
    last = honest(8)
    network.node.answer(last)

    # Once there is a verdict, the log has its draw.
    await revealed(caller, 1)
    first = Draw.open_note(network.log.statements(DRAW_TYPE)[0], LAMBDA.vkey)
    batch = network.log.entries.index(network.log.statements("trunkline.batch/v1")[0])
    kept = first.chosen(batch, 8, rate_ppm_max=500_000)
    drawn = {
        one.receipt: Verdict.open_note(one.note.encode(), LAMBDA.vkey).result
        for one in await revealed(caller, len(kept) + 1)
    }

    assert set(drawn.values()) == {"pass"}
    assert len(first.chosen(batch, 8)) == 8
    assert drawn.keys() - {last.leaf.hex()} == {made[index].leaf.hex() for index in kept}
    (alert,) = (await caller.alerts(0)).alerts
    assert (alert.kind, alert.detail) == (
        "terms", "the node's terms let 500000 of a million be drawn, not 1000000",
    )  # fmt: skip


@pytest.mark.parametrize("behaviour", ["conflict", "limits"])
async def test_a_refusal_that_the_node_s_terms_do_not_allow_is_withholding(
    network, transport, behaviour
):
    network.node.answer(honest(1))
    network.node.behaviour = behaviour
    caller = await alone(network, transport)

    (found,) = await revealed(caller, 1)

    verdict = Verdict.open_note(found.note.encode(), LAMBDA.vkey)
    assert (verdict.result, verdict.standing) == ("fail", "failed")


async def test_a_refusal_that_may_be_the_verifier_s_mistake_is_told_and_blames_nobody(
    network, transport
):
    # The toy's witness cosigned long ago: whose clock is wrong, nobody can say.
    network.node.answer(honest(1))
    network.node.behaviour = "stale"
    caller = await alone(network, transport)

    (found,) = await revealed(caller, 1)

    verdict = Verdict.open_note(found.note.encode(), LAMBDA.vkey)
    assert (verdict.result, verdict.standing) == ("inconclusive", "open")
    (alert,) = (await caller.alerts(0)).alerts
    assert (alert.kind, alert.about) == ("refused", "alpha.example/node")


async def test_a_verifier_that_lost_its_store_blames_no_node_for_its_second_draw(
    network, transport
):
    network.node.answer(honest(1))
    caller = await alone(network, transport, rate_ppm=500_000)
    while not (await caller.info()).followed or not network.log.statements(DRAW_TYPE):
        await caller.verdicts(0, 0.05)
    network.node.behaviour = "conflict"
    again = await network.verifier(LAMBDA, folder="again")

    (found,) = await revealed(VerifierCaller(transport, again), 1)

    verdict = Verdict.open_note(found.note.encode(), LAMBDA.vkey)
    assert (verdict.result, verdict.standing) == ("inconclusive", "open")


async def test_a_node_that_is_gone_is_not_blamed(network, transport):
    network.node.answer(honest(1))
    network.node_url = "http://127.0.0.1:1"
    caller = await alone(network, transport)

    (found,) = await revealed(caller, 1)

    verdict = Verdict.open_note(found.note.encode(), LAMBDA.vkey)
    assert (verdict.result, verdict.standing) == ("inconclusive", "open")


async def test_another_models_answer_fails_in_the_exact_regime(network, transport):
    network.node.answer(ToyNode(toy=Toy(bent=3.0)).serve(1))
    caller = await alone(network, transport)

    (found,) = await revealed(caller, 1)

    verdict = Verdict.open_note(found.note.encode(), LAMBDA.vkey)
    assert (verdict.result, verdict.regime) == ("fail", "exact")
    assert [one.name for one in verdict.checks if one.result == "fail"] == ["replay"]


async def test_a_verifier_that_contradicts_another_is_found_out_and_a_third_decides(
    network, transport
):
    network.toys[MU.name] = Toy(bent=3.0)
    network.node.answer(honest(1))
    signers = (LAMBDA, MU, NU)
    callers = {}
    for signer in signers:
        peers = [(one, "http://127.0.0.1:1") for one in signers if one is not signer]
        # Who draws has an opinion, and so has one of the others; the last is asked to decide.
        rate = 1_000_000 if signer is MU else 0
        url = await network.verifier(signer, peers, rate_ppm=rate)
        callers[signer.name] = VerifierCaller(transport, url)

    results = {}
    for signer in signers:
        (found,) = await revealed(callers[signer.name], 1)
        results[signer.name] = Verdict.open_note(found.note.encode(), signer.vkey).result

    # Mu's engine has other weights than it says: it fails what the two others pass.
    assert results == {LAMBDA.name: "pass", MU.name: "fail", NU.name: "pass"}
    for caller in callers.values():
        while not (alerts := (await caller.alerts(0)).alerts):
            await caller.verdicts(1, 0.05)
        assert {one.kind for one in alerts} == {"dispute"}


async def test_a_caller_that_brings_the_opening_has_its_verdict_at_once(network, transport):
    made = honest(1)
    (signed,) = network.node.answer(made)
    caller = await alone(network, transport, rate_ppm=0)
    content = msgspec.structs.replace(made.content, prompt=(), nonce=None)

    asked = await caller.audit(AskedAudit(signed=signed, content=content, deadline_ms=60_000), 90)
    again = await caller.audit(AskedAudit(signed=signed, content=content, deadline_ms=60_000), 90)

    assert Verdict.open_note(asked.note.encode(), LAMBDA.vkey).receipt == made.leaf.hex()
    assert again.note == asked.note
    assert network.node.asked == 0
    (found,) = await revealed(caller, 1)
    assert found.note == asked.note


async def test_content_that_the_receipt_does_not_bind_says_nothing_of_the_node(network, transport):
    made = honest(1)
    (signed,) = network.node.answer(made)
    caller = await alone(network, transport, rate_ppm=0)
    first, *rest = made.content.tokens[0]
    forged = msgspec.structs.replace(made.content, tokens=((first ^ 1, *rest),))

    asked = await caller.audit(AskedAudit(signed=signed, content=forged, deadline_ms=60_000), 90)

    assert (asked.result, asked.reason, asked.note) == ("inconclusive", "not_bound", "")
    assert (await caller.info()).verdicts == 0


async def test_what_was_withheld_counts_where_answers_count_and_is_won_back_there(
    network, transport
):
    network.node.answer(honest(1))
    caller = await alone(network, transport)
    (first,) = await revealed(caller, 1)
    network.node.behaviour = "refuses"
    network.node.answer(honest(2))
    second = (await revealed(caller, 2))[1]
    network.node.behaviour = "opens"
    network.node.answer(honest(3))
    third = (await revealed(caller, 3))[2]

    verdicts = [Verdict.open_note(one.note.encode(), LAMBDA.vkey) for one in (first, second, third)]

    assert [one.standing for one in verdicts] == ["open", "failed", "failed"]
    assert [one.result for one in verdicts] == ["pass", "fail", "pass"]
    assert len({one.subject for one in verdicts}) == 1
    for one in verdicts:
        bundle = await caller.bundle(one.receipt)
        recompute.verdict(one, bundle, await caller.calibration(one.calibration))


async def test_nothing_that_was_said_stays_on_disk(network, transport, tmp_path):
    made = honest(1)
    network.node.answer(made)
    (found,) = await revealed(await alone(network, transport), 1)

    await network.stack.aclose()

    assert found.receipt == made.leaf.hex()
    files = list((tmp_path / LAMBDA.name.replace("/", "-")).glob("verifier.db*"))
    assert files
    said = b"say bada 1"
    assert said in bytes(made.content.request)
    assert not any(said in file.read_bytes() for file in files)
