"""The gateway over two real nodes and the real model: a takeover is exact, byte for byte.

Both nodes serve from one engine, since loading it is what takes long; the fault is injected at the
engine's port, after a number of tokens.
"""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.support.gateway import Stack, gateway_over

from trunkline.base.errors import UpstreamError
from trunkline.crypto.signer import Signer
from trunkline.engine.client import EmbeddedEngine, EngineConfig
from trunkline.gateway.config import GatewayConfig, NodeConfig
from trunkline.inference.ports import Generate, ModelInfo, Token
from trunkline.node.app import NodeApp, create_store
from trunkline.node.config import NodeConfig as RealNodeConfig
from trunkline.receipts import bound_bytes
from trunkline.runtime.server import serving
from trunkline.sampling import answer_seed
from trunkline.schema.sse import SseParser

MODEL = "smollm2-135m-instruct"
ASK = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Name three colours."}],
    "seed": 7,
    "max_tokens": 16,
    "temperature": 1.0,
}


class DyingEngine:
    """The real engine, which dies once after ``die_after`` tokens if told to."""

    def __init__(self, real: EmbeddedEngine) -> None:
        self._real = real
        self.die_after: int | None = None

    async def model(self) -> ModelInfo:
        return await self._real.model()

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        return await self._real.tokenize(text, parse_special=parse_special)

    def pieces(self) -> Sequence[bytes]:
        return self._real.pieces()

    async def generate(self, job: Generate) -> AsyncIterator[Token]:
        left, self.die_after = self.die_after, None
        stream = self._real.generate(job)
        try:
            async for token in stream:
                if left == 0:
                    raise UpstreamError("the engine died", code="engine_crashed")
                yield token
                left = None if left is None else left - 1
        finally:
            await stream.aclose()

    async def close(self) -> None:
        """The test closes the real one."""


async def served(stack: Stack, **more: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The answer's chunks without what differs from answer to answer, and its receipt."""
    reply = await stack.http.post("/v1/chat/completions", json.dumps(ASK | more).encode())
    assert reply.status == 200, reply.body
    answer = reply.header("trunkline-receipt")
    evidence = (await stack.http.get(f"/trunkline/v1/receipts/{answer}")).json()
    receipt: dict[str, Any] = json.loads(evidence["parts"][0]["signed"]["receipt"])
    if not more.get("stream"):
        return [reply.json()["choices"][0]], receipt
    events = [event.data for event in SseParser().feed(reply.body)]
    assert events.pop() == b"[DONE]"
    chunks = [json.loads(data) for data in events if data is not None]
    return [chunk["choices"] for chunk in chunks], receipt


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(
        EngineConfig(cache_folder=str(tmp_path / "cache"), sequences=2, context_tokens=512)
    )
    yield engine
    await engine.close()


def real_node(name: str, folder: Path, engine: DyingEngine) -> tuple[NodeApp, Signer]:
    signer = Signer.generate(f"{name}.localhost/node", sha256(name.encode()).digest())
    create_store(folder)
    (folder / "key").write_text(signer.skey())
    (folder / "key").chmod(0o600)
    config = RealNodeConfig(name=signer.name, operator=f"{name}.localhost", embeddings=False)
    return NodeApp(config, base=folder / "node.toml", engine=engine), signer


@asynccontextmanager
async def over_two(dying: DyingEngine, folder: Path) -> AsyncIterator[Stack]:
    """A gateway over two nodes with that engine."""
    alpha, alpha_key = real_node("alpha", folder / "alpha", dying)
    beta, beta_key = real_node("beta", folder / "beta", dying)
    async with serving(alpha) as alpha_url, serving(beta) as beta_url:
        await alpha.wait_ready()
        await beta.wait_ready()
        config = GatewayConfig(
            policy_file="policy",
            log_url="http://127.0.0.1:1",
            nodes=(
                NodeConfig(url=alpha_url, vkey=str(alpha_key.vkey)),
                NodeConfig(url=beta_url, vkey=str(beta_key.vkey)),
            ),
            poll_s=0.2,
        )
        async with gateway_over([], folder / "gateway", config=config) as stack:
            yield stack


async def test_a_takeover_states_the_nonce_of_who_began(
    engine: EmbeddedEngine, tmp_path: Path
) -> None:
    """So that a verifier can make the seed again from the last receipt alone."""
    dying = DyingEngine(engine)
    async with over_two(dying, tmp_path) as stack:
        dying.die_after = 5
        _, receipt = await served(stack, stream=True, seed=None)
    said = receipt["sampling"]
    assert receipt["response"]["resumed"] == [5]
    assert said["source"] == "inherited"
    assert len(said["nonces"]) == 64
    nonces = (bytes.fromhex(said["caller_nonce"]), bytes.fromhex(said["node_nonce"]))
    seed = answer_seed(*nonces, bound_bytes(receipt["request"]["digest"]))
    assert seed.hex() == said["seed"]


async def test_a_takeover_is_byte_for_byte(engine: EmbeddedEngine, tmp_path: Path) -> None:
    dying = DyingEngine(engine)
    async with over_two(dying, tmp_path) as stack:
        undisturbed, receipt = await served(stack, stream=True)
        whole, _ = await served(stack)
        assert receipt["route"] == []
        for after in (1, 5, 11, 15):
            dying.die_after = after
            disturbed, receipt = await served(stack, stream=True)
            assert disturbed == undisturbed
            assert [part["error"] for part in receipt["route"]] == ["engine_crashed"]
            assert receipt["response"]["resumed"] == [after]
            dying.die_after = after
            again, receipt = await served(stack)
            assert again == whole
            assert receipt["response"]["resumed"] == [after]
        both, _ = await served(stack, stream=True, n=2)
        dying.die_after = 6
        disturbed, receipt = await served(stack, stream=True, n=2)
        assert disturbed == both
        assert len(receipt["response"]["resumed"]) == 2
