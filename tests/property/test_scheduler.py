"""The queue over all deployments, in virtual time against providers that count for themselves."""

import random
from dataclasses import replace

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.limited import (
    MODEL,
    Provider,
    World,
    deployment,
    fairness,
    need,
    offered,
)

from trunkline.gateway.core.breaker import Admission
from trunkline.gateway.core.facts import Began, Heard, Left
from trunkline.gateway.core.fair import AGED_EVERY, AGED_S, Request
from trunkline.gateway.core.policy import LimitsPolicy
from trunkline.gateway.core.quota import Cost
from trunkline.gateway.core.route import Candidate, Need
from trunkline.gateway.core.scheduler import PATIENCE_S, Refused, Scheduler, Started
from trunkline.gateway.core.slots import End
from trunkline.schema.attempt import Limits, Quota

OK = End(how="ok", tokens=10)


def request(number: int, tenant: str = "a", **more: object) -> Request:
    made = Request(
        number=number,
        need=need(),
        tenant=tenant,
        deadline_s=600.0,
        cost=Cost(input_tokens=10),
    )
    return msgspec.structs.replace(made, **more)


def configured(world: World) -> None:
    """What the providers allow, as an operator would write it."""
    for node, provider in world.providers.items():
        world.scheduler.slots.configure_account(
            node,
            LimitsPolicy(
                requests_per_minute=provider.requests,
                tokens_per_minute=provider.tokens,
                concurrency=provider.places,
            ),
        )


def three() -> dict[str, Provider]:
    return {
        "by-requests": Provider(requests=60),
        "by-tokens": Provider(tokens=3000),
        "by-places": Provider(places=2, takes_s=1.0),
    }


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), load=st.sampled_from([0.5, 0.9, 1.5, 3.0]))
def test_configured_limits_are_never_exceeded_and_nobody_is_lost(seed: int, load: float) -> None:
    world = World(three(), seed=seed)
    configured(world)
    rng = random.Random(seed)  # noqa: S311 - a repeatable draw
    at_s = 0.0
    for _ in range(400):
        at_s += rng.expovariate(4.0 * load)
        leaves_s = rng.uniform(0, 20) if rng.random() < 0.1 else None
        world.ask(at_s, rng.choice("ab"), tokens=rng.randint(1, 60), leaves_s=leaves_s)
    world.run()
    assert [p.refused for p in world.providers.values()] == [0, 0, 0]
    assert world.scheduler.waiting == world.scheduler.running == 0
    assert world.scheduler.waiting_bytes == 0


@pytest.mark.parametrize("load", [0.5, 0.9])
def test_below_capacity_nobody_is_refused_and_hardly_anybody_waits_a_window(load: float) -> None:
    world = World(three())
    configured(world)
    rng = random.Random(1)  # noqa: S311 - a repeatable draw
    at_s = 0.0
    while at_s < 600:
        # 60 and 60 requests a minute by the first two, 120 by the third.
        at_s += rng.expovariate(4.0 * load / 4)
        for _ in range(4):
            world.ask(at_s, tokens=50)
    world.run()
    assert all(seen.done_s is not None and not seen.refusals for seen in world.seen.values())


def test_all_capacity_is_used_while_anybody_waits() -> None:
    world = World({"a": Provider(requests=60), "b": Provider(tokens=3000)})
    configured(world)
    for number in range(4000):
        world.ask(number * 0.1, tokens=50, deadline_s=1e6)
    world.run(until_s=600.0)
    done = sum(seen.started_s is not None for seen in world.seen.values())
    assert done >= 0.95 * 10 * 120
    assert all(provider.refused == 0 for provider in world.providers.values())


def test_limits_are_learned_from_what_providers_say() -> None:
    world = World({"a": Provider(requests=60), "b": Provider(requests=30, window_s=10.0)})
    for number in range(3000):
        world.ask(number * 0.2, deadline_s=1e6)
    world.run(until_s=600.0)
    started = sum(seen.done_s is not None for seen in world.seen.values())
    capacity = 60 * 10 + 30 * 60
    assert started >= 0.93 * capacity
    assert sum(p.refused for p in world.providers.values()) <= 0.02 * capacity


