"""Scoring by the embedded engine with its real model: an honest answer has margin 0 at every token,
under every rule and beside other work; a cheat's does not.

One engine serves all tests of this file, as in ``test_engine.py``.
"""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.support.small_engine import (
    CONTEXT,
    JSON_GRAMMAR,
    RULES,
    SCORED,
    answer,
    facts,
    prompt,
)

from trunkline.base.errors import RequestError, UpstreamError
from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.inference.ports import Generate, Sampling, Score, TokenScore

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUESTION = "Tell me a short story about a lighthouse keeper and the sea."
LENGTH = 24


async def generated(engine: EmbeddedEngine, question: str, rule: Sampling) -> Score:
    """An honest answer, as a claim to be scored."""
    tokens = await prompt(engine, question)
    events = await answer(engine, Generate(prompt=tokens, max_tokens=LENGTH, sampling=rule))
    return Score(prompt=tokens, tokens=tuple(event.token for event in events), sampling=rule)


def honest(scores: tuple[TokenScore, ...]) -> bool:
    return all(score.margin == 0.0 and score.kept for score in scores)


@pytest.mark.parametrize("rule", [*RULES, Sampling(seed=b"\x44" * 32, top_p=0.5, temperature=0.2)])
async def test_an_honest_answer_has_margin_zero_at_every_token(
    engine: EmbeddedEngine, rule: Sampling
) -> None:
    claim = await generated(engine, QUESTION, rule)
    scores = await engine.score(claim)
    assert tuple(score.token for score in scores) == claim.tokens
    assert [score.position for score in scores] == list(range(len(claim.tokens)))
    assert honest(scores)
    assert all(score.decided for score in scores)
    assert all(score.entropy >= 0.0 and 0.0 <= score.end <= 1.0 for score in scores)


@pytest.mark.parametrize("rule", [SCORED, Sampling(temperature=0.0, top_logprobs=20)])
async def test_what_is_said_beside_a_token_is_to_the_bit_what_was_said_when_it_was_chosen(
    engine: EmbeddedEngine, rule: Sampling
) -> None:
    asked = Generate(prompt=await prompt(engine, QUESTION), max_tokens=LENGTH, sampling=rule)
    events = await answer(engine, asked)
    tokens = tuple(event.token for event in events)
    scores = await engine.score(Score(prompt=asked.prompt, tokens=tokens, sampling=rule))
    sent = [(event.logprob.hex(), event.top) for event in events]
    said = [score.beside for score in scores]
    assert [one and (one.logprob.hex(), one.top) for one in said] == sent
    assert {len(top) for _, top in sent} == {rule.top_logprobs}


async def test_nothing_is_said_beside_tokens_where_nobody_asked(engine: EmbeddedEngine) -> None:
    claim = await generated(engine, QUESTION, Sampling(seed=b"\x44" * 32))
    assert {score.beside for score in await engine.score(claim)} == {None}


async def test_scoring_and_generating_at_once_change_no_bit_of_each_other(
    engine: EmbeddedEngine,
) -> None:
    job = Generate(prompt=await prompt(engine, QUESTION), max_tokens=LENGTH, sampling=RULES[0])
    alone = facts(await answer(engine, job))
    claims = [await generated(engine, f"Why? {n}", RULES[n % len(RULES)]) for n in range(3)]
    together = await asyncio.gather(answer(engine, job), *(engine.score(claim) for claim in claims))
    assert facts(together[0]) == alone
    for scores in together[1:]:
        assert honest(scores)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": b"\x55" * 32},
        {"temperature": 0.6},
        {"top_p": 0.3},
        {"temperature": 0.0},
        {"top_k": 2},
    ],
)
async def test_another_rule_does_not_pass(
    engine: EmbeddedEngine, change: dict[str, object]
) -> None:
    rule = Sampling(seed=b"\x11" * 32, temperature=1.2)
    claim = await generated(engine, QUESTION, rule)
    fields = {"seed": rule.seed, "temperature": rule.temperature, **change}
    told = Score(prompt=claim.prompt, tokens=claim.tokens, sampling=Sampling(**fields))
    assert not honest(await engine.score(told))


async def test_another_prompt_does_not_pass(engine: EmbeddedEngine) -> None:
    claim = await generated(engine, QUESTION, Sampling(seed=b"\x11" * 32))
    asked = await prompt(engine, "Tell me a long story about a lighthouse keeper and the sea.")
    told = Score(prompt=asked, tokens=claim.tokens, sampling=claim.sampling)
    assert not honest(await engine.score(told))


