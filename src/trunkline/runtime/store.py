"""Embedded state: SQLite in WAL mode, one writer thread with group commit, and reader threads.

A write is acknowledged only after the COMMIT that holds it has been fsync'd (``synchronous=FULL``).
Writes that arrive while a commit is under way share the next one, each in a savepoint of its own,
so one that fails does not take its neighbours along. Refuses to create a store unasked, to open
one that another process has open (unless it is made to be shared), one of a newer version, and to
go on after a failed commit: what reached the disk is then unknown, and only reopening tells (by
itself where the room says that it may, else by a new process).

What a crash means: before COMMIT returns, nothing was acknowledged and nothing is there; after it,
everything is. An acknowledgement lost on the way to the caller leaves the write in place, so
callers' writes must be safe to repeat.
"""

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from trunkline.base.errors import ConfigError, CorruptStateError, Error, OverloadedError

T = TypeVar("T")
SqlValue = str | int | float | bytes | None
Statement = str | tuple[str, Sequence[SqlValue]]
Connection = sqlite3.Connection

GROUP_MAX: Final = 512
"""Most writes that share one commit."""
WRITES_QUEUED_MAX: Final = 16_384
READS_RUNNING_MAX: Final = 1_024
READERS: Final = 2
BUSY_TIMEOUT_S: Final = 5.0
OPENING_POLL_S: Final = 0.01

_CORRUPT_CODES: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_DISK_CODES: Final = frozenset(
    {
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
    }
)  # fmt: skip


class DiskError(Error):
    """The disk refused (full, failing, read-only, locked). Nothing of the write was kept, unless
    the message says that the store must be reopened."""

    code = "disk_failed"
    status = 503
    outward = "the disk of this machine refused"


class Database:
    """One store. Its coroutines may be called from any task of the loop that uses it."""

    def __init__(
        self, path: Path, writer: "_Writer", readers: "_Readers", lock: int | None
    ) -> None:
        self._path = path
        self._writer = writer
        self._readers = readers
        self._lock = lock
        self._closed = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        must_exist: bool,
        migrations: Sequence[str],
        shared: bool = False,
        reopens: bool = False,
    ) -> "Database":
        """Open the store at ``path`` and bring it to the newest version.

        ``migrations`` are SQL scripts, oldest first; only ever appended to. ``shared``: other
        processes may have it open too, and what they wrote is seen by the next read. ``reopens``:
        after a failed commit the next write opens the files anew and goes on, for a room that
        keeps nothing in memory of what it wrote: a write that failed may be there after all. Raises
        :class:`ConfigError` if the store is missing (``must_exist``), in use by another process
        or newer than this program, and :class:`CorruptStateError` if it is no sound database.
        """
        if must_exist and not path.exists():
            raise ConfigError(f"{path}: no such store; `trunkline init` creates it")
        lock = _lock(path, patience_s=BUSY_TIMEOUT_S if shared else 0.0)
        try:
            connection = _connect(path)
            try:
                _migrate(path, connection, migrations)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            os.close(lock)
            raise translate(error, path) from None
        except BaseException:
            os.close(lock)
            raise
        if shared:
            # It kept two processes from migrating at once; from here SQLite's own locks do.
            os.close(lock)
        writer = _Writer(path, connection, reopens=reopens)
        return cls(path, writer, _Readers(path), None if shared else lock)

    @property
    def is_broken(self) -> bool:
        """Whether it takes no more writes before it is opened anew."""
        return self._writer.is_broken

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction on the writer thread; returns once it is durable.

        ``work`` must neither commit nor roll back, and should be short. What it raises is raised
        here, and none of its changes is kept. Cancelling the caller does not undo the write.
        Raises :class:`OverloadedError` if too many writes wait, :class:`DiskError` and
        :class:`CorruptStateError` as named there.
        """
        return await self._writer.submit(work)

    async def execute(self, *statements: Statement) -> int:
        """Run statements in one durable transaction; returns how many rows they changed."""
        return await self.write(lambda connection: _execute(connection, statements))

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` on one consistent snapshot that holds every acknowledged write."""
        return await self._readers.submit(work)

    async def scrub(self) -> bool:
        """Move acknowledged writes out of the write-ahead file and empty that, so that what was
        deleted is in neither file. False: a reader was in the way; it is done at the latest by
        :meth:`close`."""
        return await asyncio.get_running_loop().run_in_executor(None, _scrub, self._path)

    def close(self) -> None:
        """Finish the writes already queued and close the files. Blocks; safe to repeat."""
        if self._closed:
            return
        self._closed = True
        self._writer.close()
        self._readers.close()
        if self._lock is not None:
            os.close(self._lock)

    async def aclose(self) -> None:
        """:meth:`close` without blocking the loop."""
        await asyncio.get_running_loop().run_in_executor(None, self.close)


