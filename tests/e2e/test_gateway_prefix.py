"""A provider's stream breaks off and is gone on with elsewhere: one stream, and what proves it."""

import json
from pathlib import Path
from typing import Any

from tests.support.fault_matrix import Cell, Fault, network
from tests.support.gateway import Stack
from tests.support.upstream import PARTS, USAGE, Exchange
from tests.support.upstream_faults import cut

from trunkline.evidence import Report, decode, verify
from trunkline.receipts import binds, prefix_digest

TEXT = "".join(PARTS["text"])
SHOWN = "".join(PARTS["text"][:3])


def cell(name: str, act: Any = cut) -> Cell:
    return Cell(Fault(name, act, ("after",)), "after", "stream", "text")


async def streamed(stack: Stack, of: Cell, **more: object) -> tuple[str, bytes]:
    """The answer's id and its body."""
    asked = {"model": of.model, "messages": [{"role": "user", "content": of.script}]}
    body = json.dumps(asked | {"stream": True} | more).encode()
    reply = await stack.http.post("/v1/chat/completions", body)
    return reply.header("trunkline-receipt") or "", reply.body


def chunks(body: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line]
    assert lines[-1] == b"[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def results(report: Report) -> dict[str, str]:
    return {step.title: step.result for step in report.steps}


async def test_the_stream_is_one_and_its_receipt_says_whose_text_is_whose(tmp_path: Path) -> None:
    of = cell("cut")
    async with network(tmp_path, [of], {}) as stack:
        answer, body = await streamed(stack, of, stream_options={"include_usage": True})
        file = (await stack.http.get(f"/trunkline/v1/receipts/{answer}")).body

    said = chunks(body)
    assert len({chunk["id"] for chunk in said}) == 1
    choices = [chunk["choices"][0] for chunk in said if chunk["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == TEXT
    assert sum("role" in choice["delta"] for choice in choices) == 1
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["stop"]
    assert [chunk["usage"] for chunk in said if chunk.get("usage")] == [USAGE]

    report = verify(file, policy=None, trusted_keys=decode(file).keys, response=body)
    (receipt,) = report.receipts
    salts = decode(file).parts[-1].salts
    assert binds(receipt, "response.prefix", prefix_digest(SHOWN), salts) is True
    assert binds(receipt, "response.prefix", prefix_digest(SHOWN + " "), salts) is False
    (before,) = receipt.route
    assert before.characters == receipt.response.prefix_characters == len(SHOWN)
    assert before.node != receipt.node
    # Each part's own: what this provider was given, the text among it, and what it said.
    known = USAGE["completion_tokens"] - 3
    assert (receipt.usage.prompt, receipt.usage.completion) == (USAGE["prompt_tokens"] + 3, known)
    found = results(report)
    assert (found["signatures"], found["batch paths"], found["parts"]) == ("pass",) * 3
    # The first part left no receipt; that its text is the one bound was checked.
    assert found["response"] == "inconclusive"
    changed = body.replace(b"Rivers ", b"Canals ")
    report = verify(file, policy=None, trusted_keys=decode(file).keys, response=changed)
    assert results(report)["response"] == "fail"


async def test_the_app_that_asked_for_no_usage_sees_none(tmp_path: Path) -> None:
    of = cell("cut")
    async with network(tmp_path, [of], {}) as stack:
        _, body = await streamed(stack, of)
    assert all(chunk["choices"] and not chunk.get("usage") for chunk in chunks(body))


async def test_usage_that_nobody_said_is_not_guessed(tmp_path: Path) -> None:
    async def silent(exchange: Exchange) -> None:
        exchange.answer.running = False
        await cut(exchange)

    of = cell("cut", silent)
    async with network(tmp_path, [of], {}) as stack:
        _, body = await streamed(stack, of, stream_options={"include_usage": True})
    (usage,) = [chunk["usage"] for chunk in chunks(body) if chunk.get("usage")]
    assert usage["total_tokens"] == USAGE["total_tokens"]
    assert usage["prompt_tokens"] == USAGE["prompt_tokens"] + 3
    assert usage["continued_characters"] == len(SHOWN)
