"""How long a plant is kept, and how many of one node's: none is forgotten that it may yet need."""

from pathlib import Path

import msgspec
import pytest
from tests.support import audit_records, planting
from tests.support.auditing import NODE
from tests.support.toy_network import LAMBDA, MU
from tests.unit.verifier.test_plants import Statements, audited

from trunkline.crypto.signer import Signer, sign_note
from trunkline.runtime.clock import SystemRandomness
from trunkline.runtime.store import Connection, Database
from trunkline.schema.audit import AskedAudit
from trunkline.verifier import asking, plant_store, plants, store
from trunkline.verifier.demanding import KnownNode
from trunkline.verifier.plants import Plants

OTHER_NODE = Signer("sigma.example/node", b"\x61" * 32)
KEEP_S = 3 * 86_400


class Hands:
    """A clock that stands until it is set."""

    now_ms = planting.NOW_MS

    def unix_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000


def planter(
    database: Database, clock: Hands, said: Statements | None = None, *, opinions: int = 1
) -> Plants:
    return Plants(
        database,
        LAMBDA,
        Statements() if said is None else said,  # type: ignore[arg-type]
        operator="lambda.example",
        peers={str(MU.vkey): "mu.example"},
        opinions=opinions,
        reveal_after_ms=0,
        clock=clock,
        randomness=SystemRandomness(),
    )


def states(connection: Connection, node: Signer, keep_s: int) -> None:
    note = sign_note(audit_records.terms(MU, node=node, keep_s=keep_s).text(), node)
    connection.execute("INSERT INTO terms VALUES (?, 1, ?)", (str(node.vkey), note))


def known(node: Signer) -> KnownNode:
    return KnownNode(key=node.vkey, operator="alpha.example", caller=None)  # type: ignore[arg-type]


def keep(
    connection: Connection, number: int, *, node: Signer = NODE, answered: bool = True
) -> None:
    attempt = f"kept_{number}"
    plant_store.add(
        connection, attempt=attempt, node=str(node.vkey), expect="pass", note=b"", accepted=b"",
        now_ms=planting.NOW_MS, until_ms=2**52,
    )  # fmt: skip
    if answered:
        plant_store.answered(connection, attempt, leaf=f"{number:064x}", signed=b"", content=b"")


