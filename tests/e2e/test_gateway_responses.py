"""Through the official client's ``responses``, on loopback: the same promises in this format."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anthropic
import openai
import pytest
from tests.support.fake_answer import MODEL, TOKENS
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault, Script
from tests.support.gateway import Stack, gateway_over
from tests.support.surviving import Ask, Nodes, check_survives, two_nodes

from trunkline.gateway import conversations

ASK = "say it"


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    async with two_nodes() as both:
        yield both


@pytest.fixture
async def stack(nodes: Nodes, tmp_path: Path) -> AsyncIterator[Stack]:
    async with gateway_over(nodes, tmp_path) as stack:
        yield stack


async def streamed(stack: Stack) -> tuple[str, str | None, str]:
    async with stack.openai.responses.stream(model=MODEL, input=ASK) as stream:
        text = "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])
        response = await stream.get_final_response()
    assert text == response.output_text
    assert response.usage is not None
    assert response.usage.output_tokens == TOKENS
    return text, response.status, "ans_" + response.id.removeprefix("resp_")


async def whole(stack: Stack) -> tuple[str, str | None, str]:
    response = await stack.openai.responses.create(model=MODEL, input=ASK)
    return response.output_text, response.status, "ans_" + response.id.removeprefix("resp_")


FAULTS = [
    (Fault.NONE, 0), (Fault.BUSY, 0), (Fault.HANG_ACCEPT, 0), (Fault.CUT, 0), (Fault.CUT, 5),
    (Fault.STALL, 6), (Fault.ERROR_RETRYABLE, 5), (Fault.CLEAN_END, 5), (Fault.GARBAGE, 5),
    (Fault.NO_RECEIPT, 0), (Fault.WRONG_STREAM, 0),
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
        stack, nodes, fault, after, ask, format_="openai.responses", end="completed"
    )


async def test_no_node_left_ends_with_the_failure_and_the_error(tmp_path: Path) -> None:
    async with FakeNode("alpha") as alpha, gateway_over([alpha], tmp_path) as stack:
        alpha.will(Fault.CUT, 5)
        alpha.scripts.extend([Script(fault=Fault.CUT)] * 20)
        kinds = []
        with pytest.raises(openai.APIError) as caught:
            async for event in await stack.openai.responses.create(
                model=MODEL, input=ASK, stream=True
            ):
                kinds.append(event.type)  # noqa: PERF401 -- what came before the error counts
        assert caught.value.code == "answer_interrupted"
        assert kinds[-1] == "response.failed"
        assert "response.output_text.delta" in kinds
        assert not {"response.completed", "response.output_item.done"} & set(kinds)


async def test_a_failure_before_the_head_is_an_http_error(tmp_path: Path) -> None:
    async with FakeNode("alpha") as alpha, gateway_over([alpha], tmp_path) as stack:
        alpha.scripts.extend([Script(fault=Fault.CUT)] * 20)
        with pytest.raises(openai.InternalServerError) as caught:
            await streamed(stack)
        assert caught.value.request_id


@pytest.mark.parametrize("ask", [streamed, whole])
async def test_what_the_format_can_not_say_is_an_explicit_end(
    stack: Stack, nodes: Nodes, ask: Ask
) -> None:
    nodes[0].always = nodes[1].always = Script(fault=Fault.ODD_FINISH)
    with pytest.raises(openai.APIError) as caught:
        await ask(stack)
    assert caught.value.code == "upstream_bad_response"


async def test_refusals_name_the_parameter_as_the_caller_knows_it(stack: Stack) -> None:
    for more, param in [
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
        ({"extra_body": {"seed": 7}}, "seed"),
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            await stack.openai.responses.create(model=MODEL, input=ASK, **more)  # type: ignore[call-overload]
        assert refused.value.param == param
    with pytest.raises(openai.NotFoundError):
        await stack.openai.responses.create(model="gpt-9", input=ASK)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_kept_answer_can_be_had_again_and_gone_on_from(
    stack: Stack, nodes: Nodes, stream: bool
) -> None:
    create = stack.openai.responses.create
    if stream:
        events = [
            e async for e in await create(
                model=MODEL, input=ASK, instructions="Be brief.", store=True, stream=True
            )
        ]  # fmt: skip
        assert events[-1].type == "response.completed"
        first = events[-1].response
    else:
        first = await create(model=MODEL, input=ASK, instructions="Be brief.", store=True)
    assert first.to_dict()["store"] is True
    assert (await stack.openai.responses.retrieve(first.id)).to_dict() == first.to_dict()

    second = await create(
        model=MODEL, input="again", instructions="Be long.", previous_response_id=first.id,
        store=True,
    )  # fmt: skip
    third = await create(model=MODEL, input="more", previous_response_id=second.id)
    assert third.previous_response_id == second.id
    asked = [json.loads(bytes(a.request)) for a in (*nodes[0].attempts, *nodes[1].attempts)]
    (longest,) = [each["messages"] for each in asked if len(each["messages"]) == 5]
    assert [message["role"] for message in longest] == [
        "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    assert longest[1]["content"] == [{"type": "text", "text": first.output_text}]
    assert longest[4]["content"] == "more"


async def test_an_item_of_a_kept_answer_can_be_referred_to(stack: Stack, nodes: Nodes) -> None:
    first = await stack.openai.responses.create(model=MODEL, input=ASK, store=True)
    reference = {"type": "item_reference", "id": first.output[0].id}
    items = [{"role": "user", "content": ASK}, reference, {"role": "user", "content": "more"}]
    await stack.openai.responses.create(model=MODEL, input=items)  # type: ignore[arg-type]
    asked = [json.loads(bytes(a.request)) for a in (*nodes[0].attempts, *nodes[1].attempts)]
    (messages,) = [each["messages"] for each in asked if len(each["messages"]) == 3]
    assert messages[1]["content"] == [{"type": "text", "text": first.output_text}]


async def test_what_is_referred_to_is_bounded(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await stack.openai.responses.create(model=MODEL, input=ASK, store=True)
    reference = {"type": "item_reference", "id": first.output[0].id}
    monkeypatch.setattr(conversations, "REFERRED_BYTES_MAX", 10_000)
    await stack.openai.responses.create(model=MODEL, input=[reference] * 3)  # type: ignore[arg-type,list-item]
    with pytest.raises(openai.APIStatusError) as refused:
        await stack.openai.responses.create(model=MODEL, input=[reference] * 300)  # type: ignore[arg-type,list-item]
    assert (refused.value.status_code, refused.value.code) == (413, "body_too_large")
    monkeypatch.setattr(conversations, "REFERRED_BYTES_MAX", 100)
    with pytest.raises(openai.APIStatusError) as refused:
        await stack.openai.responses.create(model=MODEL, input=ASK, previous_response_id=first.id)
    assert refused.value.param == "previous_response_id"


async def test_what_was_not_kept_is_refused_by_name(stack: Stack) -> None:
    first = await stack.openai.responses.create(model=MODEL, input=ASK)
    assert first.to_dict()["store"] is False
    for more, param in [
        ({"previous_response_id": first.id}, "previous_response_id"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
        ({"previous_response_id": "elsewhere"}, "previous_response_id"),
        ({"input": [{"type": "item_reference", "id": first.output[0].id}]}, "input[0]"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            await stack.openai.responses.create(**({"model": MODEL, "input": ASK} | more))  # type: ignore[call-overload]
        assert (refused.value.code, refused.value.param) == ("previous_response_not_found", param)
    with pytest.raises(openai.NotFoundError):
        await stack.openai.responses.retrieve(first.id)


async def test_what_a_dead_node_said_is_not_made_up(stack: Stack, nodes: Nodes) -> None:
    nodes[0].will(Fault.CUT, 5)
    events = [
        e async for e in await stack.openai.responses.create(
            model=MODEL, input=ASK, store=True, stream=True
        )
    ]  # fmt: skip
    assert events[-1].type == "response.completed"
    with pytest.raises(openai.BadRequestError) as refused:
        await stack.openai.responses.create(
            model=MODEL, input="more", previous_response_id=events[-1].response.id
        )
    assert refused.value.code == "previous_response_not_whole"


async def test_the_header_has_the_last_word_on_what_is_kept(stack: Stack) -> None:
    """And the answer says what is so."""
    for store, header, kept in [(True, "none", False), (False, "bodies", True)]:
        answer = await stack.openai.responses.create(
            model=MODEL, input=ASK, store=store, extra_headers={"trunkline-keep": header}
        )
        assert answer.to_dict()["store"] is kept
        evidence = await stack.http.get(
            f"/trunkline/v1/receipts/ans_{answer.id.removeprefix('resp_')}"
        )
        assert bool(evidence.json()["parts"][0].get("bodies")) is kept


async def test_counting_tokens_is_refused_in_the_callers_format(stack: Stack) -> None:
    with pytest.raises(anthropic.NotFoundError) as refused:
        await stack.anthropic.messages.count_tokens(
            model=MODEL, messages=[{"role": "user", "content": ASK}]
        )
    assert refused.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
