"""What the node has said of its audits, in its store: the terms that it still has to keep to.

One table of ``node.db``. The notes are kept as they were signed; how they are read is ``terms``.
"""

from collections.abc import Iterable
from typing import Final

from trunkline.runtime.store import Connection

SCHEMA: Final = """
CREATE TABLE terms (number INTEGER PRIMARY KEY, note BLOB NOT NULL) STRICT;
"""


def stated(connection: Connection) -> list[tuple[int, bytes]]:
    """``(number, note)`` of what was said, oldest first."""
    return connection.execute("SELECT number, note FROM terms ORDER BY number").fetchall()


def insert(connection: Connection, note: bytes) -> None:
    connection.execute("INSERT INTO terms (note) VALUES (?)", (note,))


def delete(connection: Connection, numbers: Iterable[int]) -> None:
    """Forget what the node need not keep to any more."""
    connection.executemany("DELETE FROM terms WHERE number = ?", [(one,) for one in numbers])
