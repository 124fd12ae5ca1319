"""Answers that somebody picked: they are judged, and neither win a standing nor spoil a draw."""

import msgspec
import pytest
from msgspec import UNSET
from tests.support import audit_records
from tests.support.auditing import ToyNode, ToyScorer
from tests.support.toy_network import LAMBDA, MU, NU, POLICY, honest, revealed, write_verifier

from trunkline.audit import bundle, recompute
from trunkline.crypto.signer import sign_note
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.server import serving
from trunkline.schema.audit import AskedAudit
from trunkline.tlog.policy import Policy
from trunkline.verdicts import Draw, Verdict, conduct
from trunkline.verifier import drawing as drawing_room
from trunkline.verifier import store
from trunkline.verifier.app import UNDRAWN_MS, VerifierApp
from trunkline.verifier.asking import tampered
from trunkline.verifier.auditing import KEPT_BACK
from trunkline.verifier.config import read


class CountingEngine(ToyScorer):
    """Knows how often it was asked for scores."""

    pid = None

    def __init__(self) -> None:
        super().__init__()
        self.scored = 0

    async def score(self, job):
        self.scored += 1
        return await super().score(job)


class Ahead(SystemClock):
    """Wall time that somebody set."""

    late_ms = 0

    def unix_ms(self) -> int:
        return super().unix_ms() + self.late_ms


def brought(network, number: int) -> AskedAudit:
    made = honest(number)
    (signed,) = network.node.answer(made)
    content = msgspec.structs.replace(made.content, nonce=None)
    return AskedAudit(signed=signed, content=content, deadline_ms=60_000)


async def bound(network, transport, peers, **settings: object) -> None:
    """Have a verifier draw everything; until it is bound to what it found, and shows nothing."""
    away = [(one, "http://127.0.0.1:1") for one in peers]
    drawing = VerifierCaller(transport, await network.verifier(LAMBDA, away, **settings))
    while not network.log.statements("trunkline.verdict-commitment/v1"):
        await drawing.verdicts(0, 0.05)


async def test_whoever_asks_first_takes_no_receipt_out_of_the_draw(network, transport):
    one = brought(network, 1)
    quiet = VerifierCaller(transport, await network.verifier(LAMBDA, rate_ppm=0))
    picked = Verdict.open_note((await quiet.audit(one, 90)).note.encode(), LAMBDA.vkey)
    # Another process of the same verifier, which draws.
    caller = VerifierCaller(transport, await network.verifier(LAMBDA))
    found = await revealed(caller, 2)

    drawn = Verdict.open_note(found[1].note.encode(), LAMBDA.vkey)

    assert picked.receipt == drawn.receipt
    assert (picked.drawn, picked.evidence.samples) == (msgspec.UNSET, 0)
    assert (drawn.drawn is msgspec.UNSET, drawn.evidence.samples) == (False, 1)
    kept = await caller.bundle(drawn.receipt)
    assert not bundle.decode(kept).picked
    recompute.verdict(drawn, kept, await caller.calibration(drawn.calibration))
    # Who asks now is shown the verdict that counts.
    assert (await caller.audit(one, 90)).note == found[1].note
    (seen,) = conduct.examine(network.log.entries, (LAMBDA.vkey,), Policy.parse(POLICY.encode()))
    assert (seen.verdicts, seen.findings) == (2, ())


@pytest.mark.parametrize("opinions", [2, 1])
async def test_what_another_drew_is_told_to_nobody_before_anything_of_it_is_revealed(
    network, transport, opinions
):
    """Also by one that has not followed the log so far, and one that has no opinion to give."""
    one = brought(network, 1)
    away = "http://127.0.0.1:1"
    settings = {"opinions": opinions, "reveal_after_s": 3600.0}
    mu = VerifierCaller(
        transport,
        await network.verifier(MU, [(LAMBDA, away)], rate_ppm=0, poll_s=3600.0, **settings),
    )
    while not (await mu.info()).followed:
        pass
    await bound(network, transport, (MU,), **settings)

    assert await mu.audit(one, 90) == KEPT_BACK