async def test_one_exchanged_token_is_found_where_it_stands(engine: EmbeddedEngine) -> None:
    claim = await generated(engine, QUESTION, Sampling(seed=b"\x12" * 32))
    tokens = [*claim.tokens]
    tokens[9] = (tokens[9] + 1) % 49152
    scores = await engine.score(
        Score(prompt=claim.prompt, tokens=tuple(tokens), sampling=claim.sampling)
    )
    assert next(score.position for score in scores if score.margin > 0) == 9


async def test_a_grammar_restricts_the_choice_in_scoring_too(engine: EmbeddedEngine) -> None:
    rule = Sampling(seed=b"\x13" * 32, grammar=JSON_GRAMMAR, temperature=1.5)
    claim = await generated(engine, "Name a city and how many people live there, as JSON.", rule)
    scores = await engine.score(claim)
    assert honest(scores)
    wrong = Score(
        prompt=claim.prompt, tokens=(*claim.tokens[:3], 5, *claim.tokens[4:]), sampling=rule
    )
    kept = [score.kept for score in await engine.score(wrong)]
    assert kept == [True] * 3 + [False] * (len(claim.tokens) - 3)


async def test_the_end_of_an_answer_is_scored(engine: EmbeddedEngine) -> None:
    tokens = await prompt(engine, "What is the capital of France?")
    greedy = Sampling(temperature=0)
    events = await answer(engine, Generate(prompt=tokens, max_tokens=LENGTH, sampling=greedy))
    assert events[-1].finish == "stop"
    answered = tuple(event.token for event in events)
    scores = await engine.score(Score(prompt=tokens, tokens=answered, sampling=greedy))
    assert [score.end for score in scores] == [0.0] * (len(scores) - 1) + [1.0]


async def test_nothing_is_scored_for_an_empty_answer_and_wrong_claims_are_refused(
    engine: EmbeddedEngine,
) -> None:
    assert await engine.score(Score(prompt=(1,), tokens=(), sampling=Sampling())) == ()
    for claim, code in (
        (Score(prompt=(), tokens=(1,), sampling=Sampling()), "prompt_empty"),
        (Score(prompt=(1,), tokens=(49152,), sampling=Sampling()), "token_unknown"),
        (Score(prompt=(1,), tokens=(2,) * CONTEXT, sampling=Sampling()), "context_length_exceeded"),
        (Score(prompt=(1,), tokens=(2,), sampling=Sampling(seed=b"")), "seed_invalid"),
        (Score(prompt=(1,), tokens=(2,), sampling=Sampling(grammar="root")), "invalid_grammar"),
    ):
        with pytest.raises(RequestError) as caught:
            await engine.score(claim)
        assert caught.value.error_code == code


async def test_the_self_test_is_the_same_busy_or_idle_and_tells_weights_apart(
    cache: Path, engine: EmbeddedEngine
) -> None:
    quiet = await engine.self_test()
    job = Generate(prompt=await prompt(engine, QUESTION), max_tokens=LENGTH, sampling=RULES[0])
    busy, *_ = await asyncio.gather(engine.self_test(), answer(engine, job), engine.self_test())
    assert busy == quiet
    assert quiet.startswith("sha256:")
    other = EmbeddedEngine(
        EngineConfig(cache_folder=str(cache), weights="as_shipped", context_tokens=CONTEXT)
    )
    try:
        assert await other.self_test() != quiet
    finally:
        await other.close()


async def test_abandoned_scoring_and_a_killed_process_end_cleanly(engine: EmbeddedEngine) -> None:
    long = Score(prompt=tuple(range(3, 200)), tokens=tuple(range(3, 203)), sampling=Sampling())
    task = asyncio.create_task(engine.score(long))
    await engine.tokenize("a turn of the engine's loop", parse_special=False)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    claim = await generated(engine, QUESTION, RULES[0])
    failing = asyncio.gather(engine.score(claim), engine.self_test(), return_exceptions=True)
    await engine.tokenize("another turn", parse_special=False)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    for error in await failing:
        assert isinstance(error, UpstreamError)
        assert error.error_code == "engine_crashed"
    assert honest(await engine.score(claim))
