"""Plants in the verifier's store: those that it made and will open, and what became of its verdicts
on those that were opened.

A plant is stored before its node hears of it, and what opens it once it is answered: a crash in
between leaves one that nobody can open, and nobody is held to. What was opened keeps no content.
"""

from typing import Final

import msgspec

from trunkline.runtime.store import Connection
from trunkline.verdicts import Expected

SCHEMA: Final = """
    CREATE TABLE plants (
        attempt TEXT PRIMARY KEY,
        expect TEXT NOT NULL,
        note BLOB NOT NULL,
        accepted BLOB NOT NULL,
        made_ms INTEGER NOT NULL,
        leaf TEXT,
        signed BLOB,
        content BLOB,
        noticed_ms INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE settled_plants (
        leaf TEXT PRIMARY KEY,
        planter TEXT NOT NULL,
        node TEXT NOT NULL,
        withdrawn INTEGER NOT NULL,
        unix_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX verdicts_digest ON verdicts (digest);
    CREATE INDEX statements_plants ON statements (entry) WHERE kind = 'plant';
"""
KEEPING_SCHEMA: Final = """
    ALTER TABLE plants ADD COLUMN node TEXT NOT NULL DEFAULT '';
    ALTER TABLE plants ADD COLUMN until_ms INTEGER NOT NULL DEFAULT 0;
    UPDATE plants SET until_ms = made_ms + 31 * 86400000;
    CREATE INDEX plants_node ON plants (node);
"""
"""For whom a plant is kept, and until when. Those of before, for as long as any may be drawn."""
SHOWING_SCHEMA: Final = """
    CREATE TABLE shown_plants (
        number INTEGER PRIMARY KEY,
        leaf TEXT NOT NULL UNIQUE
    ) STRICT;
"""
"""With which revealed verdict the opening of a known-good plant is told: no verdict of its own
says anything of it."""
WAITING_MAX: Final = 200
"""Plants looked at in one step."""
_BOUND: Final = (
    "(EXISTS (SELECT 1 FROM statements AS s WHERE s.about = plants.leaf "
    "AND s.kind = 'commitment') OR EXISTS (SELECT 1 FROM verdicts AS v "
    "WHERE v.leaf = plants.leaf AND v.picked = 0 AND v.committed_ms IS NOT NULL))"
)
"""Somebody has audited it."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """A plant that was answered and audited, and is not opened yet."""

    attempt: str
    expect: Expected
    note: bytes
    accepted: bytes
    made_ms: int
    leaf: str
    signed: bytes
    content: bytes
    noticed_ms: int | None
    """When somebody was first seen to have audited it."""


def add(
    connection: Connection,
    *,
    attempt: str,
    node: str,
    expect: Expected,
    note: bytes,
    accepted: bytes,
    now_ms: int,
    until_ms: int,
) -> None:
    """A plant that is about to be asked of ``node`` (vkey), which nobody has opened to him any more
    after ``until_ms``."""
    connection.execute(
        "INSERT INTO plants (attempt, node, expect, note, accepted, made_ms, until_ms) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (attempt, node, expect, note, accepted, now_ms, until_ms),
    )


def count(connection: Connection, node: str) -> int:
    """How many are kept of a node's (vkey)."""
    row = connection.execute("SELECT count(*) FROM plants WHERE node = ?", (node,)).fetchone()
    return int(row[0])


def answered(
    connection: Connection, attempt: str, *, leaf: str, signed: bytes, content: bytes
) -> None:
    """What opens it."""
    connection.execute(
        "UPDATE plants SET leaf = ?, signed = ?, content = ? WHERE attempt = ?",
        (leaf, signed, content, attempt),
    )


def waiting(connection: Connection) -> list[Waiting]:
    """The oldest first. Those that nobody has audited are not among them, however many."""
    rows = connection.execute(
        "SELECT attempt, expect, note, accepted, made_ms, leaf, signed, content, noticed_ms "  # noqa: S608 - ours
        f"FROM plants WHERE leaf IS NOT NULL AND (noticed_ms IS NOT NULL OR {_BOUND}) "
        "ORDER BY made_ms LIMIT ?",
        (WAITING_MAX,),
    )
    names = Waiting.__struct_fields__
    return [Waiting(**dict(zip(names, row, strict=True))) for row in rows]


def notice(connection: Connection, attempt: str, now_ms: int) -> None:
    """Somebody has audited it."""
    connection.execute("UPDATE plants SET noticed_ms = ? WHERE attempt = ?", (now_ms, attempt))