@pytest.mark.parametrize(
    ("provider", "allows_s", "refused"),
    [
        (Provider(requests=60, states=False), 1.0, 0.2),
        (Provider(requests=60, states=False, fixed_s=-30.0), 1.0, 0.2),
        (Provider(requests=600, states=False), 10.0, 0.1),
        (Provider(places=2, takes_s=5.0, states=False), 0.4, 0.2),
        (Provider(places=4, states=False), 4.0, 0.1),
        (Provider(places=20, states=False), 20.0, 0.02),
    ],
    ids=["requests", "fixed", "many", "2 places", "4 places", "20 places"],
)
def test_limits_nobody_states_are_learned_from_refusals(
    provider: Provider, allows_s: float, refused: float
) -> None:
    seconds = max(500 / allows_s, 480.0 if provider.requests else 240.0)
    for seed in range(2):
        fresh = replace(provider, taken=[])
        world = World({"a": fresh}, seed=seed)
        for number in range(int(2 * allows_s * seconds)):
            world.ask(number / (2 * allows_s), deadline_s=1e6)
        world.run(until_s=seconds)
        got = sum(at_s > 120 for at_s, _ in fresh.taken)
        assert got >= 0.85 * allows_s * (seconds - 120)
        assert fresh.refused <= refused * len(fresh.taken)


@pytest.mark.parametrize(("first", "second"), [(3, 1), (10, 1), (2, 2)])
def test_two_tenants_get_the_same_while_both_want_more(first: int, second: int) -> None:
    world = World(three())
    configured(world)
    for number in range(600):
        for name, times in (("greedy", first), ("modest", second)):
            for _ in range(times):
                world.ask(number * 0.2, name, tokens=50, deadline_s=1e6)
    world.run(until_s=110.0)
    got = {"greedy": 0, "modest": 0}
    for seen in world.seen.values():
        # After the first window, which whoever came first had.
        got[seen.request.tenant] += seen.started_s is not None and seen.started_s > 10
    assert fairness(list(got.values())) >= 0.95


def test_what_a_tenant_is_given_at_another_gateway_counts_here() -> None:
    """At each step ann is given as much elsewhere as anybody is here."""
    scheduler = blocked(waiting_max=1000, waiting_bytes_max=1 << 20)
    for number in range(1, 401):
        scheduler.arrive(request(number, "ann" if number % 2 else "ben", deadline_s=1e6), 0.0)
    got = {"ann": 0, "ben": 0}
    last = 0
    for step in range(1, 150):
        (started,) = scheduler.finished(last, OK, float(step))
        last = started.number
        got["ann" if last % 2 else "ben"] += 1
        facts = (
            Began(
                number=step, place=("b", MODEL), tenant=None, cost=Cost(input_tokens=10),
                payer="ann", domain=(MODEL, "chat"),
            ),
            Left(number=step, end=OK),
        )  # fmt: skip
        heard = [Heard(teller=1, at_s=float(step), fact=fact) for fact in facts]
        scheduler.heard(heard, float(step))
        got["ann"] += 1
    assert fairness(list(got.values())) >= 0.99


def test_weights_divide_what_there_is() -> None:
    world = World({"a": Provider(places=1)})
    configured(world)
    for _ in range(400):
        world.ask(0.0, "heavy", weight=3, deadline_s=1e6)
        world.ask(0.0, "light", weight=1, deadline_s=1e6)
    world.run(until_s=200.0)
    heavy, light = (
        sum(s.request.tenant == name and s.started_s is not None for s in world.seen.values())
        for name in ("heavy", "light")
    )
    assert 2.8 <= heavy / light <= 3.2


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_nobody_starves(seed: int) -> None:
    """Small requests keep coming, of all classes; the large and the modest start all the same."""
    world = World({"a": Provider(tokens=1200, window_s=60.0), "b": Provider(places=1)})
    configured(world)
    rng = random.Random(seed)  # noqa: S311 - a repeatable draw
    at_s = 0.0
    while at_s < 600:
        at_s += rng.expovariate(3.0)
        world.ask(at_s, "crowd", tokens=10, deadline_s=60.0)
    watched = [
        world.ask(rng.uniform(30, 300), "rare", tokens=600, deadline_s=1e6),
        world.ask(rng.uniform(30, 300), "rare", tokens=10, deadline_s=1e6),
        world.ask(rng.uniform(30, 300), "patient", tokens=10, priority=1, deadline_s=1e6),
    ]
    world.run()
    for number in watched:
        seen = world.seen[number]
        assert seen.started_s is not None
        assert seen.started_s - seen.arrived_s <= AGED_S + 60.0 + 60.0


