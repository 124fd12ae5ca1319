"""What was said, as far as it is kept: which of it is published, and how it is forgotten.

Tables of the evidence store's file. An answer in mode ``full`` is published: anybody finds its
evidence file, bodies and salts included, under the hash of the receipt's leaf
(``docs/spec/receipt.md``, "Modes"). Forgetting an answer takes away all that opens its receipt:
bodies, the secret of the salts, what a repeated request would be shown. The receipt, its place in
the log and everybody else's evidence stay as they are.
"""

from typing import Final

import msgspec

from trunkline.receipts import Receipt, decode, receipt_leaf
from trunkline.runtime.store import Connection, Database
from trunkline.schema.attempt import SignedReceipt

PUBLISHED_SCHEMA: Final = """
CREATE TABLE published (
    leaf BLOB PRIMARY KEY,
    answer TEXT NOT NULL REFERENCES answers (answer),
    created_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX published_by_time ON published (created_ms);
"""


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """One published answer."""

    leaf: str
    """Hash of the receipt's leaf in its batch, hex: the address of what is published."""
    answer: str
    created_ms: int


class ContentStore:
    """Typed access to what is kept of content."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def published(self, leaf: bytes) -> str | None:
        """The answer that is published under this address."""

        def work(connection: Connection) -> str | None:
            query = "SELECT answer FROM published WHERE leaf = ?"
            row = connection.execute(query, (leaf,)).fetchone()
            return None if row is None else str(row[0])

        return await self._database.read(work)

    async def newest(self, limit: int) -> list[Publication]:
        """What was published last, newest first."""

        def work(connection: Connection) -> list[Publication]:
            rows = connection.execute(
                "SELECT leaf, answer, created_ms FROM published"
                " ORDER BY created_ms DESC, leaf LIMIT ?",
                (max(0, limit),),
            )
            return [
                Publication(leaf=leaf.hex(), answer=answer, created_ms=created_ms)
                for leaf, answer, created_ms in rows
            ]

        return await self._database.read(work)

    async def forget(self, answer: str) -> bool:
        """Delete what was said in an answer and what would open its receipt; whether there is such
        an answer. Deleted bytes are overwritten in the file."""

        def work(connection: Connection) -> bool:
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute("DELETE FROM published WHERE answer = ?", (answer,))
            connection.execute("DELETE FROM claims WHERE answer = ?", (answer,))
            parts = "UPDATE parts SET bodies = NULL WHERE answer = ?"
            return connection.execute(parts, (answer,)).rowcount > 0

        found = await self._database.write(work)
        # The words are in the write-ahead file still, where they were written first.
        await self._database.scrub()
        return found


def publish(connection: Connection, signed: SignedReceipt, created_ms: int) -> None:
    """Publish a stored answer if its receipt says so: part of the transaction that stores it."""
    receipt = receipt_of(signed)
    if receipt.policy.mode == "full":
        leaf = receipt_leaf(signed.receipt.encode())
        connection.execute(
            "INSERT INTO published VALUES (?, ?, ?)", (leaf, receipt.answer, created_ms)
        )


def receipt_of(signed: SignedReceipt) -> Receipt:
    """The receipt in the store; it was verified before it was stored."""
    return decode(signed.receipt.encode())
