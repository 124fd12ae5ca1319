"""What verifiers said, what that came to here, and what is still to be told: tables of the evidence
store's file.

Verdicts are kept as they were signed, so that what follows from them is computed again at each
start, and they go with the evidence of the answers that they are about. Their number is bounded:
the oldest that decide nothing any more go first. Nothing of an answer's content is in a verdict.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec

from trunkline.base.errors import CorruptStateError
from trunkline.gateway.core.standing import Place
from trunkline.runtime import outbox
from trunkline.runtime.store import Connection, Database

VERDICTS_KEPT_MAX: Final = 20_000
ALERTS_KEPT_MAX: Final = 1_000
TOLD_LATER_MAX: Final = 1_000
"""Alerts that wait for their webhook; beyond, the oldest are not told."""
WEBHOOK: Final = "webhook"

SCHEMA: Final = (
    """
    CREATE TABLE verdicts (
        number INTEGER PRIMARY KEY,
        digest TEXT NOT NULL UNIQUE,
        verifier TEXT NOT NULL,
        receipt TEXT NOT NULL,
        note TEXT NOT NULL,
        proof TEXT
    ) STRICT;
    CREATE INDEX verdicts_by_receipt ON verdicts (receipt);
    CREATE TABLE verifiers (vkey TEXT PRIMARY KEY, heard INTEGER NOT NULL) STRICT;
    CREATE TABLE standings (
        key TEXT NOT NULL,
        model TEXT NOT NULL,
        standing TEXT NOT NULL,
        PRIMARY KEY (key, model)
    ) STRICT;
    CREATE TABLE alerts (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        once TEXT UNIQUE,
        alert BLOB NOT NULL
    ) STRICT;
    """
    + outbox.SCHEMA
)


PLANTS_SCHEMA: Final = """
    CREATE TABLE plants (
        number INTEGER PRIMARY KEY,
        receipt TEXT NOT NULL UNIQUE,
        note TEXT NOT NULL
    ) STRICT;
"""


COMMITMENTS_SCHEMA: Final = """
    ALTER TABLE verdicts ADD COLUMN commitment TEXT NOT NULL DEFAULT '';
    ALTER TABLE verdicts ADD COLUMN committed INTEGER;
"""


_ROWS: Final = "SELECT digest, verifier, receipt, note, proof, commitment, committed FROM verdicts"
"""As :func:`_row` reads them."""


class VerdictRow(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict, verified."""

    digest: str
    """SHA-256 of the note, hex."""
    verifier: str
    """The vkey that signed it."""
    receipt: str
    """Leaf hash, hex."""
    note: str
    proof: str | None = None
    """tlog-proof of the note, once it was had."""
    commitment: str = ""
    """What its verifier was bound to it by, a signed note; empty: nothing that it told."""
    committed: int | None = None
    """Where the log has that, by a proof."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that verdicts came to here. It refers to them, and holds nothing of an answer."""

    number: int = 0
    """Counts this gateway's alerts from 1."""
    unix_ms: int
    """When this gateway drew the conclusion."""
    code: str
    """``node_quarantined``, ``node_demoted``, ``node_restored``, ``verdicts_disputed``;
    ``verifier_silenced``: a verifier's verdicts do not count any more."""
    node: str
    """Key name; of a verifier, where it is about one."""
    model: str
    standing: str
    """``good``, ``demoted`` or ``quarantined``: of the model at the node from now on."""
    why: str
    by: tuple[str, ...] = ()
    """Key names of the verifiers."""
    receipt: str = ""
    """Leaf hash (hex) of the receipt that a dispute is about."""
    verdicts: tuple[str, ...] = ()
    """SHA-256 (hex) of the signed verdicts."""


class Conclusion(msgspec.Struct, frozen=True, kw_only=True):
    """A change to be stored: an alert, and the standing that it leaves."""

    alert: Alert
    place: Place
    once: str | None = None
    """Said before under this name, it is not said again."""


