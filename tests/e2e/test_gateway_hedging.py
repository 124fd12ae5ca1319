"""A slow attempt is hedged: a second node is asked, the faster answers, the other is let go."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.fake_answer import EMBEDDER, MODEL
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault, Script
from tests.support.gateway import Reply, Stack, gateway_over

from trunkline.gateway.core.deadline import Timeouts

PATIENT = Timeouts(idle_s=60.0, first_token_s=60.0, first_event_s=60.0, head_s=60.0)
STREAM = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"say it"}]}'
WHOLE = b'{"model":"tiny","messages":[{"role":"user","content":"say it"}]}'
CHAT = "/v1/chat/completions"
SILENT = Script(fault=Fault.STALL, after=1)
"""Accepts, says its role in a stream, and no more."""


@pytest.fixture
async def alpha() -> AsyncIterator[FakeNode]:
    """The node that is asked first: its name is the first of two that nothing is known of."""
    async with FakeNode("alpha") as node:
        yield node


@pytest.fixture
async def beta() -> AsyncIterator[FakeNode]:
    async with FakeNode("beta") as node:
        yield node


def policy(folder: Path, share: float = 0.5, after: str = "0.05s") -> Path:
    path = folder / "routing.toml"
    path.write_text(f'[hedging]\nshare = {share}\nafter = "{after}"\n')
    return path


async def routes(stack: Stack, reply: Reply) -> list[list[str]]:
    """What each part's receipt says of the attempts before it: their errors."""
    answer = reply.header("trunkline-receipt")
    evidence = (await stack.http.get(f"/trunkline/v1/receipts/{answer}")).json()
    receipts = [json.loads(part["signed"]["receipt"]) for part in evidence["parts"]]
    return [[before["error"] for before in receipt["route"]] for receipt in receipts]


async def left(node: FakeNode) -> None:
    """Wait until the gateway has closed its connection to a node that still works on an answer."""
    async with asyncio.timeout(30):
        await node.left.wait()


@pytest.mark.parametrize("body", [STREAM, WHOLE], ids=["stream", "whole"])
async def test_the_hedge_wins_and_the_slow_one_is_let_go(
    alpha: FakeNode, beta: FakeNode, tmp_path: Path, body: bytes
) -> None:
    alpha.always = Script(fault=Fault.STALL, after=1 if body is STREAM else 0)
    with capture_logs() as lines:
        await _hedged(alpha, beta, tmp_path, body)
    (ended,) = [line for line in lines if line["event"] == "answer.ended"]
    assert ended["hedges"] == 1
    assert "attempts_failed" not in ended
    (outrun,) = [line for line in lines if line["event"] == "attempt.outrun"]
    assert outrun["node"] == alpha.name


async def _hedged(alpha: FakeNode, beta: FakeNode, tmp_path: Path, body: bytes) -> None:
    async with gateway_over(
        [alpha, beta], tmp_path, timeouts=PATIENT, routing=policy(tmp_path)
    ) as stack:
        async with asyncio.timeout(30):
            reply = await stack.http.post(CHAT, body, trunkline_detail="1")
        assert reply.status == 200, reply.body
        assert reply.header("trunkline-node") == beta.name
        assert reply.header("trunkline-attempts") == "2"
        assert body is WHOLE or reply.body.count(b'"role"') == 1, "one attempt's beginning"
        await left(alpha)
        assert await routes(stack, reply) == [["hedged"]]
        assert [past.attempt for past in beta.attempts[0].previous] == [alpha.attempts[0].attempt]


async def test_embeddings_are_hedged_too(alpha: FakeNode, beta: FakeNode, tmp_path: Path) -> None:
    alpha.always = Script(fault=Fault.STALL, after=0)
    body = json.dumps({"model": EMBEDDER, "input": "say it"}).encode()
    async with gateway_over(
        [alpha, beta], tmp_path, timeouts=PATIENT, routing=policy(tmp_path)
    ) as stack:
        reply = await stack.http.post("/v1/embeddings", body, trunkline_detail="1")
        assert reply.status == 200, reply.body
        assert reply.header("trunkline-node") == beta.name
        await left(alpha)


