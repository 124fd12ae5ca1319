"""The verifier's store: what was followed, what is to be audited, what was found. One SQLite file.

Several processes of one verifier may have it open. Whatever must happen once happens in a
transaction that fails for the second: the log is followed by compare-and-swap on its size, a draw
starts where the one before ended, a receipt has one verdict. It refuses to make itself unasked.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError, ConflictError
from trunkline.crypto import note as notes
from trunkline.crypto.canonical import INTEGER_MAX
from trunkline.runtime import outbox
from trunkline.runtime.store import Connection, Database
from trunkline.schema.audit import AlertStatement
from trunkline.verdicts import Terms
from trunkline.verifier import plant_store, showing
from trunkline.verifier.core.entry import (
    BatchEntry,
    Entry,
    Kind,
    NoncesEntry,
    StatementEntry,
    TermsEntry,
)
from trunkline.verifier.core.tree import Frontier

DATABASE_NAME: Final = "verifier.db"
HISTORY_ENTRIES: Final = 200_000
"""What is kept of the log behind its end: a draw covers at most 10,000 entries of it."""
WHOLE_ENTRIES: Final = 100_000
"""A log of so many entries is read from its beginning by who begins to follow it; of a longer one,
as many of its end (``follower``)."""
ALERTS_MAX: Final = 10_000
SELF_TESTS_MAX: Final = 16
"""Of one node's statements from one on that are looked at."""
STATED_MAX: Final = 1_000
"""Of one node's statements before a batch that are looked at for one from before it was signed, and
as many after it."""
_RECORD: Final = (
    "CAST(substr(note, instr(note, x'0a') + 1, instr(note, x'7d0a') - instr(note, x'0a')) AS TEXT)"
)
"""Of a record's note: its second line, up to the brace that ends it, is an object."""
_DATED: Final = f"json_extract({_RECORD}, '$.unix_ms')"
_SELF_TEST: Final = "seen = 0 AND kind = 'self_test'"
NEWEST: Final = 2**62
"""Beyond every entry."""
DRAWS_MAX: Final = 1_000
"""Draws from an entry that are looked through for a second one from it."""