def test_interactive_goes_before_batch_until_batch_has_aged() -> None:
    world = World({"a": Provider(places=1, takes_s=1.0)})
    configured(world)
    batch = [world.ask(0.0, "b", priority=1, deadline_s=1e6) for _ in range(4)]
    for number in range(200):
        world.ask(number * 0.5, "i", deadline_s=1e6)
    world.run(until_s=100.0)
    starts = sorted(
        1e9 if (at_s := world.seen[number].started_s) is None else at_s for number in batch
    )
    # The first came when nobody else was there. Then each eighth start is theirs.
    assert starts[0] == 0.0
    assert starts[1] >= AGED_S
    assert starts[3] <= AGED_S + 4 * AGED_EVERY * 1.5


def test_a_batch_call_ages_in_whatever_line_it_waits() -> None:
    """It failed elsewhere, so that it waits in another line than the crowd."""
    scheduler = Scheduler(offered(deployment("a")))
    scheduler.slots.configure_account("a", LimitsPolicy(concurrency=1))
    scheduler.arrive(request(0), 0.0)
    tried = msgspec.structs.replace(need(), tried=(("b", MODEL),))
    scheduler.arrive(request(1, "b", need=tried, priority=1, deadline_s=1e6), 0.0)
    last, started_s = 0, None
    for step in range(1, 100):
        scheduler.arrive(request(step + 1, deadline_s=1e6), step - 0.5)
        (started,) = scheduler.finished(last, OK, float(step))
        last = started.number
        if last == 1:
            started_s = step
            break
    assert started_s is not None
    assert AGED_S <= started_s <= AGED_S + AGED_EVERY


def test_small_calls_for_another_model_do_not_starve_a_large_one_of_the_same_account() -> None:
    deployments = deployment("a", "large"), deployment("a", "small")
    scheduler = Scheduler(offered(*deployments))
    scheduler.slots.configure_account("a", LimitsPolicy(tokens_per_minute=1000))
    small = msgspec.structs.replace(request(0), need=need("small"), cost=Cost(input_tokens=100))
    large = msgspec.structs.replace(
        request(0), need=need("large"), cost=Cost(input_tokens=900), deadline_s=1e6
    )
    started: dict[int, float] = {}
    for number in range(1, 200):
        now_s = number * 2.0
        made = msgspec.structs.replace(small, number=number, deadline_s=now_s + 1e6)
        if number == 20:
            made = msgspec.structs.replace(large, number=number)
        decisions = [*scheduler.arrive(made, now_s), *scheduler.tick(now_s)]
        for decision in decisions:
            started[decision.number] = now_s
            end = End(how="ok", tokens=900 if decision.number == 20 else 100)
            scheduler.finished(decision.number, end, now_s)
    # Two windows at most: those before it in its line, and its own.
    assert started[20] <= 40.0 + 130.0


def test_what_no_limit_would_let_through_is_told_so_at_once() -> None:
    scheduler = Scheduler(offered(deployment("a"), deployment("b")))
    for node, limit in (("a", 500), ("b", 800)):
        scheduler.slots.configure_account(node, LimitsPolicy(tokens_per_minute=limit))
    cost = Cost(input_tokens=100, output_tokens=1000)
    (refused,) = scheduler.arrive(request(0, cost=cost), 0.0)
    assert isinstance(refused, Refused)
    assert refused.reason == "too_large"
    assert refused.limit is not None
    assert (refused.limit.unit, refused.limit.limit) == ("tokens", 800)
    # One whose estimate alone is over the limit has its try.
    (started,) = scheduler.arrive(request(1, cost=Cost(input_tokens=1000)), 0.0)
    assert isinstance(started, Started)
    assert scheduler.waiting == 0