class _Write:
    """One queued write and where its outcome goes."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(
        self, work: Callable[[Connection], object], future: "asyncio.Future[object]"
    ) -> None:
        self.work = work
        self.future = future
        self.result: object = None
        self.error: BaseException | None = None


class _Writer:
    """The one thread that changes the store, and the bounded queue before it."""

    def __init__(self, path: Path, connection: Connection, *, reopens: bool) -> None:
        self._path = path
        self._connection = connection
        self._file = _file_id(path)
        self._reopens = reopens
        self._queue: deque[_Write] = deque()
        self._wakeup = threading.Condition()
        self._closing = False
        self._broken: Error | None = None
        self._thread = threading.Thread(target=self._run, name=f"store.{path.name}", daemon=True)
        self._thread.start()

    async def submit(self, work: Callable[[Connection], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._wakeup:
            if self._broken is not None and not self._mendable:
                raise _again(self._broken)
            if self._closing:
                raise DiskError("the store is closed", code="store_closed")
            if len(self._queue) >= WRITES_QUEUED_MAX:
                raise OverloadedError("too many writes wait for the disk", code="store_overloaded")
            # The queue holds writes of all types; each future gets what its own work returned.
            self._queue.append(_Write(work, future))  # type: ignore[arg-type]
            self._wakeup.notify()
        return await future

    @property
    def is_broken(self) -> bool:
        return (self._broken is not None and not self._mendable) or not self._thread.is_alive()

    def close(self) -> None:
        with self._wakeup:
            self._closing = True
            self._wakeup.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            while group := self._next_group():
                self._commit(group)
                _deliver(group)
        finally:
            self._connection.close()
            self._fail_queued()

    def _next_group(self) -> list[_Write]:
        """The writes for the next commit; empty when closing and nothing is left."""
        with self._wakeup:
            while not self._queue and not self._closing:
                self._wakeup.wait()
            count = min(len(self._queue), GROUP_MAX)
            return [self._queue.popleft() for _ in range(count)]

    def _commit(self, group: list[_Write]) -> None:
        """One transaction for the whole group. Fills in each write's outcome; never raises."""
        try:
            if self._broken is not None:
                self._reopen(self._broken)
            self._connection.execute("BEGIN IMMEDIATE")
            for write in group:
                self._apply(write)
            # A crash before this line keeps nothing of the group, and nobody was told otherwise.
            self._connection.execute("COMMIT")
            # A crash after it keeps all of the group; callers that were not told will repeat.
            # Written to a file that was deleted or moved away it is lost with this process.
            if _file_id(self._path) != self._file:
                raise DiskError(f"{self._path}: the file is gone; put it back, or restore a copy")
        except BaseException as error:  # noqa: BLE001 - every outcome goes to the callers
            failure = self._abandon(error)
            for write in group:
                if write.error is None:
                    write.error = _again(failure) if isinstance(failure, Error) else failure

    @property
    def _mendable(self) -> bool:
        return self._reopens and isinstance(self._broken, DiskError)

    def _reopen(self, broken: Error) -> None:
        """Find out what reached the disk, and go on from there. Raises ``broken`` anew, or what
        the disk says now."""
        if not self._mendable:
            raise _again(broken)
        found = _file_id(self._path)
        if found is None:
            raise _again(broken)
        try:
            connection = _connect(self._path)
        except sqlite3.Error as error:
            raise translate(error, self._path) from None
        self._connection.close()
        self._connection, self._broken, self._file = connection, None, found

    def _apply(self, write: _Write) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT one")
        try:
            write.result = write.work(connection)
            if not connection.in_transaction:
                raise CorruptStateError("a write ended the shared transaction by itself")
        except BaseException as error:
            if not connection.in_transaction:
                # SQLite gave up the whole transaction (disk full, I/O error): the group is lost.
                raise
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
            write.error = _known(error, self._path)
            if isinstance(error, StopIteration):
                # A future refuses to carry it, for it would end an await silently.
                write.error = RuntimeError("a write ran past the end of an iterator")
        else:
            connection.execute("RELEASE one")

    def _abandon(self, error: BaseException) -> BaseException:
        """Undo the group after ``error``. If even that fails, or a commit failed on the disk, the
        store's state is unknown: it takes no more writes until it is reopened."""
        failure = _known(error, self._path)
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            failure = DiskError(f"{self._path}: a commit failed; the store must be reopened")
        recoverable = isinstance(error, sqlite3.Error) and _code(error) in {
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_BUSY,
        }
        if not recoverable and self._broken is None:
            self._broken = (
                failure
                if isinstance(failure, Error)
                else DiskError(f"{self._path}: the writer failed; the store must be reopened")
            )
        return failure

    def _fail_queued(self) -> None:
        with self._wakeup:
            self._closing = True
            left = list(self._queue)
            self._queue.clear()
        for write in left:
            write.error = DiskError("the store is closed", code="store_closed")
        _deliver(left)


