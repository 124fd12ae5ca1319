"""Through the official Anthropic client, on loopback: the same promises in its own format."""

from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import pytest
from tests.support.fake_answer import MODEL, TOKENS
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault, Script
from tests.support.gateway import Stack, gateway_over
from tests.support.surviving import Ask, Nodes, check_survives, two_nodes

ASK = [{"role": "user", "content": "say it"}]


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    async with two_nodes() as both:
        yield both


@pytest.fixture
async def stack(nodes: Nodes, tmp_path: Path) -> AsyncIterator[Stack]:
    async with gateway_over(nodes, tmp_path) as stack:
        yield stack


async def streamed(stack: Stack) -> tuple[str, str | None, str]:
    async with stack.anthropic.messages.stream(model=MODEL, max_tokens=50, messages=ASK) as stream:
        text = "".join([part async for part in stream.text_stream])
        message = await stream.get_final_message()
    assert message.usage.output_tokens == TOKENS
    return text, message.stop_reason, "ans_" + message.id.removeprefix("msg_")


async def whole(stack: Stack) -> tuple[str, str | None, str]:
    message = await stack.anthropic.messages.create(model=MODEL, max_tokens=50, messages=ASK)
    (block,) = message.content
    assert block.type == "text"
    return block.text, message.stop_reason, "ans_" + message.id.removeprefix("msg_")


FAULTS = [
    (Fault.NONE, 0), (Fault.BUSY, 0), (Fault.UNAVAILABLE, 0), (Fault.HANG_HEAD, 0),
    (Fault.HANG_ACCEPT, 0), (Fault.CUT, 0), (Fault.CUT, 5), (Fault.STALL, 0), (Fault.STALL, 6),
    (Fault.ERROR_RETRYABLE, 5), (Fault.ERROR_FINAL, 5), (Fault.CLEAN_END, 5), (Fault.GARBAGE, 5),
    (Fault.ALIEN_ERROR, 5), (Fault.NO_RECEIPT, 0), (Fault.BAD_SIGNATURE, 0),
    (Fault.WRONG_STREAM, 0),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "after"), FAULTS)
@pytest.mark.parametrize("ask", [streamed, whole])
async def test_the_answer_is_whole(
    stack: Stack,
    nodes: Nodes,
    fault: Fault,
    after: int,
    ask: Ask,
) -> None:
    await check_survives(
        stack, nodes, fault, after, ask, format_="anthropic.messages", end="end_turn"
    )


async def test_no_node_left_ends_with_an_error_event(tmp_path: Path) -> None:
    async with FakeNode("alpha") as alpha, gateway_over([alpha], tmp_path) as stack:
        alpha.will(Fault.CUT, 5)
        alpha.scripts.extend([Script(fault=Fault.CUT)] * 20)
        with pytest.raises(anthropic.APIStatusError) as caught:
            await streamed(stack)
        error = caught.value.body["error"]  # type: ignore[index]
        assert error["details"]["error_code"] == "answer_interrupted"


@pytest.mark.parametrize("ask", [streamed, whole])
async def test_what_the_format_can_not_say_is_an_explicit_end(
    stack: Stack, nodes: Nodes, ask: Ask
) -> None:
    nodes[0].always = nodes[1].always = Script(fault=Fault.ODD_FINISH)
    with pytest.raises(anthropic.APIStatusError) as caught:
        await ask(stack)
    error = caught.value.body["error"]  # type: ignore[index]
    assert error["details"]["error_code"] == "upstream_bad_response"


async def test_refusals_are_in_its_format(stack: Stack) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        await stack.anthropic.messages.create(model="claude-9", max_tokens=5, messages=ASK)
    assert missing.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as refused:
        await stack.anthropic.messages.create(
            model=MODEL, max_tokens=2000, messages=ASK,
            thinking={"type": "enabled", "budget_tokens": 1024},
        )  # fmt: skip
    assert refused.value.body["error"]["details"]["error_code"] == "unsupported_parameter"  # type: ignore[index]
    assert refused.value.request_id


async def test_models_in_its_shape(stack: Stack) -> None:
    names = [model.id async for model in stack.anthropic.models.list()]
    assert names == [MODEL, "tiny-embed"]