async def test_the_slow_one_may_still_win(alpha: FakeNode, beta: FakeNode, tmp_path: Path) -> None:
    alpha.always = Script(hold=(go_on := asyncio.Event()), after=1)
    beta.always = SILENT
    async with gateway_over(
        [alpha, beta], tmp_path, timeouts=PATIENT, routing=policy(tmp_path)
    ) as stack:
        asked = asyncio.create_task(stack.http.post(CHAT, STREAM, trunkline_detail="1"))
        async with asyncio.timeout(30):
            await beta.reached.wait()
            go_on.set()
            reply = await asked
        assert reply.header("trunkline-node") == alpha.name
        await left(beta)
        assert await routes(stack, reply) == [[]], "the hedge had no part in it"


async def test_one_that_fails_leaves_the_answer_to_the_other(
    alpha: FakeNode, beta: FakeNode, tmp_path: Path
) -> None:
    alpha.always = Script(hold=(go_on := asyncio.Event()), after=1)
    beta.always = Script(fault=Fault.UNAVAILABLE)
    async with gateway_over(
        [alpha, beta], tmp_path, timeouts=PATIENT, routing=policy(tmp_path)
    ) as stack:
        asked = asyncio.create_task(stack.http.post(CHAT, STREAM, trunkline_detail="1"))
        async with asyncio.timeout(30):
            while not beta.attempts:
                await alpha.reached.wait()
                await asyncio.sleep(0)
            go_on.set()
            reply = await asked
        assert reply.status == 200
        assert reply.header("trunkline-node") == alpha.name
        assert len(alpha.attempts) == 1


async def test_both_are_let_go_when_the_client_leaves(
    alpha: FakeNode, beta: FakeNode, tmp_path: Path
) -> None:
    alpha.always = beta.always = SILENT
    async with gateway_over(
        [alpha, beta], tmp_path, timeouts=PATIENT, routing=policy(tmp_path)
    ) as stack:
        asked = asyncio.create_task(stack.http.post(CHAT, STREAM))
        async with asyncio.timeout(30):
            await beta.reached.wait()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        await left(alpha)
        await left(beta)


async def test_the_budget_is_kept(alpha: FakeNode, beta: FakeNode, tmp_path: Path) -> None:
    """A new gateway may hedge once; then a thousand answers earn the next one."""
    alpha.always = SILENT
    async with gateway_over([alpha, beta], tmp_path, routing=policy(tmp_path, 0.001)) as stack:
        first = await stack.http.post(CHAT, STREAM)
        beta.always = SILENT
        second = await stack.http.post(CHAT, STREAM, trunkline_deadline_ms="700")
        assert await routes(stack, first) == [["hedged"]]
        assert second.status == 504
        errors = [
            past.error for seen in (alpha, beta) for a in seen.attempts for past in a.previous
        ]
        assert errors.count("hedged") == 1


async def test_nothing_is_hedged_unless_the_policy_says_so(
    alpha: FakeNode, beta: FakeNode, tmp_path: Path
) -> None:
    alpha.always = SILENT
    async with gateway_over([alpha, beta], tmp_path) as stack:
        reply = await stack.http.post(CHAT, STREAM, trunkline_detail="1")
        assert reply.header("trunkline-node") == beta.name
        assert await routes(stack, reply) == [["upstream_first_token_timeout"]]


async def test_what_is_normal_says_when(alpha: FakeNode, beta: FakeNode, tmp_path: Path) -> None:
    """Until enough is known of a deployment it is not hedged."""
    async with gateway_over(
        [alpha, beta], tmp_path, timeouts=PATIENT, routing=policy(tmp_path, after="p95")
    ) as stack:
        for _ in range(60):
            assert (await stack.http.post(CHAT, STREAM)).status == 200
        known = [node for node in (alpha, beta) if len(node.attempts) >= 20]
        assert known
        hedged = 0
        for node in known:
            node.always = SILENT
            async with asyncio.timeout(30):
                reply = await stack.http.post(CHAT, STREAM)
            hedged += await routes(stack, reply) == [["hedged"]]
            node.always = None
        assert hedged, f"{MODEL} is known well enough on {[node.name for node in known]}"