def test_a_remainder_is_no_limit_to_be_too_large_for() -> None:
    scheduler = Scheduler(offered(deployment("a")))
    scheduler.stated(("a", MODEL), Limits(quotas=(Quota(unit="tokens", remaining=5),)), 0.0)
    (decision,) = scheduler.arrive(request(0, cost=Cost(input_tokens=100)), 0.0)
    assert isinstance(decision, Started)


def test_a_door_that_closes_for_longer_than_anybody_has_time_is_told_of_at_once() -> None:
    scheduler = Scheduler(offered(deployment("a")))
    scheduler.slots.configure_account("a", LimitsPolicy(concurrency=1))
    scheduler.arrive(request(0), 0.0)
    for number in (1, 2):
        scheduler.arrive(request(number, deadline_s=60.0), 0.0)
    scheduler.arrive(request(3, deadline_s=900.0), 0.0)
    decisions = scheduler.finished(0, End(how="limited", retry_after_s=300.0), 1.0)
    assert [decision.number for decision in decisions] == [1, 2]
    for refused in decisions:
        assert isinstance(refused, Refused)
        assert refused.retry_after_s == pytest.approx(300.0)
    (late,) = scheduler.arrive(request(4, deadline_s=60.0), 2.0)
    assert isinstance(late, Refused)
    assert scheduler.waiting == 1


def test_the_earliest_deadline_of_a_tenant_is_first() -> None:
    world = World({"a": Provider(places=1)})
    configured(world)
    world.ask(0.0)
    late, soon = world.ask(0.1, deadline_s=50.0), world.ask(0.2, deadline_s=10.0)
    world.run()
    assert (world.seen[soon].started_s or 0) < (world.seen[late].started_s or 0)


def test_what_cannot_start_in_time_is_refused_at_once_with_a_true_time() -> None:
    world = World({"a": Provider(requests=2)})
    configured(world)
    world.ask(0.0), world.ask(0.0)
    hopeless, hopeful = world.ask(1.0, deadline_s=10.0), world.ask(1.0, deadline_s=100.0)
    world.run()
    refused = world.seen[hopeless].refused
    assert refused is not None
    assert refused.reason == "deadline"
    assert refused.retry_after_s is not None
    assert world.seen[hopeful].started_s is not None
    assert abs(1.0 + refused.retry_after_s - (world.seen[hopeful].started_s or 0)) < 1.0


def test_a_wait_that_turned_out_too_long_ends_before_the_deadline() -> None:
    world = World({"a": Provider(places=1, takes_s=100.0)})
    configured(world)
    world.ask(0.0)
    waiting = world.ask(0.0, deadline_s=5.0)
    world.run(until_s=6.0)
    refused = world.seen[waiting].refused
    assert refused is not None
    assert refused.reason == "deadline"
    assert refused.retry_after_s
    assert world.now_s < 5.0


def blocked(waiting_max: int = 4, waiting_bytes_max: int = 1000) -> Scheduler:
    """A queue whose only place is taken."""
    scheduler = Scheduler(
        offered(deployment("a")), waiting_max=waiting_max, waiting_bytes_max=waiting_bytes_max
    )
    scheduler.slots.configure_account("a", LimitsPolicy(concurrency=1))
    assert isinstance(scheduler.arrive(request(0), 0.0)[0], Started)
    return scheduler


def test_a_full_queue_refuses_whoever_fills_it() -> None:
    scheduler = blocked()
    for number in range(1, 5):
        assert scheduler.arrive(request(number, "greedy"), 0.0) == []
    (refused,) = scheduler.arrive(request(5, "greedy"), 0.0)
    assert isinstance(refused, Refused)
    assert (refused.number, refused.reason) == (5, "full")
    assert refused.retry_after_s
    (evicted,) = scheduler.arrive(request(6, "modest"), 0.0)
    assert (evicted.number, scheduler.waiting) == (4, 4)


