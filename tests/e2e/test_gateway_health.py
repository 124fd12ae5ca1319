"""What a gateway learns of its nodes shows: stalls noticed early, bad nodes avoided, also after a
restart."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault, Script
from tests.support.gateway import Stack, gateway_over, settings

from trunkline.gateway import health
from trunkline.gateway.core.breaker import Fault as BreakerFault
from trunkline.gateway.core.breaker import State
from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.core.normal import SAMPLES_MIN
from trunkline.gateway.health_file import FILE
from trunkline.gateway.status import ModelStatus, Status

BODY = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"say it"}]}'
PATIENT = Timeouts(head_s=60.0, first_event_s=60.0, first_token_s=60.0, idle_s=60.0)
"""So long is a silent node waited for of which nothing is known."""


@pytest.fixture
async def nodes() -> AsyncIterator[tuple[FakeNode, FakeNode]]:
    async with FakeNode("alpha") as alpha, FakeNode("beta") as beta:
        yield alpha, beta


async def ask(stack: Stack) -> None:
    reply = await stack.http.post("/v1/chat/completions", BODY)
    assert reply.status == 200, reply.body
    assert reply.body.endswith(b"data: [DONE]\n\n")


async def status(stack: Stack, operator: str) -> ModelStatus:
    reply = await stack.http.get("/trunkline/v1/status")
    found = msgspec.json.decode(reply.body, type=Status)
    node = next(node for node in found.nodes if node.node.startswith(operator))
    return next(model for model in node.models if model.name == "tiny")


async def break_alpha(stack: Stack, alpha: FakeNode) -> None:
    """Calls until alpha is known to be bad."""
    alpha.always = Script(fault=Fault.CUT)
    for _ in range(50):
        await ask(stack)
        if (await status(stack, "alpha")).breaker is State.OPEN:
            return
    pytest.fail("alpha was never found out")


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.HANG_ACCEPT])
async def test_a_stall_is_noticed_by_what_the_node_normally_does(
    nodes: tuple[FakeNode, FakeNode], tmp_path: Path, fault: Fault
) -> None:
    alpha, _ = nodes
    async with gateway_over(nodes, tmp_path, timeouts=PATIENT) as stack:
        for _ in range(3 * SAMPLES_MIN):
            await ask(stack)
        alpha.always = Script(fault=fault, after=4)
        seen = len(alpha.attempts)
        began_s = time.monotonic()
        while len(alpha.attempts) == seen:
            await ask(stack)
        assert time.monotonic() - began_s < 20.0, "a third of what an unknown node is given"


async def test_the_first_call_after_a_restart_avoids_a_node_known_to_be_bad(
    nodes: tuple[FakeNode, FakeNode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, _ = nodes
    async with gateway_over(nodes, tmp_path) as stack:
        await break_alpha(stack, alpha)
    alpha.attempts.clear()
    # However long a busy machine takes to the first call: it comes before the rest is over.
    monkeypatch.setattr(health, "REST_S", 600.0)
    seldom = msgspec.structs.replace(settings(nodes), poll_s=3600.0)
    async with gateway_over(nodes, tmp_path, config=seldom) as stack:
        before = await status(stack, "alpha")
        await ask(stack)
        assert (before.breaker, before.fault) == (State.OPEN, BreakerFault.ORDINARY)
        assert before.error == "upstream_truncated"
        assert not alpha.attempts
    # Without the file nobody would know.
    (tmp_path / FILE).unlink()
    async with gateway_over(nodes, tmp_path) as stack:
        assert (await status(stack, "alpha")).breaker is State.CLOSED


async def test_what_is_well_again_is_probed_and_comes_back(
    nodes: tuple[FakeNode, FakeNode], tmp_path: Path
) -> None:
    alpha, _ = nodes
    async with gateway_over(nodes, tmp_path) as stack:
        await break_alpha(stack, alpha)
        alpha.always = None
        seen = len(alpha.attempts)
        while len(alpha.attempts) == seen:
            await ask(stack)
        found = await status(stack, "alpha")
        assert found.breaker is State.CLOSED
        assert 0 < found.share_percent < 100
