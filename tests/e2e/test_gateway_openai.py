"""Through the official OpenAI client, on loopback: the app never notices a dying node."""

import json
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from tests.support.fake_answer import MODEL, NUMERICS, TOKENS, text_of
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault
from tests.support.gateway import Stack, gateway_over

from trunkline.evidence import decode, verify
from trunkline.evidence.response import PassingResponse
from trunkline.runtime.http import Call

ASK = [{"role": "user", "content": "say it"}]


@pytest.fixture
async def alpha() -> AsyncIterator[FakeNode]:
    async with FakeNode("alpha") as node:
        yield node


@pytest.fixture
async def beta() -> AsyncIterator[FakeNode]:
    async with FakeNode("beta") as node:
        yield node


@pytest.fixture
async def stack(alpha: FakeNode, beta: FakeNode, tmp_path: Path) -> AsyncIterator[Stack]:
    async with gateway_over([alpha, beta], tmp_path) as stack:
        yield stack


async def streamed(stack: Stack, **more: object) -> tuple[str, str, str]:
    """The text, the finish reason and the answer id of a streamed answer."""
    raw = await stack.openai.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, stream=True, **more
    )
    text, finish = "", ""
    async for chunk in raw.parse():
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return text, finish, raw.headers["trunkline-receipt"]


async def whole(stack: Stack) -> tuple[str, str, str]:
    raw = await stack.openai.chat.completions.with_raw_response.create(model=MODEL, messages=ASK)
    (choice,) = raw.parse().choices
    return choice.message.content or "", choice.finish_reason, raw.headers["trunkline-receipt"]


async def receipt_of(stack: Stack, answer: str) -> dict[str, object]:
    evidence = (await stack.http.get(f"/trunkline/v1/receipts/{answer}")).json()
    (part,) = evidence["parts"]
    receipt: dict[str, object] = json.loads(part["signed"]["receipt"])
    return receipt


async def check_whole(stack: Stack, got: tuple[str, str, str]) -> dict[str, object]:
    """The text is the whole answer for the seed that the receipt names."""
    text, finish, answer = got
    receipt = await receipt_of(stack, answer)
    assert text == text_of(receipt["sampling"]["seed"])  # type: ignore[index]
    assert finish == "stop"
    assert receipt["answer"] == answer
    return receipt