def test_a_batch_call_makes_way_for_an_interactive_one() -> None:
    scheduler = blocked()
    for number in range(1, 5):
        scheduler.arrive(request(number, priority=1), 0.0)
    (evicted,) = scheduler.arrive(request(5), 0.0)
    assert evicted.number == 4


def test_waiting_bodies_are_bounded() -> None:
    scheduler = blocked(waiting_max=100)
    for number in range(1, 4):
        assert scheduler.arrive(request(number, body_bytes=300), 0.0) == []
    (refused,) = scheduler.arrive(request(4, body_bytes=300), 0.0)
    assert isinstance(refused, Refused)
    assert refused.reason == "full"
    assert scheduler.waiting_bytes == 900


def test_a_tenants_own_limit_is_refused_with_the_time_it_opens() -> None:
    scheduler = Scheduler(offered(deployment("a")))
    scheduler.slots.configure_tenant("a", 2, None)
    for number in range(2):
        assert isinstance(scheduler.arrive(request(number), 0.0)[0], Started)
    (refused,) = scheduler.arrive(request(2), 10.0)
    assert isinstance(refused, Refused)
    assert refused.reason == "limited"
    assert 50 < (refused.retry_after_s or 0) < 51
    # Not for an answer that was counted already, nor for others.
    assert isinstance(scheduler.arrive(request(3, first=False), 10.0)[0], Started)
    assert isinstance(scheduler.arrive(request(4, "b"), 10.0)[0], Started)


def test_who_leaves_the_queue_gets_its_own_limit_back() -> None:
    scheduler = blocked()
    scheduler.slots.configure_tenant("b", 1, None)
    assert scheduler.arrive(request(1, "b"), 0.0) == []
    scheduler.cancel(1, 0.0)
    assert scheduler.arrive(request(2, "b"), 0.0) == []


def test_nothing_serves_it() -> None:
    (refused,) = Scheduler(offered()).arrive(request(0), 0.0)
    assert isinstance(refused, Refused)
    assert refused.reason == "nobody"


def test_a_lower_tier_serves_only_when_the_upper_makes_wait() -> None:
    candidates = (Candidate(model="good", tier=0), Candidate(model="other", tier=1))
    wanted = Need(model="virtual", kind="chat", candidates=candidates)
    scheduler = Scheduler(offered(deployment("a", "good"), deployment("b", "other")))
    scheduler.slots.configure_account("a", LimitsPolicy(concurrency=1))
    (first,) = scheduler.arrive(request(0, need=wanted), 0.0)
    assert isinstance(first, Started)
    assert first.deployment.model == "good"
    assert scheduler.arrive(request(1, need=wanted), 0.0) == []
    assert scheduler.wake_s() is not None
    (later,) = scheduler.tick(PATIENCE_S)
    assert isinstance(later, Started)
    assert later.deployment.model == "other"


def test_the_unhealthy_serve_only_where_nobody_is_healthy() -> None:
    ill = msgspec.structs.replace(deployment("ill"), admission=Admission.NO)
    scheduler = Scheduler(offered(deployment("well"), ill))
    scheduler.slots.configure_account("well", LimitsPolicy(concurrency=1))
    scheduler.arrive(request(0), 0.0)
    assert scheduler.arrive(request(1), 0.0) == []
    alone = Scheduler(offered(ill))
    assert isinstance(alone.arrive(request(0), 0.0)[0], Started)


def test_a_half_open_breaker_lets_one_through_at_a_time() -> None:
    probing = msgspec.structs.replace(deployment("a"), admission=Admission.PROBE)
    scheduler = Scheduler(offered(probing))
    assert len(scheduler.arrive(request(0), 0.0)) == 1
    assert scheduler.arrive(request(1), 0.0) == []
    assert len(scheduler.finished(0, OK, 1.0)) == 1


def test_what_is_being_probed_may_take_calls_before_their_deadline() -> None:
    resting = msgspec.structs.replace(deployment("probed"), admission=Admission.NO)
    probed = msgspec.structs.replace(resting, half_open=True)
    for other, refused in ((resting, ["deadline"]), (probed, [])):
        scheduler = Scheduler(offered(deployment("well"), other))
        scheduler.slots.configure_account("well", LimitsPolicy(requests_per_minute=1))
        scheduler.arrive(request(0), 0.0)
        found = scheduler.arrive(request(1, deadline_s=8.0), 0.0)
        assert [one.reason for one in found if isinstance(one, Refused)] == refused
        assert scheduler.waiting == 1 - len(refused)


