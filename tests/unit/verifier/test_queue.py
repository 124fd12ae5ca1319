"""The queue between processes: one holder at a time, nothing lost, nothing done by who lost it."""

import pytest
from tests.support.toy_network import LAMBDA

from trunkline.base.errors import ConflictError
from trunkline.runtime.clock import SystemRandomness
from trunkline.verifier import queue, store
from trunkline.verifier.queue import SqliteQueue

LEASE_MS = 30_000


class HandClock:
    """Stands until it is set."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000

    def unix_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
async def both(database, tmp_path, clock):
    """Two processes' queues over one store."""
    other = store.open_store(tmp_path)
    yield [
        SqliteQueue(one, clock=clock, randomness=SystemRandomness(), lease_ms=LEASE_MS)
        for one in (database, other)
    ]
    await other.aclose()


async def put(database, positions, *, logged=True) -> int:
    def work(connection) -> int:
        connection.execute(
            "INSERT INTO draws (key, first, last, digest, note, entry) VALUES (?, 0, 1, 'd', ?, ?) "
            "ON CONFLICT DO NOTHING",
            (str(LAMBDA.vkey), b"draw", 3 if logged else None),
        )
        return queue.enqueue(
            connection, root=b"r" * 32, positions=positions, entry=1, node="node", draw=1
        )

    return await database.write(work)


async def test_each_audit_has_one_holder(database, both):
    await put(database, [0, 1])
    first, second = [await one.take() for one in both]

    assert {first.position, second.position} == {0, 1}
    assert await both[0].take() is None


async def test_a_receipt_is_queued_once_whatever_draws_it(database, both):
    await put(database, [0])
    await put(database, [0])

    assert await both[0].take() is not None
    assert await both[1].take() is None


async def test_nothing_is_asked_for_before_the_log_has_the_draw(database, both):
    await put(database, [0], logged=False)

    assert await both[0].take() is None


async def test_what_a_dead_process_held_is_taken_up_when_its_lease_is_over(database, both, clock):
    await put(database, [0])
    lost = await both[0].take()
    clock.now_ms += LEASE_MS
    taken = await both[1].take()

    assert taken.number == lost.number
    with pytest.raises(ConflictError):
        await both[0].opened(lost, b"late")
    with pytest.raises(ConflictError):
        await both[0].drop(lost)
    with pytest.raises(ConflictError):
        await both[0].keep(lost)
    await both[1].opened(taken, b"opening")


async def test_a_lease_that_is_kept_is_not_taken(database, both, clock):
    await put(database, [0])
    held = await both[0].take()
    clock.now_ms += LEASE_MS - 1
    await both[0].keep(held)
    clock.now_ms += LEASE_MS - 1

    assert await both[1].take() is None


async def test_what_was_opened_is_not_asked_for_again(database, both, clock):
    await put(database, [0])
    held = await both[0].take()
    await both[0].opened(held, b"opening")
    clock.now_ms += LEASE_MS

    assert (await both[1].take()).opening == b"opening"


async def test_what_is_put_off_comes_back_when_it_is_due(database, both, clock):
    await put(database, [0])
    held = await both[0].take()
    await both[0].put_off(held, due_ms=clock.now_ms + 500, asked_ms=7, refused="later")

    assert await both[1].take() is None
    clock.now_ms += 500
    again = await both[1].take()
    assert (again.asked_ms, again.refused, again.attempts) == (7, "later", 1)


async def test_what_finds_no_place_is_counted(database, both, monkeypatch):
    monkeypatch.setattr(queue, "WAITING_MAX", 3)

    assert await put(database, [0, 1, 2, 3, 4]) == 2
