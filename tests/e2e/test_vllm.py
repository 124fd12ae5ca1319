"""A vLLM server behind the ports of the embedded engine: what it answers is what the rule chooses,
what it says of an answer decides as far as it goes, and one that can not be used is refused.

The server is a stand-in with the embedded engine's numbers (``tests/support/vllm_server.py``), so
tokens can be compared to the last one. What a real vLLM did is in ``docs/adr/0029``.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from tests.support.small_engine import CONTEXT, RULES, SEQUENCES, answer, prompt
from tests.support.vllm_server import MAX_LOGPROBS, VllmStandIn, serving
from tests.unit.node.harness import node

from trunkline.base.errors import (
    BadResponseError,
    ConfigError,
    RequestError,
    TruncatedError,
    UpstreamError,
)
from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.engine.vllm import LOOK_S, VllmConfig, VllmEngine, VllmScorer
from trunkline.inference.ports import Generate, Sampling, Score
from trunkline.remote.exchange import ProviderTimeouts
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime.clock import SystemClock

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION = "Name three rivers of Europe."
LENGTH = 12
PATIENCE = {"start_timeout_s": 240.0, "stall_timeout_s": 240.0}
"""Nothing here is about how fast a busy machine is."""
COLD = Sampling(seed=b"\x51" * 32, temperature=0.2, top_p=0.9)


class Clock(SystemClock):
    """Monotonic time that tests move."""

    ahead_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.ahead_s


class Bench:
    """The real engine, a stand-in over it, and the vocabulary that both sides share."""

    def __init__(self, engine: EmbeddedEngine, cache: Path) -> None:
        self.engine = engine
        self.clock = Clock()
        self.transport = HttpTransport(max_connections_per_origin=8)
        self.vocabulary = EngineConfig(
            cache_folder=str(cache), compute="vocabulary", context_tokens=CONTEXT, **PATIENCE
        )

    def config(self, url: str, **changes: object) -> VllmConfig:
        patient = ProviderTimeouts(
            connect_s=240.0, stream_head_s=240.0, whole_head_s=240.0, idle_s=240.0
        )
        base = {"url": url, "vocabulary": self.vocabulary, "owner": "t", "timeouts": patient}
        return VllmConfig(**(base | {"candidates": MAX_LOGPROBS} | changes))

    def answering(self, url: str, **changes: object) -> VllmEngine:
        return VllmEngine(self.config(url, **changes), self.transport, clock=self.clock)

    def checking(self, url: str, **changes: object) -> VllmScorer:
        return VllmScorer(self.config(url, **changes), self.transport, clock=self.clock)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bench(cache: Path) -> AsyncIterator[Bench]:
    engine = EmbeddedEngine(
        EngineConfig(
            cache_folder=str(cache), sequences=SEQUENCES, context_tokens=CONTEXT, **PATIENCE
        )
    )
    made = Bench(engine, cache)
    await engine.model()
    yield made
    await made.transport.aclose()
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand_in(bench: Bench) -> VllmStandIn:
    return VllmStandIn(bench.engine)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(stand_in: VllmStandIn) -> AsyncIterator[str]:
    async with serving(stand_in) as address:
        yield address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(bench: Bench, url: str) -> AsyncIterator[VllmEngine]:
    made = bench.answering(url)
    yield made
    await made.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scorer(bench: Bench, url: str) -> AsyncIterator[VllmScorer]:
    made = bench.checking(url)
    yield made
    await made.close()


async def test_the_model_is_the_files_and_its_numerics_are_nobody_elses(
    bench: Bench, engine: VllmEngine, url: str
) -> None:
    theirs, ours = await bench.engine.model(), await engine.model()
    assert msgspec.structs.replace(ours, numerics=theirs.numerics) == theirs
    assert list(engine.pieces()) == list(bench.engine.pieces())
    other = bench.answering(url, owner="u")
    numerics = {theirs.numerics, ours.numerics, (await other.model()).numerics}
    await other.close()
    assert len(numerics) == 3
    assert ours.numerics.startswith("vllm-")


@pytest.mark.parametrize("rule", [*RULES, COLD])
async def test_a_server_is_told_all_of_the_rule(
    bench: Bench, engine: VllmEngine, rule: Sampling
) -> None:
    job = Generate(prompt=await prompt(bench.engine, QUESTION), max_tokens=LENGTH, sampling=rule)
    ours, theirs = [await answer(one, job) for one in (engine, bench.engine)]
    assert [event.token for event in ours] == [event.token for event in theirs]
    assert [event.position for event in ours] == list(range(len(ours)))
    assert [event.finish for event in ours] == [event.finish for event in theirs]
    assert [event.top for event in ours] == [event.top for event in theirs]
    assert [event.logprob for event in ours] == [event.logprob for event in theirs]


@pytest.mark.parametrize("rule", RULES)
async def test_an_answer_begun_elsewhere_goes_on(
    bench: Bench, engine: VllmEngine, rule: Sampling
) -> None:
    job = Generate(prompt=await prompt(bench.engine, QUESTION), max_tokens=10, sampling=rule)
    whole = await answer(bench.engine, job)
    prefix = tuple(event.token for event in whole[:4])
    tail = await answer(engine, msgspec.structs.replace(job, prefix=prefix))
    given = [event for event in tail if event.replayed]
    assert [event.token for event in tail if not event.replayed] == [
        event.token for event in whole[4:]
    ]
    # Their log-probabilities are those that they were given with.
    assert [event.token for event in given] == list(prefix)
    assert [event.top for event in given] == [event.top for event in whole[:4]]
    for mine, first in zip(given, whole, strict=False):
        assert mine.logprob == pytest.approx(first.logprob, abs=1e-4)


async def test_what_candidates_decide_is_what_all_logits_say(
    bench: Bench, scorer: VllmScorer
) -> None:
    claim = await _claim(bench, COLD)
    part, whole = await scorer.score(claim), await bench.engine.score(claim)
    assert [one.token for one in part] == list(claim.tokens)
    assert all(one.decided and one.kept and one.margin == 0.0 for one in part)
    for mine, theirs in zip(part, whole, strict=True):
        assert mine.entropy == pytest.approx(theirs.entropy, abs=1e-6)
        assert mine.end == pytest.approx(theirs.end, abs=1e-6)


async def test_what_candidates_leave_open_is_no_evidence(bench: Bench, scorer: VllmScorer) -> None:
    warm = Sampling(seed=b"\x52" * 32, temperature=1.5)
    claim = await _claim(bench, warm)
    part, whole = await scorer.score(claim), await bench.engine.score(claim)
    assert not all(one.decided for one in part)
    for mine, theirs in zip(part, whole, strict=True):
        assert not mine.decided or mine.margin == pytest.approx(theirs.margin, abs=1e-6)
        assert mine.end >= theirs.end - 1e-9


async def test_a_cheat_is_seen(bench: Bench, scorer: VllmScorer) -> None:
    claim = await _claim(bench, COLD)
    other = msgspec.structs.replace(claim.sampling, seed=b"\x53" * 32)
    found = await scorer.score(msgspec.structs.replace(claim, sampling=other))
    assert sum(one.decided and one.margin > 0.0 for one in found) >= 2
    tokens = (claim.tokens[0] + 1, *claim.tokens[1:])
    swapped = (await scorer.score(msgspec.structs.replace(claim, tokens=tokens)))[0]
    assert swapped.decided
    assert swapped.margin > 1.0 or not swapped.kept


async def test_what_neither_port_can_do_is_refused(bench: Bench, engine: VllmEngine) -> None:
    rule = Sampling(grammar='root ::= "a"')
    with pytest.raises(RequestError, match="grammar"):
        await answer(engine, Generate(prompt=(1, 2), max_tokens=2, sampling=rule))
    with pytest.raises(RequestError, match="end-of-turn"):
        ends = (await engine.model()).eos_token_ids
        job = Generate(prompt=(1, 2), prefix=ends[:1], max_tokens=2, sampling=COLD)
        await answer(engine, job)


async def test_no_checking_server_is_exact(scorer: VllmScorer) -> None:
    with pytest.raises(UpstreamError, match="not exact") as refused:
        await scorer.self_test()
    assert (refused.value.error_code, refused.value.retryable) == ("engine_not_exact", False)


async def test_a_stream_that_ends_too_soon_is_no_answer(bench: Bench) -> None:
    async with serving(VllmStandIn(bench.engine, cut_after=3)) as address:
        engine = bench.answering(address)
        job = Generate(prompt=(1, 520, 198), max_tokens=9, sampling=Sampling(seed=b"\x54" * 32))
        seen = []
        with pytest.raises(TruncatedError):
            async for token in engine.generate(job):
                seen += [token]
        assert len(seen) == 3
        await engine.close()


async def test_a_stream_that_brings_no_tokens_is_not_followed_for_ever(bench: Bench) -> None:
    async with serving(VllmStandIn(bench.engine, idle=True)) as address:
        engine = bench.answering(address)
        with pytest.raises(BadResponseError, match="no tokens"):
            await answer(engine, Generate(prompt=(1, 520), max_tokens=2, sampling=COLD))
        await engine.close()


@pytest.mark.parametrize(
    ("like", "said"),
    [
        ({"keyed": False}, "logits-processors"),
        ({"model": "another"}, "served-model-name"),
        ({"max_model_len": CONTEXT - 1}, "max-model-len"),
        ({"other_tokens": True}, "another model"),
    ],
)
async def test_a_server_that_would_not_do_is_refused_before_it_answers(
    bench: Bench, like: dict[str, object], said: str
) -> None:
    async with serving(VllmStandIn(bench.engine, **like)) as address:
        engine = bench.answering(address)
        with pytest.raises(ConfigError, match=said):
            await answer(engine, Generate(prompt=(1,), max_tokens=1, sampling=COLD))
        await engine.close()


async def test_a_checking_server_needs_no_processor_and_as_many_candidates_as_are_asked(
    bench: Bench,
) -> None:
    async with serving(VllmStandIn(bench.engine, keyed=False)) as address:
        few, many = bench.checking(address), bench.checking(address, candidates=MAX_LOGPROBS + 1)
        claim = await _claim(bench, COLD, length=3)
        assert len(await few.score(claim)) == 3
        with pytest.raises(ConfigError, match="max-logprobs"):
            await many.score(claim)
        await few.close()
        await many.close()


async def test_an_answer_that_leaves_a_checking_server_no_room_can_not_be_scored(
    bench: Bench, scorer: VllmScorer
) -> None:
    full = Score(prompt=(1,) * (CONTEXT - 2), tokens=(2, 2), sampling=COLD)
    with pytest.raises(RequestError, match="max-model-len"):
        await scorer.score(full)
    async with serving(VllmStandIn(bench.engine, max_model_len=CONTEXT + 1)) as address:
        roomy = bench.checking(address)
        with pytest.raises(RequestError, match="context is"):
            await roomy.score(msgspec.structs.replace(full, tokens=(2, 2, 2)))
        await roomy.close()


async def test_a_checking_server_that_says_logits_is_refused(bench: Bench) -> None:
    async with serving(VllmStandIn(bench.engine, raw_logits=True)) as address:
        scorer = bench.checking(address)
        with pytest.raises(ConfigError, match="logprobs-mode"):
            await scorer.model()
        await scorer.close()


async def test_a_server_started_anew_without_the_processor_is_noticed(bench: Bench) -> None:
    changing = VllmStandIn(bench.engine)
    async with serving(changing) as address:
        engine = bench.answering(address)
        job = Generate(prompt=(1, 520), max_tokens=1, sampling=COLD)
        assert len(await answer(engine, job)) == 1
        changing.keyed = False
        bench.clock.ahead_s += LOOK_S
        with pytest.raises(ConfigError, match="own rule"):
            await answer(engine, job)
        await engine.close()


async def test_a_node_says_of_a_server_that_was_upgraded_under_it_what_it_computes_now(
    bench: Bench, tmp_path: Path
) -> None:
    upgraded = VllmStandIn(bench.engine)
    async with serving(upgraded) as address:
        engine = bench.answering(address)
        async with node(tmp_path, engine) as running:

            async def numerics() -> str:
                return (await running.caller.info()).models[0].numerics

            before = await numerics()
            upgraded.version = "0.33.0"
            bench.clock.ahead_s += LOOK_S
            async with asyncio.timeout(PATIENCE["start_timeout_s"]):
                while await numerics() == before:
                    # Each question has the node look once more.
                    pass


async def test_a_server_that_breaks_off_is_looked_at_anew(bench: Bench) -> None:
    upgraded = VllmStandIn(bench.engine)
    async with serving(upgraded) as address:
        engine = bench.answering(address)
        before = (await engine.model()).numerics
        upgraded.version, upgraded.cut_after = "0.33.0", 1
        with pytest.raises(TruncatedError):
            await answer(engine, Generate(prompt=(1, 520), max_tokens=9, sampling=COLD))
        assert (await engine.model()).numerics != before
        await engine.close()


async def _claim(bench: Bench, rule: Sampling, *, length: int = LENGTH) -> Score:
    tokens = await prompt(bench.engine, QUESTION)
    job = Generate(prompt=tokens, max_tokens=length, sampling=rule)
    said: Sequence[int] = [event.token for event in await answer(bench.engine, job)]
    return Score(prompt=tokens, tokens=tuple(said), sampling=rule)
