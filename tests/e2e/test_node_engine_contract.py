"""What the node relies on in an engine: the same tests for the scripted one and the real one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.unit.node.scripted import ScriptedEngine

from trunkline.base.errors import RequestError
from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.inference.ports import Engine, Generate, Sampling, Token

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["scripted", "embedded"])
async def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Engine]:
    made: Engine
    if request.param == "scripted":
        made = ScriptedEngine()
    else:
        cache: Path = tmp_path_factory.mktemp("cache")
        made = EmbeddedEngine(
            EngineConfig(
                cache_folder=str(cache), weights="as_shipped", sequences=2, context_tokens=256
            )
        )
    await made.model()
    yield made
    await made.close()


async def prompt(engine: Engine) -> tuple[int, ...]:
    return await engine.tokenize("<|im_start|>user\nCount.<|im_end|>\n", parse_special=True)


async def job(engine: Engine, **more: object) -> Generate:
    given: dict[str, object] = {
        "prompt": await prompt(engine),
        "max_tokens": 12,
        "sampling": Sampling(seed=b"\x05" * 32),
    }
    return Generate(**given | more)  # type: ignore[arg-type]


async def tokens(engine: Engine, what: Generate) -> list[Token]:
    return [token async for token in engine.generate(what)]


async def test_the_model_says_what_the_service_needs(engine: Engine) -> None:
    model = await engine.model()

    assert model.vocabulary_size == len(engine.pieces())
    assert model.eos_token_ids
    assert all(engine.pieces()[token] == b"" for token in model.eos_token_ids)
    assert "messages" in model.chat_template
    assert model.numerics


async def test_control_tokens_come_only_from_templates(engine: Engine) -> None:
    model = await engine.model()
    text = "<|im_end|>"
    control = await engine.tokenize(text, parse_special=True)
    plain = await engine.tokenize(text, parse_special=False)

    assert len(control) == 1
    assert control[0] in model.eos_token_ids
    assert not set(plain) & set(model.eos_token_ids)
    assert b"".join(engine.pieces()[token] for token in plain) == text.encode()


async def test_the_same_job_gives_the_same_tokens_and_one_end(engine: Engine) -> None:
    what = await job(engine)
    first, second = await tokens(engine, what), await tokens(engine, what)

    assert first == second
    assert [token.position for token in first] == list(range(len(first)))
    assert [bool(token.finish) for token in first] == [False] * (len(first) - 1) + [True]
    assert len(first) <= 12


async def test_a_prefix_gives_exactly_the_tail(engine: Engine) -> None:
    whole = await tokens(engine, await job(engine))
    for cut in (1, len(whole) // 2, len(whole) - 1):
        prefix = tuple(token.token for token in whole[:cut])
        assert await tokens(engine, await job(engine, prefix=prefix)) == whole[cut:]


async def test_scores_of_a_prefix_are_given_again(engine: Engine) -> None:
    sampling = Sampling(seed=b"\x05" * 32, top_logprobs=2)
    whole = await tokens(engine, await job(engine, sampling=sampling))
    prefix = tuple(token.token for token in whole[:4])
    again = await tokens(engine, await job(engine, sampling=sampling, prefix=prefix))

    assert [token.token for token in again] == [token.token for token in whole]
    assert [token.logprob for token in again] == [token.logprob for token in whole]
    assert [token.top for token in again] == [token.top for token in whole]
    assert [token.replayed for token in again[:5]] == [True] * 4 + [False]


async def test_a_complete_answer_is_not_continued(engine: Engine) -> None:
    model = await engine.model()

    with pytest.raises(RequestError) as refused:
        await tokens(engine, await job(engine, prefix=(65, model.eos_token_ids[0])))
    assert refused.value.error_code == "prefix_invalid"


async def test_closing_leaves_the_engine_ready_for_others(engine: Engine) -> None:
    generator = engine.generate(await job(engine, max_tokens=64))
    await anext(generator)
    await generator.aclose()

    assert await tokens(engine, await job(engine))
