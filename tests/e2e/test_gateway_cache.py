"""The exact cache from an app's call to its proof: a gateway with keys, a node, its provider."""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from tests.support.gateway import FakeLog, PlainClient, Reply, gateway_over
from tests.unit.node.harness import NAME, SIGNER, node
from tests.unit.node.scripted import ScriptedEngine, noise
from tests.unit.node.test_provider import GOOD, WHOLE, Upstream, config

from trunkline.evidence import verify
from trunkline.gateway.config import GatewayConfig
from trunkline.gateway.config import NodeConfig as NodeOf
from trunkline.gateway.front import Gateway
from trunkline.gateway.key_store import KeyRow, KeyStore, digest_of
from trunkline.gateway.keys import new_secret, new_tenant_id
from trunkline.gateway.routing import Routing
from trunkline.gateway.store import EvidenceStore, create_store
from trunkline.node.config import CacheConfig, NodeConfig
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.logger import get_logger
from trunkline.runtime.server import serving

CHAT = "/v1/chat/completions"
PRICED = '[prices."real-1"]\ninput = "1"\noutput = "2"\n'
COST_NUSD = (3 + 2 * 2) * 1000
"""In nano-USD, of the upstream's usage."""


class Door:
    """A gateway with two keys, and the provider behind its one node."""

    def __init__(self, url: str, upstream: Upstream, keys: dict[str, str]) -> None:
        self.http = PlainClient(url)
        self.upstream = upstream
        self.keys = keys

    async def ask(
        self, who: str, wish: str = "", *, stream: bool = False, mode: str = "batched"
    ) -> Reply:
        """Say hello with the key of ``who``; ``wish``: the header ``trunkline-cache``."""
        headers = {"trunkline_mode": mode}
        if wish:
            headers["trunkline_cache"] = wish
        asked = {
            "model": "real-1",
            "messages": [{"role": "user", "content": "hello"}],
            "stream": stream,
        }
        if who:
            headers["x_api_key"] = self.keys[who]
        reply = await self.http.post(CHAT, json.dumps(asked).encode(), **headers)
        assert reply.status == 200, reply.body
        return reply

    async def evidence(self, reply: Reply) -> Reply:
        answer = reply.header("trunkline-receipt")
        found = await self.http.get(f"/trunkline/v1/receipts/{answer}")
        assert found.status == 200, found.body
        return found

    async def receipt(self, reply: Reply) -> dict[str, Any]:
        parts = (await self.evidence(reply)).json()["parts"]
        assert len(parts) == 1
        found: dict[str, Any] = json.loads(parts[0]["signed"]["receipt"])
        return found


@asynccontextmanager
async def door(
    data: Path, *, routing: str = "", cache: CacheConfig | None = None, whole: bool = True
) -> AsyncIterator[Door]:
    upstream = Upstream(body=json.dumps(WHOLE).encode()) if whole else Upstream(GOOD)
    (data / "routing.toml").write_text(routing or "# as it is without one\n")
    create_store(data)
    secrets = {}
    keys = KeyStore.open(data, create=True)
    for name in ("alice", "bob"):
        secrets[name] = new_secret(SystemRandomness())
        row = KeyRow(
            id=new_tenant_id(SystemRandomness()),
            name=name,
            created_ms=SystemClock().unix_ms(),
            expires_ms=None,
            revoked_ms=None,
        )
        await keys.create(row, digest_of(secrets[name]))
    await keys.close()
    async with serving(upstream) as upstream_url:
        plain = config(upstream_url)
        settings = NodeConfig(
            name=plain.name,
            operator=plain.operator,
            embeddings=False,
            engine=plain.engine,
            cache=cache,
        )
        async with node(data / "node", config=settings) as behind:
            app = Gateway(
                GatewayConfig(
                    policy_file="policy",
                    log_url="http://127.0.0.1:1",
                    nodes=(NodeOf(url=behind.base_url, vkey=str(SIGNER.vkey)),),
                    keys="optional",
                    poll_s=0.2,
                ),
                EvidenceStore.open(data),
                FakeLog(),
                HttpTransport(),
                policy="",
                routing=Routing(
                    data / "routing.toml", clock=SystemClock(), logger=get_logger("gateway")
                ),
                key_store=KeyStore.open(data),
                clock=SystemClock(),
                randomness=SystemRandomness(),
                logger=get_logger("gateway"),
            )
            async with serving(app, shutdown_grace_s=0.2) as url:
                made = Door(url, upstream, secrets)
                try:
                    yield made
                finally:
                    await made.http.aclose()


