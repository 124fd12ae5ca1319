"""The embedded engine with its real model: exact replay, cancellation, crashes, bounds, grammars.

One engine serves all tests of this file (``conftest``). It keeps its derived weights in a folder of
its own.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.small_engine import (
    CONTEXT,
    JSON_GRAMMAR,
    RULES,
    SCORED,
    SEQUENCES,
    answer,
    facts,
    prompt,
    text,
)

from trunkline.base.errors import ConfigError, OverloadedError, RequestError, UpstreamError
from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.inference.ports import Generate, Sampling

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its own: what is in it is damaged here."""
    return tmp_path_factory.mktemp("engine-cache")


async def test_model_describes_itself(engine: EmbeddedEngine) -> None:
    model = await engine.model()
    assert model.context_tokens == CONTEXT
    assert model.vocabulary_size == len(engine.pieces()) == 49152
    assert model.weights_digest != model.source_digest
    assert "im_start" in model.chat_template
    assert engine.pieces()[model.eos_token_ids[-1]] == b""


@pytest.mark.parametrize(
    "system",
    [
        "",
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n",
    ],
)
async def test_knows_the_capital_of_france(engine: EmbeddedEngine, system: str) -> None:
    # Under the system message, the weights as shipped get this wrong: docs/adr/0003.
    tokens = await engine.tokenize(system, parse_special=True)
    tokens += await prompt(engine, "What is the capital of France?")
    events = await answer(
        engine, Generate(prompt=tokens, max_tokens=24, sampling=Sampling(temperature=0))
    )
    assert text(engine, events) == "The capital of France is Paris."
    assert events[-1].finish == "stop"


async def test_control_tokens_are_text_unless_asked_for(engine: EmbeddedEngine) -> None:
    assert len(await engine.tokenize("<|im_start|>", parse_special=True)) == 1
    spelled = await engine.tokenize("<|im_start|> ünï", parse_special=False)
    assert len(spelled) > 1
    assert b"".join(engine.pieces()[token] for token in spelled).decode() == "<|im_start|> ünï"


