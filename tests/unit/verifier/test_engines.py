"""The pool of engines: started when needed, stopped when idle, counted."""

import asyncio

import pytest
from tests.support.auditing import Toy, ToyScorer

from trunkline.base.errors import ConfigError, ConnectError, Error
from trunkline.inference.ports import Sampling, Score, TokenScore
from trunkline.verifier.engines import Engines


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def unix_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s


class Engine(ToyScorer):
    """Remembers its life."""

    pid = None

    def __init__(self, toy: Toy) -> None:
        super().__init__(toy)
        self.closed = asyncio.Event()
        self.tests = 0
        self.jobs: list[Score] = []

    async def score(self, job: Score) -> tuple[TokenScore, ...]:
        self.jobs.append(job)
        return await super().score(job)

    async def self_test(self) -> str:
        self.tests += 1
        return await super().self_test()

    async def close(self) -> None:
        self.closed.set()


def pool(*toys: Toy, idle_s: float = 0.05):
    made: list[Engine] = []

    def maker(toy: Toy):
        def make() -> Engine:
            made.append(Engine(toy))
            return made[-1]

        return make

    clock = Clock()
    return Engines([maker(toy) for toy in toys], clock=clock, idle_s=idle_s), made, clock


async def test_nothing_runs_before_it_is_needed():
    engines, made, _ = pool(Toy())
    assert (engines.models(), made) == ((), [])


async def test_the_engine_of_the_weights_is_found_and_others_are_not_stood_in_for():
    engines, made, _ = pool(Toy(), Toy(weights=2))
    async with engines.of(Toy(weights=2).info.weights_digest) as found:
        assert (await found.model()).weights_digest == Toy(weights=2).info.weights_digest
    async with engines.of("sha256:" + "0" * 64) as found:
        assert found is None
    assert len(made) == 2


@pytest.mark.parametrize(
    "why", [ConnectError("nobody is there"), ConfigError("it serves another model")]
)
async def test_a_server_that_is_away_or_will_not_do_keeps_nobody_from_other_weights(why: Error):
    class Away(Engine):
        async def model(self):
            raise why

    here = Toy(weights=2)
    engines = Engines([lambda: Away(Toy()), lambda: Engine(here)], clock=Clock(), idle_s=1.0)
    async with engines.of(here.info.weights_digest) as found:
        assert (await found.model()).weights_digest == here.info.weights_digest
    with pytest.raises(type(why)):
        # It may have been the one.
        async with engines.of(Toy().info.weights_digest):
            pass


async def test_it_counts_and_asks_for_the_self_test_once():
    engines, made, _ = pool(Toy())
    async with engines.of(Toy().info.weights_digest) as found:
        await found.score(Score(prompt=(1, 2), tokens=(3,), sampling=Sampling()))
        assert await found.self_test() == await found.self_test()
    assert (engines.work.tokens, engines.work.prompt_tokens, made[0].tests) == (1, 2, 1)


async def test_only_what_was_drawn_shares_what_is_computed_for_a_prompt():
    engines, made, _ = pool(Toy())
    asked = Score(prompt=(1, 2), tokens=(3,), sampling=Sampling())
    for drawn in (True, False):
        async with engines.of(Toy().info.weights_digest, drawn=drawn) as found:
            await found.score(asked)
    assert [job.sharing.scope for job in made[0].jobs] == ["drawn", ""]


async def test_what_is_idle_is_stopped_and_started_again_when_needed():
    engines, made, clock = pool(Toy())
    weights = Toy().info.weights_digest
    async with engines.of(weights):
        pass
    await engines.stop_idle()
    assert not made[0].closed.is_set()
    clock.now_s = 1.0
    await engines.stop_idle()
    assert made[0].closed.is_set()
    async with engines.of(weights) as found:
        assert found is not None
        clock.now_s = 9.0
        await engines.stop_idle()
        assert not made[1].closed.is_set()
    await engines.close()
    assert made[1].closed.is_set()
