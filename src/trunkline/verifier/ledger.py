"""What a verifier has found: its verdicts, each stored before anybody is told, and its subjects.

One verdict a receipt, for ever: a second audit of the same receipt finds the first one's. Only a
receipt that somebody picked may be drawn later all the same, and then has two: or a node could have
its answers looked at first, so that no draw of them would count. A verdict
about a drawn receipt is kept back until another verifier has committed to its own, or had its time.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from trunkline.base.errors import require
from trunkline.crypto.digest import digest
from trunkline.runtime.store import Connection, SqlValue
from trunkline.verdicts import (
    Result,
    Standing,
    may_reveal,
)
from trunkline.verifier import plant_store
from trunkline.verifier.publishing import Publisher

REVEALED_AT_ONCE: Final = 200
LOOKED_AT: Final = 10_000
"""Verdicts that are looked at for those, the oldest."""
COUNTED_MAX: Final = 10_000
"""Answers of a subject that are known again, the newest."""
OPENING_ROUNDS: Final = 3
"""A planter has to see the commitments, and to be seen: so often what the verdict's own commitment
took to reach the log."""


KEPT_BACK_MS_MAX: Final = 900_000
"""A verdict that the log has not had for so long keeps no other back."""
_UNSHOWN: Final = (
    "number IS NULL AND judged_ms > ? AND (given = 0 OR EXISTS (SELECT 1 FROM settled_plants "
    "WHERE settled_plants.leaf = verdicts.leaf AND withdrawn = 1))"
)
"""What is kept back: not given to the log yet, or waiting for what withdraws it."""
_TOLD: Final = "number IS NOT NULL OR picked AND given AND NOT undrawn"


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """For how long verdicts are kept back, and what time it is."""

    now_ms: int
    followed_ms: int
    """When the log was asked for what was followed last."""
    reveal_after_ms: int
    plant_wait_ms: int = 0


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict as it was stored."""

    leaf: str
    """Of the receipt, hex."""
    picked: bool
    """Somebody chose it (``trunkline.audit.judge.Case.picked``)."""
    root: bytes
    position: int
    subject: str
    result: Result
    standing: Standing
    note: bytes
    bundle: bytes
    judged_ms: int


class SubjectRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a subject."""

    state: bytes
    """``trunkline.audit.standing.encode_state``."""
    previous: str
    """SHA-256 (hex) of the newest verdict on it."""
    standing: Standing
    receipts: int


def at_place(
    connection: Connection, root: bytes, position: int, *, picked: bool
) -> tuple[bytes, bool] | None:
    """The signed verdict on the receipt at a place of a batch, and whether it may be told. With
    ``picked``, one on a picked receipt will do."""
    return _found(connection, "root = ? AND position = ?", root, position, picked=picked)


def on_receipt(connection: Connection, leaf: str, *, picked: bool) -> tuple[bytes, bool] | None:
    """The same of a receipt, wherever it is: a node may have signed one at two places."""
    return _found(connection, "leaf = ?", leaf, picked=picked)


def _found(
    connection: Connection, where: str, *values: SqlValue, picked: bool
) -> tuple[bytes, bool] | None:
    row = connection.execute(
        f"SELECT note, {_TOLD} FROM verdicts "  # noqa: S608 - ours
        f"WHERE {where} AND picked <= ? ORDER BY picked LIMIT 1",
        (*values, int(picked)),
    ).fetchone()
    return None if row is None else (bytes(row[0]), bool(row[1]))


def find(connection: Connection, leaf: str) -> bytes | None:
    """The signed verdict on a receipt that nobody picked, public or not."""
    row = connection.execute(
        "SELECT note FROM verdicts WHERE leaf = ? AND picked = 0", (leaf,)
    ).fetchone()
    return None if row is None else bytes(row[0])


def by_digest(connection: Connection, digest_: str) -> tuple[bytes, bytes] | None:
    """The signed verdict with this SHA-256 (hex), public or not, and its bundle."""
    row = connection.execute(
        "SELECT note, bundle FROM verdicts WHERE digest = ?", (f"sha256:{digest_}",)
    ).fetchone()
    return None if row is None else (bytes(row[0]), bytes(row[1]))


def is_asked(connection: Connection, leaf: str) -> bool:
    """Whether there is a verdict on a receipt that somebody picked."""
    row = connection.execute(
        "SELECT 1 FROM verdicts WHERE leaf = ? AND picked = 1", (leaf,)
    ).fetchone()
    return row is not None


def revealed(connection: Connection, leaf: str) -> bytes | None:
    """The signed verdict on a receipt, once it is public."""
    row = connection.execute(
        "SELECT note FROM verdicts WHERE leaf = ? AND number IS NOT NULL ORDER BY picked LIMIT 1",
        (leaf,),
    ).fetchone()
    return None if row is None else bytes(row[0])


def calibration(connection: Connection, digest_: str) -> bytes | None:
    """A calibration that verdicts were made with."""
    row = connection.execute(
        "SELECT artefact FROM calibrations WHERE digest = ?", (digest_,)
    ).fetchone()
    return None if row is None else bytes(row[0])


def draw(connection: Connection, digest_: str) -> bytes | None:
    """A draw that the log has, this verifier's or another's."""
    row = connection.execute(
        "SELECT note FROM draws WHERE digest = ? AND entry IS NOT NULL", (digest_,)
    ).fetchone()
    return None if row is None else bytes(row[0])


def subject(connection: Connection, name: str) -> SubjectRow | None:
    """What is known of a subject."""
    row = connection.execute(
        "SELECT state, previous, standing, receipts FROM subjects WHERE subject = ?", (name,)
    ).fetchone()
    if row is None:
        return None
    return SubjectRow(state=row[0], previous=row[1], standing=row[2], receipts=row[3])


def has_failed(connection: Connection, node: str) -> bool:
    """Whether anything that a node (its key's name) serves has failed here, and neither that was
    restored nor what took its place, by another key, weights or numerics, or by the first
    configuration that there is for these, was found good since."""
    row = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM subjects AS old WHERE standing = 'failed' "
        "AND json_extract(subject, '$.node') = ?1 AND NOT EXISTS ("
        "SELECT 1 FROM subjects AS new WHERE new.standing = 'good' "
        "AND new.judged_ms > old.judged_ms AND json_extract(new.subject, '$.node') = ?1 "
        "AND json_extract(new.subject, '$.model') = json_extract(old.subject, '$.model') "
        "AND (json_extract(new.subject, '$.key', '$.weights', '$.numerics') "
        "<> json_extract(old.subject, '$.key', '$.weights', '$.numerics') "
        "OR json_extract(old.subject, '$.configuration') = '' "
        "AND json_extract(new.subject, '$.configuration') <> '')))",
        (node,),
    ).fetchone()
    return bool(row[0])


def insert(connection: Connection, stored: Stored, state: bytes) -> None:
    """Write a verdict down, and what it makes of its subject."""
    connection.execute(
        "INSERT INTO verdicts (leaf, picked, root, position, subject, result, standing, digest, "
        "note, bundle, judged_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            stored.leaf,
            int(stored.picked),
            stored.root,
            stored.position,
            stored.subject,
            stored.result,
            stored.standing,
            digest(stored.note),
            stored.note,
            stored.bundle,
            stored.judged_ms,
        ),
    )
    connection.execute(
        "INSERT INTO subjects VALUES (?, ?, ?, ?, 1, ?) ON CONFLICT (subject) DO UPDATE SET "
        "state = excluded.state, previous = excluded.previous, standing = excluded.standing, "
        "receipts = receipts + 1, judged_ms = excluded.judged_ms",
        (
            stored.subject,
            state,
            digest(stored.note).removeprefix("sha256:"),
            stored.standing,
            stored.judged_ms,
        ),
    )


def has_counted(connection: Connection, subject: str, fingerprint: bytes | None) -> bool:
    """Whether scores with this fingerprint (``trunkline.audit.novelty``) are evidence already."""
    row = connection.execute(
        "SELECT 1 FROM counted WHERE subject = ? AND fingerprint = ?", (subject, fingerprint)
    ).fetchone()
    return row is not None


def note_counted(connection: Connection, subject: str, fingerprint: bytes, leaf: str) -> None:
    """Write down that they are, by the verdict on a receipt."""
    connection.execute(
        "INSERT INTO counted (subject, fingerprint, leaf) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (subject, fingerprint, leaf),
    )
    connection.execute(
        "DELETE FROM counted WHERE subject = ?1 AND number <= (SELECT number FROM counted "
        "WHERE subject = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
        (subject, COUNTED_MAX),
    )


def uncount(connection: Connection, leaf: str) -> None:
    """The scores of a receipt are evidence no more: the verdict on it is withdrawn."""
    connection.execute("DELETE FROM counted WHERE leaf = ?", (leaf,))


def reveal(connection: Connection, publisher: Publisher, leaf: str, *, picked: bool) -> None:
    """Queue a verdict for the log: as soon as that has it, it is public (``showing``)."""
    row = connection.execute(
        "SELECT note, given FROM verdicts WHERE leaf = ? AND picked = ?", (leaf, int(picked))
    ).fetchone()
    require(row is not None, "what is revealed was stored")
    if row[1]:
        return
    connection.execute(
        "UPDATE verdicts SET given = 1 WHERE leaf = ? AND picked = ?", (leaf, int(picked))
    )
    publisher.verdict(connection, leaf, bytes(row[0]), picked=picked)


def any_given(connection: Connection, leaves: Iterable[str]) -> bool:
    """Whether any drawn verdict on one of these receipts was given to the log."""
    return any(
        connection.execute(
            "SELECT 1 FROM verdicts WHERE leaf = ? AND picked = 0 AND given = 1", (leaf,)
        ).fetchone()
        for leaf in leaves
    )


def keeps_back(connection: Connection, subject: str, now_ms: int, *, failed: bool) -> bool:
    """Whether a verdict on a subject is made, and neither public nor told to who asked; ``failed``:
    one that says something against it. Also what the log is being given: who is told could be
    bound before it has that."""
    which = " AND (result = 'fail' OR standing = 'failed')" if failed else ""
    row = connection.execute(
        "SELECT 1 FROM verdicts WHERE subject = ? AND number IS NULL AND judged_ms > ? "  # noqa: S608 - ours
        f"AND NOT ({_TOLD}){which} LIMIT 1",
        (subject, now_ms - KEPT_BACK_MS_MAX),
    ).fetchone()
    return row is not None


def keep_back(connection: Connection, leaf: str, *, picked: bool) -> None:
    """Reveal a verdict that nobody else has to be bound to (``reveal_due``) when its turn comes."""
    connection.execute(
        "UPDATE verdicts SET undrawn = 1 WHERE leaf = ? AND picked = ?", (leaf, int(picked))
    )


def reveal_due(connection: Connection, publisher: Publisher, bounds: Bounds) -> int:
    """Reveal what need not be kept back any longer; how many.

    One that says ``fail`` waits longer, for its plant to be opened if it is about one:
    ``plant_wait_ms``, or what the log takes if that is more, and no longer than verdicts wait for
    each other. Those on one subject are revealed in the order they were made in: each says what
    all before it came to. What is about to be withdrawn is not for here (``withdrawing``).
    """
    rows = connection.execute(
        "SELECT leaf, picked, subject, judged_ms, committed_ms, result, undrawn FROM verdicts "
        "WHERE given = 0 AND (committed_ms IS NOT NULL OR undrawn = 1) "
        "ORDER BY judged_ms, leaf LIMIT ?",
        (LOOKED_AT,),
    ).fetchall()
    revealed, since_ms = 0, bounds.now_ms - KEPT_BACK_MS_MAX
    held = set[str]()
    for leaf, picked, subject, judged_ms, committed_ms, result, undrawn in rows:
        if revealed == REVEALED_AT_ONCE:
            break
        drawn = committed_ms is not None and not picked
        if (
            subject in held
            or _waits(connection, subject, judged_ms, leaf, since_ms)
            or (drawn and plant_store.is_unsettled(connection, leaf))
        ):
            held.add(subject)
        elif undrawn or _is_due(connection, leaf, judged_ms, committed_ms, result, bounds):
            reveal(connection, publisher, leaf, picked=bool(picked))
            revealed += 1
        elif judged_ms > since_ms:
            held.add(subject)
    return revealed


def may_be_plants(
    connection: Connection, subject: str, bounds: Bounds, *, until_ms: int
) -> set[str]:
    """Leaves of drawn receipts of a subject that failed up to then, and whose verdicts are kept
    back, for a plant to be opened if they are about one, among other things."""
    rows = connection.execute(
        "SELECT leaf, judged_ms, committed_ms FROM verdicts WHERE subject = ? AND number IS NULL "
        "AND judged_ms > ? AND judged_ms <= ? AND given = 0 AND picked = 0 AND undrawn = 0 "
        "AND result = 'fail' LIMIT ?",
        (subject, bounds.now_ms - KEPT_BACK_MS_MAX, until_ms, LOOKED_AT),
    ).fetchall()
    return {
        leaf
        for leaf, judged_ms, committed_ms in rows
        if committed_ms is None
        or not _is_due(connection, leaf, judged_ms, committed_ms, "fail", bounds)
    }


def _is_due(
    connection: Connection,
    leaf: str,
    judged_ms: int,
    committed_ms: int,
    result: Result,
    bounds: Bounds,
) -> bool:
    """Whether a drawn verdict has been kept back for long enough, all others left aside."""
    others_ms = _seen_ms(connection, leaf)
    waits_ms = 0
    if result == "fail":
        log_ms = OPENING_ROUNDS * (committed_ms - judged_ms)
        waits_ms = min(max(bounds.plant_wait_ms, log_ms), bounds.reveal_after_ms)
    over_ms = committed_ms + bounds.reveal_after_ms
    free_ms = min(over_ms, max([committed_ms, *others_ms])) if others_ms else over_ms
    return (not waits_ms or bounds.followed_ms - free_ms >= waits_ms) and may_reveal(
        committed_ms=committed_ms,
        now_ms=bounds.now_ms,
        another_committed=bool(others_ms),
        reveal_after_ms=bounds.reveal_after_ms,
    )


def _waits(connection: Connection, subject: str, judged_ms: int, leaf: str, since_ms: int) -> bool:
    """Whether one that was made before is kept back."""
    row = connection.execute(
        f"SELECT 1 FROM verdicts WHERE subject = ? AND {_UNSHOWN} "  # noqa: S608 - ours
        "AND (judged_ms, leaf) < (?, ?) LIMIT 1",
        (subject, since_ms, judged_ms, leaf),
    ).fetchone()
    return row is not None


def _seen_ms(connection: Connection, leaf: str) -> list[int]:
    """When others' commitments to verdicts on a receipt were seen in the log. What they are dated
    is their word, and from before they were in it."""
    rows = connection.execute(
        "SELECT seen_ms FROM statements WHERE kind = 'commitment' AND about = ?", (leaf,)
    )
    return [int(row[0]) for row in rows]
