"""The store: durability, isolation inside a group, faults of the disk, and who may open it."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from trunkline.base.errors import ConfigError, CorruptStateError, OverloadedError
from trunkline.runtime import store
from trunkline.runtime.store import Database, DiskError

SCHEMA = "CREATE TABLE item (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def database(path):
    opened = Database.open(path, must_exist=False, migrations=[SCHEMA])
    yield opened
    opened.close()


def insert(name: str, value: int = 0):
    def work(connection) -> str:
        connection.execute("INSERT INTO item VALUES (?, ?)", (name, value))
        return name

    return work


def names(connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM item ORDER BY name")]


async def test_write_then_read(database):
    assert await database.write(insert("a", 1)) == "a"
    assert await database.read(names) == ["a"]


async def test_execute_counts_changes(database):
    changed = await database.execute(
        ("INSERT INTO item VALUES (?, ?)", ("a", 1)),
        ("INSERT INTO item VALUES (?, ?)", ("b", 2)),
        "UPDATE item SET value = value + 1",
    )
    assert changed == 4


async def test_settings_that_durability_rests_on(database):
    def settings(connection) -> tuple[object, ...]:
        return tuple(
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        )

    assert await database.write(settings) == ("wal", 2, 1)


async def test_concurrent_writes_share_commits(database):
    commits = []
    gate = threading.Event()
    await database.write(
        lambda connection: connection.set_trace_callback(
            lambda sql: commits.append(sql) if sql == "COMMIT" else None
        )
    )
    held = asyncio.create_task(database.write(lambda _: gate.wait(10)))
    writes = [asyncio.create_task(database.write(insert(f"{n:03}"))) for n in range(200)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(held, *writes)
    assert len(await database.read(names)) == 200
    # The group that set the callback, the one that was held, and one for all that waited.
    assert len(commits) <= 4


async def test_failing_write_does_not_take_its_neighbours_along(database):
    gate = threading.Event()

    def half(connection) -> None:
        insert("half")(connection)
        raise ValueError("changed my mind")

    held = asyncio.create_task(database.write(lambda _: gate.wait(10)))
    tasks = [
        asyncio.create_task(database.write(work))
        for work in (insert("a"), half, insert("a"), insert("b"))
    ]
    await asyncio.sleep(0)
    gate.set()
    await held
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[0] == "a"
    assert isinstance(results[1], ValueError)
    assert isinstance(results[2], sqlite3.IntegrityError)
    assert results[3] == "b"
    assert await database.read(names) == ["a", "b"]


async def test_stop_iteration_reaches_the_caller(database):
    with pytest.raises(RuntimeError):
        await database.write(lambda _: next(iter(())))
    assert await database.write(insert("after")) == "after"


async def test_write_that_commits_by_itself_stops_the_store(database):
    with pytest.raises(CorruptStateError):
        await database.write(lambda connection: connection.execute("COMMIT"))
    with pytest.raises(CorruptStateError):
        await database.write(insert("a"))


async def test_reads_can_not_write(database):
    with pytest.raises(DiskError):
        await database.read(insert("a"))


async def test_a_read_sees_one_snapshot(database):
    await database.write(insert("a"))
    first, second = threading.Event(), threading.Event()

    def twice(connection) -> tuple[list[str], list[str]]:
        before = names(connection)
        first.set()
        second.wait(10)
        return before, names(connection)

    reading = asyncio.create_task(database.read(twice))
    await asyncio.to_thread(first.wait, 10)
    await database.write(insert("b"))
    second.set()
    assert await reading == (["a"], ["a"])


async def test_queue_is_bounded(database, monkeypatch):
    monkeypatch.setattr(store, "WRITES_QUEUED_MAX", 2)
    gate, running = threading.Event(), threading.Event()

    def hold(_) -> None:
        running.set()
        gate.wait(10)

    held = asyncio.create_task(database.write(hold))
    await asyncio.to_thread(running.wait, 10)
    waiting = [asyncio.create_task(database.write(insert(name))) for name in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError) as caught:
        await database.write(insert("c"))
    assert caught.value.error_code == "store_overloaded"
    gate.set()
    await asyncio.gather(held, *waiting)


async def test_cancelled_caller_does_not_disturb_the_writer(database):
    gate = threading.Event()
    held = asyncio.create_task(database.write(lambda _: gate.wait(10)))
    gone = asyncio.create_task(database.write(insert("gone")))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    gate.set()
    await held
    assert await database.write(insert("b")) == "b"


async def test_full_disk_is_reported_and_survived(database):
    def fill(connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")

    await database.write(fill)

    def large(connection) -> None:
        for n in range(2000):
            insert("x" * 500 + str(n))(connection)

    with pytest.raises(DiskError):
        await database.write(large)
    await database.write(lambda connection: connection.execute("PRAGMA max_page_count=1000000"))
    await database.write(insert("a"))
    assert await database.read(names) == ["a"]


class FailingCommit:
    def __init__(self, inner) -> None:
        self.inner = inner

    def __getattr__(self, name: str):
        return getattr(self.inner, name)

    def execute(self, sql: str, *values):
        if sql == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return self.inner.execute(sql, *values)


async def test_failed_commit_breaks_the_store_until_it_is_reopened(path):
    """Fault twin "failed, and not stored": nobody may be told afterwards that a write is safe."""
    database = Database.open(path, must_exist=False, migrations=[SCHEMA])
    await database.write(insert("before"))
    writer = database._writer

    writer._connection = FailingCommit(writer._connection)
    with pytest.raises(DiskError):
        await database.write(insert("lost"))
    with pytest.raises(DiskError):
        await database.write(insert("after"))
    database.close()
    again = Database.open(path, must_exist=True, migrations=[SCHEMA])
    assert await again.read(names) == ["before"]
    again.close()


@pytest.mark.parametrize("reopens", [False, True])
async def test_what_is_written_to_a_file_that_is_gone_is_not_acknowledged(path, reopens):
    database = Database.open(path, must_exist=False, migrations=[SCHEMA], reopens=reopens)
    try:
        await database.write(insert("kept"))
        away = path.with_name("away")
        path.rename(away)
        for name in ("a", "b"):
            with pytest.raises(DiskError, match="the file is gone"):
                await database.write(insert(name))
        assert not path.exists(), "no empty store in its place"
        away.rename(path)
        if reopens:
            assert await database.write(insert("after")) == "after"
            assert {"kept", "after"} <= set(await database.read(names))
        else:
            with pytest.raises(DiskError):
                await database.write(insert("after"))
    finally:
        database.close()


async def test_who_reads_a_file_that_is_gone_makes_none(path):
    database = Database.open(path, must_exist=False, migrations=[SCHEMA], reopens=True)
    away = path.with_name("away")
    path.rename(away)
    try:
        with pytest.raises(DiskError):
            await database.read(names)
        with pytest.raises(DiskError):
            await database.scrub()
        assert not path.exists()
        away.rename(path)
        assert await database.read(names) == []
    finally:
        database.close()


async def test_another_file_in_its_place_is_what_is_read_and_written(path):
    beside = path.with_name("beside")
    Database.open(beside, must_exist=False, migrations=[SCHEMA]).close()
    database = Database.open(path, must_exist=False, migrations=[SCHEMA], reopens=True)
    try:
        await database.write(insert("old"))
        assert await database.read(names) == ["old"]
        for left in (path, *path.parent.glob(path.name + "-*")):
            left.unlink()
        beside.rename(path)
        with pytest.raises(DiskError):
            await database.write(insert("lost"))
        await database.write(insert("new"))
        assert await database.read(names) == ["new"]
    finally:
        database.close()


async def test_a_store_that_reopens_goes_on_when_the_disk_does(path, monkeypatch):
    database = Database.open(path, must_exist=False, migrations=[SCHEMA], reopens=True)
    await database.write(insert("before"))
    writer = database._writer
    writer._connection = FailingCommit(writer._connection)
    with pytest.raises(DiskError):
        await database.write(insert("lost"))

    def refuse(_path):
        raise sqlite3.OperationalError("unable to open database file")

    with monkeypatch.context() as patched:
        patched.setattr(store, "_connect", refuse)
        with pytest.raises(DiskError):
            await database.write(insert("still"))
    await database.write(insert("after"))
    assert sorted(await database.read(names)) == ["after", "before"]
    database.close()


async def test_close_finishes_what_is_queued_and_refuses_the_rest(path):
    database = Database.open(path, must_exist=False, migrations=[SCHEMA])
    writes = [asyncio.create_task(database.write(insert(str(n)))) for n in range(50)]
    await asyncio.sleep(0)
    await database.aclose()
    await asyncio.gather(*writes)
    with pytest.raises(DiskError) as caught:
        await database.write(insert("late"))
    assert caught.value.error_code == "store_closed"
    database.close()
    again = Database.open(path, must_exist=True, migrations=[SCHEMA])
    assert len(await again.read(names)) == 50
    again.close()


def test_missing_store_is_an_error_and_stays_missing(path):
    with pytest.raises(ConfigError, match="trunkline init"):
        Database.open(path, must_exist=True, migrations=[SCHEMA])
    assert not path.exists()


def test_store_is_private_and_used_by_one_process(path, database):
    assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(ConfigError, match="another process"):
        Database.open(path, must_exist=True, migrations=[SCHEMA])


async def test_a_shared_store_shows_what_others_wrote(path):
    first = Database.open(path, must_exist=False, migrations=[SCHEMA], shared=True)
    second = Database.open(path, must_exist=True, migrations=[SCHEMA], shared=True)
    try:
        for number, writer in enumerate((first, second, first)):
            await writer.write(insert(f"n{number}"))
        for reader in (first, second):
            assert await reader.read(names) == ["n0", "n1", "n2"]
    finally:
        await first.aclose()
        await second.aclose()


def test_opening_a_shared_store_waits_its_turn_but_not_for_ever(path, database, monkeypatch):
    monkeypatch.setattr(store, "BUSY_TIMEOUT_S", 0.05)
    with pytest.raises(ConfigError, match="in use by another process"):
        Database.open(path, must_exist=True, migrations=[SCHEMA], shared=True)


async def test_migrations_are_applied_once_and_in_order(path):
    first = Database.open(path, must_exist=False, migrations=[SCHEMA])
    await first.write(insert("a"))
    first.close()
    more = [SCHEMA, "ALTER TABLE item ADD COLUMN extra TEXT; UPDATE item SET extra = 'x'"]
    second = Database.open(path, must_exist=True, migrations=more)
    rows = await second.read(lambda c: c.execute("SELECT * FROM item").fetchall())
    assert rows == [("a", 0, "x")]
    second.close()
    with pytest.raises(ConfigError, match="newer"):
        Database.open(path, must_exist=True, migrations=[SCHEMA])


def test_failed_migration_leaves_the_version_before(path):
    Database.open(path, must_exist=False, migrations=[SCHEMA]).close()
    with pytest.raises(DiskError):
        Database.open(path, must_exist=True, migrations=[SCHEMA, "CREATE TABLE x (y); nonsense"])
    fixed = Database.open(path, must_exist=True, migrations=[SCHEMA, "CREATE TABLE x (y)"])
    fixed.close()


@pytest.mark.parametrize("content", [b"not a database, but text " * 100, os.urandom(8192)])
def test_damaged_store_stops_the_process(path, content):
    path.write_bytes(content)
    with pytest.raises(CorruptStateError):
        Database.open(path, must_exist=True, migrations=[SCHEMA])


async def test_damage_found_later_stops_the_process(path):
    database = Database.open(path, must_exist=False, migrations=[SCHEMA])
    await database.write(lambda c: [insert(str(n) * 50)(c) for n in range(500)])
    database.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    database = Database.open(path, must_exist=True, migrations=[SCHEMA])
    with pytest.raises(CorruptStateError):
        await database.read(names)
    with pytest.raises(CorruptStateError):
        await database.write(insert("a"))
    database.close()


KILLED = """
import asyncio, sys
from pathlib import Path
from trunkline.runtime.store import Database

