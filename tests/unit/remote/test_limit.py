"""Limits: what the loop's own standing still takes from a wait is given back, once and no more.

In virtual time: here a second is a second, however busy the machine.
"""

import asyncio
import functools
import math
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from trunkline.remote.limit import GRACE_S, STEP_S, Alarm, Limit
from trunkline.sim.loop import VirtualLoop, run

STILL_S = STEP_S + 0.7
"""So long a standstill that a look at the clock falls into it."""


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test, in a loop of virtual seconds."""

    @functools.wraps(test)
    def played() -> None:
        run(test(), seed=test.__name__, limit_s=600.0)

    return played


def loop() -> VirtualLoop:
    return cast("VirtualLoop", asyncio.get_running_loop())


async def stand_still(seconds: float = STILL_S) -> None:
    """As a stopped process: nothing of the loop runs, once it has set its timers."""
    await asyncio.sleep(0)
    loop().stand_still(seconds)


class Bell:
    """When an alarm rang, seconds."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()
        self.rang_s = 0.0

    def ring(self) -> None:
        assert not self.rung.is_set(), "it rings once"
        self.rang_s = loop().time()
        self.rung.set()


@virtual
async def test_it_rings_when_it_is_due() -> None:
    bell = Bell()
    alarm = Alarm(bell.ring)
    alarm.set(0.05)
    assert alarm.armed
    await bell.rung.wait()
    assert bell.rang_s == pytest.approx(0.05)
    assert not alarm.armed


@virtual
async def test_it_rings_when_it_is_due_after_many_looks() -> None:
    bell = Bell()
    alarm = Alarm(bell.ring)
    alarm.set(20 * STEP_S + 0.1)
    await bell.rung.wait()
    assert bell.rang_s == pytest.approx(20 * STEP_S + 0.1)


@virtual
async def test_a_standstill_is_given_back() -> None:
    bell = Bell()
    alarm = Alarm(bell.ring)
    alarm.set(0.7)
    await stand_still()
    # By the clock it is over. What was waited for arrives now, and counts.
    assert alarm.lost_s == pytest.approx(STILL_S - STEP_S)
    await bell.rung.wait()
    assert bell.rang_s == pytest.approx(STILL_S + GRACE_S)


@virtual
async def test_all_of_a_long_wait_that_was_left_is_given_back() -> None:
    bell = Bell()
    alarm = Alarm(bell.ring)
    alarm.set(5.0)
    await stand_still(100.0)
    await bell.rung.wait()
    assert bell.rang_s == pytest.approx(105.0 - STEP_S)


@virtual
async def test_what_others_set_is_real_time() -> None:
    bell = Bell()
    alarm = Alarm(bell.ring)
    alarm.set(5.0, most_s=0.6)
    await stand_still()
    await bell.rung.wait()
    assert bell.rang_s == pytest.approx(STILL_S)


@virtual
async def test_time_before_it_was_set_is_not_lost() -> None:
    bell = Bell()
    alarm = Alarm(bell.ring)
    alarm.set(0.1)
    alarm.unset()
    await stand_still()
    # Its timer is long overdue, and is used again.
    alarm.set(0.1)
    assert alarm.lost_s == 0.0
    await bell.rung.wait()
    assert bell.rang_s == pytest.approx(STILL_S + 0.1)


@virtual
async def test_set_again_it_counts_from_then() -> None:
    bell = Bell()
    alarm = Alarm(bell.ring)
    alarm.set(math.inf)
    assert not alarm.armed
    alarm.set(10.0)
    alarm.set(0.05)
    await bell.rung.wait()
    assert bell.rang_s == pytest.approx(0.05)


@virtual
async def test_a_loop_that_is_late_all_the_time_still_ends_its_waits() -> None:
    bell = Bell()
    alarm = Alarm(bell.ring)
    alarm.set(0.3)
    for _ in range(60):
        if bell.rung.is_set():
            break
        await stand_still(0.15)
    assert bell.rung.is_set()


@virtual
async def test_a_limit_raises_what_a_timeout_does() -> None:
    with pytest.raises(TimeoutError):
        async with Limit(0.01):
            await asyncio.Event().wait()


@virtual
async def test_a_limit_that_stood_still_lets_what_arrived_through() -> None:
    async with Limit(0.2) as limit:
        arrived = asyncio.Event()
        await stand_still()
        # It is there after the standstill, and is read a few turns of the loop later.
        loop().call_soon(loop().call_soon, loop().call_soon, arrived.set)
        await arrived.wait()
        assert limit.lost_s == pytest.approx(STILL_S - 0.2)


@virtual
async def test_a_limit_is_cut_only_where_something_is_waited_for() -> None:
    async with Limit() as limit:
        limit.cut()
        await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        async with Limit(60.0) as limit:
            limit.cut()
            await asyncio.Event().wait()
    async with Limit(60.0) as limit:
        limit.disarm()
        limit.cut()
        await asyncio.sleep(0)


@virtual
async def test_what_came_in_the_turn_in_which_it_ended_is_not_cut_off() -> None:
    async with Limit() as limit:
        for go_on in (limit.disarm, functools.partial(limit.arm, 60.0)):
            limit.arm(60.0)
            limit.cut()
            # The end is told in the next turn. In this one the wait is over already.
            go_on()
            await asyncio.sleep(0.25)
