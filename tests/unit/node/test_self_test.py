"""The node's self-test: in a quiet moment, once, signed, logged; and where there is none."""

import asyncio
from pathlib import Path

import pytest
from tests.unit.node.harness import KEY, NAME, Node, attempt, chat, node
from tests.unit.node.scripted import MODEL, ScriptedEngine
from tests.unit.node.test_openings import Log

from trunkline.base.errors import UpstreamError
from trunkline.node import nonce_store, self_test
from trunkline.node.config import LogTarget, NodeConfig
from trunkline.node.config_providers import OpenAIEngine
from trunkline.remote.node import NodeRefusedError
from trunkline.runtime.server import serving
from trunkline.verdicts import SelfTest

BITS = "sha256:" + "5" * 64


class TestedEngine(ScriptedEngine):
    """Says what it computes; ``failures``: what it says before that. ``hold`` holds a test until
    it is set."""

    __test__ = False

    def __init__(self, *failures: UpstreamError) -> None:
        super().__init__()
        self.failures = list(failures)
        self.tested = 0
        self.tested_while: list[int] = []
        self.begun = asyncio.Event()
        self.hold: asyncio.Event | None = None

    async def self_test(self) -> str:
        self.tested += 1
        self.tested_while.append(self.running)
        self.begun.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.failures:
            raise self.failures.pop(0)
        return BITS


async def stated(running: Node) -> SelfTest:
    async with asyncio.timeout(120):
        while True:
            try:
                note = await running.caller.self_test()
            except NodeRefusedError as error:
                if error.error_code != "self_test_pending":
                    raise
                assert error.retryable
                assert error.retry_after_s
            else:
                return SelfTest.open_note(note, KEY)


async def test_it_is_made_once_signed_and_logged(tmp_path: Path) -> None:
    log, engine = Log(), TestedEngine()
    async with serving(log) as url:
        config = NodeConfig(
            name=NAME, operator="a", embeddings=False, log=LogTarget(url=url, vkey=str(KEY))
        )
        async with node(tmp_path, engine, config=config) as running:
            said = await stated(running)
            note = await running.caller.self_test()
            async with asyncio.timeout(120):
                while note not in log.entries:
                    await running.caller.info()
    assert said.bits == BITS
    assert (said.model, said.numerics, said.weights) == (
        MODEL.name, MODEL.numerics, MODEL.weights_digest,
    )  # fmt: skip
    assert said.cpu
    assert said.engine
    assert said.key == str(KEY)
    assert engine.tested == 1


async def test_answers_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_test, "QUIET_POLL_S", 0)
    monkeypatch.setattr(self_test, "QUIET_POLLS_MAX", 10**9)
    monkeypatch.setattr(self_test, "AGAIN_S", 0)
    engine = TestedEngine(UpstreamError("later", code="engine_crashed"))
    engine.pause, engine.hold = asyncio.Event(), asyncio.Event()
    async with node(tmp_path, engine) as running:
        # The answer begins during the first test: only the second is there to wait for it.
        await engine.begun.wait()
        hearing = asyncio.create_task(running.hear(attempt(chat())))
        await engine.busy.wait()
        before = engine.tested
        engine.hold.set()
        for _ in range(5):
            with pytest.raises(NodeRefusedError) as refused:
                await running.caller.self_test()
            assert refused.value.error_code == "self_test_pending"
        engine.pause.set()
        await hearing
        assert (await stated(running)).bits == BITS
    assert engine.tested == 2
    assert before < 2
    assert engine.tested_while[-1] == 0


async def test_a_busy_node_makes_it_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(self_test, "QUIET_POLL_S", 0.001)
    monkeypatch.setattr(self_test, "QUIET_POLLS_MAX", 2)
    monkeypatch.setattr(self_test, "AGAIN_S", 0.001)
    engine = TestedEngine(*[UpstreamError("later", code="engine_crashed")] * 3)
    engine.pause, engine.hold = asyncio.Event(), asyncio.Event()
    async with node(tmp_path, engine) as running:
        await engine.begun.wait()
        hearing = asyncio.create_task(running.hear(attempt(chat())))
        await engine.busy.wait()
        engine.hold.set()
        assert (await stated(running)).bits == BITS
        assert engine.tested_while == [0, 1, 1, 1]
        engine.pause.set()
        await hearing


async def test_a_node_before_a_provider_has_none_and_commits_to_nothing(tmp_path: Path) -> None:
    config = NodeConfig(
        name=NAME,
        operator="a",
        embeddings=False,
        engine=OpenAIEngine(base_url="http://127.0.0.1:9", api_key_env="PATH", models=("m",)),
    )
    async with node(tmp_path, config=config) as running:
        with pytest.raises(NodeRefusedError) as refused:
            await running.caller.self_test()
        database = running.app._database
        assert database is not None
        assert await database.read(nonce_store.unused) == []
    assert refused.value.error_code == "not_found"


@pytest.mark.parametrize(
    "engine",
    [
        ScriptedEngine(),
        TestedEngine(UpstreamError("not exact", code="engine_not_exact", retryable=False)),
    ],
    ids=["no test", "not exact"],
)
async def test_where_there_is_none_it_is_not_found(tmp_path: Path, engine: ScriptedEngine) -> None:
    async with node(tmp_path, engine) as running:
        with pytest.raises(NodeRefusedError) as refused:
            await stated(running)
    assert refused.value.error_code == "not_found"