MIGRATIONS: Final = (
    """
    CREATE TABLE head (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        size INTEGER NOT NULL,
        frontier BLOB NOT NULL,
        checkpoint BLOB NOT NULL
    ) STRICT;
    CREATE TABLE batches (
        entry INTEGER PRIMARY KEY,
        node TEXT NOT NULL,
        root BLOB NOT NULL,
        count INTEGER NOT NULL,
        unix_ms INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX batches_root ON batches (root);
    CREATE TABLE nonces (
        digest TEXT PRIMARY KEY,
        entry INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE nonce_uses (
        node TEXT NOT NULL,
        nonce TEXT NOT NULL,
        answer TEXT NOT NULL,
        PRIMARY KEY (node, nonce)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE statements (
        entry INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        key TEXT NOT NULL,
        about TEXT NOT NULL,
        note BLOB NOT NULL,
        seen INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX statements_about ON statements (about, kind) WHERE about <> '';
    CREATE INDEX statements_unseen ON statements (entry) WHERE seen = 0;
    CREATE TABLE draws (
        number INTEGER PRIMARY KEY,
        key TEXT NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        digest TEXT NOT NULL UNIQUE,
        note BLOB NOT NULL,
        entry INTEGER,
        UNIQUE (key, first)
    ) STRICT;
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,
        root BLOB NOT NULL,
        position INTEGER NOT NULL,
        entry INTEGER NOT NULL,
        node TEXT NOT NULL,
        draw INTEGER NOT NULL REFERENCES draws (number),
        third INTEGER NOT NULL DEFAULT 0,
        asked_ms INTEGER NOT NULL DEFAULT 0,
        refused TEXT NOT NULL DEFAULT '',
        opening BLOB,
        attempts INTEGER NOT NULL DEFAULT 0,
        due_ms INTEGER NOT NULL DEFAULT 0,
        holder BLOB,
        lease_ms INTEGER NOT NULL DEFAULT 0,
        UNIQUE (root, position)
    ) STRICT;
    CREATE INDEX jobs_due ON jobs (due_ms, number);
    CREATE TABLE verdicts (
        leaf TEXT NOT NULL,
        picked INTEGER NOT NULL,
        root BLOB NOT NULL,
        position INTEGER NOT NULL,
        subject TEXT NOT NULL,
        result TEXT NOT NULL,
        standing TEXT NOT NULL,
        digest TEXT NOT NULL,
        note BLOB NOT NULL,
        bundle BLOB NOT NULL,
        judged_ms INTEGER NOT NULL,
        committed_ms INTEGER,
        number INTEGER UNIQUE,
        entry INTEGER,
        PRIMARY KEY (leaf, picked),
        UNIQUE (root, position, picked)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX verdicts_hidden ON verdicts (judged_ms) WHERE number IS NULL;
    CREATE TABLE subjects (
        subject TEXT PRIMARY KEY,
        state BLOB NOT NULL,
        previous TEXT NOT NULL,
        standing TEXT NOT NULL,
        receipts INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE calibrations (
        digest TEXT PRIMARY KEY,
        artefact BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE self_tests (
        said TEXT PRIMARY KEY,
        note BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE alerts (
        number INTEGER PRIMARY KEY,
        unix_ms INTEGER NOT NULL,
        kind TEXT NOT NULL,
        about TEXT NOT NULL,
        receipt TEXT NOT NULL,
        detail TEXT NOT NULL,
        UNIQUE (kind, about, receipt)
    ) STRICT;
    """,
    outbox.SCHEMA,
    """
    CREATE TABLE terms (
        node TEXT NOT NULL,
        entry INTEGER NOT NULL,
        note BLOB NOT NULL,
        PRIMARY KEY (node, entry)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX statements_draws ON statements (key, entry) WHERE kind IN ('draw', 'own_draw');
    """,
    """
    CREATE TABLE own_chains (
        first INTEGER PRIMARY KEY,
        seed BLOB NOT NULL,
        draw INTEGER NOT NULL REFERENCES draws (number)
    ) STRICT;
    CREATE TABLE chain_views (
        key TEXT PRIMARY KEY,
        known BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE subjects ADD COLUMN judged_ms INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE chain_views ADD COLUMN believed INTEGER NOT NULL DEFAULT 0;
    """,
    plant_store.SCHEMA,
    """
    DROP INDEX statements_unseen;
    CREATE INDEX statements_unseen ON statements (kind, entry) WHERE seen = 0;
    """,
    """
    ALTER TABLE batches ADD COLUMN audited INTEGER;
    """,
    plant_store.KEEPING_SCHEMA,
    plant_store.SHOWING_SCHEMA,
    # SQLite takes an index of some rows only where a query's own words say that it asks for those.
    """
    DROP INDEX statements_about;
    CREATE INDEX statements_about ON statements (about, kind);
    CREATE INDEX statements_self_tests ON statements (key, entry)
    WHERE seen = 0 AND kind = 'self_test';
    """,
    # By this verifier's clock; those of before were seen long ago.
    """
    ALTER TABLE batches ADD COLUMN seen_ms INTEGER NOT NULL DEFAULT 0;
    """,
    """
    ALTER TABLE statements ADD COLUMN seen_ms INTEGER NOT NULL DEFAULT 0;
    """,
    showing.SCHEMA,
    # ``undrawn``: waits for its turn alone. Of each subject, what is not public yet; and of what
    # is, how much of each result.
    """
    ALTER TABLE verdicts ADD COLUMN undrawn INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX verdicts_unshown ON verdicts (subject, judged_ms) WHERE number IS NULL;
    CREATE INDEX verdicts_results ON verdicts (result) WHERE number IS NOT NULL;
    """,
    # Hashes of answers whose scores are evidence (``ledger.note_counted``).
    """
    CREATE TABLE counted (
        number INTEGER PRIMARY KEY,
        subject TEXT NOT NULL,
        fingerprint BLOB NOT NULL,
        leaf TEXT NOT NULL,
        UNIQUE (subject, fingerprint)
    ) STRICT;
    CREATE INDEX counted_leaf ON counted (leaf);
    CREATE INDEX counted_subject ON counted (subject, number);
    """,
)


def create_store(data: Path) -> None:
    """Make the empty store of a new verifier, for ``trunkline init``. Blocks. ConfigError if there
    is one already."""
    path = data / DATABASE_NAME
    if path.exists():
        raise ConfigError(f"{path}: there is a verifier here already")
    Database.open(path, must_exist=False, migrations=MIGRATIONS).close()


