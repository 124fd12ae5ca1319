"""A node's key changes while everything runs: nothing fails, and what was signed before counts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.support.fake_answer import MODEL, NOW_MS, text_of
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Script
from tests.support.gateway import Stack, gateway_over, settings

from trunkline.crypto.signer import Signer, sign_note
from trunkline.evidence import EvidenceKey, decode, verify
from trunkline.gateway.config import GatewayConfig, NodeConfig
from trunkline.gateway.core.deadline import Timeouts
from trunkline.receipts import decode as decode_receipt
from trunkline.receipts.key_statement import KeyStatement, Revocation

ASK = [{"role": "user", "content": "say it"}]
OPERATOR = Signer.generate("alpha.localhost", bytes([9]) * 32)
NEW = Signer.generate("alpha.localhost/node", bytes([8]) * 32)
FROM_S = NOW_MS // 1000 - 1
LONG_S = 10 * 365 * 86_400


def stated(key: Signer) -> str:
    said = KeyStatement(
        operator=OPERATOR.name, key=str(key.vkey), from_s=FROM_S, to_s=FROM_S + LONG_S
    )
    return sign_note(said.text(), OPERATOR).decode()


@pytest.fixture
async def alpha() -> AsyncIterator[FakeNode]:
    async with FakeNode("alpha") as node:
        node.statements = (stated(node.signer),)
        yield node


def pinned(alpha: FakeNode, *, poll_s: float, vkey: str = "") -> GatewayConfig:
    node = NodeConfig(
        url=alpha.url, vkey=vkey, operator_vkey=str(OPERATOR.vkey), name="" if vkey else alpha.name
    )
    return msgspec.structs.replace(settings([alpha], Timeouts()), nodes=(node,), poll_s=poll_s)


async def ask(stack: Stack) -> tuple[str, str]:
    """The answer's text and id."""
    raw = await stack.openai.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, stream=True
    )
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in raw.parse()])
    return text, raw.headers["trunkline-receipt"]


async def check(stack: Stack, got: tuple[str, str], key: Signer) -> bytes:
    """The answer is whole, and its receipt names this key; returns its evidence."""
    text, answer = got
    evidence = (await stack.http.get(f"/trunkline/v1/receipts/{answer}")).body
    (part,) = decode(evidence).parts
    receipt = decode_receipt(part.signed.receipt.encode())
    assert text == text_of(receipt.sampling.seed)
    assert receipt.key == str(key.vkey)
    return evidence


@pytest.mark.parametrize("beside", [False, True])
async def test_an_answer_that_runs_ends_under_its_key_and_the_next_under_the_new_one(
    alpha: FakeNode, tmp_path: Path, beside: bool
) -> None:
    old, release = alpha.signer, asyncio.Event()
    # So seldom does this gateway look of itself: what it notices here it notices by the calls.
    config = pinned(alpha, poll_s=3600, vkey=alpha.vkey if beside else "")
    async with gateway_over([alpha], tmp_path, config=config) as stack:
        await check(stack, await ask(stack), old)
        alpha.scripts.append(Script(after=5, hold=release))
        running = asyncio.create_task(ask(stack))
        await asyncio.wait_for(alpha.reached.wait(), 30)
        alpha.change_key(NEW, stated(old), stated(NEW))
        got = await asyncio.gather(*(ask(stack) for _ in range(8)))
        release.set()
        evidence = [await check(stack, one, NEW) for one in got]
        evidence.append(await check(stack, await running, old))

    operator = EvidenceKey(
        name=OPERATOR.name, vkey=str(OPERATOR.vkey), role="operator", operator=OPERATOR.name
    )
    for file in evidence:
        # The reader pins the operator alone. What it states is in the file.
        steps = {step.number: step for step in verify(file, trusted_keys=[operator]).steps}
        assert all(steps[number].result == "pass" for number in (2, 3, 4, 5))


async def test_a_key_that_the_operator_does_not_state_is_not_used(
    alpha: FakeNode, tmp_path: Path
) -> None:
    async with (
        FakeNode("beta") as beta,
        gateway_over(
            [alpha, beta],
            tmp_path,
            config=msgspec.structs.replace(
                pinned(alpha, poll_s=0.05),
                nodes=(
                    *pinned(alpha, poll_s=0.05).nodes,
                    NodeConfig(url=beta.url, vkey=beta.vkey),
                ),
            ),
        ) as stack,
    ):
        alpha.change_key(NEW, stated(alpha.signer))
        for _ in range(10):
            await check(stack, await ask(stack), beta.signer)
        assert await error_of(stack, alpha.name) == "wrong_key"


async def test_a_revoked_key_is_not_used(alpha: FakeNode, tmp_path: Path) -> None:
    said = Revocation(operator=OPERATOR.name, key=alpha.vkey, from_s=FROM_S + 1)
    async with gateway_over([alpha], tmp_path, config=pinned(alpha, poll_s=0.05)) as stack:
        await check(stack, await ask(stack), alpha.signer)
        alpha.statements = (*alpha.statements, sign_note(said.text(), OPERATOR).decode())
        async with asyncio.timeout(30):
            while await error_of(stack, alpha.name) != "wrong_key":
                pass


async def error_of(stack: Stack, node: str) -> str:
    """Why the gateway does not use it."""
    nodes = (await stack.http.get("/trunkline/v1/status")).json()["nodes"]
    return next(str(one["error"]) for one in nodes if one["node"] == node)