async def main():
    database = Database.open(Path(sys.argv[1]), must_exist=False, migrations=[sys.argv[2]])
    async def writer(number):
        count = 0
        while True:
            name = f"{number}.{count}"
            await database.execute(("INSERT INTO item VALUES (?, ?)", (name, count)))
            sys.stdout.write(name + "\\n")
            sys.stdout.flush()
            count += 1
    await asyncio.gather(*(writer(number) for number in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_every_acknowledged_write_survives_a_kill(path, seed):
    process = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-c", KILLED, str(path), SCHEMA],
        stdout=subprocess.PIPE,
        text=True,
    )
    acknowledged = []
    stop_after = random.Random(seed).randrange(20, 400)  # noqa: S311 - a test's seed
    try:
        while len(acknowledged) < stop_after:
            line = await asyncio.to_thread(process.stdout.readline)
            acknowledged.append(line.strip())
    finally:
        process.send_signal(signal.SIGKILL)
        rest = await asyncio.to_thread(process.stdout.read)
        process.stdout.close()
        await asyncio.to_thread(process.wait)
    acknowledged += rest.split("\n")[:-1]
    database = Database.open(path, must_exist=True, migrations=[SCHEMA])
    kept = set(await database.read(names))
    database.close()
    assert len(acknowledged) >= stop_after
    assert set(acknowledged) <= kept
