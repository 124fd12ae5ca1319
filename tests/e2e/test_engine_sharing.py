"""What prompts begin with alike is computed once, by the embedded engine with its real model: every
token, log-probability and score has the bits that it has without.

One engine serves all tests of this file, as in ``test_engine.py``.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.support.small_engine import RULES, SEQUENCES, answer, facts, prompt

from trunkline.engine import llama, weights
from trunkline.engine.client import EmbeddedEngine
from trunkline.inference.ports import Generate, Sampling, Score, Sharing

pytestmark = pytest.mark.asyncio(loop_scope="module")

LENGTH = 6
SYSTEM = "You keep a lighthouse, and answer in the words of somebody who has seen many storms. " * 3
QUESTIONS = ("Why is the sea salt?", "Why is the sea green?", "Who are you?", "What is wind?")
OURS = Sharing(scope="ours")


async def jobs(engine: EmbeddedEngine, sharing: Sharing) -> list[Generate]:
    """Questions that begin with the same fifty tokens, each with a rule of its own."""
    system = await engine.tokenize(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n", parse_special=True)
    return [
        Generate(
            prompt=(*system, *await prompt(engine, question)),
            max_tokens=LENGTH,
            sampling=rule,
            sharing=sharing,
        )
        for question, rule in zip(QUESTIONS, RULES, strict=True)
    ]


async def all_facts(
    engine: EmbeddedEngine, asked: Sequence[Generate]
) -> list[list[tuple[object, ...]]]:
    return [facts(found) for found in await asyncio.gather(*(answer(engine, j) for j in asked))]


async def test_answers_that_share_a_beginning_have_the_bits_of_lone_ones(
    engine: EmbeddedEngine,
) -> None:
    alone = [facts(await answer(engine, job)) for job in await jobs(engine, Sharing())]
    together = await jobs(engine, OURS)
    # At once, so that they compute the beginning together; again, from caches that are left over
    # and change places; and two alone, from what lies elsewhere.
    assert await all_facts(engine, together) == alone
    assert await all_facts(engine, together[::-1]) == alone[::-1]
    assert await all_facts(engine, together[1::2]) == alone[1::2]
    lead = [msgspec.structs.replace(job, sharing=Sharing(lead=45)) for job in together]
    assert await all_facts(engine, lead) == alone


async def test_choices_of_one_prompt_differ_by_their_seeds_alone(engine: EmbeddedEngine) -> None:
    first, *_ = await jobs(engine, OURS)
    choices = [
        msgspec.structs.replace(first, sampling=Sampling(seed=bytes([at]) * 32, top_logprobs=2))
        for at in range(SEQUENCES)
    ]
    together = await all_facts(engine, choices)
    unshared = [msgspec.structs.replace(job, sharing=Sharing()) for job in choices]
    assert together == [facts(await answer(engine, job)) for job in unshared]


async def test_scores_from_a_shared_beginning_have_the_same_bits(engine: EmbeddedEngine) -> None:
    def score(job: Generate, tokens: tuple[int, ...]) -> Score:
        sampling = msgspec.structs.replace(job.sampling, top_logprobs=-1)
        return Score(prompt=job.prompt, tokens=tokens, sampling=sampling, sharing=job.sharing)

    unshared, shared = await jobs(engine, Sharing()), await jobs(engine, OURS)
    # Claims of tokens that the model did not choose have margins, whose bits show a difference.
    claims = [tuple(job.prompt[-LENGTH - at : -at]) for at, job in enumerate(unshared, start=1)]
    plain = [await engine.score(score(j, c)) for j, c in zip(unshared, claims, strict=True)]
    assert all(any(one.margin > 0.0 for one in scores) for scores in plain)
    told = [score(j, c) for j, c in zip(shared, claims, strict=True)]
    assert await asyncio.gather(*(engine.score(one) for one in told)) == plain
    assert [await engine.score(one) for one in told] == plain


async def test_what_a_cancelled_answer_leaves_is_as_good(engine: EmbeddedEngine) -> None:
    """A cancelled answer's beginning serves the next, whole as it is."""
    first, second, *_ = await jobs(engine, Sharing(scope="cancelled"))
    stream = engine.generate(first)
    await anext(stream)
    await stream.aclose()
    plain = msgspec.structs.replace(second, sharing=Sharing())
    assert facts(await answer(engine, second)) == facts(await answer(engine, plain))


async def test_what_changes_places_with_an_empty_sequence_leaves_that_empty(
    engine: EmbeddedEngine, cache: Path
) -> None:
    """Else a filler behind what is thought to be there would end the engine."""
    tokens = await prompt(engine, QUESTIONS[0])
    library = llama.Library(llama.library_path(), log=lambda line: None)
    model = llama.Model(library, weights.prepare(weights.locate(""), "f16", cache).path)
    context = llama.Context(model, llama.Settings(sequences=2, context_tokens=256, ubatch_tokens=8))

    def bits(sequence: int, start: int) -> list[bytes]:
        places = range(start, start + 4)
        context.decode([tokens[at] for at in places], places, [sequence] * 4, [True] * 4)
        return [np.array(context.logits(row)).tobytes() for row in range(4)]

    plain = [bits(0, 0), bits(0, 4)]
    context.forget(0, 4)
    context.swap(0, 1)
    assert (context.length(0), context.length(1)) == (0, 4)
    assert bits(1, 4) == plain[1]
    assert [bits(0, 0), bits(0, 4)] == plain
    context.forget(0, 0)
    context.swap(0, 1)
    assert (context.length(0), context.length(1)) == (8, 0)
    context.close()
    model.close()
