"""Gateways that share limits through a file: turns, leases, and a file that goes away."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.limited import deployment, need

from trunkline.gateway.core.facts import Began, Left, Stated
from trunkline.gateway.core.policy import KeyPolicy, LimitsPolicy, RoutingPolicy
from trunkline.gateway.core.quota import Cost
from trunkline.gateway.core.slots import End
from trunkline.gateway.core.tenant import Tenant
from trunkline.gateway.core.ticket import Outcome, Ticket
from trunkline.gateway.dispatcher import Lease, QueueDispatcher
from trunkline.gateway.shared_limits import AGAIN_S, LEASE_S, SharedFile
from trunkline.runtime.clock import SystemRandomness
from trunkline.runtime.logger import get_logger
from trunkline.schema.attempt import Limits, Quota

A = deployment("a")
BEGAN = Began(number=1, place=A.place, tenant="t", cost=Cost(input_tokens=3))
DONE = Outcome(tokens=10, prompt_tokens=4)
TENANT = Tenant(id="ten_a", name="ann")


class SetClock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def unix_ms(self) -> int:
        return 1_780_000_000_000 + int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


def opened(path: Path, clock: SetClock) -> SharedFile:
    return SharedFile(
        path, clock=clock, randomness=SystemRandomness(), logger=get_logger("gateway")
    )


def gateway(
    path: Path, clock: SetClock, policy: Callable[[], RoutingPolicy] = RoutingPolicy
) -> QueueDispatcher:
    return QueueDispatcher(
        lambda _: (A,),
        ["a"],
        policy,
        clock=clock,
        waiting_max=10,
        waiting_bytes_max=1 << 20,
        shared=opened(path, clock),
    )


def ticket(clock: SetClock) -> Ticket:
    return Ticket(
        answer="ans",
        tenant=TENANT,
        priority=0,
        deadline_s=clock.now_s + 600,
        tokens=10,
        prompt_tokens=4,
    )


async def place(queue: QueueDispatcher, clock: SetClock) -> Lease | None:
    """A place, if there is one now."""
    task = asyncio.create_task(queue.place(need(), ticket(clock)))
    await asyncio.sleep(0)
    if not task.done():
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return None
    return task.result()


def test_each_hears_what_the_others_did_once_and_in_order(tmp_path: Path) -> None:
    clock = SetClock()
    one, two = opened(tmp_path / "limits.db", clock), opened(tmp_path / "limits.db", clock)
    assert one.begin().heard == ()
    limits = Limits(quotas=(Quota(unit="requests", limit=5),))
    told = [BEGAN, Stated(place=A.place, limits=limits), Left(number=1, end=End(how="ok"))]
    one.end(told)
    clock.now_s += 2.0
    news = two.begin()
    assert [heard.fact for heard in news.heard] == told
    assert {heard.at_s for heard in news.heard} == {1000.0}
    assert news.alive is not None
    assert len(news.alive) == 2
    two.end([])
    assert two.begin().heard == ()
    two.end([])
    assert one.begin().heard == ()
    one.end([])
    one.close()
    two.close()


def test_a_turn_that_another_holds_is_not_waited_for_long(tmp_path: Path) -> None:
    clock = SetClock()
    one, two = opened(tmp_path / "limits.db", clock), opened(tmp_path / "limits.db", clock)
    two.begin()
    two.end([])
    one.begin()
    began_s = time.monotonic()
    assert two.begin().alive is None
    # Without a limit of its own it would be what the library waits for: 5 seconds.
    assert time.monotonic() - began_s < 4.0
    two.end([BEGAN])
    one.end([])
    # What could not be said then is said in the next turn.
    two.begin()
    two.end([])
    assert [heard.fact for heard in one.begin().heard] == [BEGAN]
    one.end([])
    one.close()
    two.close()


@pytest.mark.parametrize("damage", ["overwritten", "a folder"])
def test_a_file_that_is_none_leaves_each_alone_until_it_is_one_again(
    tmp_path: Path, damage: str
) -> None:
    clock, path = SetClock(), tmp_path / "limits.db"
    if damage == "a folder":
        path.mkdir()
    else:
        path.write_bytes(b"this is no database " * 400)
    one = opened(path, clock)
    assert one.begin().alive is None
    one.end([BEGAN])
    if damage == "a folder":
        path.rmdir()
    clock.now_s += AGAIN_S
    assert one.begin().alive is not None
    one.end([])
    two = opened(path, clock)
    assert [heard.fact for heard in two.begin().heard] == [BEGAN]
    two.end([])
    one.close()
    two.close()


def test_what_another_version_says_is_passed_over(tmp_path: Path) -> None:
    clock, path = SetClock(), tmp_path / "limits.db"
    one = opened(path, clock)
    one.begin()
    one.end([])
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO facts (teller, at_ms, fact) VALUES (1, ?, ?)", (clock.unix_ms(), b"\xc1")
        )
    connection.close()
    assert one.begin().heard == ()
    one.end([])
    one.close()


async def test_the_sum_of_what_gateways_start_stays_inside_a_limit(tmp_path: Path) -> None:
    clock = SetClock()
    policy = RoutingPolicy(limits={"a": LimitsPolicy(requests_per_minute=5)})
    queues = [gateway(tmp_path / "limits.db", clock, lambda: policy) for _ in range(3)]
    leases = []
    for number in range(12):
        lease = await place(queues[number % 3], clock)
        if lease is not None:
            leases.append(lease)
    assert len(leases) == 5
    for lease in leases:
        lease.release(DONE)
    assert await place(queues[0], clock) is None
    clock.now_s += 61
    assert await place(queues[1], clock) is not None
    for queue in queues:
        queue.stop()


async def test_a_keys_own_limit_is_one_for_all_gateways(tmp_path: Path) -> None:
    clock = SetClock()
    policy = RoutingPolicy(keys={"ann": KeyPolicy(requests_per_minute=1)})
    one, two = (gateway(tmp_path / "limits.db", clock, lambda: policy) for _ in range(2))
    assert await place(two, clock) is not None
    with pytest.raises(Exception, match="limit") as caught:
        await one.place(need(), ticket(clock))
    assert getattr(caught.value, "error_code", "") == "rate_limited"
    one.stop()
    two.stop()


async def test_a_dead_gateways_places_come_free_with_its_lease(tmp_path: Path) -> None:
    clock = SetClock()
    policy = RoutingPolicy(limits={"a": LimitsPolicy(concurrency=1)})
    dies, lives = (gateway(tmp_path / "limits.db", clock, lambda: policy) for _ in range(2))
    assert await place(dies, clock) is not None
    assert await place(lives, clock) is None
    clock.now_s += LEASE_S + 1
    assert await place(lives, clock) is not None
    dies.stop()
    lives.stop()


async def test_a_gateway_that_starts_later_counts_what_it_missed(tmp_path: Path) -> None:
    clock = SetClock()
    policy = RoutingPolicy(limits={"a": LimitsPolicy(requests_per_minute=1)})
    first = gateway(tmp_path / "limits.db", clock, lambda: policy)
    lease = await place(first, clock)
    assert lease is not None
    lease.release(DONE)
    first.stop()
    later = gateway(tmp_path / "limits.db", clock, lambda: policy)
    assert await place(later, clock) is None
    clock.now_s += 61
    assert await place(later, clock) is not None
    later.stop()


async def test_what_a_provider_told_one_all_know(tmp_path: Path) -> None:
    clock = SetClock()
    one, two = (gateway(tmp_path / "limits.db", clock) for _ in range(2))
    used_up = Quota(unit="requests", limit=5, remaining=0, reset_ms=30_000)
    one.learned(A, Limits(quotas=(used_up,)))
    assert await place(two, clock) is None
    clock.now_s += 31
    assert await place(two, clock) is not None
    one.stop()
    two.stop()