@pytest.mark.parametrize("rule", RULES)
async def test_continuing_gives_exactly_the_tail_in_any_company(
    engine: EmbeddedEngine, rule: Sampling
) -> None:
    tokens = await prompt(engine, "Tell me a short story about a lighthouse keeper and the sea.")
    job = Generate(prompt=tokens, max_tokens=20, sampling=rule)
    undisturbed = await answer(engine, job)
    others = [
        Generate(
            prompt=await prompt(engine, "Why? " * length),
            max_tokens=6 + length // 2,
            sampling=Sampling(seed=bytes([length]) * 32),
        )
        for length in (1, 5, 24)
    ]
    for cut in {len(undisturbed) // 3, len(undisturbed) - 1}:
        prefix = tuple(event.token for event in undisturbed[:cut])
        continued = Generate(prompt=tokens, prefix=prefix, max_tokens=20, sampling=rule)
        company = [asyncio.create_task(answer(engine, other)) for other in others]
        again = await answer(engine, continued)
        await asyncio.gather(*company)
        assert facts(again) == facts(undisturbed)
        assert [event.replayed for event in again].count(True) == cut


async def test_a_long_prompt_cut_anywhere_is_scored_the_same(engine: EmbeddedEngine) -> None:
    words = await engine.tokenize(
        "The sea was calm and the lamp was lit. " * 40, parse_special=False
    )
    whole = Generate(prompt=words[:300], max_tokens=100, prefix=words[300:390], sampling=SCORED)
    scored = facts(await answer(engine, whole))
    # Token by token from one prompt, in pieces from the other: the same bits at each position.
    longer = Generate(prompt=words[:389], max_tokens=11, prefix=words[389:390], sampling=SCORED)
    overlap = await answer(engine, longer)
    assert overlap[0].logprob.hex() == scored[89][2]


async def test_cancelling_frees_the_sequence(engine: EmbeddedEngine) -> None:
    tokens = await prompt(engine, "Count from one to one thousand.")
    endless = Generate(
        prompt=tokens, max_tokens=400, sampling=Sampling(logit_bias={0: -100, 2: -100, 4: -100})
    )
    streams = [engine.generate(endless) for _ in range(SEQUENCES)]
    for stream in streams:
        await anext(stream)
    waiting = asyncio.create_task(
        answer(engine, Generate(prompt=tokens, max_tokens=1, sampling=Sampling()))
    )
    # All sequences are taken by answers 400 tokens long; the waiting one gets on all the same.
    for stream in streams:
        await stream.aclose()
    assert len(await asyncio.wait_for(waiting, 20)) == 1


async def test_calls_are_bounded(engine: EmbeddedEngine) -> None:
    tokens = await prompt(engine, "Hello")
    job = Generate(prompt=tokens, max_tokens=200, sampling=Sampling())
    streams = [engine.generate(job) for _ in range(12)]
    first = [asyncio.create_task(anext(stream)) for stream in streams]
    await first[0]
    with pytest.raises(OverloadedError) as caught:
        await anext(engine.generate(job))
    assert caught.value.error_code == "engine_queue_full"
    for task, stream in zip(first, streams, strict=True):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await stream.aclose()
    assert await answer(engine, Generate(prompt=tokens, max_tokens=2, sampling=Sampling()))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda job: {"max_tokens": CONTEXT}, "context_length_exceeded"),
        (lambda job: {"prompt": ()}, "prompt_empty"),
        (lambda job: {"prompt": (49152,)}, "token_unknown"),
        (lambda job: {"prefix": (-1,)}, "token_unknown"),
        (lambda job: {"prefix": (5,) * 9}, "max_tokens_invalid"),
        (lambda job: {"prefix": (2,)}, "prefix_invalid"),
        (lambda job: {"sampling": Sampling(temperature=float("nan"))}, "parameter_out_of_range"),
        (lambda job: {"sampling": Sampling(top_logprobs=100_000)}, "parameter_out_of_range"),
        (lambda job: {"sampling": Sampling(logit_bias={99999: 1})}, "parameter_out_of_range"),
        (lambda job: {"sampling": Sampling(seed=b"short")}, "seed_invalid"),
        (lambda job: {"sampling": Sampling(grammar="root ::= (")}, "invalid_grammar"),
        (lambda job: {"sampling": Sampling(grammar="root ::= root")}, "invalid_grammar"),
        (
            lambda job: {"prefix": (5,), "sampling": Sampling(grammar='root ::= "x"')},
            "prefix_invalid",
        ),
    ],
)
async def test_refuses_what_it_can_not_serve(
    engine: EmbeddedEngine, change: Callable[[Generate], dict[str, object]], code: str
) -> None:
    job = Generate(prompt=(1, 2, 3), max_tokens=9, sampling=Sampling())
    fields = {"prompt": job.prompt, "max_tokens": 9, "sampling": job.sampling, **change(job)}
    with pytest.raises(RequestError) as caught:
        await answer(engine, Generate(**fields))
    assert caught.value.error_code == code
    if code == "context_length_exceeded":
        assert str(CONTEXT) in caught.value.message
        assert str(CONTEXT + 3) in caught.value.message


async def test_grammar_output_is_valid_and_continues_exactly(engine: EmbeddedEngine) -> None:
    tokens = await prompt(engine, "Name a city and how many people live there, as JSON.")
    for seed in range(3):
        rule = Sampling(seed=bytes([seed]) * 32, grammar=JSON_GRAMMAR, temperature=1.5)
        job = Generate(prompt=tokens, max_tokens=60, sampling=rule)
        events = await answer(engine, job)
        document = json.loads(text(engine, events))
        assert set(document) == {"city", "people"}
        assert events[-1].finish in ("grammar", "stop")
        cut = len(events) // 2
        prefix = tuple(event.token for event in events[:cut])
        tail = Generate(prompt=tokens, prefix=prefix, max_tokens=60, sampling=rule)
        assert facts(await answer(engine, tail)) == facts(events[cut:])


async def test_a_killed_process_is_a_clean_error_and_comes_back(engine: EmbeddedEngine) -> None:
    tokens = await prompt(engine, "Tell me about rivers.")
    job = Generate(prompt=tokens, max_tokens=64, sampling=SCORED)
    before = await answer(engine, job)
    stream = engine.generate(job)
    await anext(stream)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(UpstreamError) as caught:
        async for _ in stream:
            pass
    assert caught.value.error_code == "engine_crashed"
    assert caught.value.retryable
    assert facts(await answer(engine, job)) == facts(before)