async def test_events_that_come_together_are_sent_together(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    send = Call.send

    async def noted(call: Call, data: bytes) -> None:
        sent.append(data)
        await send(call, data)

    monkeypatch.setattr(Call, "send", noted)
    await check_whole(stack, await streamed(stack))
    events = b"".join(sent).count(b"data: ")
    # The fake node writes all of an answer at once. Only its end waits, for the evidence.
    assert events > TOKENS // 2
    assert len(sent) <= 3


BEFORE = [
    Fault.BUSY, Fault.UNAVAILABLE, Fault.HTML, Fault.HANG_HEAD, Fault.HANG_ACCEPT,
    Fault.ERROR_RETRYABLE, Fault.CUT, Fault.CLEAN_END, Fault.STALL, Fault.GARBAGE,
    Fault.ALIEN_ERROR,
]  # fmt: skip
AFTER = [
    Fault.ERROR_RETRYABLE, Fault.ERROR_FINAL, Fault.CUT, Fault.CLEAN_END, Fault.STALL,
    Fault.GARBAGE, Fault.ALIEN_ERROR, Fault.DOUBLE,
]  # fmt: skip
SUSPECT = {Fault.GARBAGE, Fault.ALIEN_ERROR, Fault.DOUBLE}
AT_END = [
    Fault.NO_RECEIPT, Fault.BAD_SIGNATURE, Fault.WRONG_STREAM, Fault.WRONG_REQUEST,
    Fault.WRONG_NODE, Fault.WRONG_ATTEMPT, Fault.NO_FINISH, Fault.HIDDEN_CACHE,
    Fault.WRONG_AUDIT, Fault.MISCOUNTED,
]  # fmt: skip


async def test_an_answer_without_faults(stack: Stack, alpha: FakeNode, beta: FakeNode) -> None:
    receipt = await check_whole(stack, await streamed(stack))
    assert receipt["route"] == []
    assert len(alpha.attempts) + len(beta.attempts) == 1


@pytest.mark.parametrize("fault", BEFORE)
@pytest.mark.parametrize("ask", [streamed, whole])
async def test_fault_before_the_first_token(
    stack: Stack, alpha: FakeNode, beta: FakeNode, fault: Fault, ask: type(streamed)
) -> None:
    for node in (alpha, beta):
        node.will(fault)
        # Whichever is asked first fails; the other one has no script left to fail by.
    first_fails_only(alpha, beta)
    receipt = await check_whole(stack, await ask(stack))
    assert len(alpha.attempts) + len(beta.attempts) == 2
    assert len(receipt["route"]) == 1  # type: ignore[arg-type]


def first_fails_only(alpha: FakeNode, beta: FakeNode) -> None:
    """Both have the fault scripted; the one asked first uses it up for both."""
    shared = alpha.scripts
    beta.scripts = shared
    while len(shared) > 1:
        shared.pop()


@pytest.mark.parametrize("fault", AFTER)
@pytest.mark.parametrize("after", [2, 3, 7, TOKENS])
@pytest.mark.parametrize("ask", [streamed, whole])
async def test_fault_after_the_first_token(
    stack: Stack, alpha: FakeNode, beta: FakeNode, fault: Fault, after: int, ask: type(streamed)
) -> None:
    alpha.will(fault, after)
    first_fails_only(alpha, beta)
    receipt = await check_whole(stack, await ask(stack))
    first, second = sorted(alpha.attempts + beta.attempts, key=lambda a: len(a.previous))
    if ask is whole and fault in SUSPECT:
        # Nothing was shown yet, and what such a node sent is not built on: afresh.
        assert second.resume is None
        return
    assert second.resume is not None
    assert second.numerics == NUMERICS
    assert receipt["sampling"]["source"] == "inherited"  # type: ignore[index]
    assert receipt["response"]["resumed"] == [len(second.resume.tokens[0])]  # type: ignore[index]
    assert second.previous[0].attempt == first.attempt


@pytest.mark.parametrize("fault", AT_END)
@pytest.mark.parametrize("ask", [streamed, whole])
async def test_fault_at_the_end(
    stack: Stack, alpha: FakeNode, beta: FakeNode, fault: Fault, ask: type(streamed)
) -> None:
    if fault is Fault.NO_FINISH and ask is whole:
        fault = Fault.NO_RECEIPT
    alpha.will(fault)
    first_fails_only(alpha, beta)
    receipt = await check_whole(stack, await ask(stack))
    fresh = ask is whole and fault is not Fault.NO_RECEIPT
    assert receipt["response"].get("resumed", []) == ([] if fresh else [TOKENS])  # type: ignore[attr-defined]


@pytest.mark.parametrize("cut", range(0, 90, 7))
async def test_cut_at_any_byte(stack: Stack, alpha: FakeNode, beta: FakeNode, cut: int) -> None:
    alpha.will(Fault.CUT, 5, cut)
    first_fails_only(alpha, beta)
    await check_whole(stack, await streamed(stack))


async def test_every_node_dies_in_turn(stack: Stack, alpha: FakeNode, beta: FakeNode) -> None:
    for _ in range(8):
        alpha.will(Fault.CUT, 1)
        beta.will(Fault.CUT, 2)
    text, finish, _answer = await streamed(stack)
    assert finish == "stop"
    assert text.count("w") == TOKENS


async def test_killed_node_and_its_return(stack: Stack, alpha: FakeNode, beta: FakeNode) -> None:
    await check_whole(stack, await streamed(stack))
    await alpha.die()
    for _ in range(3):
        await check_whole(stack, await streamed(stack))
    await alpha.listen()
    await beta.die()
    for _ in range(3):
        await check_whole(stack, await whole(stack))


async def test_wrong_seed_on_resume_is_not_relayed(
    stack: Stack, alpha: FakeNode, beta: FakeNode
) -> None:
    alpha.will(Fault.CUT, 5).will(Fault.WRONG_SEED)
    beta.scripts = alpha.scripts
    await check_whole(stack, await streamed(stack))
    assert len(alpha.attempts) + len(beta.attempts) == 3


async def test_no_exact_node_left_is_an_explicit_end(tmp_path: Path) -> None:
    async with FakeNode("alpha") as alpha, FakeNode("beta", numerics="other") as beta:
        alpha.always = None
        async with gateway_over([alpha, beta], tmp_path) as stack:
            for node in (alpha, beta):
                for _ in range(12):
                    node.will(Fault.CUT, 0)
                node.scripts[0] = node.scripts[0].__class__(fault=Fault.CUT, after=5)
            text = ""
            with pytest.raises(openai.APIError) as caught:
                stream = await stack.openai.chat.completions.create(
                    model=MODEL, messages=ASK, stream=True
                )
                async for chunk in stream:
                    assert chunk.choices[0].finish_reason is None
                    text += chunk.choices[0].delta.content or ""
            assert text
            assert caught.value.code == "answer_interrupted"  # type: ignore[attr-defined]


async def test_rejected_request_is_told_at_once(
    stack: Stack, alpha: FakeNode, beta: FakeNode
) -> None:
    alpha.will(Fault.REJECT)
    beta.scripts = alpha.scripts
    with pytest.raises(openai.BadRequestError) as caught:
        await streamed(stack)
    assert caught.value.code == "unsupported_parameter"
    assert caught.value.param == "logit_bias"
    assert len(alpha.attempts) + len(beta.attempts) == 1


async def test_what_no_node_can_honour_is_refused_by_name_and_blames_no_node(
    stack: Stack, alpha: FakeNode, beta: FakeNode
) -> None:
    for _ in range(4):
        alpha.will(Fault.UNFIT)
        beta.will(Fault.UNFIT)
    for _ in range(4):
        with pytest.raises(openai.BadRequestError) as caught:
            await streamed(stack)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "mirostat")
    # Each node was asked once an answer, and both are still asked.
    assert len(alpha.attempts) == len(beta.attempts) == 4
    text, _, _ = await streamed(stack)
    assert text


