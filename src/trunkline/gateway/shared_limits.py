"""Limits shared between the gateways of one machine: a small file through which they take turns.

While one gateway decides what starts, no other does; each reads what the others did since its last
turn, and adds what it did (``core.facts``). So the sum of what they start stays inside every limit
that one of them alone would keep. SQLite in WAL mode, never fsync'd: the file may be lost at any
time, and then each gateway goes on with what it knows until the file is there again. A gateway that
dies in its turn loses it with its lock; one that dies at all is known by its lease.

It refuses to wait long for a turn: whoever holds one holds it for less than a millisecond, or is
stopped, and then this gateway decides alone until it can have its turn again.
"""

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from trunkline.base.ports import Clock, Randomness
from trunkline.gateway.core.facts import Fact, Heard
from trunkline.runtime.logger import Logger

BUSY_TIMEOUT_S: Final = 0.05
BEAT_S: Final = 1.0
"""How often a gateway that runs anything says that it lives."""
LEASE_S: Final = 5.0
KEPT_S: Final = 120.0
"""How far back one that joins can read: longer than the windows that operators write down. Longer
ones are known by what their providers state."""
PRUNE_S: Final = 10.0
AGAIN_S: Final = 10.0
"""After the file failed, it is tried again so much later."""
PENDING_MAX: Final = 10_000
"""Facts kept while the file can not be written; the oldest go first."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS facts (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, teller INTEGER NOT NULL, at_ms INTEGER NOT NULL,
  fact BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS tellers (teller INTEGER PRIMARY KEY, alive_ms INTEGER NOT NULL);
"""
_decode: Final = msgspec.msgpack.Decoder(Fact).decode
_encode: Final = msgspec.msgpack.Encoder().encode


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What a turn begins with."""

    heard: tuple[Heard, ...] = ()
    alive: frozenset[int] | None = None
    """Gateways whose lease is good; None: not known now."""


class SharedLimits(Protocol):
    """Takes turns with the other gateways. Belongs to one event loop."""

    def begin(self) -> News:
        """Take the turn: nobody else decides before :meth:`end`. Never fails: without a turn, the
        gateway decides by what it knows."""
        ...

    def end(self, facts: Sequence[Fact]) -> None:
        """Say what happened in it, and give it up."""
        ...

    def close(self) -> None:
        """Leave."""
        ...


class SharedFile:
    """:class:`SharedLimits` by a file."""

    def __init__(self, path: Path, *, clock: Clock, randomness: Randomness, logger: Logger) -> None:
        self._path = path
        self._clock = clock
        self._logger = logger
        # A process that was started anew is another teller: what its forerunner ran has ended.
        self._teller = int.from_bytes(randomness.token(7), "big")
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._seen = 0
        self._pending: list[tuple[int, Fact]] = []
        self._beat_s = self._pruned_s = self._again_s = float("-inf")
        self._alone = False

    def begin(self) -> News:
        """See :meth:`SharedLimits.begin`."""
        now_s, now_ms = self._clock.monotonic_s(), self._clock.unix_ms()
        try:
            connection = self._opened(now_s)
            if connection is None:
                return News()
            connection.execute("BEGIN IMMEDIATE")
            self._upkeep(connection, now_s, now_ms)
            news = self._news(connection, now_s, now_ms)
        except (sqlite3.Error, OSError) as error:
            self._failed(error, now_s)
            return News()
        if self._alone:
            self._alone = False
            self._logger.info("limits.shared", file=str(self._path))
        return news

    def end(self, facts: Sequence[Fact]) -> None:
        """See :meth:`SharedLimits.end`."""
        now_ms = self._clock.unix_ms()
        self._pending += [(now_ms, fact) for fact in facts]
        connection = self._connection
        if connection is None or not connection.in_transaction:
            del self._pending[:-PENDING_MAX]
            return
        try:
            if self._pending:
                connection.executemany(
                    "INSERT INTO facts (teller, at_ms, fact) VALUES (?, ?, ?)",
                    [(self._teller, at_ms, _encode(fact)) for at_ms, fact in self._pending],
                )
            # A crash before this line tells nobody: what was started then is over with the crash.
            connection.execute("COMMIT")
            self._pending.clear()
        except sqlite3.Error as error:
            self._failed(error, self._clock.monotonic_s())

    def close(self) -> None:
        """See :meth:`SharedLimits.close`."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.execute("DELETE FROM tellers WHERE teller = ?", (self._teller,))
        except sqlite3.Error:
            # Its lease says the same a little later.
            return
        finally:
            connection.close()

    def _opened(self, now_s: float) -> sqlite3.Connection | None:
        if self._connection is None and now_s >= self._again_s:
            # Made here, so that at no time anybody but its owner can open it.
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._connection = connection
            self._inode = self._path.stat().st_ino
            self._path.chmod(0o600)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=OFF")
            connection.executescript(_SCHEMA)
            self._seen, self._beat_s = 0, float("-inf")
        return self._connection

    def _upkeep(self, connection: sqlite3.Connection, now_s: float, now_ms: int) -> None:
        if now_s - self._beat_s >= BEAT_S:
            self._beat_s = now_s
            connection.execute("REPLACE INTO tellers VALUES (?, ?)", (self._teller, now_ms))
        if now_s - self._pruned_s >= PRUNE_S:
            self._pruned_s = now_s
            # A clock that was set back must not keep facts for ever, nor one set forward drop all.
            connection.execute(
                "DELETE FROM facts WHERE at_ms NOT BETWEEN ? AND ?",
                (now_ms - int(KEPT_S * 1000), now_ms + int(KEPT_S * 1000)),
            )
            connection.execute(
                "DELETE FROM tellers WHERE alive_ms < ?", (now_ms - int(KEPT_S * 1000),)
            )

    def _news(self, connection: sqlite3.Connection, now_s: float, now_ms: int) -> News:
        rows = connection.execute(
            "SELECT seq, teller, at_ms, fact FROM facts WHERE seq > ? ORDER BY seq", (self._seen,)
        ).fetchall()
        alive = connection.execute(
            "SELECT teller FROM tellers WHERE alive_ms > ?", (now_ms - int(LEASE_S * 1000),)
        ).fetchall()
        heard = []
        for seq, teller, at_ms, fact in rows:
            self._seen = seq
            if teller == self._teller:
                continue
            try:
                known = _decode(fact)
            except msgspec.DecodeError:
                # A gateway of another version says what this one has no word for.
                continue
            ago_s = min(max(now_ms - at_ms, 0) / 1000, KEPT_S)
            heard.append(Heard(teller=teller, at_s=now_s - ago_s, fact=known))
        return News(heard=tuple(heard), alive=frozenset(teller for (teller,) in alive))

    def _failed(self, error: Exception, now_s: float) -> None:
        """Go on alone. A turn that somebody else holds is asked for again at once; a file that is
        no database any more is put aside, unless another gateway has done so."""
        connection = self._connection
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if not self._alone:
            self._alone = True
            self._logger.warning("limits.alone", file=str(self._path), reason=str(error))
        if connection is not None and connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                code = code or sqlite3.SQLITE_IOERR
        if code == sqlite3.SQLITE_BUSY:
            return
        self._again_s = now_s + AGAIN_S
        self._connection = None
        if connection is not None:
            connection.close()
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self._put_aside()

    def _put_aside(self) -> None:
        try:
            if self._path.stat().st_ino == self._inode:
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        except OSError:
            # Gone already, or not ours to remove: it is tried again later as it is.
            return
