"""What a node dates batches and statements by: its clock, which never goes back here.

``docs/spec/verdict.md``, "Terms": which statement holds for a batch is told by their dates, however
late the log has it. So a statement is dated after every batch that was signed before it, and no
batch before a statement that it follows, also where the clock was set back or the process is
another. A clock that was ahead makes the dates stand still until it is there again.
"""

from typing import Final

from trunkline.base.ports import Clock
from trunkline.crypto import note as notes
from trunkline.node import terms_store
from trunkline.runtime.store import Connection
from trunkline.verdicts import Terms

SCHEMA: Final = """
CREATE TABLE self_test_dated (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    unix_ms INTEGER NOT NULL
) STRICT;
"""
"""One migration of ``node.db``: what is left here of a self-test once the log has it."""


class Dates:
    """The node's :class:`Clock` for what it signs. Belongs to one event loop."""

    __slots__ = ("_clock", "_last_ms")

    def __init__(self, clock: Clock, last_ms: int) -> None:
        """``last_ms``: of what an earlier process signed (:func:`last_dated`)."""
        self._clock = clock
        self._last_ms = last_ms

    def unix_ms(self) -> int:
        """A batch's date."""
        self._last_ms = max(self._last_ms, self._clock.unix_ms())
        return self._last_ms

    def next_ms(self) -> int:
        """A statement's: later than every date before it."""
        self._last_ms = max(self._last_ms + 1, self._clock.unix_ms())
        return self._last_ms

    def monotonic_s(self) -> float:
        """The clock's."""
        return self._clock.monotonic_s()


def keep_self_test(connection: Connection, unix_ms: int) -> None:
    """Remember the date of the last self-test."""
    connection.execute(
        "INSERT INTO self_test_dated VALUES (1, ?) "
        "ON CONFLICT (one) DO UPDATE SET unix_ms = excluded.unix_ms",
        (unix_ms,),
    )


def last_dated(connection: Connection) -> int:
    """The latest date that the store knows of: of its last batch, self-test, or terms."""
    signed = connection.execute(
        "SELECT batches.signed_ms FROM head JOIN batches ON batches.number = head.batch"
    ).fetchone()
    tested = connection.execute("SELECT unix_ms FROM self_test_dated").fetchone()
    stated = (Terms.parse(notes.parse(note).text) for _, note in terms_store.stated(connection))
    dates = [int(row[0]) for row in (signed, tested) if row is not None]
    return max([*dates, *(terms.unix_ms for terms in stated)], default=0)