async def test_a_hung_process_is_killed_and_replaced(cache: Path) -> None:
    engine = EmbeddedEngine(
        EngineConfig(
            cache_folder=str(cache), sequences=1, context_tokens=CONTEXT, stall_timeout_s=5.0
        )
    )
    try:
        job = Generate(prompt=(1, 2, 3), max_tokens=300, sampling=Sampling(logit_bias={2: -100}))
        stream = engine.generate(job)
        await anext(stream)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(UpstreamError) as caught:
            async for _ in stream:
                pass
        assert caught.value.error_code == "engine_crashed"
        lone = Generate(prompt=(1, 2, 3), max_tokens=3, sampling=Sampling())
        assert await answer(engine, lone)
    finally:
        await engine.close()


async def test_closing_reaps_the_process_and_fails_what_is_in_flight(cache: Path) -> None:
    config = EngineConfig(
        cache_folder=str(cache), weights="as_shipped", sequences=1, context_tokens=CONTEXT
    )
    engine = EmbeddedEngine(config)
    model = await engine.model()
    assert model.weights_digest == model.source_digest
    pid = engine.pid
    assert pid is not None
    job = Generate(prompt=(1, 2, 3), max_tokens=300, sampling=Sampling(logit_bias={2: -100}))
    stream = engine.generate(job)
    await anext(stream)
    await engine.close()
    await engine.close()
    with pytest.raises(UpstreamError):
        async for _ in stream:
            pass
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(UpstreamError):
        await engine.model()


PARENT = """
import asyncio, sys
from trunkline.engine.client import EmbeddedEngine, EngineConfig

async def main():
    engine = EmbeddedEngine(EngineConfig(cache_folder=sys.argv[1], weights="as_shipped"))
    await engine.model()
    print(engine.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_process_does_not_outlive_its_parent(cache: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(cache), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = os.pidfd_open(int(await parent.stdout.readline()))
    try:
        os.kill(parent.pid, signal.SIGKILL)
        # A process's descriptor becomes readable when the process ends.
        gone = asyncio.Event()
        asyncio.get_running_loop().add_reader(child, gone.set)
        await asyncio.wait_for(gone.wait(), 30)
    finally:
        asyncio.get_running_loop().remove_reader(child)
        os.close(child)
        await parent.wait()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_path": "/nonexistent/model.gguf"}, "model_path"),
        ({"weights": "q2"}, "as_shipped"),
        ({"context_tokens": 1 << 20}, "context_tokens"),
        ({"model_path": __file__}, "unusable"),
    ],
)
async def test_a_wrong_configuration_is_said_once_and_not_retried(
    cache: Path, change: dict[str, object], says: str
) -> None:
    engine = EmbeddedEngine(EngineConfig(**{"cache_folder": str(cache), **change}))
    try:
        for _ in range(2):
            with pytest.raises(ConfigError, match=says):
                await engine.model()
        assert engine.pid is None
    finally:
        await engine.close()


def damage(cache: Path, digest: str) -> tuple[Path, Path]:
    """A cache folder whose only file has its last byte wrong; returns the good and the bad file."""
    (derived,) = cache.glob("*.gguf")
    damaged = cache / "damaged"
    damaged.mkdir()
    copy = damaged / derived.name
    copy.write_bytes(derived.read_bytes()[:-1] + b"\xff")
    (damaged / f"{derived.name}.sha256").write_text(digest)
    return derived, copy


async def test_a_damaged_derived_file_is_derived_again(cache: Path, engine: EmbeddedEngine) -> None:
    model = await engine.model()
    derived, copy = damage(cache, model.weights_digest)
    other = EmbeddedEngine(
        EngineConfig(cache_folder=str(copy.parent), sequences=1, context_tokens=CONTEXT)
    )
    try:
        assert (await other.model()).weights_digest == model.weights_digest
        assert (await other.model()).numerics == model.numerics
        assert copy.read_bytes() == derived.read_bytes()
    finally:
        await other.close()
