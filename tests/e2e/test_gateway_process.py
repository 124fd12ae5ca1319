"""The gateway as a process: started from its file, killed without warning, started again."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

from tests.support.fake_node import FakeNode
from tests.support.gateway import MAIN, FakeLog, PlainClient, gateway_over, process, write_config

from trunkline.gateway.app import create_store
from trunkline.gateway.config import GatewayConfig, NodeConfig

BODY = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"say it"}]}'


def plain(node: FakeNode) -> GatewayConfig:
    return GatewayConfig(
        policy_file="policy",
        log_url="http://127.0.0.1:1",
        nodes=(NodeConfig(url=node.url, vkey=node.vkey),),
    )


async def test_killed_after_the_answer_nothing_is_lost(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node:
        config = write_config(tmp_path, plain(node))
        create_store(tmp_path / "data")
        async with process(config) as (child, url):
            client = PlainClient(url)
            reply = await client.post("/v1/chat/completions", BODY)
            assert reply.body.endswith(b"data: [DONE]\n\n")
            answer = reply.header("trunkline-receipt")
            child.send_signal(signal.SIGKILL)
            await child.wait()
            await client.aclose()
        async with gateway_over([node], tmp_path / "data", log=FakeLog()) as stack:
            found = await stack.http.get(f"/trunkline/v1/receipts/{answer}?wait_s=60")
            assert found.header("trunkline-state") == "final"


async def test_it_stops_when_asked(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node:
        config = write_config(tmp_path, plain(node))
        create_store(tmp_path / "data")
        async with process(config) as (child, _):
            child.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await child.wait() == 0


async def test_it_refuses_to_start_without_a_store(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node:
        config = write_config(tmp_path, plain(node))
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", MAIN, str(config), stderr=PIPE
        )
        _, said = await child.communicate()
        assert child.returncode != 0
        assert b"no such store" in said
