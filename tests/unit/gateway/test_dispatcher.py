"""The queue's shell: who waits, who leaves, what a refusal says."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.limited import deployment, need

from trunkline.base.errors import NoRouteError, RateLimitedError, RequestError
from trunkline.gateway.core.actions import Failure
from trunkline.gateway.core.policy import KeyPolicy, LimitsPolicy, RoutingPolicy
from trunkline.gateway.core.route import Need
from trunkline.gateway.core.tenant import Tenant
from trunkline.gateway.core.ticket import Outcome, Ticket
from trunkline.gateway.dispatcher import Lease, QueueDispatcher
from trunkline.runtime.clock import SystemClock
from trunkline.schema import errors
from trunkline.schema.attempt import Limits, Quota

A, B = deployment("a"), deployment("b")
TENANT = Tenant(id="ten_a", name="ann")
ONE_PLACE = RoutingPolicy(limits={"a": LimitsPolicy(concurrency=1)})
DONE = Outcome(tokens=10, prompt_tokens=4)


def ticket(left_s: float = 60.0, tenant: Tenant = TENANT) -> Ticket:
    return Ticket(
        answer="ans",
        tenant=tenant,
        priority=0,
        deadline_s=SystemClock().monotonic_s() + left_s,
        tokens=10,
        prompt_tokens=4,
        body_bytes=100,
    )


def dispatcher(
    policy: Callable[[], RoutingPolicy] = RoutingPolicy, *, both: bool = False, most: int = 100
) -> QueueDispatcher:
    offers = (A, B) if both else (A,)
    return QueueDispatcher(
        lambda _: offers,
        ["a", "b"],
        policy,
        clock=SystemClock(),
        waiting_max=most,
        waiting_bytes_max=1 << 20,
    )


async def waits(queue: QueueDispatcher, wanted: Need | None = None) -> asyncio.Task[Lease]:
    """A request that waits by the time this returns."""
    task = asyncio.create_task(queue.place(wanted or need(), ticket()))
    # A task runs to its first wait in one turn of the loop.
    await asyncio.sleep(0)
    assert queue.waiting
    return task


async def test_a_place_that_comes_free_goes_to_whoever_waits() -> None:
    queue = dispatcher(lambda: ONE_PLACE)
    first = await queue.place(need(), ticket())
    task = await waits(queue)
    first.release(DONE)
    second = await task
    assert second.deployment.node == "a"
    assert queue.waiting == 0
    second.release(DONE)
    second.release(DONE)
    (await queue.place(need(), ticket())).release(DONE)
    queue.stop()


async def test_whoever_leaves_has_left_and_its_place_goes_to_the_next() -> None:
    queue = dispatcher(lambda: ONE_PLACE)
    first = await queue.place(need(), ticket())
    gone, stays = await waits(queue), await waits(queue)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert (queue.waiting, queue.waiting_bytes) == (1, 100)
    # Given a place and cancelled before it heard of it: the place is not lost.
    first.release(DONE)
    stays.cancel()
    await asyncio.gather(stays, return_exceptions=True)
    (await queue.place(need(), ticket())).release(DONE)
    queue.stop()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30))
def test_cancelling_at_any_point_leaks_nothing(steps: list[int]) -> None:
    async def scenario() -> None:
        queue = dispatcher(lambda: ONE_PLACE)
        tasks: list[asyncio.Task[Lease]] = []
        for step in steps:
            if step == 0:
                tasks.append(asyncio.create_task(queue.place(need(), ticket())))
            elif step == 1 and tasks:
                tasks[len(tasks) // 2].cancel()
            elif step == 2:
                await asyncio.sleep(0)
            else:
                for task in tasks:
                    if task.done() and not task.cancelled():
                        task.result().release(DONE)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(outcome, BaseException):
                outcome.release(DONE)
        await asyncio.sleep(0)
        assert (queue.waiting, queue.waiting_bytes) == (0, 0)
        async with asyncio.timeout(10):
            (await queue.place(need(), ticket())).release(DONE)
        queue.stop()

    asyncio.run(scenario())


async def test_the_timer_opens_a_window() -> None:
    queue = dispatcher()
    lease = await queue.place(need(), ticket())
    stated = Quota(unit="requests", limit=1, remaining=0, reset_ms=80)
    # Taken before the window begins: what the machine does between the two makes it no shorter.
    began_s = SystemClock().monotonic_s()
    queue.learned(lease.deployment, Limits(quotas=(stated,)))
    lease.release(DONE)
    async with asyncio.timeout(20):
        (await queue.place(need(), ticket())).release(DONE)
    assert SystemClock().monotonic_s() - began_s >= 0.05
    queue.stop()


async def test_a_refusal_closes_and_other_deployments_serve() -> None:
    queue = dispatcher(both=True)
    lease = await queue.place(need(), ticket())
    limited = Failure(
        code="upstream_rate_limited", message="", status=429, retry_after_s=30.0, faultless=True
    )
    lease.release(Outcome(failure=limited))
    other = {(await queue.place(need(), ticket())).deployment.node for _ in range(5)}
    assert other == {"a", "b"} - {lease.deployment.node}
    queue.stop()


async def test_what_can_not_start_in_time_hears_when_it_could() -> None:
    queue = dispatcher()
    lease = await queue.place(need(), ticket())
    limited = Failure(code="upstream_rate_limited", message="", status=429, retry_after_s=30.0)
    lease.release(Outcome(failure=limited))
    with pytest.raises(RateLimitedError) as caught:
        await queue.place(need(), ticket(left_s=5.0))
    assert caught.value.error_code == "overloaded"
    described = errors.describe(caught.value)
    assert described.status == 429
    assert dict(errors.retry_headers(described))["retry-after"] == "30"
    assert queue.waiting == 0
    queue.stop()


async def test_a_keys_own_limit_has_its_own_code() -> None:
    limited = RoutingPolicy(keys={"ann": KeyPolicy(requests_per_minute=1)})
    queue = dispatcher(lambda: limited)
    (await queue.place(need(), ticket())).release(DONE)
    with pytest.raises(RateLimitedError) as caught:
        await queue.place(need(), ticket())
    assert caught.value.error_code == "rate_limited"
    assert 59 < (caught.value.retry_after_s or 0) < 61
    # An attempt that follows another of the same answer was counted.
    again = msgspec.structs.replace(need(), tried=(("b", "m"),))
    (await queue.place(again, ticket())).release(DONE)
    (await queue.place(need(), ticket(tenant=Tenant(id="ten_b", name="bob")))).release(DONE)
    queue.stop()


async def test_a_new_policy_is_in_force_at_once() -> None:
    policies = [RoutingPolicy(keys={"ann": KeyPolicy(requests_per_minute=1)}), RoutingPolicy()]
    queue = dispatcher(lambda: policies[0])
    (await queue.place(need(), ticket())).release(DONE)
    del policies[0]
    (await queue.place(need(), ticket())).release(DONE)
    queue.stop()


async def test_a_full_queue_says_so_and_bounds_memory() -> None:
    queue = dispatcher(lambda: ONE_PLACE, most=1)
    lease = await queue.place(need(), ticket())
    task = await waits(queue)
    with pytest.raises(RateLimitedError) as caught:
        await queue.place(need(), ticket())
    assert caught.value.error_code == "overloaded"
    assert caught.value.retry_after_s
    lease.release(DONE)
    (await task).release(DONE)
    queue.stop()


async def test_the_queue_and_the_places_can_be_looked_at() -> None:
    queue = dispatcher(
        lambda: RoutingPolicy(limits={"a": LimitsPolicy(concurrency=1, requests_per_minute=9)})
    )
    lease = await queue.place(need(), ticket())
    task = await waits(queue)
    load = queue.load()
    assert (load.waiting, load.waiting_bytes) == (1, 100)
    (place,) = load.places
    assert (place.node, place.running, place.places, place.places_stated) == ("a", 1, 1, True)
    (window,) = place.windows
    assert (window.unit, window.window_ms, window.limit, window.left) == ("requests", 60_000, 9, 8)
    lease.release(DONE)
    (await task).release(DONE)
    assert queue.load().waiting == 0
    queue.stop()


async def test_a_call_larger_than_a_limit_is_the_callers_to_change() -> None:
    small = RoutingPolicy(limits={"a": LimitsPolicy(tokens_per_minute=10)})
    queue = dispatcher(lambda: small)
    with pytest.raises(RequestError) as refused:
        await queue.place(need(), msgspec.structs.replace(ticket(), tokens=100))
    assert refused.value.error_code == "over_limit"
    assert "10" in refused.value.message
    queue.stop()


async def test_nobody_serves_it() -> None:
    queue = QueueDispatcher(
        lambda _: (), [], RoutingPolicy, clock=SystemClock(), waiting_max=1, waiting_bytes_max=1
    )
    with pytest.raises(NoRouteError):
        await queue.place(need(), ticket())
    queue.stop()


async def test_a_hedge_never_waits() -> None:
    queue = dispatcher(lambda: ONE_PLACE)
    lease = queue.place_now(need(), ticket())
    assert lease is not None
    assert queue.place_now(need(), ticket()) is None
    lease.release(Outcome())
    assert queue.place_now(need(), ticket()) is not None
    queue.stop()


async def test_usage_improves_the_next_estimate() -> None:
    queue = dispatcher()
    request = b'{"messages": [{"role": "user", "content": "hello"}]}'
    before = queue.estimate("m", request, "chat", 1)
    for _ in range(20):
        lease = await queue.place(need(), ticket())
        lease.release(Outcome(tokens=24, prompt_tokens=4))
    assert queue.estimate("m", request, "chat", 1).output_tokens < before.output_tokens
    queue.stop()