def open_store(data: Path) -> Database:
    """Open the store in ``data``. ConfigError if it is missing."""
    return Database.open(data / DATABASE_NAME, must_exist=True, migrations=MIGRATIONS, shared=True)


def overwrite_deleted(connection: Connection) -> None:
    """From now on, what this connection deletes is overwritten: openings hold what was said."""
    connection.execute("PRAGMA secure_delete = ON")


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """How far the log was followed."""

    frontier: Frontier
    checkpoint: bytes
    """The cosigned checkpoint of exactly this tree, as it was obtained."""


def read_head(connection: Connection) -> Head | None:
    """Where following goes on; None before the first entry."""
    row = connection.execute("SELECT size, frontier, checkpoint FROM head").fetchone()
    if row is None:
        return None
    return Head(frontier=Frontier.decode(row[0], row[1]), checkpoint=row[2])


def advance(
    connection: Connection,
    before: Head | None,
    after: Head,
    found: Iterable[Entry],
    *,
    now_ms: int,
) -> None:
    """Take in verified entries. ConflictError if another process did already."""
    now = read_head(connection)
    if (now is None) != (before is None) or (
        now is not None and before is not None and now.frontier.size != before.frontier.size
    ):
        raise ConflictError("another process of this verifier followed the log")
    connection.execute(
        "INSERT INTO head VALUES (1, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "size = excluded.size, frontier = excluded.frontier, checkpoint = excluded.checkpoint",
        (after.frontier.size, after.frontier.encode(), after.checkpoint),
    )
    for entry in found:
        match entry:
            case BatchEntry():
                connection.execute(
                    "INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        entry.index,
                        entry.node,
                        entry.root,
                        entry.count,
                        entry.unix_ms,
                        entry.audited,
                        now_ms,
                    ),
                )
            case NoncesEntry():
                connection.execute(
                    "INSERT INTO nonces VALUES (?, ?) ON CONFLICT DO NOTHING",
                    (entry.digest, entry.index),
                )
            case StatementEntry():
                connection.execute(
                    "INSERT INTO statements (entry, kind, key, about, note, seen_ms) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (entry.index, entry.kind, entry.key, entry.about, entry.note, now_ms),
                )
            case TermsEntry():
                connection.execute(
                    "INSERT INTO terms VALUES (?, ?, ?)", (entry.node, entry.index, entry.note)
                )
    floor = after.frontier.size - HISTORY_ENTRIES
    connection.execute("DELETE FROM batches WHERE entry < ?", (floor,))
    connection.execute(
        "DELETE FROM statements WHERE entry < ? AND (seen = 1 OR kind = 'own_draw')", (floor,)
    )
    _forget_stated(connection, "terms", "node", "TRUE", floor)
    _forget_stated(connection, "statements", "key", _SELF_TEST, floor)


def _forget_stated(connection: Connection, table: str, key: str, which: str, floor: int) -> None:
    """Of what each node stated before ``floor`` leave the last: by date, which holds for its later
    batches, and in the log, for those of before dates that never go back."""
    old = f"FROM {table} WHERE {which} AND entry < ?1"
    connection.execute(
        f"DELETE {old} AND entry NOT IN (SELECT max(entry) {old} GROUP BY {key}) "  # noqa: S608 - ours
        f"AND entry NOT IN (SELECT entry FROM (SELECT entry, max({_DATED}) {old} GROUP BY {key}))",
        (floor,),
    )


def terms_at(
    connection: Connection, node: str, entry: int, signed_ms: int | None = None
) -> Terms | None:
    """The terms that a node (vkey) had stated for its batch at ``entry``: of those that the log has
    before it and that are dated no later, the latest. None: it had stated none. ``signed_ms``: the
    batch's date, where that is not to be looked up."""
    row = connection.execute(
        f"SELECT note, {_DATED} AS dated FROM (SELECT entry, note FROM terms "  # noqa: S608 - ours
        "WHERE node = ? AND entry < ? ORDER BY entry DESC LIMIT ?) WHERE dated <= ? "
        "ORDER BY dated DESC, entry DESC LIMIT 1",
        (node, entry, STATED_MAX, _signed_ms(connection, entry, signed_ms)),
    ).fetchone()
    return None if row is None else Terms.parse(notes.parse(row[0]).text)


