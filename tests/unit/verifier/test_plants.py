"""Plants among verifiers that work: found, missed, opened, and never held against the node."""

from pathlib import Path

import msgspec
import pytest
from tests.support import planting
from tests.support.auditing import NODE, Made, Toy
from tests.support.toy_network import LAMBDA, MU, NU, POLICY, ToyNetwork, honest
from tests.unit.verifier.test_pipeline import revealed

from trunkline.audit import recompute
from trunkline.base.errors import MalformedError
from trunkline.crypto.digest import digest
from trunkline.crypto.signer import Signer
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.store import Connection, Database
from trunkline.schema.attempt import SignedReceipt
from trunkline.schema.audit import AlertStatement, AskedAudit, RevealedVerdict
from trunkline.tlog.policy import Policy
from trunkline.verdicts import (
    PLANT_OPENING_TYPE,
    VERDICT_TYPE,
    Conduct,
    Verdict,
    examine,
    is_withdrawal,
    open_plant,
)
from trunkline.verifier import asking, ledger, plant_store, store
from trunkline.verifier.demanding import KnownNode
from trunkline.verifier.plants import Plants
from trunkline.verifier.withdrawing import Withdrawer

VERIFIERS = (LAMBDA, MU, NU)
OPERATORS = {str(one.vkey): one.name.partition("/")[0] for one in (*VERIFIERS, NODE)}
AWAY = "http://127.0.0.1:1"


async def planter_keeps(
    network: ToyNetwork, note: bytes, made: Made, receipt: SignedReceipt, expect: str = "fail"
) -> None:
    """What lambda has written down of a plant that it asked."""
    database = store.open_store(network.folder / LAMBDA.name.replace("/", "-"))
    attempt = made.receipt.attempt
    accepted = planting.accepted(note) if expect == "fail" else b""
    await database.write(
        lambda c: plant_store.add(
            c,
            attempt=attempt,
            node=str(NODE.vkey),
            expect=expect,
            note=note,
            accepted=accepted,
            now_ms=2**60,  # type: ignore[arg-type]
            until_ms=2**60,
        )
    )
    await database.write(
        lambda c: plant_store.answered(
            c, attempt, leaf=made.leaf.hex(), signed=msgspec.json.encode(receipt),
            content=msgspec.json.encode(made.content),
        )
    )  # fmt: skip
    await database.aclose()


async def plant(network: ToyNetwork, number: int, *, expect: str = "fail") -> Made:
    """A plant by lambda, answered and in the log."""
    note = planting.plant(LAMBDA, number, expect=expect)
    made = planting.answered(note, number, wrong=expect == "fail")
    (receipt,) = network.node.answer(made)
    await planter_keeps(network, note, made, receipt, expect)
    return made


async def working(
    network: ToyNetwork, transport: HttpTransport, *signers: Signer, **settings: object
) -> dict[str, VerifierCaller]:
    """Verifiers that know each other, lambda first. The first alone draws."""
    callers: dict[str, VerifierCaller] = {}
    for signer in signers:
        peers = [(one, AWAY) for one in signers if one is not signer]
        drawing = {} if signer is LAMBDA else {"rate_ppm": 0}
        url = await network.verifier(
            signer, peers, reveal_after_s=60.0, opinions=len(signers), **(drawing | settings)
        )
        callers[signer.name] = VerifierCaller(transport, url)
    return callers


def conduct(network: ToyNetwork, signer: Signer) -> Conduct:
    found = examine(
        network.log.entries,
        [one.vkey for one in VERIFIERS],
        Policy.parse(POLICY),
        nodes=(NODE.vkey,),
        operators=OPERATORS,
    )
    return next(one for one in found if one.verifier == signer.name)


async def logged(network: ToyNetwork, caller: VerifierCaller, kind: str, count: int) -> None:
    """Wait until the log has so many entries of a kind, by looks at a verifier that takes turns
    with what works."""
    while len(network.log.statements(kind)) < count:
        await caller.verdicts((await caller.info()).verdicts, 0.05)


def opened(found: list[RevealedVerdict], signer: Signer) -> list[Verdict]:
    return [Verdict.open_note(one.note.encode(), signer.vkey) for one in found]