def forget(connection: Connection, attempt: str) -> None:
    """It was opened, or shows nothing."""
    connection.execute("DELETE FROM plants WHERE attempt = ?", (attempt,))


def forget_over(connection: Connection, now_ms: int, *, unanswered_ms: int) -> None:
    """Those that nobody drew while they could be opened, and those that were made before
    ``unanswered_ms`` and never answered."""
    connection.execute("DELETE FROM plants WHERE leaf IS NULL AND made_ms < ?", (unanswered_ms,))
    connection.execute(
        f"DELETE FROM plants WHERE until_ms < ? AND noticed_ms IS NULL AND NOT {_BOUND}",  # noqa: S608 - ours
        (now_ms,),
    )


def unsettled(connection: Connection) -> list[str]:
    """Leaves of receipts that were opened as plants, with a drawn verdict here which the log is
    bound to, and of which it was not settled what becomes of that."""
    rows = connection.execute(
        "SELECT s.about FROM statements AS s JOIN verdicts AS v ON v.leaf = s.about "
        "WHERE s.kind = 'plant' AND v.picked = 0 AND v.committed_ms IS NOT NULL "
        "AND NOT EXISTS (SELECT 1 FROM settled_plants AS p WHERE p.leaf = s.about) "
        "GROUP BY s.about ORDER BY min(s.entry) LIMIT ?",
        (WAITING_MAX,),
    )
    return [str(row[0]) for row in rows]


def is_unsettled(connection: Connection, leaf: str) -> bool:
    """Whether a receipt was opened as a plant, and it was not settled what becomes of the verdict
    on it."""
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM statements WHERE about = ?1 AND kind = 'plant') "
        "AND NOT EXISTS (SELECT 1 FROM settled_plants WHERE leaf = ?1)",
        (leaf,),
    ).fetchone()
    return bool(row[0])


def opened_ms(connection: Connection, leaf: str) -> int:
    """When the first opening of a plant was seen in the log."""
    row = connection.execute(
        "SELECT min(seen_ms) FROM statements WHERE about = ? AND kind = 'plant'", (leaf,)
    ).fetchone()
    return int(row[0] or 0)


def opening(connection: Connection, leaf: str) -> bytes | None:
    """The first opening that the log has of a plant."""
    row = connection.execute(
        "SELECT note FROM statements WHERE about = ? AND kind = 'plant' ORDER BY entry LIMIT 1",
        (leaf,),
    ).fetchone()
    return None if row is None else bytes(row[0])


def is_withdrawn(connection: Connection, leaf: str) -> bool:
    """Whether the drawn verdict on a receipt was withdrawn."""
    row = connection.execute(
        "SELECT 1 FROM settled_plants WHERE leaf = ? AND withdrawn = 1", (leaf,)
    ).fetchone()
    return row is not None


def settle(
    connection: Connection, leaf: str, *, planter: str, node: str, withdrawn: bool, now_ms: int
) -> None:
    """Write down what became of the verdict on a plant. ``planter`` and ``node``: vkeys."""
    connection.execute(
        "INSERT INTO settled_plants VALUES (?, ?, ?, ?, ?)",
        (leaf, planter, node, int(withdrawn), now_ms),
    )


def show(connection: Connection, leaf: str, *, newest: int) -> None:
    """Have the opening of a plant told with the first verdict after ``newest`` with which none is
    told yet: verdicts are told once, in their order."""
    connection.execute(
        "INSERT INTO shown_plants SELECT max(coalesce(max(number), 0), ?) + 1, ? FROM shown_plants",
        (newest, leaf),
    )


def put_off(connection: Connection, number: int) -> None:
    """Have what was to be told with a verdict told with a later one: this has its own."""
    connection.execute(
        "UPDATE shown_plants SET number = (SELECT max(number) + 1 FROM shown_plants) "
        "WHERE number = ?",
        (number,),
    )


def shown_with(connection: Connection, number: int) -> str | None:
    """Leaf of the plant that is told with a verdict."""
    row = connection.execute("SELECT leaf FROM shown_plants WHERE number = ?", (number,)).fetchone()
    return None if row is None else str(row[0])


def withdrawn_since(connection: Connection, *, planter: str, node: str, unix_ms: int) -> int:
    """How many verdicts were withdrawn for plants of one planter at one node."""
    row = connection.execute(
        "SELECT count(*) FROM settled_plants WHERE planter = ? AND node = ? AND withdrawn = 1 "
        "AND unix_ms > ?",
        (planter, node, unix_ms),
    ).fetchone()
    return int(row[0])
