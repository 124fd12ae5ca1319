"""How much of what providers allow is used under too much demand, and that nobody hears of a limit
under less: in virtual time, where no machine's load has a say. The same as ``bench/limits.py``."""

import random

import pytest
from tests.support.limited import Provider, World, bursts, fairness

from trunkline.gateway.core.policy import LimitsPolicy

SECONDS = 420.0
DEADLINE_S = 150.0
PROMPT = b'{"max_tokens": 40, "messages": [{"role": "user", "content": "%s"}]}' % (b"word " * 40)
TOKENS = 50 + 40
"""What the providers count: the prompt has a token in five bytes, the gateway believes two."""
SHARES = {"greedy": 0.75, "modest": 0.25}
TARGET = 0.95


def providers(rng: random.Random, *, says_next: bool = False) -> dict[str, Provider]:
    """Three that count otherwise, say otherwise, and allow 1.5 calls a second together."""
    return {
        "requests": Provider(requests=36, fixed_s=rng.uniform(-60, 0), takes_s=2.0),
        "tokens": Provider(
            tokens=30 * TOKENS, takes_s=2.0, states_window=True, states_next=says_next
        ),
        "places": Provider(places=2, takes_s=5.0, states=False),
    }


def world(load: float, seed: int, *, says_next: bool = False) -> World:
    rng = random.Random(seed)  # noqa: S311 - a repeatable draw
    made = World(providers(rng, says_next=says_next), seed=seed)
    made.scheduler.slots.configure_account("places", LimitsPolicy(concurrency=2))
    for tenant, share in SHARES.items():
        for at_s in bursts(rng, capacity_s(made) * load * share, SECONDS):
            made.ask(at_s, tenant, tokens=TOKENS, prompt=PROMPT, deadline_s=DEADLINE_S)
    made.run()
    return made


def capacity_s(of: World) -> float:
    return sum(provider.rate_s(TOKENS) for provider in of.providers.values())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("load", [0.9, 1.0])
def test_up_to_capacity_nobody_hears_of_a_limit(load: float, seed: int) -> None:
    seen = world(load, seed, says_next=seed % 2 == 0).seen.values()
    assert [one.refused for one in seen if one.done_s is None] == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("load", [1.5, 3.0])
def test_beyond_capacity_all_of_it_is_used_and_shared(load: float, seed: int) -> None:
    made = world(load, seed, says_next=seed % 2 == 0)
    # Until the first minute has passed, whole windows are there at once.
    done = [
        one for one in made.seen.values() if one.done_s is not None and 60.0 < one.done_s <= SECONDS
    ]
    assert len(done) >= TARGET * capacity_s(made) * (SECONDS - 60.0)
    refused = [one.refused for one in made.seen.values() if one.done_s is None]
    assert all(one is not None and one.retry_after_s for one in refused)
    # Half of what there is each, unless one wants less.
    got = {name: sum(one.request.tenant == name for one in done) for name in SHARES}
    wanted = min(SHARES["modest"] * load, 0.5)
    entitled = {"modest": wanted, "greedy": 1 - wanted}
    assert fairness([got[name] / entitled[name] for name in SHARES]) >= TARGET
    # Nothing beats on a closed door: each provider refuses at most one call in ten.
    assert all(p.refused <= 0.1 * len(p.taken) for p in made.providers.values())