class VerdictStore:
    """Typed access to the tables. Every write is durable when its call returns."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def heard(self) -> dict[str, int]:
        """Number of the last verdict heard, by the verifier's vkey."""

        def work(connection: Connection) -> dict[str, int]:
            return dict(connection.execute("SELECT vkey, heard FROM verifiers").fetchall())

        return await self.database.read(work)

    async def all(self) -> list[VerdictRow]:
        """Every verdict that is kept, in the order heard."""

        def work(connection: Connection) -> list[VerdictRow]:
            rows = connection.execute(f"{_ROWS} ORDER BY number")
            return [_row(row) for row in rows]

        return await self.database.read(work)

    async def about(self, receipt: str) -> list[VerdictRow]:
        """The verdicts on a receipt, in the order heard."""

        def work(connection: Connection) -> list[VerdictRow]:
            rows = connection.execute(f"{_ROWS} WHERE receipt = ? ORDER BY number", (receipt,))
            return [_row(row) for row in rows]

        return await self.database.read(work)

    async def find(self, digest: str) -> VerdictRow | None:
        """One verdict, by the SHA-256 (hex) of its note."""

        def work(connection: Connection) -> VerdictRow | None:
            row = connection.execute(f"{_ROWS} WHERE digest = ?", (digest,)).fetchone()
            return None if row is None else _row(row)

        return await self.database.read(work)

    async def add_plants(self, plants: Mapping[str, str], kept_max: int) -> None:
        """Keep plants that were opened, by their receipts; the oldest of too many go."""

        def work(connection: Connection) -> None:
            connection.executemany(
                "INSERT OR IGNORE INTO plants (receipt, note) VALUES (?, ?)", plants.items()
            )
            connection.execute(
                "DELETE FROM plants WHERE number <= (SELECT max(number) FROM plants) - ?",
                (kept_max,),
            )

        await self.database.write(work)

    async def plants(self) -> list[tuple[str, str]]:
        """Plants that were opened, in the order heard: their receipts, and the notes that open
        them, verified before."""

        def work(connection: Connection) -> list[tuple[str, str]]:
            return connection.execute("SELECT receipt, note FROM plants ORDER BY number").fetchall()

        return await self.database.read(work)

    async def prove(self, row: VerdictRow) -> None:
        """Keep the proof that a verdict is in the log, and where its commitment is, if known."""
        values = (row.proof, row.committed, row.digest)
        await self.database.execute(
            (
                "UPDATE verdicts SET proof = ?, committed = coalesce(?, committed)"
                " WHERE digest = ?",
                values,
            )
        )

    async def add(self, rows: Sequence[VerdictRow], verifier: str, heard: int | None) -> None:
        """Keep verdicts (twice is once) and how far their verifier was heard; None: no farther."""

        def work(connection: Connection) -> None:
            for row in rows:
                connection.execute(
                    "INSERT OR IGNORE INTO verdicts (digest, verifier, receipt, note, proof,"
                    " commitment, committed) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    msgspec.structs.astuple(row),
                )
            if heard is not None:
                connection.execute(
                    "INSERT INTO verifiers VALUES (?, ?)"
                    " ON CONFLICT (vkey) DO UPDATE SET heard = excluded.heard",
                    (verifier, heard),
                )

        await self.database.write(work)

    async def prune(self, support: Collection[str]) -> int:
        """Delete the oldest verdicts of too many, except ``support``. Returns how many."""

        def work(connection: Connection) -> int:
            rows = connection.execute(
                "SELECT number, digest FROM verdicts ORDER BY number DESC LIMIT -1 OFFSET ?",
                (VERDICTS_KEPT_MAX,),
            ).fetchall()
            gone = [(number,) for number, digest in rows if digest not in support]
            connection.executemany("DELETE FROM verdicts WHERE number = ?", gone)
            return len(gone)

        return await self.database.write(work)

    async def standings(self) -> dict[Place, str]:
        """What was concluded last, by place: only what is not good."""

        def work(connection: Connection) -> dict[Place, str]:
            rows = connection.execute("SELECT key, model, standing FROM standings")
            return {(key, model): standing for key, model, standing in rows}

        return await self.database.read(work)

    async def conclude(
        self,
        conclusions: Sequence[Conclusion],
        enqueue: Callable[[Connection, str, bytes], bool] | None,
    ) -> None:
        """Store what changed, and what is to be told of it. ``enqueue``: puts an alert in the
        webhook's queue; None: there is none."""

        def work(connection: Connection) -> None:
            for conclusion in conclusions:
                _conclude(connection, conclusion, enqueue)
            _bound(connection)

        await self.database.write(work)

    async def alerts(self, limit: int) -> list[Alert]:
        """The newest alerts, newest first."""

        def work(connection: Connection) -> list[Alert]:
            rows = connection.execute(
                "SELECT number, alert FROM alerts ORDER BY number DESC LIMIT ?",
                (max(0, min(limit, ALERTS_KEPT_MAX)),),
            )
            return [_alert(number, data) for number, data in rows]

        return await self.database.read(work)


def _conclude(
    connection: Connection,
    conclusion: Conclusion,
    enqueue: Callable[[Connection, str, bytes], bool] | None,
) -> None:
    alert = conclusion.alert
    if conclusion.once is None:
        connection.execute("DELETE FROM standings WHERE key = ? AND model = ?", conclusion.place)
        if alert.standing != "good":
            values = (*conclusion.place, alert.standing)
            connection.execute("INSERT INTO standings VALUES (?, ?, ?)", values)
    found = connection.execute(
        "INSERT INTO alerts (once, alert) VALUES (?, ?) ON CONFLICT (once) DO NOTHING"
        " RETURNING number",
        (conclusion.once, msgspec.json.encode(alert)),
    ).fetchone()
    if found is not None and enqueue is not None:
        told = msgspec.structs.replace(alert, number=found[0])
        enqueue(connection, f"alert-{found[0]}", msgspec.json.encode(told))


def _bound(connection: Connection) -> None:
    connection.execute(
        "DELETE FROM alerts WHERE number IN"
        " (SELECT number FROM alerts ORDER BY number DESC LIMIT -1 OFFSET ?)",
        (ALERTS_KEPT_MAX,),
    )
    connection.execute(
        "DELETE FROM outbox WHERE queue = ?1 AND number IN"
        " (SELECT number FROM outbox WHERE queue = ?1 ORDER BY number DESC LIMIT -1 OFFSET ?2)",
        (WEBHOOK, TOLD_LATER_MAX),
    )


def _row(row: tuple[str, str, str, str, str | None, str, int | None]) -> VerdictRow:
    digest, verifier, receipt, note, proof, commitment, committed = row
    return VerdictRow(
        digest=digest, verifier=verifier, receipt=receipt, note=note, proof=proof,
        commitment=commitment, committed=committed,
    )  # fmt: skip


def _alert(number: int, data: bytes) -> Alert:
    try:
        return msgspec.structs.replace(msgspec.json.decode(data, type=Alert), number=number)
    except msgspec.MsgspecError:
        raise CorruptStateError("an alert in the evidence store is not readable") from None