async def test_what_one_node_can_not_honour_another_does(
    stack: Stack, alpha: FakeNode, beta: FakeNode
) -> None:
    alpha.will(Fault.UNFIT)
    text, _, _ = await streamed(stack)
    assert text
    assert len(beta.attempts) == 1


async def test_everybody_busy_is_429_with_a_time(
    stack: Stack, alpha: FakeNode, beta: FakeNode
) -> None:
    for node in (alpha, beta):
        for _ in range(8):
            node.will(Fault.BUSY)
    with pytest.raises(openai.RateLimitError) as caught:
        await streamed(stack)
    assert caught.value.response.headers["retry-after"] == "1"


async def test_several_choices_survive(stack: Stack, alpha: FakeNode, beta: FakeNode) -> None:
    alpha.will(Fault.CUT, 9)
    beta.scripts = alpha.scripts
    raw = await stack.openai.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASK, stream=True, n=3
    )
    texts, finished = ["", "", ""], set()
    async for chunk in raw.parse():
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finished.add(choice.index)
    receipt = await receipt_of(stack, raw.headers["trunkline-receipt"])
    seed = receipt["sampling"]["seed"]  # type: ignore[index]
    assert texts == [text_of(seed, choice) for choice in range(3)]
    assert finished == {0, 1, 2}


async def test_usage_chunk_comes_last(stack: Stack) -> None:
    stream = await stack.openai.chat.completions.create(
        model=MODEL, messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == TOKENS


async def test_kept_bodies_bind_what_was_said(stack: Stack) -> None:
    _, _, answer = await streamed(stack, extra_headers={"trunkline-keep": "bodies"})
    evidence = (await stack.http.get(f"/trunkline/v1/receipts/{answer}")).json()
    bodies = evidence["parts"][0]["bodies"]
    assert json.loads(b64decode(bodies["request"]))["messages"] == ASK
    assert any("finish_reason" in chunk for chunk in bodies["chunks"])
    _, _, private = await streamed(stack)
    evidence = (await stack.http.get(f"/trunkline/v1/receipts/{private}")).json()
    assert evidence["parts"][0]["bodies"] is None


async def test_embeddings(stack: Stack, alpha: FakeNode, beta: FakeNode) -> None:
    alpha.will(Fault.CUT)
    beta.scripts = alpha.scripts
    answer = await stack.openai.embeddings.create(
        model="tiny-embed", input="text", encoding_format="float"
    )
    assert answer.data[0].embedding == [0.5, 0.5]
    assert len(alpha.attempts) + len(beta.attempts) == 2


async def test_unknown_model_names_what_there_is(stack: Stack) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await stack.openai.chat.completions.create(model="gpt-9", messages=ASK)
    assert caught.value.code == "model_not_found"
    assert MODEL in caught.value.message


async def test_models_and_unknown_routes(stack: Stack) -> None:
    names = [model.id async for model in stack.openai.models.list()]
    assert names == [MODEL, "tiny-embed"]
    assert (await stack.openai.models.retrieve(MODEL)).id == MODEL
    reply = await stack.http.get("/v1/nothing")
    assert reply.status == 404
    assert reply.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("after", [None, 2, TOKENS])
async def test_the_stream_says_whose_chain_it_belongs_to(
    stack: Stack, alpha: FakeNode, beta: FakeNode, after: int | None
) -> None:
    """So that whoever listens can hash it as it passes, a takeover in its middle included."""
    if after is not None:
        alpha.will(Fault.CUT, after)
        first_fails_only(alpha, beta)
    body = json.dumps({"model": MODEL, "messages": ASK, "stream": True}).encode()
    reply = await stack.http.post("/v1/chat/completions", body, trunkline_chain="1")
    file = await stack.http.get(f"/trunkline/v1/receipts/{reply.header('trunkline-receipt')}")

    attempts = sorted(alpha.attempts + beta.attempts, key=lambda one: len(one.previous))
    told = [line.split()[1].decode() for line in reply.body.split(b"\n") if line[:6] == b"chain:"]
    assert told == [one.attempt for one in attempts]
    heard = PassingResponse()
    for at in range(0, len(reply.body), 100):
        heard.add(reply.body[at : at + 100])
    heard.close()
    assert heard.hashing
    steps, kept = (
        verify(file.body, trusted_keys=decode(file.body).keys, response=response).steps
        for response in (heard, reply.body)
    )
    assert steps == kept
    assert steps[6].title == "response"
    assert steps[6].result == ("pass" if after is None else "inconclusive")

    plain = await stack.http.post("/v1/chat/completions", body)
    assert b"chain:" not in plain.body
