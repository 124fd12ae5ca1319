"""Two attempts beside each other, under any interleaving of their events: the app sees one of them.

The machine is driven as in ``test_gateway_answer``, with real receipts of scripted nodes and lies.
"""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.property.test_gateway_answer import (
    NODES,
    PROVIDERS,
    World,
    events,
    fresh_seeds,
    plan_of,
    reference,
    scripts,
    shown_text,
)
from tests.support.fake_answer import MODEL, text_of
from tests.support.fake_script import Script

from trunkline.gateway.core.actions import Cancel, Ended, Fail, Failure, Finish, Seek
from trunkline.gateway.core.attempt import State
from trunkline.gateway.core.route import Candidate

HONEST = Script()


def play(world: World, fates: list[Script], slow_at: int, turns: list[int]) -> None:
    """Play attempts in turns until the answer is over. Attempts that are over speak on."""
    world.do(world.answer.begin(world.now_s))
    left, players, asked = list(fates), {}, 0
    for step in range(1000):
        if world.answer.over:
            break
        for number, start in world.live.items():
            if number not in players:
                players[number] = events(world, start, left.pop(0) if left else HONEST)
        if step == slow_at and world.running is not None:
            sought = world.answer.on_slow(world.running.number, world.now_s)
            asked += len(sought)
            world.do(sought)
            continue
        numbers = sorted(players)
        number = numbers[turns[step % len(turns)] % len(numbers)]
        lives = number in world.live
        actions = next(players[number], None)
        if actions is None:
            assert not lives, "an attempt that is silent for good has failed"
            del players[number]
            continue
        assert lives or actions == (), "what is over says nothing more"
        world.do(actions)
    assert world.answer.over, "every answer ends"
    assert asked <= 1


def check_ends(world: World) -> None:
    """Whoever did not give the answer was closed once, and reported once."""
    cancelled = [end.number for end in world.ends if isinstance(end, Cancel)]
    ended = [end.number for end in world.ends if isinstance(end, Ended)]
    begun = [start.number for start in world.starts]
    won = [part.number for part in world.stored]
    assert sorted(ended) == begun
    assert sorted(cancelled) == [number for number in begun if number not in won]
    assert not world.live
    for end in world.ends:
        if isinstance(end, Ended) and end.failure is not None and end.failure.code == "hedge_lost":
            assert end.failure.faultless


interleavings = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@given(
    stream=st.booleans(),
    fates=st.lists(scripts, max_size=6),
    slow_at=st.integers(0, 8),
    turns=interleavings,
)
@settings(deadline=None, max_examples=200)
def test_the_app_sees_one_attempt_and_the_other_is_closed(
    stream: bool, fates: list[Script], slow_at: int, turns: list[int]
) -> None:
    world = World(plan_of(stream=stream))
    play(world, fates, slow_at, turns)
    (end,) = world.told
    check_ends(world)
    if isinstance(end, Finish):
        assert world.answer.state is State.DONE
        (part,) = world.stored
        assert world.shown == reference(world)
        (start,) = [start for start in world.starts if start.number == part.number]
        told = [(past.attempt, past.error) for past in start.previous]
        assert [(past.attempt, past.error) for past in part.verified.receipt.route] == told
    else:
        assert not world.stored
        assert any(text_of(seed).startswith(shown_text(world)) for seed in fresh_seeds(world))
        assert not any(b'"stop"' in data for data in world.shown), "no forged finish"


@given(fates=st.lists(scripts, max_size=4), slow_at=st.integers(0, 6), turns=interleavings)
@settings(deadline=None, max_examples=100)
def test_what_is_held_back_comes_from_one_of_them(
    fates: list[Script], slow_at: int, turns: list[int]
) -> None:
    world = World(plan_of(stream=True), nodes=[*PROVIDERS, NODES[0]])
    play(world, fates, slow_at, turns)
    (end,) = world.told
    check_ends(world)
    text = shown_text(world)
    assert isinstance(end, Fail) or any(text == text_of(seed) for seed in fresh_seeds(world))


@given(slow_at=st.integers(1, 3), turns=interleavings, stop_after=st.integers(0, 30))
@settings(deadline=None, max_examples=50)
def test_both_are_closed_when_the_client_leaves(
    slow_at: int, turns: list[int], stop_after: int
) -> None:
    world = World(plan_of(stream=True))
    world.do(world.answer.begin(0.0))
    players = {}
    for step in range(stop_after):
        for number, start in world.live.items():
            players.setdefault(number, events(world, start, HONEST))
        if world.answer.over:
            break
        if step == slow_at and world.running is not None:
            world.do(world.answer.on_slow(world.running.number, world.now_s))
        numbers = sorted(players)
        world.do(next(players[numbers[turns[step % len(turns)] % len(numbers)]], ()))
    world.do(world.answer.stop(Failure(code="client_gone", message="left")))
    assert len(world.told) == 1
    check_ends(world)


def test_a_hedge_says_beside_whom_it_began_and_the_loser_is_on_record() -> None:
    world = World(plan_of(stream=True))
    world.do(world.answer.begin(0.0))
    slow = world.running
    assert slow is not None
    world.do(world.answer.on_slow(slow.number, 1.0))
    assert world.answer.on_slow(slow.number, 1.0) == (), "once"
    hedge = world.live[1]
    assert [(past.attempt, past.error) for past in hedge.previous] == [(slow.attempt, "hedged")]
    world.now_s = 2.0
    for actions in events(world, hedge, HONEST):
        world.do(actions)
    (lost,) = [end for end in world.ends if isinstance(end, Ended) and end.failure is not None]
    assert lost.number == slow.number
    assert lost.failure is not None
    assert lost.failure.code == "hedge_lost"
    assert lost.timings.first_token_s is not None, "it would have taken at least so long"
    assert lost.timings.first_token_s > 2.0
    (part,) = world.stored
    assert [past.error for past in part.verified.receipt.route] == ["hedged"]


def test_where_one_fails_the_other_goes_on_alone() -> None:
    world = World(plan_of(stream=True))
    world.do(world.answer.begin(0.0))
    slow = world.running
    assert slow is not None
    world.do(world.answer.on_slow(slow.number, 1.0))
    refused = Failure(code="bad_request", message="no", retryable=False, status=400)
    world.do(world.answer.on_failed(1, refused, 1.1))
    assert list(world.live.values()) == [slow]
    for actions in events(world, slow, HONEST):
        world.do(actions)
    assert isinstance(world.told[0], Finish)
    assert world.stored[0].verified.receipt.route == ()


def test_a_hedge_keeps_to_the_model_and_leaves_the_node() -> None:
    tiers = (Candidate(model=MODEL), Candidate(model="stand-in", tier=1))
    world = World(msgspec.structs.replace(plan_of(stream=True), candidates=tiers))
    world.do(world.answer.begin(0.0))
    start = world.running
    assert start is not None
    (seek,) = world.answer.on_slow(start.number, 1.0)
    assert isinstance(seek, Seek)
    assert [one.model for one in seek.need.candidates] == [MODEL]
    assert start.deployment.node in seek.need.banned
    assert world.answer.on_unplaced(seek.number, None, 1.0) == (), "the slow one goes on"
    for actions in events(world, start, HONEST):
        world.do(actions)
    assert isinstance(world.told[0], Finish)


def test_nothing_is_hedged_once_text_has_come() -> None:
    world = World(plan_of(stream=False))
    world.do(world.answer.begin(0.0))
    start = world.running
    assert start is not None
    played = events(world, start, HONEST)
    world.do(next(played))
    world.do(next(played))
    assert world.answer.on_slow(start.number, world.now_s) == ()