@pytest.mark.parametrize("changed", [{"drawn": UNSET}, {"result": "inconclusive", "checks": ()}])
async def test_a_mere_word_about_it_sets_nothing_free(network, transport, changed):
    """Any verifier may log one."""
    one = brought(network, 1)
    away = "http://127.0.0.1:1"
    settings = {"opinions": 2, "reveal_after_s": 3600.0}
    await bound(network, transport, (MU, NU), **settings)
    said = audit_records.verdict(NU, receipt=honest(1).leaf.hex(), **changed)
    network.log.append(sign_note(said.text(), NU))
    caller = VerifierCaller(
        transport,
        await network.verifier(
            MU, [(LAMBDA, away), (NU, away)], rate_ppm=0, **(settings | {"opinions": 1})
        ),
    )

    assert await caller.audit(one, 90) == KEPT_BACK


@pytest.mark.parametrize("late_ms", [0, drawing_room.KEPT_BACK_MS])
async def test_it_is_kept_back_for_a_while_and_not_for_ever(network, transport, tmp_path, late_ms):
    """Where nobody ever finds anything: what was drawn beyond a node's terms, say."""
    one = brought(network, 1)
    away = "http://127.0.0.1:1"
    settings = {"opinions": 2, "reveal_after_s": 3600.0}
    await bound(network, transport, (MU,), **settings)
    path = write_verifier(
        tmp_path / "late", MU, log_url=network.log_url, node_url=network.node_url,
        peers=[(LAMBDA, away)], rate_ppm=0, **(settings | {"opinions": 1}),
    )  # fmt: skip
    clock = Ahead()
    app = VerifierApp(read(path), base=path, engines=[lambda: ToyScorer()], clock=clock)
    async with serving(app, shutdown_grace_s=0.05) as url:
        mu = VerifierCaller(transport, url)
        while not (await mu.info()).followed:
            pass
        clock.late_ms = late_ms

        # It finds out that it has no opinion to give, first.
        while (said := await mu.audit(one, 90)) == KEPT_BACK and late_ms:
            pass
        assert (said == KEPT_BACK) == (late_ms == 0)


async def test_once_anything_of_it_is_revealed_it_is_audited_for_who_asks(network, transport):
    one = brought(network, 1)
    away = "http://127.0.0.1:1"
    drawing = VerifierCaller(
        transport, await network.verifier(LAMBDA, [(MU, away)], opinions=1, reveal_after_s=0.0)
    )
    await revealed(drawing, 1)
    mu = VerifierCaller(
        transport, await network.verifier(MU, [(LAMBDA, away)], opinions=1, rate_ppm=0)
    )

    # It finds out that it has no opinion to give, first.
    while (said := await mu.audit(one, 90)) == KEPT_BACK:
        pass
    assert said.result == "pass"


async def test_a_node_that_has_itself_audited_wins_nothing(network, transport):
    caller = VerifierCaller(transport, await network.verifier(LAMBDA, rate_ppm=0))
    for number in range(60):
        said = await caller.audit(brought(network, number), 90)
        assert said.result == "pass"
    verdict = Verdict.open_note(said.note.encode(), LAMBDA.vkey)
    assert (verdict.standing, verdict.evidence.samples) == ("open", 0)


async def test_nothing_is_scored_for_who_brings_what_the_receipt_does_not_bind(network, tmp_path):
    engine, transport = CountingEngine(), HttpTransport()
    path = write_verifier(
        tmp_path / "counted", LAMBDA, log_url=network.log_url, node_url=network.node_url, rate_ppm=0
    )
    app = VerifierApp(read(path), base=path, engines=[lambda: engine])
    one = brought(network, 1)
    forged = msgspec.structs.replace(one.content, tokens=((5,) * 500,), prompt=())
    async with serving(app, shutdown_grace_s=0.05) as url:
        caller = VerifierCaller(transport, url)
        said = await caller.audit(msgspec.structs.replace(one, content=forged), 90)
        assert (said.result, said.reason, engine.scored) == ("inconclusive", "not_bound", 0)
        unrendered = msgspec.structs.replace(one.content, prompt=())
        assert (await caller.audit(msgspec.structs.replace(one, content=unrendered), 90)).note
        # Once: rendering the prompt takes no scores.
        assert engine.scored == 1
    await transport.aclose()