def test_a_hedge_takes_only_what_nobody_waits_for() -> None:
    scheduler = Scheduler(offered(deployment("a"), deployment("b")))
    for node in ("a", "b"):
        scheduler.slots.configure_account(node, LimitsPolicy(concurrency=1))
    scheduler.arrive(request(0), 0.0)
    found = scheduler.start_now(request(1), 0.0)
    assert found is not None
    assert scheduler.start_now(request(2), 0.0) is None
    assert scheduler.arrive(request(3), 0.0) == []
    (started,) = scheduler.finished(1, OK, 1.0)
    assert started.number == 3


def test_an_attempt_that_reached_nobody_costs_nothing() -> None:
    scheduler = Scheduler(offered(deployment("a")))
    scheduler.slots.configure_account("a", LimitsPolicy(requests_per_minute=1))
    scheduler.arrive(request(0), 0.0)
    scheduler.finished(0, End(how="unreached"), 0.1)
    assert isinstance(scheduler.arrive(request(1), 0.2)[0], Started)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["arrive", "cancel", "finish", "refuse", "tick"]),
            st.integers(0, 30),
            st.floats(0, 3),
        ),
        max_size=120,
    )
)
def test_any_order_of_events_leaks_nothing(steps: list[tuple[str, int, float]]) -> None:
    scheduler = Scheduler(offered(deployment("a"), deployment("b")), waiting_max=8)
    scheduler.slots.configure_account("a", LimitsPolicy(requests_per_minute=5, concurrency=2))
    scheduler.slots.configure_account("b", LimitsPolicy(concurrency=1))
    now_s, count = 0.0, 0
    waiting: set[int] = set()
    running: set[int] = set()

    def do(decisions: list[Started | Refused]) -> None:
        for decision in decisions:
            waiting.remove(decision.number)
            if isinstance(decision, Started):
                running.add(decision.number)

    for what, pick, gap_s in steps:
        now_s += gap_s
        if what == "arrive":
            count += 1
            waiting.add(count)
            made = request(count, "abc"[pick % 3], priority=pick % 2, body_bytes=pick)
            do(scheduler.arrive(msgspec.structs.replace(made, deadline_s=now_s + pick), now_s))
        elif what == "tick":
            do(scheduler.tick(now_s))
        elif what == "cancel" and waiting:
            number = sorted(waiting)[pick % len(waiting)]
            waiting.remove(number)
            do(scheduler.cancel(number, now_s))
        elif running:
            number = sorted(running)[pick % len(running)]
            running.remove(number)
            how = End(how="limited", retry_after_s=float(pick)) if what == "refuse" else OK
            do(scheduler.finished(number, how, now_s))
        assert scheduler.waiting == len(waiting)
        assert scheduler.running == len(running)
        assert not waiting or scheduler.wake_s() is not None
    for number in sorted(waiting):
        waiting.discard(number)
        do(scheduler.cancel(number, now_s))
    for number in sorted(running):
        running.discard(number)
        do(scheduler.finished(number, OK, now_s))
    assert (scheduler.waiting, scheduler.running, scheduler.waiting_bytes) == (0, 0, 0)
    assert all(not count for count in scheduler.slots.running().values())


def test_thousands_may_wait() -> None:
    """Each event looks at a few, not at all: this would take minutes otherwise."""
    scheduler = blocked(waiting_max=5000, waiting_bytes_max=1 << 30)
    for number in range(1, 5001):
        assert scheduler.arrive(request(number, f"t{number % 100}"), 0.0) == []
    last = 0
    for step in range(5000):
        (started,) = scheduler.finished(last, OK, float(step))
        assert isinstance(started, Started)
        last = started.number
        if step > 500:
            break
    assert scheduler.slots.at(("a", MODEL)).concurrency.running == 1