def self_tests_at(
    connection: Connection, node: str, entry: int, signed_ms: int | None = None
) -> list[tuple[int, bytes]]:
    """What a node (vkey) states that its engine computes, with where the log has it: what it had
    stated for its batch at ``entry``, as its terms, and what it stated since, the oldest first.
    Where it had stated nothing, all that it stated, in the log's order."""
    stated = f"SELECT entry, note FROM statements WHERE {_SELF_TEST} AND key = ?1"  # noqa: S608 - ours
    before = f"SELECT * FROM ({stated} AND entry < ?2 ORDER BY entry DESC LIMIT ?3)"  # noqa: S608 - ours
    since = f"SELECT * FROM ({stated} AND entry >= ?2 ORDER BY entry LIMIT ?3)"  # noqa: S608 - ours
    looked = (node, entry, STATED_MAX)
    chosen = connection.execute(
        f"SELECT {_DATED} AS dated, entry FROM ({before}) WHERE dated <= ?4 "  # noqa: S608 - ours
        "ORDER BY dated DESC, entry DESC LIMIT 1",
        (*looked, _signed_ms(connection, entry, signed_ms)),
    ).fetchone()
    if chosen is None:
        rows = connection.execute(f"{stated} ORDER BY entry LIMIT ?2", (node, SELF_TESTS_MAX))
    else:
        rows = connection.execute(
            f"SELECT entry, note, {_DATED} AS dated FROM ({before} UNION ALL {since}) "  # noqa: S608 - ours
            "WHERE (dated, entry) >= (?4, ?5) ORDER BY dated, entry LIMIT ?6",
            (*looked, *chosen, SELF_TESTS_MAX),
        )
    return [(int(row[0]), bytes(row[1])) for row in rows]


def _signed_ms(connection: Connection, entry: int, signed_ms: int | None) -> int:
    """The date of the batch at ``entry``: ``signed_ms``, where that is known; beyond all dates, if
    no batch was seen there."""
    if signed_ms is not None:
        return signed_ms
    row = connection.execute("SELECT unix_ms FROM batches WHERE entry = ?", (entry,)).fetchone()
    return INTEGER_MAX if row is None else int(row[0])


def draws_from(connection: Connection, key: str, entry: int) -> list[bytes]:
    """A verifier's draws from a range that has ``entry``, which the log has after it; at most
    ``DRAWS_MAX``. ``key``: its vkey, which may be this one's own."""
    rows = connection.execute(
        "SELECT note FROM statements WHERE kind IN ('draw', 'own_draw') AND key = ?1 "  # noqa: S608 - ours
        f"AND entry > ?2 AND json_extract({_RECORD}, '$.from') <= ?2 "
        f"AND json_extract({_RECORD}, '$.to') > ?2 ORDER BY entry LIMIT ?3",
        (key, entry, DRAWS_MAX),
    )
    return [row[0] for row in rows]


def batches_between(connection: Connection, first: int, last: int) -> list[BatchEntry]:
    """The known nodes' batches at entries ``[first, last)``."""
    rows = connection.execute(
        "SELECT entry, node, root, count, unix_ms, audited FROM batches "
        "WHERE entry >= ? AND entry < ? ORDER BY entry",
        (first, last),
    )
    return [
        BatchEntry(
            index=row[0], node=row[1], root=row[2], count=row[3], unix_ms=row[4], audited=row[5]
        )
        for row in rows
    ]


def batch_at(connection: Connection, entry: int) -> BatchEntry | None:
    """The known node's batch that is the log's ``entry``; None: there is none, or not any more."""
    return next(iter(batches_between(connection, entry, entry + 1)), None)


def entry_of(connection: Connection, node: str, root: bytes) -> int | None:
    """Where the log has the batch of a node (vkey) with this root; None: it was not seen there."""
    row = connection.execute(
        "SELECT min(entry) FROM batches WHERE root = ? AND node = ?", (root, node)
    ).fetchone()
    return None if row[0] is None else int(row[0])


def was_seen_since(connection: Connection, entry: int, unix_ms: int) -> bool:
    """Whether the batch at ``entry`` was seen there, by this verifier's clock, after that time."""
    row = connection.execute(
        "SELECT 1 FROM batches WHERE entry = ? AND seen_ms > ?", (entry, unix_ms)
    ).fetchone()
    return row is not None