async def test_a_verdict_that_there_is_vouches_for_nothing_else_that_is_brought(network, transport):
    """Another verifier that tries this one by a changed answer would take it for a lazy one, where
    the draw had been quicker; and an app that was sent something else, for the answer's."""
    one = brought(network, 1)
    caller = VerifierCaller(transport, await network.verifier(LAMBDA))
    (found,) = await revealed(caller, 1)
    said = await caller.audit(tampered(one), 90)
    assert (said.result, said.reason, said.note) == ("inconclusive", "not_bound", "")
    assert (await caller.audit(one, 90)).note == found.note


async def test_a_verifier_that_is_to_judge_it_yet_tells_nothing(network, transport, tmp_path):
    """However long that takes it: nobody has spoken, so that nobody is late."""
    one = brought(network, 1)
    away = "http://127.0.0.1:1"
    settings = {"opinions": 2, "reveal_after_s": 3600.0}
    await bound(network, transport, (MU,), **settings)
    path = write_verifier(
        tmp_path / "late", MU, log_url=network.log_url, node_url=away, peers=[(LAMBDA, away)],
        rate_ppm=0, unreachable_s=86_400.0, **settings,
    )  # fmt: skip
    clock = Ahead()
    app = VerifierApp(read(path), base=path, engines=[lambda: ToyScorer()], clock=clock)
    async with serving(app, shutdown_grace_s=0.05) as url:
        mu = VerifierCaller(transport, url)
        while not (await mu.info()).waiting:
            pass
        clock.late_ms = drawing_room.KEPT_BACK_MS

        assert await mu.audit(one, 90) == KEPT_BACK


@pytest.mark.parametrize("old", [True, False])
async def test_where_the_log_does_not_tell_what_is_not_new_is_told_to_nobody(
    network, transport, tmp_path, old
):
    """Its newest checkpoint has no quorum, so that what was drawn lately is not seen."""
    one = brought(network, 1)
    path = write_verifier(
        tmp_path / "blind", MU, log_url=network.log_url, node_url=network.node_url, rate_ppm=0
    )
    clock = Ahead()
    app = VerifierApp(read(path), base=path, engines=[lambda: ToyScorer()], clock=clock)
    async with serving(app, shutdown_grace_s=0.05) as url:
        mu = VerifierCaller(transport, url)
        while not (await mu.info()).followed:
            pass
        network.log.append(b"one more")
        network.log.cosigned = False
        clock.late_ms = UNDRAWN_MS if old else -UNDRAWN_MS

        assert (await mu.audit(one, 90) == KEPT_BACK) == old


async def test_draws_that_hide_one_hide_nothing(network, transport, monkeypatch):
    monkeypatch.setattr(store, "DRAWS_MAX", 3)
    one = brought(network, 1)
    away = "http://127.0.0.1:1"
    size = len(network.log.entries)
    for number in range(3):
        drawn = Draw(
            checkpoint=network.log.checkpoint(size).decode(), from_=0, to=size,
            key=str(LAMBDA.vkey), operator="lambda.example", rate_ppm=1, unix_ms=number,
        )  # fmt: skip
        network.log.append(sign_note(drawn.text(), LAMBDA))
    mu = VerifierCaller(transport, await network.verifier(MU, [(LAMBDA, away)], rate_ppm=0))

    assert await mu.audit(one, 90) == KEPT_BACK


@pytest.mark.parametrize("wrong", [True, False])
async def test_what_is_found_of_another_answer_is_not_told_with_a_sound_one(
    network, transport, wrong
):
    """A node that answers wrongly because it agreed to has not failed, and a verdict on another
    answer of its would say so before that can be known."""
    away = "http://127.0.0.1:1"
    settings = {"opinions": 2, "reveal_after_s": 3600.0}
    caller = VerifierCaller(transport, await network.verifier(LAMBDA, [(MU, away)], **settings))
    made = (ToyNode(seed=b"\x09" * 32) if wrong else ToyNode()).serve(1)
    network.node.answer(made)
    while not network.log.statements("trunkline.verdict-commitment/v1"):
        await caller.verdicts(0, 0.05)
    sound = brought(network, 2)
    # It is not in the log yet, and so it was not drawn.
    network.log.entries.pop()

    assert (await caller.audit(sound, 90) == KEPT_BACK) == wrong
    # The same later: it was judged, and waits for its turn.
    assert (await caller.audit(sound, 90) == KEPT_BACK) == wrong
