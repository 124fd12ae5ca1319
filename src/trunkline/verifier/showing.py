"""What of a verifier's verdicts is public: what the log has, in the order in which it came to.

Nobody but who asked for one is shown a verdict before the log has it. Else who reads it here could
be bound to a copy of it first, and pass for a second opinion (ADR 0030); and what is said would
hang on a store that may be lost. They are numbered as they become public, from 1 on without gaps.
"""

from typing import Final

import msgspec

from trunkline.crypto import note as notes
from trunkline.crypto.signer import Signer, sign_note
from trunkline.runtime.store import Connection
from trunkline.schema.audit import VERDICTS_MAX, RevealedVerdict, VerdictPage
from trunkline.verdicts import Verdict, commitment_to
from trunkline.verifier import plant_store

SCHEMA: Final = """
    ALTER TABLE verdicts ADD COLUMN given INTEGER NOT NULL DEFAULT 0;
    UPDATE verdicts SET given = 1 WHERE number IS NOT NULL;
    DROP INDEX verdicts_hidden;
    CREATE INDEX verdicts_hidden ON verdicts (judged_ms) WHERE given = 0;
"""
"""Whether a verdict was given to the log. Older versions numbered it then."""


def logged(connection: Connection, leaf: str, index: int, *, picked: bool) -> None:
    """The log has the verdict on a receipt as its entry ``index``: it is public from here on. One
    that was withdrawn waits for what withdraws it, so that both are shown at once."""
    connection.execute(
        "UPDATE verdicts SET entry = ? WHERE leaf = ? AND picked = ?", (index, leaf, int(picked))
    )
    rows = connection.execute(
        "SELECT picked, entry FROM verdicts WHERE leaf = ? AND given = 1 AND number IS NULL "
        "ORDER BY picked",
        (leaf,),
    ).fetchall()
    if plant_store.is_withdrawn(connection, leaf) and any(entry is None for _, entry in rows):
        return
    for which, entry in rows:
        if entry is not None:
            _number(connection, leaf, picked=bool(which))


def catch_up(connection: Connection) -> None:
    """Make public what a process of an older version has brought to the log for this one."""
    rows = connection.execute(
        "SELECT leaf, picked, entry FROM verdicts WHERE given = 1 AND number IS NULL "
        "AND entry IS NOT NULL ORDER BY entry"
    ).fetchall()
    for leaf, picked, entry in rows:
        logged(connection, leaf, entry, picked=bool(picked))


def _number(connection: Connection, leaf: str, *, picked: bool) -> None:
    number = newest(connection) + 1
    connection.execute(
        "UPDATE verdicts SET number = ? WHERE leaf = ? AND picked = ?", (number, leaf, int(picked))
    )
    if picked and plant_store.is_withdrawn(connection, leaf):
        # It tells of its own plant.
        plant_store.put_off(connection, number)


def newest(connection: Connection) -> int:
    """Number of the newest public verdict; 0 before the first."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM verdicts").fetchone()[0])


def bundle(connection: Connection, named: str) -> bytes | None:
    """The bundle of a public verdict: before, it would tell what is kept back. ``named``: its
    receipt's leaf, or the SHA-256 of its note, as of the second of two on one receipt; hex."""
    row = connection.execute(
        "SELECT bundle FROM verdicts WHERE (leaf = ? OR digest = ?) AND number IS NOT NULL "
        "ORDER BY picked LIMIT 1",
        (named, f"sha256:{named}"),
    ).fetchone()
    return None if row is None else bytes(row[0])


def public(connection: Connection, begins: str) -> list[RevealedVerdict]:
    """The public verdict on each receipt whose leaf (hex) begins so, two at most: more than one is
    ambiguous. Of two on one receipt it is the one that nobody picked."""
    rows = connection.execute(
        # With min() alone, SQLite takes the other columns from the row that has it.
        "SELECT number, leaf, note, entry, min(picked) FROM verdicts WHERE leaf >= ? AND leaf < ? "
        "AND number IS NOT NULL GROUP BY leaf LIMIT 2",
        (begins, begins + "g"),
    )
    return [_shown(row[:4]) for row in rows]


def _shown(
    row: tuple[int, str, bytes, int | None], plant: bytes = b"", commitment: bytes = b""
) -> RevealedVerdict:
    number, leaf, note, entry = row
    return RevealedVerdict(
        number=number,
        receipt=leaf,
        note=note.decode(),
        entry=entry,
        plant=plant.decode(),
        commitment=commitment.decode(),
    )


def page(connection: Connection, after: int, signer: Signer) -> VerdictPage:
    """Revealed verdicts with numbers above ``after``, oldest first. ``signer``: this verifier's,
    which makes the commitments that are told with them again, byte by byte."""
    rows = connection.execute(
        "SELECT number, leaf, note, entry, picked FROM verdicts WHERE number > ? "
        "ORDER BY number LIMIT ?",
        (after, VERDICTS_MAX),
    ).fetchall()
    if len(rows) == VERDICTS_MAX:
        _, leaf, _, _, picked = rows[-1]
        if not picked and plant_store.is_withdrawn(connection, leaf):
            # It is told with what withdraws it, which comes next.
            rows.pop()
    return VerdictPage(
        verdicts=tuple(
            _shown(
                row[:4],
                _plant(connection, row[0], row[1], picked=bool(row[4])),
                _commitment(bytes(row[2]), signer),
            )
            for row in rows
        ),
        newest=newest(connection),
    )


def _commitment(note: bytes, signer: Signer) -> bytes:
    """The one that the log has, of a verdict that is drawn: its signature is of no randomness."""
    verdict = Verdict.parse(notes.parse(note).text)
    if isinstance(verdict.drawn, msgspec.UnsetType):
        return b""
    return sign_note(commitment_to(verdict, note).text(), signer)


def _plant(connection: Connection, number: int, leaf: str, *, picked: bool) -> bytes:
    """What opens the plant that the verdict on a receipt was withdrawn for, or else one that is
    told with this verdict."""
    withdraws = picked and plant_store.is_withdrawn(connection, leaf)
    planted = leaf if withdraws else plant_store.shown_with(connection, number)
    return b"" if planted is None else plant_store.opening(connection, planted) or b""


def results(connection: Connection) -> dict[tuple[str, ...], float]:
    """How many public verdicts there are of each result: sums would tell what is kept back."""
    rows = connection.execute(
        "SELECT result, count(*) FROM verdicts WHERE number IS NOT NULL GROUP BY result"
    )
    return {(row[0],): float(row[1]) for row in rows}