@pytest.mark.parametrize("whole", [True, False])
async def test_a_second_call_is_answered_from_the_cache_and_says_so(
    tmp_path: Path, whole: bool
) -> None:
    stream = not whole
    async with door(tmp_path, cache=CacheConfig(), routing=PRICED, whole=whole) as stack:
        first = await stack.ask("alice", "use", stream=stream)
        again = await stack.ask("alice", "use", stream=stream)
        assert len(stack.upstream.received) == 1
        assert first.header("trunkline-cache") is None
        assert again.header("trunkline-cache") == "hit"
        assert first.header("trunkline-receipt") != again.header("trunkline-receipt")

        made, kept = await stack.receipt(first), await stack.receipt(again)
        assert "cached" not in made
        assert kept["cached"]["ended_ms"] == made["times"]["ended_ms"]
        assert kept["previous"] == kept["cached"]["receipt"]
        assert kept["usage"] == made["usage"]

        report = verify((await stack.evidence(again)).body, response=again.body)
        results = {step.title: step for step in report.steps}
        shown = ("receipts", "signatures", "batch paths", "response", "parts")
        assert {results[title].result for title in shown} == {"pass"}
        assert "taken from the node's cache" in results["parts"].detail
        assert kept["cached"]["receipt"] in results["parts"].detail

        # The first was paid for; giving it again cost nothing.
        with closing(sqlite3.connect(tmp_path / "evidence.db")) as books:
            charged = dict(books.execute("SELECT answer, nusd FROM charges"))
        paid = {first.header("trunkline-receipt"): COST_NUSD, again.header("trunkline-receipt"): 0}
        assert charged == paid


async def test_it_is_off_by_default(tmp_path: Path) -> None:
    async with door(tmp_path) as stack:
        for _ in range(2):
            reply = await stack.ask("alice", "use")
            assert reply.header("trunkline-cache") is None
        assert len(stack.upstream.received) == 2


async def test_a_call_has_to_ask(tmp_path: Path) -> None:
    async with door(tmp_path, cache=CacheConfig()) as stack:
        for wish in ("", "use", "", "off"):
            assert (await stack.ask("alice", wish)).header("trunkline-cache") is None
        assert len(stack.upstream.received) == 4
        hidden = await stack.ask("alice", "use", mode="private")
        assert hidden.header("trunkline-cache") is None


async def test_tenants_share_nothing_and_strangers_neither(tmp_path: Path) -> None:
    async with door(tmp_path, cache=CacheConfig()) as stack:
        for who in ("alice", "bob", "", ""):
            assert (await stack.ask(who, "use")).header("trunkline-cache") is None
        assert len(stack.upstream.received) == 4
        for who in ("alice", "bob"):
            assert (await stack.ask(who, "use")).header("trunkline-cache") == "hit"


async def test_an_operator_says_whose_calls_use_it(tmp_path: Path) -> None:
    routing = (
        '[keys.alice]\ncache = "always"\n[keys.bob]\ncache = "never"\n'
        '[keys.anonymous]\ncache = "asked"\n'
    )
    async with door(tmp_path, cache=CacheConfig(), routing=routing) as stack:
        seen = [
            (await stack.ask(who, wish)).header("trunkline-cache")
            for who, wish in (
                ("alice", ""), ("alice", ""), ("alice", "off"),
                ("bob", "use"), ("bob", "use"), ("", "use"), ("", "use"), ("", ""),
            )
        ]  # fmt: skip
    assert seen == [None, "hit", None, None, None, None, "hit", None]


async def test_another_wish_is_refused(tmp_path: Path) -> None:
    async with door(tmp_path) as stack:
        reply = await stack.http.post(
            CHAT,
            b'{"model":"real-1","messages":[{"role":"user","content":"x"}]}',
            trunkline_cache="yes",
        )
        assert (reply.status, reply.json()["error"]["param"]) == (400, "trunkline-cache")


@pytest.mark.parametrize("stream", [True, False])
async def test_the_embedded_models_answers_too(tmp_path: Path, stream: bool) -> None:
    routing = tmp_path / "routing.toml"
    routing.write_text('[keys.anonymous]\ncache = "always"\n')
    settings = NodeConfig(
        name=NAME, operator="alpha.example", embeddings=False, cache=CacheConfig()
    )
    asked = {
        "model": "scripted",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": stream,
    }
    async with node(tmp_path / "node", ScriptedEngine(noise), config=settings) as behind:
        known = NodeOf(url=behind.base_url, vkey=str(SIGNER.vkey))
        config_ = GatewayConfig(
            policy_file="policy", log_url="http://127.0.0.1:1", nodes=(known,), poll_s=0.2
        )
        async with gateway_over([], tmp_path, config=config_, routing=routing) as stack:
            replies = [await stack.http.post(CHAT, json.dumps(asked).encode()) for _ in range(2)]
            assert [reply.header("trunkline-cache") for reply in replies] == [None, "hit"]
            names = [reply.header("trunkline-receipt") for reply in replies]
            first, again = [
                (await stack.http.get(f"/trunkline/v1/receipts/{name}")).body for name in names
            ]
    for name, reply, evidence in zip(names, replies, (first, again), strict=True):
        assert name is not None
        assert reply.status == 200
        assert name.removeprefix("ans_").encode() in reply.body
        steps = {step.title: step for step in verify(evidence, response=reply.body).steps}
        assert (steps["response"].result, steps["parts"].result) == ("pass", "pass")
        kept = "taken from the node's cache" in steps["parts"].detail
        assert kept == (name == names[1])