def saw_all_since(connection: Connection, node: str, unix_ms: int) -> bool:
    """Whether every batch would have been seen that a node signed at ``unix_ms`` and that is in
    the log by now: one that it signed before that was, or the log was read from its beginning."""
    head = read_head(connection)
    if head is not None and head.frontier.size <= WHOLE_ENTRIES:
        return True
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM batches WHERE node = ? AND unix_ms < ?)", (node, unix_ms)
    ).fetchone()
    return bool(row[0])


def signed_since(connection: Connection, node: str, since_ms: int) -> int:
    """How many batches a node says it signed after ``since_ms``, and were seen in the log only
    then: dates of a node whose clock was ahead stay ahead until the time has come."""
    row = connection.execute(
        "SELECT count(*) FROM batches WHERE node = ?1 AND unix_ms > ?2 AND seen_ms > ?2",
        (node, since_ms),
    ).fetchone()
    return int(row[0])


def unseen(connection: Connection, kind: str, limit: int) -> list[StatementEntry]:
    """Statements of others that nothing was concluded from yet, in the log's order."""
    rows = connection.execute(
        "SELECT entry, kind, key, about, note FROM statements WHERE seen = 0 AND kind = ? "
        "ORDER BY entry LIMIT ?",
        (kind, limit),
    )
    return [_statement(row) for row in rows]


def unheeded(connection: Connection, limit: int, *, since_ms: int) -> list[StatementEntry]:
    """Others' verdicts that nothing was concluded from yet, in the log's order; but not while one
    of this verifier's own on the same receipt, made after ``since_ms``, is not public."""
    rows = connection.execute(
        "SELECT entry, kind, key, about, note FROM statements WHERE seen = 0 AND kind = 'verdict' "
        "AND NOT EXISTS (SELECT 1 FROM verdicts WHERE leaf = about AND number IS NULL "
        "AND judged_ms > ?) ORDER BY entry LIMIT ?",
        (since_ms, limit),
    )
    return [_statement(row) for row in rows]


def said(connection: Connection, kind: str, about: str) -> list[StatementEntry]:
    """Others' statements of a kind about one receipt, in the log's order."""
    rows = connection.execute(
        "SELECT entry, kind, key, about, note FROM statements WHERE about = ? AND kind = ? "
        "ORDER BY entry",
        (about, kind),
    )
    return [_statement(row) for row in rows]


def _statement(row: tuple[int, Kind, str, str, bytes]) -> StatementEntry:
    index, kind, key, about, note = row
    return StatementEntry(index=index, kind=kind, key=key, about=about, note=note)


def mark_seen(connection: Connection, entries: Sequence[int]) -> None:
    """Nothing more is to be concluded from these."""
    connection.executemany(
        "UPDATE statements SET seen = 1 WHERE entry = ?", [(entry,) for entry in entries]
    )


def alert(
    connection: Connection, *, unix_ms: int, kind: str, about: str, receipt: str, detail: str
) -> bool:
    """Write an alert down; False where it stands already. Oldest go first beyond the bound."""
    before = connection.total_changes
    connection.execute(
        "INSERT INTO alerts (unix_ms, kind, about, receipt, detail) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        (unix_ms, kind, about, receipt, detail),
    )
    fresh = connection.total_changes > before
    connection.execute(
        "DELETE FROM alerts WHERE number <= (SELECT max(number) FROM alerts) - ?", (ALERTS_MAX,)
    )
    return fresh


def tell_terms(connection: Connection, *, unix_ms: int, node: str, detail: str) -> None:
    """Alert to what a node's terms keep from this verifier, once for as long as they do."""
    connection.execute(
        "DELETE FROM alerts WHERE kind = 'terms' AND about = ? AND detail <> ?", (node, detail)
    )
    alert(connection, unix_ms=unix_ms, kind="terms", about=node, receipt="", detail=detail)


def alerts(connection: Connection, after: int, limit: int) -> tuple[AlertStatement, ...]:
    """Alerts by number, oldest first."""
    rows = connection.execute(
        "SELECT number, unix_ms, kind, about, receipt, detail FROM alerts WHERE number > ? "
        "ORDER BY number LIMIT ?",
        (after, limit),
    )
    return tuple(
        AlertStatement(
            number=row[0], unix_ms=row[1], kind=row[2], about=row[3], receipt=row[4], detail=row[5]
        )
        for row in rows
    )