async def test_a_plant_is_opened_when_all_are_bound_and_never_held_against_its_node(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    callers = await working(network, transport, LAMBDA, MU)
    network.node.answer(honest(1), honest(2))
    for caller in callers.values():
        await revealed(caller, 2)
    made = await plant(network, 3)

    for signer in (LAMBDA, MU):
        caller = callers[signer.name]
        found = await revealed(caller, 4)
        *before, failed, withdrawn = opened(found, signer)
        assert (failed.receipt, failed.result, failed.evidence.samples) == (
            made.leaf.hex(), "fail", 3,
        )  # fmt: skip
        assert is_withdrawal(withdrawn)
        assert (withdrawn.receipt, withdrawn.result) == (made.leaf.hex(), "not_applicable")
        assert (withdrawn.standing, withdrawn.evidence) == ("open", before[-1].evidence)
        # Whoever hears of the first hears of the second at once, and why.
        page = await caller.verdicts(2)
        assert [one.number for one in page.verdicts] == [3, 4]
        shown = open_plant(page.verdicts[1].plant.encode(), (LAMBDA.vkey,), (NODE.vkey,))
        assert shown.leaf == made.leaf.hex()
        assert page.verdicts[0].plant == ""


async def test_evidence_goes_on_as_if_the_plant_had_never_been(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    callers = await working(network, transport, LAMBDA, MU)
    network.node.answer(honest(1))
    await revealed(callers[LAMBDA.name], 1)
    await plant(network, 2)
    await revealed(callers[LAMBDA.name], 3)
    network.node.answer(honest(4))

    caller = callers[LAMBDA.name]
    first, _, withdrawn, last = opened(await revealed(caller, 4), LAMBDA)

    assert (last.standing, last.evidence.samples) == ("open", 2)
    numbers = [
        recompute.verdict(one, await caller.bundle(one.receipt),
                          await caller.calibration(one.calibration))
        for one in (first, last)
    ]  # fmt: skip
    # To the last digit: the state after the answer before the plant.
    assert recompute.follows(*numbers)
    assert withdrawn.previous != first.previous
    third = (await caller.verdicts(2)).verdicts[0]
    bundle = await caller.bundle(digest(third.note.encode()).removeprefix("sha256:"))
    artefact = await caller.calibration(withdrawn.calibration)
    assert recompute.follows(numbers[0], recompute.verdict(withdrawn, bundle, artefact))


async def test_a_verifier_that_never_runs_the_model_is_caught(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.lazy.add(MU.name)
    callers = await working(network, transport, LAMBDA, MU)
    network.node.answer(honest(1))
    made = await plant(network, 2)
    await revealed(callers[LAMBDA.name], 3)
    await logged(network, callers[MU.name], VERDICT_TYPE, 5)

    lazy, own = conduct(network, MU), conduct(network, LAMBDA)
    assert (lazy.tried, lazy.missed) == (1, 1)
    assert [one.detail for one in lazy.findings] == [
        f"passes an answer that was planted as wrong at {NODE.name}, which {LAMBDA.name} failed"
    ]
    # At nodes of one operator alone: that is shown, and silences nobody.
    assert lazy.counts
    assert (own.tried, own.findings) == (0, ())
    alert = await alerted(callers[LAMBDA.name], "lazy")
    assert (alert.about, alert.receipt) == (MU.name, made.leaf.hex())


async def alerted(caller: VerifierCaller, kind: str) -> AlertStatement:
    while True:
        for one in (await caller.alerts(0)).alerts:
            if one.kind == kind:
                return one
        await caller.verdicts((await caller.info()).verdicts, 0.05)


async def test_a_verifier_that_fails_honest_nodes_is_caught(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    network.toys[MU.name] = Toy(bent=3.0)
    callers = await working(network, transport, LAMBDA, MU, NU)
    made = await plant(network, 1, expect="pass")
    await logged(network, callers[LAMBDA.name], PLANT_OPENING_TYPE, 1)
    await logged(network, callers[LAMBDA.name], VERDICT_TYPE, 3)

    liar = conduct(network, MU)
    assert (liar.tried, liar.missed) == (1, 1)
    assert "fails an answer that was planted as right" in liar.findings[0].detail
    assert conduct(network, NU).missed == 0
    alert = await alerted(callers[LAMBDA.name], "lying")
    assert (alert.about, alert.receipt) == (MU.name, made.leaf.hex())

    # Gateways hear of it with what comes next: they do not read the log.
    for signer in (LAMBDA, NU):
        caller = callers[signer.name]
        assert await told(caller, network) == [(made.leaf.hex(), "pass")]


async def told(caller: VerifierCaller, network: ToyNetwork) -> list[tuple[str, str]]:
    """The plants that a verifier tells with its verdicts, once it tells any: receipt and what was
    expected."""
    for number in range(2, 60):
        network.node.answer(honest(number))
        await revealed(caller, number)
        page = await caller.verdicts(0)
        if notes := [one.plant for one in page.verdicts if one.plant]:
            found = [open_plant(note.encode(), [LAMBDA.vkey], [NODE.vkey]) for note in notes]
            return [(one.leaf, one.plant.expect) for one in found]
    raise AssertionError("no plant was told")


async def test_a_known_good_plant_that_nobody_failed_is_not_opened(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    callers = await working(network, transport, LAMBDA, MU)
    await plant(network, 1, expect="pass")
    await revealed(callers[LAMBDA.name], 1)
    await revealed(callers[MU.name], 1)
    network.node.answer(honest(2))
    await revealed(callers[LAMBDA.name], 2)

    assert network.log.statements(PLANT_OPENING_TYPE) == []


async def test_a_stranger_s_plant_excuses_nothing(
    network: ToyNetwork, transport: HttpTransport, tmp_path: Path
) -> None:
    """Nor does one whose attempt its receipt does not bind, whoever says so."""
    stranger = Signer("omega.example/verifier", b"\x49" * 32)
    note = planting.plant(stranger, 1)
    made = planting.answered(note, 1)
    (receipt,) = network.node.answer(made)
    network.log.append(planting.opening(stranger, note, made, receipt))
    late = planting.plant(LAMBDA, 2)
    cheat = planting.answered(planting.plant(LAMBDA, 9), 2)
    (receipt,) = network.node.answer(cheat)
    network.log.append(planting.opening(LAMBDA, late, cheat, receipt))
    callers = await working(network, transport, LAMBDA, MU)
    caller = callers[LAMBDA.name]

    found = opened(await revealed(caller, 2), LAMBDA)
    network.node.answer(honest(3))
    last = opened(await revealed(caller, 3), LAMBDA)[-1]

    assert {one.result for one in found} == {"fail"}
    assert (last.result, last.evidence.samples, last.standing) == ("pass", 2, "failed")
    assert conduct(network, MU).tried == 0


async def test_a_plant_that_is_opened_twice_is_settled_once(
    network: ToyNetwork, transport: HttpTransport
) -> None:
    """Both openings are there at one look at the log."""
    note = planting.plant(LAMBDA, 1)
    made = planting.answered(note, 1)
    (receipt,) = network.node.answer(made)
    network.log.append(planting.opening(LAMBDA, note, made, receipt))
    network.log.append(planting.opening(LAMBDA, note, made, receipt, unix_ms=planting.NOW_MS + 1))
    callers = await working(network, transport, LAMBDA, MU)

    for signer in (LAMBDA, MU):
        failed, withdrawn = opened(await revealed(callers[signer.name], 2), signer)
        assert (failed.result, is_withdrawal(withdrawn)) == ("fail", True)
    network.node.answer(honest(2))
    last = opened(await revealed(callers[MU.name], 3), MU)[-1]
    assert (last.result, last.evidence.samples) == ("pass", 1)


async def test_a_plant_at_a_node_that_is_not_configured_any_more_stops_nothing(
    tmp_path: Path,
) -> None:
    """Its node left the configuration after the plant was followed."""
    note = planting.plant(LAMBDA, 1)
    made = planting.answered(note, 1)
    leaf, shown = made.leaf.hex(), planting.opening(LAMBDA, note, made, planting.signed(made))
    store.create_store(tmp_path)
    database = store.open_store(tmp_path)

    def followed(connection: Connection) -> None:
        connection.execute(
            "INSERT INTO statements (entry, kind, key, about, note) VALUES (9, 'plant', ?, ?, ?)",
            (str(LAMBDA.vkey), leaf, shown),
        )
        connection.execute(
            "INSERT INTO verdicts (leaf, picked, root, position, subject, result, standing, "
            "digest, note, bundle, judged_ms, committed_ms) "
            "VALUES (?, 0, x'', 0, '', 'fail', 'failed', '', x'', x'', 1, 1)",
            (leaf,),
        )

    await database.write(followed)
    withdrawer = Withdrawer(
        database,
        None,  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        nodes={},
        verifiers={str(one.vkey): (one.vkey, one.name) for one in (LAMBDA, MU)},
        clock=SystemClock(),
        randomness=SystemRandomness(),
    )

    bounds = ledger.Bounds(now_ms=2, followed_ms=2, reveal_after_ms=0)
    assert await withdrawer.step(bounds)
    assert not await withdrawer.step(bounds)
    await database.aclose()


class Statements(list[bytes]):
    """A publisher's place, for what is said."""

    def statement(self, _: Connection, note: bytes) -> None:
        self.append(note)


def planting_by(
    signer: Signer,
    database: Database,
    said: Statements,
    *,
    opinions: int = 1,
    reveal_after_ms: int = 60_000,
) -> Plants:
    return Plants(
        database,
        signer,
        said,  # type: ignore[arg-type]
        operator="lambda.example",
        peers={str(MU.vkey): "mu.example"},
        opinions=opinions,
        reveal_after_ms=reveal_after_ms,
        clock=SystemClock(),
        randomness=SystemRandomness(),
    )


def audited(connection: Connection, leaf: str) -> None:
    connection.execute(
        "INSERT INTO statements (kind, key, about, note) VALUES ('commitment', ?, ?, x'')",
        (str(MU.vkey), leaf),
    )


async def test_a_plant_is_opened_by_who_was_away_for_long_however_many_nobody_drew(
    tmp_path: Path,
) -> None:
    store.create_store(tmp_path)
    database, said = store.open_store(tmp_path), Statements()
    note = planting.plant(LAMBDA, 1)
    made = planting.answered(note, 1)
    receipt, content = planting.signed(made), msgspec.json.encode(made.content)

    def planted(connection: Connection) -> None:
        for number in range(plant_store.WAITING_MAX + 1):
            drawn = number == plant_store.WAITING_MAX
            leaf = made.leaf.hex() if drawn else f"{number:064x}"
            plant_store.add(
                connection, attempt=f"{number}", node=str(NODE.vkey), expect="fail", note=note,
                accepted=planting.accepted(note), now_ms=number, until_ms=number,
            )  # fmt: skip
            plant_store.answered(
                connection, f"{number}", leaf=leaf, signed=msgspec.json.encode(receipt),
                content=content,
            )  # fmt: skip
        audited(connection, made.leaf.hex())

    await database.write(planted)
    plants = planting_by(LAMBDA, database, said)

    assert await plants.open_due()
    assert not await plants.open_due()
    (opening,) = said
    assert open_plant(opening, (LAMBDA.vkey,), (NODE.vkey,)).leaf == made.leaf.hex()
    left = await database.read(lambda c: c.execute("SELECT count(*) FROM plants").fetchone())
    assert left == (0,)
    await database.aclose()


async def test_a_node_that_answers_more_than_an_opening_holds_is_in_no_other_plant_s_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create_store(tmp_path)
    database, said = store.open_store(tmp_path), Statements()
    made = planting.answered(planting.plant(LAMBDA, 1), 1)
    content = msgspec.structs.replace(made.content, tokens=((100_000,) * 10_000,))
    asked = AskedAudit(signed=planting.signed(made), content=content, deadline_ms=1)

    async def words(*_: object, **__: object) -> str:
        return "what it said"

    async def answered(*_: object, **__: object) -> AskedAudit:
        return asked

    monkeypatch.setattr(asking, "words", words)
    monkeypatch.setattr(asking, "ask", answered)
    plants = planting_by(LAMBDA, database, said)
    node = KnownNode(key=NODE.vkey, operator="alpha.example", caller=None)  # type: ignore[arg-type]

    with pytest.raises(MalformedError):
        await plants.plant(node, "toy", expect="pass")

    await database.write(lambda c: audited(c, made.leaf.hex()))
    assert not await plants.open_due()
    await database.aclose()


@pytest.mark.parametrize(("opinions", "reveal_after_ms"), [(2, 0), (1, 60_000), (2, 60_000)])
async def test_a_plant_is_opened_when_the_first_verdict_on_it_is_shown_at_the_latest(
    tmp_path: Path, opinions: int, reveal_after_ms: int
) -> None:
    """The other verifier may be away, and what is shown before would demote the node."""
    store.create_store(tmp_path)
    database, said = store.open_store(tmp_path), Statements()
    note = planting.plant(LAMBDA, 1)
    made = planting.answered(note, 1)

    def planted(connection: Connection) -> None:
        plant_store.add(
            connection, attempt="att_1", node=str(NODE.vkey), expect="fail", note=note,
            accepted=planting.accepted(note), now_ms=2**52, until_ms=2**52,
        )  # fmt: skip
        plant_store.answered(
            connection, "att_1", leaf=made.leaf.hex(),
            signed=msgspec.json.encode(planting.signed(made)),
            content=msgspec.json.encode(made.content),
        )  # fmt: skip
        audited(connection, made.leaf.hex())

    await database.write(planted)
    plants = planting_by(LAMBDA, database, said, opinions=opinions, reveal_after_ms=reveal_after_ms)

    assert await plants.open_due() is (opinions == 1 or not reveal_after_ms)
    await database.aclose()
