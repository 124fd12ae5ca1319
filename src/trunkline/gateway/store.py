"""The evidence store: one SQLite file with every answer's signed receipts, what each cost its
tenant, and bodies if asked for.

A part is durable before the app is told that its answer is whole. A part without a proof is
provisional; those rows are the to-do list of the ``evidence`` module, so nothing is forgotten when
the process dies. No prompt or answer is stored unless the caller or the configuration asked.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec

from trunkline.base.errors import ConfigError, CorruptStateError, require
from trunkline.gateway.claim_store import ClaimStore, fill_claim
from trunkline.gateway.content_store import PUBLISHED_SCHEMA, ContentStore, publish
from trunkline.gateway.core.budget import Charge
from trunkline.gateway.core.replay import Kept
from trunkline.gateway.verdict_store import COMMITMENTS_SCHEMA, PLANTS_SCHEMA, VerdictStore
from trunkline.gateway.verdict_store import SCHEMA as VERDICTS_SCHEMA
from trunkline.runtime.store import Connection, Database
from trunkline.schema.attempt import SignedReceipt

FILE: Final = "evidence.db"
LIST_MAX: Final = 1000

AnswerState = Literal["provisional", "final"]

MIGRATIONS: Final = (
    """
    CREATE TABLE answers (
        answer TEXT PRIMARY KEY,
        created_ms INTEGER NOT NULL,
        ended_ms INTEGER NOT NULL,
        format TEXT NOT NULL,
        model TEXT NOT NULL,
        node TEXT NOT NULL,
        operator TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('provisional', 'final'))
    ) STRICT;
    CREATE INDEX answers_by_time ON answers (created_ms);
    CREATE TABLE parts (
        answer TEXT NOT NULL REFERENCES answers (answer),
        number INTEGER NOT NULL,
        signed BLOB NOT NULL,
        entry BLOB NOT NULL,
        bodies BLOB,
        proof TEXT,
        tries INTEGER NOT NULL DEFAULT 0,
        next_ms INTEGER NOT NULL,
        PRIMARY KEY (answer, number)
    ) STRICT;
    CREATE INDEX parts_pending ON parts (next_ms) WHERE proof IS NULL;
    CREATE INDEX parts_by_entry ON parts (entry) WHERE proof IS NULL;
    """,
    """
    CREATE TABLE charges (
        answer TEXT PRIMARY KEY REFERENCES answers (answer),
        tenant TEXT NOT NULL,
        model TEXT NOT NULL,
        nusd INTEGER NOT NULL CHECK (nusd >= 0),
        prompt INTEGER NOT NULL,
        completion INTEGER NOT NULL,
        cached INTEGER NOT NULL,
        day INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE spending (
        tenant TEXT NOT NULL,
        day INTEGER NOT NULL,
        nusd INTEGER NOT NULL,
        answers INTEGER NOT NULL,
        PRIMARY KEY (tenant, day)
    ) STRICT;
    """,
    "ALTER TABLE answers ADD COLUMN tenant TEXT NOT NULL DEFAULT ''",
    """
    ALTER TABLE answers ADD COLUMN possible_double_work INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE claims (
        id BLOB PRIMARY KEY,
        request BLOB NOT NULL,
        answer TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        status INTEGER,
        headers BLOB,
        body BLOB
    ) STRICT;
    CREATE INDEX claims_by_time ON claims (created_ms);
    """,
    PUBLISHED_SCHEMA,
    VERDICTS_SCHEMA,
    "ALTER TABLE charges ADD COLUMN estimated INTEGER NOT NULL DEFAULT 0",
    PLANTS_SCHEMA,
    COMMITMENTS_SCHEMA,
)


class AnswerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, without content."""

    answer: str
    created_ms: int
    ended_ms: int
    format: str
    model: str
    node: str
    operator: str
    attempts: int
    state: AnswerState
    tenant: str = ""
    """Whose key asked for it; empty: nobody's."""
    possible_double_work: bool = False
    """An attempt was sent and its outcome is not known: its provider may have done the work, and
    may charge for it, beside the one that answered."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which answers are asked for; what is left out, whichever."""

    model: str = ""
    node: str = ""
    """The name of the node that gave the answer."""
    state: AnswerState | None = None
    since_ms: int | None = None
    """Unix milliseconds at which it began, or after."""
    until_ms: int | None = None
    """Before which it began."""


ALL: Final = Wanted()

_NEWEST: Final = """
    SELECT * FROM answers
    WHERE (:model = '' OR model = :model) AND (:node = '' OR node = :node)
        AND (:state IS NULL OR state = :state)
        AND created_ms >= ifnull(:since_ms, 0)
        AND created_ms < ifnull(:until_ms, 9223372036854775807)
    ORDER BY created_ms DESC, answer LIMIT :limit
"""


class Bodies(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What opens a receipt: the secret of its salts and, only on demand, what was said."""

    blinding: str = ""
    """Hex; empty: the receipt's digests are not salted."""
    request: bytes | None = None
    client_request: bytes | None = None
    chunks: tuple[str, ...] | None = None


class PartRow(msgspec.Struct, frozen=True, kw_only=True):
    """One signed receipt of an answer."""

    number: int
    signed: SignedReceipt
    proof: str | None
    bodies: Bodies | None


class PendingPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part whose batch is not yet shown to be in the log."""

    answer: str
    number: int
    entry: bytes
    """The log's entry: the batch's signed note."""
    tries: int


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    provisional: int
    final: int


def create_store(data: Path) -> None:
    """Make a new evidence store in the folder ``data``. Raises ConfigError if there is one."""
    path = data / FILE
    if path.exists():
        raise ConfigError(f"{path}: a store exists already; it is never overwritten")
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    Database.open(path, must_exist=False, migrations=MIGRATIONS).close()


class EvidenceStore:
    """Typed access to the store. Every write is durable when its call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.content = ContentStore(database)
        """What was said, in the same file."""
        self.claims = ClaimStore(database)
        """What repeated requests are answered with, in the same file."""
        self.verdicts = VerdictStore(database)
        """What verifiers said, in the same file."""

    @classmethod
    def open(cls, data: Path) -> "EvidenceStore":
        """Open the store in the folder ``data``; a missing one is a ConfigError."""
        return cls(Database.open(data / FILE, must_exist=True, migrations=MIGRATIONS, reopens=True))

    async def close(self) -> None:
        await self._database.aclose()

    async def add(
        self,
        row: AnswerRow,
        signed: SignedReceipt,
        bodies: Bodies | None,
        charge: Charge | None = None,
        kept: Kept | None = None,
    ) -> None:
        """Store an answer, its part, provisional, its charge, and what a repeated request is to be
        shown: all or none. The app hears of its end only after this."""
        values = msgspec.structs.astuple(row)
        said = None if bodies is None else msgspec.json.encode(bodies)
        part = (row.answer, msgspec.json.encode(signed), signed.batch.encode(), said, row.ended_ms)

        def work(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values
            )
            connection.execute(
                "INSERT INTO parts (answer, number, signed, entry, bodies, next_ms)"
                " VALUES (?, 0, ?, ?, ?, ?)",
                part,
            )
            if bodies is not None and bodies.chunks is not None:
                publish(connection, signed, row.created_ms)
            if charge is not None:
                _add_charge(connection, charge)
            if kept is not None:
                fill_claim(connection, kept)

        await self._database.write(work)

    async def spending(self) -> list[tuple[str, int, int]]:
        """What every tenant was charged: (tenant, day since 1970, nano-USD), days in order."""

        def work(connection: Connection) -> list[tuple[str, int, int]]:
            query = "SELECT tenant, day, nusd FROM spending ORDER BY day, tenant"
            return [(tenant, day, nusd) for tenant, day, nusd in connection.execute(query)]

        return await self._database.read(work)

    async def pending(self, now_ms: int, limit: int) -> list[PendingPart]:
        """Parts that are due for another try at the log, oldest first."""

        def work(connection: Connection) -> list[PendingPart]:
            rows = connection.execute(
                "SELECT answer, number, entry, tries FROM parts"
                " WHERE proof IS NULL AND next_ms <= ? ORDER BY next_ms LIMIT ?",
                (now_ms, limit),
            )
            return [
                PendingPart(answer=row[0], number=row[1], entry=row[2], tries=row[3])
                for row in rows
            ]

        return await self._database.read(work)

    async def next_due_ms(self) -> int | None:
        """When the next try is due, Unix milliseconds; None if nothing is pending."""

        def work(connection: Connection) -> int | None:
            query = "SELECT MIN(next_ms) FROM parts WHERE proof IS NULL"
            found: int | None = connection.execute(query).fetchone()[0]
            return found

        return await self._database.read(work)

    async def prove(self, entry: bytes, proof: str) -> list[str]:
        """Attach the proof to every part of this batch; returns the answers that became final."""

        def work(connection: Connection) -> list[str]:
            rows = connection.execute(
                "UPDATE parts SET proof = ? WHERE entry = ? AND proof IS NULL RETURNING answer",
                (proof, entry),
            ).fetchall()
            answers = sorted({str(row[0]) for row in rows})
            done = [answer for answer in answers if not _open_parts(connection, answer)]
            for answer in done:
                connection.execute("UPDATE answers SET state = 'final' WHERE answer = ?", (answer,))
            return done

        return await self._database.write(work)

    async def postpone(self, entry: bytes, next_ms: int) -> None:
        """The log did not help: try this batch again at ``next_ms``."""
        await self._database.execute(
            (
                "UPDATE parts SET tries = tries + 1, next_ms = ? WHERE entry = ? AND proof IS NULL",
                (next_ms, entry),
            )
        )

    async def hurry(self, now_ms: int) -> None:
        """The log is back: everything pending is due now."""
        await self._database.execute(
            ("UPDATE parts SET next_ms = ? WHERE proof IS NULL AND next_ms > ?", (now_ms, now_ms))
        )

    async def get(self, answer: str) -> tuple[AnswerRow, tuple[PartRow, ...]] | None:
        """An answer and its parts; None if it is not known."""

        def work(connection: Connection) -> tuple[AnswerRow, tuple[PartRow, ...]] | None:
            row = connection.execute("SELECT * FROM answers WHERE answer = ?", (answer,)).fetchone()
            if row is None:
                return None
            parts = connection.execute(
                "SELECT number, signed, proof, bodies FROM parts WHERE answer = ? ORDER BY number",
                (answer,),
            ).fetchall()
            return _answer_row(row), tuple(_part_row(part) for part in parts)

        return await self._database.read(work)

    async def newest(self, limit: int, wanted: Wanted = ALL) -> list[AnswerRow]:
        """The newest answers that are ``wanted``, newest first; at most ``LIST_MAX``."""
        named = {**msgspec.structs.asdict(wanted), "limit": max(0, min(limit, LIST_MAX))}

        def work(connection: Connection) -> list[AnswerRow]:
            rows = connection.execute(_NEWEST, named)
            return [_answer_row(row) for row in rows]

        return await self._database.read(work)

    async def counts(self) -> Counts:
        """How many answers are in each state."""

        def work(connection: Connection) -> Counts:
            query = "SELECT state, COUNT(*) FROM answers GROUP BY state"
            found = dict(connection.execute(query).fetchall())
            return Counts(provisional=found.get("provisional", 0), final=found.get("final", 0))

        return await self._database.read(work)


def _add_charge(connection: Connection, charge: Charge) -> None:
    # A crash before the commit leaves neither evidence nor charge; after it, both. The answer's id
    # is the key: whatever was retried, a second charge for it can not be written.
    tokens = charge.tokens
    connection.execute(
        "INSERT INTO charges VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            charge.answer, charge.tenant, charge.model, charge.nusd,
            tokens.prompt, tokens.completion, tokens.cached, charge.day, charge.estimated,
        ),
    )  # fmt: skip
    connection.execute(
        "INSERT INTO spending VALUES (?, ?, ?, 1) ON CONFLICT (tenant, day)"
        " DO UPDATE SET nusd = nusd + excluded.nusd, answers = answers + 1",
        (charge.tenant, charge.day, charge.nusd),
    )


def _open_parts(connection: Connection, answer: str) -> int:
    query = "SELECT COUNT(*) FROM parts WHERE answer = ? AND proof IS NULL"
    found: int = connection.execute(query, (answer,)).fetchone()[0]
    return found


def _answer_row(row: tuple[object, ...]) -> AnswerRow:
    require(len(row) == len(AnswerRow.__struct_fields__), "an answer's row has its columns")
    try:
        fields = dict(zip(AnswerRow.__struct_fields__, row, strict=True))
        # SQLite has no truth values: 0 and 1 are.
        return msgspec.convert(fields, AnswerRow, strict=False)
    except msgspec.ValidationError:
        raise CorruptStateError("an answer's row in the evidence store is not readable") from None


def _part_row(row: tuple[int, bytes, str | None, bytes | None]) -> PartRow:
    number, signed, proof, bodies = row
    try:
        return PartRow(
            number=number,
            signed=msgspec.json.decode(signed, type=SignedReceipt),
            proof=proof,
            bodies=None if bodies is None else msgspec.json.decode(bodies, type=Bodies),
        )
    except msgspec.MsgspecError:
        raise CorruptStateError("a part in the evidence store is not readable") from None
