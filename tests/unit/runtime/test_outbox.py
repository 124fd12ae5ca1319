"""The outbox: at least once, each key once in the queue, nothing dropped, bounded pressure."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from trunkline.base.errors import ConnectError, RequestError, UpstreamError
from trunkline.runtime import outbox
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.outbox import Outbox, OutboxPolicy
from trunkline.runtime.store import Database, DiskError

DONE = "CREATE TABLE done (key TEXT PRIMARY KEY, result TEXT NOT NULL) STRICT;"
FAST = OutboxPolicy(backoff_s_min=0.002, backoff_s_max=0.02, delivery_timeout_s=5.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


@pytest.fixture
def database(path):
    opened = Database.open(path, must_exist=False, migrations=[outbox.SCHEMA, DONE])
    yield opened
    opened.close()


def record(connection, key, result) -> None:
    connection.execute("INSERT OR REPLACE INTO done VALUES (?, ?)", (key, result))


async def done(database) -> dict[str, str]:
    return await database.read(lambda c: dict(c.execute("SELECT * FROM done").fetchall()))


@asynccontextmanager
async def running(queue: Outbox):
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


@pytest.fixture
def make(database, logger, randomness):
    def made(deliver, *, policy=FAST, clock=None, on_delivered=record) -> Outbox:
        return Outbox(
            database,
            "log",
            deliver,
            clock=clock or SystemClock(),
            randomness=randomness,
            logger=logger,
            on_delivered=on_delivered,
            policy=policy,
        )

    return made


async def drain(queue: Outbox) -> None:
    async with running(queue), asyncio.timeout(120):
        await queue.drained()


async def test_everything_is_delivered_and_recorded(database, make):
    seen = Counter()

    async def deliver(key, payload) -> str:
        seen[key] += 1
        return payload.decode().upper()

    queue = make(deliver)
    async with running(queue), asyncio.timeout(120):
        for n in range(200):
            await database.write(lambda c, n=n: queue.enqueue(c, f"k{n}", b"p%d" % n))
        await queue.drained()
    assert await done(database) == {f"k{n}": f"P{n}" for n in range(200)}
    assert set(seen.values()) == {1}
    counts = await queue.counts()
    assert (counts.waiting, counts.refused, counts.delivered, counts.failed) == (0, 0, 200, 0)


async def test_a_key_is_queued_once_and_its_first_payload_stands(database, make):
    async def deliver(key, payload) -> str:
        return payload.decode()

    queue = make(deliver)
    results = [
        await database.write(lambda c, p=payload: queue.enqueue(c, "k", p))
        for payload in (b"first", b"second")
    ]
    assert results == [True, False]
    await drain(queue)
    assert await done(database) == {"k": "first"}


async def test_an_enqueue_that_is_rolled_back_is_never_delivered(database, make):
    async def deliver(key, payload) -> str:
        return key

    queue = make(deliver)

    def fails(connection) -> None:
        queue.enqueue(connection, "never", b"")
        raise ValueError

    async with running(queue), asyncio.timeout(120):
        with pytest.raises(ValueError):
            await database.write(fails)
        await database.write(lambda c: queue.enqueue(c, "k", b""))
        await queue.drained()
    assert await done(database) == {"k": "k"}


async def test_failures_are_retried_until_they_pass(database, make, lines):
    tries = Counter()

    async def deliver(key, payload) -> str:
        tries[key] += 1
        if tries[key] < 4:
            raise ConnectError("secret words") if key == "a" else OSError("secret words")
        return key

    queue = make(deliver)
    for key in "ab":
        await database.write(lambda c, key=key: queue.enqueue(c, key, b""))
    await drain(queue)
    assert tries == {"a": 4, "b": 4}
    assert await done(database) == {"a": "a", "b": "b"}
    assert lines.events().count("delivery.failed") == 6
    assert "secret words" not in str(lines)


async def test_a_hanging_delivery_is_cut_off_and_retried(database, make):
    tries = 0

    async def deliver(key, payload) -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            await asyncio.Event().wait()
        return key

    policy = OutboxPolicy(backoff_s_min=0.002, backoff_s_max=0.02, delivery_timeout_s=0.02)
    queue = make(deliver, policy=policy)
    await database.write(lambda c: queue.enqueue(c, "k", b""))
    await drain(queue)
    assert tries == 2


@pytest.mark.parametrize(
    "error", [RequestError("no"), UpstreamError("no", code="upstream_rejected", retryable=False)]
)
async def test_a_refused_entry_is_set_aside_and_kept(database, make, error, lines):
    async def deliver(key, payload) -> str:
        if key == "bad":
            raise error
        return key

    queue = make(deliver)
    for key in ("bad", "good"):
        await database.write(lambda c, key=key: queue.enqueue(c, key, b"payload"))
    await drain(queue)
    counts = await queue.counts()
    assert (counts.waiting, counts.refused, counts.delivered) == (0, 1, 1)
    rows = await database.read(
        lambda c: c.execute("SELECT key, payload, refused FROM outbox").fetchall()
    )
    assert rows == [("bad", b"payload", error.error_code)]
    assert "delivery.refused" in lines.events()


async def test_one_bad_entry_does_not_hold_up_the_others(database, make):
    passed = asyncio.Event()

    async def deliver(key, payload) -> str:
        if key == "000":
            raise ConnectError("always")
        if key == "099":
            passed.set()
        return key

    queue = make(deliver)
    for n in range(100):
        await database.write(lambda c, n=n: queue.enqueue(c, f"{n:03}", b""))
    async with running(queue), asyncio.timeout(120):
        await passed.wait()
    assert (await queue.counts()).refused == 0


async def test_retry_after_is_honoured_within_the_bound(database, make, clock):
    tried = asyncio.Event()

    async def deliver(key, payload) -> str:
        tried.set()
        raise ConnectError("later", retry_after_s=7.5)

    policy = OutboxPolicy(backoff_s_min=0.1, backoff_s_max=10.0)
    queue = make(deliver, clock=clock, policy=policy)
    await database.write(lambda c: queue.enqueue(c, "k", b""))
    async with running(queue), asyncio.timeout(120):
        await tried.wait()
        due = None
        while not due:
            due = await database.read(
                lambda c: c.execute("SELECT due_ms FROM outbox").fetchone()[0]
            )
    assert due == clock.now_ms + 7500


async def test_wall_time_stepping_back_does_not_strand_an_entry(database, make, clock):
    async def deliver(key, payload) -> str:
        return key

    queue = make(deliver, clock=clock)
    await database.write(lambda c: queue.enqueue(c, "k", b""))
    await database.execute(("UPDATE outbox SET due_ms = ?", (clock.now_ms + 3_600_000,)))
    await drain(queue)
    assert await done(database) == {"k": "k"}


async def test_entries_survive_a_restart(database, make):
    async def never(key, payload) -> str:
        await asyncio.Event().wait()
        return key

    async def deliver(key, payload) -> str:
        return key

    queue = make(never)
    async with running(queue):
        await database.write(lambda c: queue.enqueue(c, "k", b""))
    await drain(make(deliver))
    assert await done(database) == {"k": "k"}


async def test_delivered_but_not_recorded_is_delivered_again(database, make, lines):
    """The fault twin of a failed delivery: it arrived, and we could not write that down."""
    recordings = 0
    deliveries = 0

    async def deliver(key, payload) -> str:
        nonlocal deliveries
        deliveries += 1
        return key

    def failing_record(connection, key, result) -> None:
        nonlocal recordings
        recordings += 1
        if recordings == 1:
            raise DiskError("disk full")
        record(connection, key, result)

    queue = make(deliver, on_delivered=failing_record)
    await database.write(lambda c: queue.enqueue(c, "k", b""))
    await drain(queue)
    assert deliveries == 2
    assert await done(database) == {"k": "k"}
    assert "delivery.unrecorded" in lines.events()


async def test_concurrency_is_bounded(database, make):
    now = most = 0

    async def deliver(key, payload) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        for _ in range(5):
            await asyncio.sleep(0)
        now -= 1
        return key

    queue = make(deliver, policy=OutboxPolicy(concurrency=3))
    await database.write(lambda c: [queue.enqueue(c, str(n), b"") for n in range(50)])
    await drain(queue)
    assert most == 3


async def test_two_queues_in_one_store_do_not_mix(database, make, logger, randomness):
    async def deliver(key, payload) -> str:
        return key

    first = make(deliver)
    second = Outbox(
        database, "other", deliver, clock=SystemClock(), randomness=randomness, logger=logger
    )
    await database.write(lambda c: (first.enqueue(c, "k", b"1"), second.enqueue(c, "k", b"2")))
    await drain(first)
    assert (await second.counts()).waiting == 1


@pytest.mark.parametrize("outcome", ["delivered", "refused", "failed"])
async def test_what_another_process_has_delivered_takes_no_later_entry_with_it(
    database, make, outcome
):
    """Two processes share the store, and a number that is free is given out again."""
    taken, let = asyncio.Event(), asyncio.Event()

    async def slowly(key, payload) -> str:
        if key == "second":
            await asyncio.Event().wait()
        taken.set()
        await let.wait()
        if outcome == "refused":
            raise RequestError("no")
        if outcome == "failed":
            raise ConnectError("away", code="upstream_refused")
        return "slow"

    async def at_once(key, payload) -> str:
        return "quick"

    slow, quick = make(slowly), make(at_once)
    await database.write(lambda c: slow.enqueue(c, "first", b""))
    async with asyncio.timeout(120):
        async with running(slow):
            await taken.wait()
            await drain(quick)
            await database.write(lambda c: quick.enqueue(c, "second", b""))
            let.set()
            while not (counts := await slow.counts()).delivered + counts.failed:
                continue
            # What it does about its entry is written before this.
            await database.write(lambda c: None)
            rows = await database.read(
                lambda c: c.execute("SELECT key, attempts, refused FROM outbox").fetchall()
            )
        assert rows == [("second", 0, None)]
        await drain(quick)
    assert await done(database) == {"first": "quick", "second": "quick"}