def _deliver(group: list[_Write]) -> None:
    """Hand outcomes to their loops: one wake-up per loop, however many writes there are."""
    by_loop: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
    for write in group:
        by_loop.setdefault(write.future.get_loop(), []).append(write)
    for loop, writes in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, writes)
        except RuntimeError:
            # The loop is closed: nobody waits any more, and the writes are durable all the same.
            continue


def _resolve(writes: list[_Write]) -> None:
    for write in writes:
        if write.future.done():
            continue
        if write.error is not None:
            write.future.set_exception(write.error)
        else:
            write.future.set_result(write.result)


class _Readers:
    """A few threads, each with a connection that can not write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._opened: list[Connection] = []
        self._running = 0
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix=f"store.{path.name}.read")

    async def submit(self, work: Callable[[Connection], T]) -> T:
        if self._running >= READS_RUNNING_MAX:
            raise OverloadedError("too many reads wait for the disk", code="store_overloaded")
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._read, work)
        finally:
            self._running -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for connection in self._opened:
            connection.close()

    def _read(self, work: Callable[[Connection], T]) -> T:
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise _known(error, self._path) from None

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        file = _file_id(self._path)
        # Another file in its place is what the writer goes on with. Where there is none, the old
        # one is still read.
        if connection is None or file not in (None, self._local.file):
            connection = _connect(self._path)
            connection.execute("PRAGMA query_only=ON")
            self._local.connection, self._local.file = connection, file
            self._opened.append(connection)
        return connection


def translate(error: sqlite3.Error, path: Path) -> Error:
    """What an SQLite failure of the disk means to us."""
    if _code(error) in _CORRUPT_CODES:
        return CorruptStateError(f"{path}: the store is damaged ({error}); restore a copy")
    return DiskError(f"{path}: {error}")


def _known(error: BaseException, path: Path) -> BaseException:
    """``error`` in our terms if the disk is at fault; unchanged if the work itself is (such as a
    constraint that the caller provoked on purpose)."""
    if isinstance(error, sqlite3.Error) and _code(error) in _DISK_CODES | _CORRUPT_CODES:
        return translate(error, path)
    return error


def _again(error: Error) -> Error:
    """A fresh exception saying the same: one instance must not be raised in several tasks."""
    return type(error)(error.message, code=error.error_code)


def _code(error: sqlite3.Error) -> int:
    """The primary result code; 0 where SQLite gave none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _file_id(path: Path) -> tuple[int, int] | None:
    """Which file is at ``path`` now; None: none that can be seen."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _opened(path: Path) -> Connection:
    # Never makes a file (``_lock`` does, once): one that is gone must not seem to be empty.
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def _connect(path: Path) -> Connection:
    connection = _opened(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _scrub(path: Path) -> bool:
    try:
        with closing(_opened(path)) as connection:
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return int(busy) == 0
    except sqlite3.Error as error:
        raise translate(error, path) from None


def _lock(path: Path, *, patience_s: float) -> int:
    """Hold the store for this process. The kernel lets go when the process dies."""
    deadline = time.monotonic() + patience_s
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The store's own file is made here so that only its owner can read it.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise ConfigError(f"{path}: can not be opened: {error.strerror}") from None
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline:
                os.close(lock)
                message = f"{path}: in use by another process; stop that one first"
                raise ConfigError(message) from None
            time.sleep(OPENING_POLL_S)
        else:
            return lock


def _migrate(path: Path, connection: Connection, migrations: Sequence[str]) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(migrations):
        raise ConfigError(
            f"{path}: the store has version {version}, this program knows {len(migrations)}; "
            "run the newer program"
        )
    for number, script in enumerate(migrations[version:], start=version + 1):
        # One transaction each: a crash leaves the store at a version, never between two.
        try:
            connection.executescript(f"BEGIN; {script}; PRAGMA user_version={number}; COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _execute(connection: Connection, statements: Sequence[Statement]) -> int:
    changed = connection.total_changes
    for statement in statements:
        if isinstance(statement, str):
            connection.execute(statement)
        else:
            connection.execute(*statement)
    return connection.total_changes - changed