def left(connection: Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM plants").fetchone()[0])


@pytest.fixture
def asks(monkeypatch: pytest.MonkeyPatch) -> list[KnownNode]:
    """Nodes that were asked, which answer at once."""
    asked: list[KnownNode] = []
    made = planting.answered(planting.plant(LAMBDA, 1), 1)
    answer = AskedAudit(signed=planting.signed(made), content=made.content, deadline_ms=1)

    async def words(*_: object, **__: object) -> str:
        return "what it said"

    async def ask(node: KnownNode, *_: object, **__: object) -> AskedAudit:
        asked.append(node)
        return answer

    monkeypatch.setattr(asking, "words", words)
    monkeypatch.setattr(asking, "ask", ask)
    return asked


@pytest.mark.parametrize("keep_s", [0, KEEP_S, 10**12])
async def test_a_plant_is_kept_while_its_node_may_be_made_to_open_it(
    database: Database, asks: list[KnownNode], keep_s: int
) -> None:
    """Two hours were not enough where the log, or a verifier, was away for three."""
    clock = Hands()
    if keep_s:
        await database.write(lambda c: states(c, NODE, keep_s))
    made = planter(database, clock)
    await made.plant(known(NODE), "toy", expect="pass")
    over_s = min(keep_s, plants.KEEP_S_MAX) + plants.AUDITED_S

    clock.now_ms += over_s * 1000
    await made.open_due()
    assert await database.read(left) == 1
    clock.now_ms += 1
    await made.open_due()
    assert await database.read(left) == 0
    assert len(asks) == 1


async def test_what_was_audited_is_not_forgotten_however_late_it_is(database: Database) -> None:
    clock = Hands()
    await database.write(lambda c: keep(c, 1))
    await database.write(lambda c: audited(c, f"{1:064x}"))
    await database.write(lambda c: c.execute("UPDATE plants SET until_ms = 0"))
    await database.write(
        lambda c: plant_store.forget_over(c, clock.now_ms, unanswered_ms=clock.now_ms)
    )
    assert await database.read(left) == 1


async def test_a_known_good_one_waits_for_a_planter_that_is_behind_with_its_audits(
    database: Database,
) -> None:
    """It was forgotten after a minute, and a verifier that fails everything never found out."""
    clock = Hands()
    await database.write(lambda c: keep(c, 1))
    await database.write(lambda c: audited(c, f"{1:064x}"))
    made = planter(database, clock)
    await made.open_due()
    clock.now_ms += plants.BEHIND_MS - 1
    await made.open_due()
    assert await database.read(left) == 1
    clock.now_ms += 1
    await made.open_due()
    assert await database.read(left) == 0


@pytest.mark.parametrize("bound", [True, False])
async def test_a_known_good_one_waits_for_a_verifier_that_takes_its_time_to_fail_it(
    database: Database, bound: bool
) -> None:
    """Who fails everything was not found out where it took a minute more than others."""
    clock, said = Hands(), Statements()
    note = planting.plant(LAMBDA, 1, expect="pass")
    answer = planting.answered(note, 1, wrong=False)
    leaf = answer.leaf.hex()

    def audit(connection: Connection) -> None:
        plant_store.add(
            connection, attempt="1", node=str(NODE.vkey), expect="pass", note=note, accepted=b"",
            now_ms=planting.NOW_MS, until_ms=2**52,
        )  # fmt: skip
        plant_store.answered(
            connection, "1", leaf=leaf, signed=msgspec.json.encode(planting.signed(answer)),
            content=msgspec.json.encode(answer.content),
        )  # fmt: skip
        connection.execute(
            "INSERT INTO verdicts (leaf, picked, root, position, subject, result, standing, digest,"
            " note, bundle, judged_ms, committed_ms) VALUES (?, 0, x'', 0, '', 'pass', '', '', x'',"
            " x'', 0, 0)",
            (leaf,),
        )
        if bound:
            audited(connection, leaf)

    def fails(connection: Connection) -> None:
        verdict = audit_records.verdict(MU, receipt=leaf, result="fail")
        connection.execute(
            "INSERT INTO statements (kind, key, about, note) VALUES ('verdict', ?, ?, ?)",
            (str(MU.vkey), leaf, sign_note(verdict.text(), MU)),
        )

    await database.write(audit)
    made = planter(database, clock, said, opinions=2)
    await made.open_due()
    clock.now_ms += plants.BEHIND_MS - 1
    assert not await made.open_due()
    await database.write(fails)
    assert await made.open_due()
    assert (len(said), await database.read(left)) == (1, 0)


async def test_one_without_an_answer_is_over_in_an_hour(database: Database) -> None:
    clock = Hands()
    await database.write(lambda c: keep(c, 1, answered=False))
    made = planter(database, clock)
    clock.now_ms += plants.ANSWERED_MS
    await made.open_due()
    assert await database.read(left) == 1
    clock.now_ms += 1
    await made.open_due()
    assert await database.read(left) == 0


async def test_a_node_with_all_its_plants_waiting_gets_no_more_and_takes_no_other_s_room(
    database: Database, asks: list[KnownNode], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plants, "PER_NODE_MAX", 3)

    def fill(connection: Connection) -> None:
        for number in range(3):
            keep(connection, number)

    await database.write(fill)
    made = planter(database, Hands())
    await made.plant(known(NODE), "toy", expect="pass")
    assert (await database.read(left), asks) == (3, [])
    await made.plant(known(OTHER_NODE), "toy", expect="pass")
    assert (await database.read(left), len(asks)) == (4, 1)


async def test_each_plant_is_told_with_a_verdict_that_has_none_of_its_own(
    database: Database,
) -> None:
    def tell(connection: Connection) -> list[str | None]:
        for leaf in ("aa", "bb"):
            plant_store.show(connection, leaf, newest=7)
        plant_store.put_off(connection, 8)
        plant_store.put_off(connection, 20)
        plant_store.show(connection, "cc", newest=30)
        return [plant_store.shown_with(connection, number) for number in (8, 9, 10, 31)]

    assert await database.write(tell) == [None, "bb", "aa", "cc"]


async def test_plants_of_an_earlier_version_are_kept_on(tmp_path: Path) -> None:
    before = store.MIGRATIONS[: store.MIGRATIONS.index(plant_store.KEEPING_SCHEMA)]
    path = tmp_path / store.DATABASE_NAME
    old = Database.open(path, must_exist=False, migrations=before)
    insert = "INSERT INTO plants (attempt, expect, note, accepted, made_ms) VALUES (?, ?, ?, ?, ?)"
    await old.execute((insert, ("att_1", "fail", b"", b"", planting.NOW_MS)))
    await old.aclose()
    now = store.open_store(tmp_path)
    (until_ms,) = await now.read(lambda c: c.execute("SELECT until_ms FROM plants").fetchone())
    await now.aclose()
    assert until_ms - planting.NOW_MS == (plants.KEEP_S_MAX + plants.AUDITED_S) * 1000
