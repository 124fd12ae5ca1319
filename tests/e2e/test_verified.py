"""Official clients, wrapped: their answers prove themselves, and every lie of a gateway shows."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from tests.support.front_door import EMBEDDER, FINAL_S_MAX, MODEL, evidence
from tests.support.lying_gateway import Liar, Lie, Told, honest, lying
from tests.support.network import RunningNetwork

from trunkline import verified

pytestmark = pytest.mark.xdist_group("network")

ASKED: dict[str, Any] = {
    "model": MODEL, "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 6,
}  # fmt: skip


@pytest.fixture
def trust(network: RunningNetwork) -> verified.Trust:
    return verified.Trust.from_folder(network.data)


@pytest.fixture
def client(network: RunningNetwork, trust: verified.Trust) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{network.base_url}/v1", api_key="x") as plain:
        yield verified.wrap(plain, trust)


def established(result: verified.Result) -> dict[str, str]:
    assert (result.outcome, result.state, result.trust) == ("pass", "final", "reader")
    assert [step.number for step in result.steps] == list(range(1, len(result.steps) + 1))
    return {step.title: step.result for step in result.steps}


def proven(answer: Any) -> dict[str, str]:
    receipt = verified.receipt_of(answer)
    assert isinstance(receipt, verified.Receipt)
    return established(receipt.final(FINAL_S_MAX))


def test_openai_answers_carry_proof(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(**ASKED)
    stream = client.with_options(max_retries=0).chat.completions.create(**ASKED, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    vectors = client.embeddings.create(model=EMBEDDER, input=["one", "two"])
    raw = client.chat.completions.with_raw_response.create(**ASKED)

    for answer in (whole, stream, vectors, raw):
        steps = proven(answer)
        assert {steps[title] for title in ("request", "response", "call", "asked")} == {"pass"}
    assert "receipt" not in whole.model_dump()
    assert text


def test_answers_that_the_gateway_translates_are_proven_too(
    client: openai.OpenAI, network: RunningNetwork, trust: verified.Trust
) -> None:
    response = client.responses.create(model=MODEL, input="Say yes.", max_output_tokens=16)
    events = client.responses.create(
        model=MODEL, input="Say yes.", max_output_tokens=16, stream=True
    )
    assert [event.type for event in events][-1] in ("response.completed", "response.incomplete")
    with (
        anthropic.Anthropic(base_url=network.base_url, api_key="x") as plain,
        verified.wrap(plain, trust) as claude,
    ):
        message = claude.messages.create(**ASKED)
        with claude.messages.stream(**ASKED) as helper:
            assert list(helper.text_stream)
        for answer in (response, events, message, helper):
            steps = proven(answer)
            assert (steps["asked"], steps["shown"]) == ("pass", "pass")


def test_without_bodies_a_translated_answer_is_not_said_to_be_proven(
    network: RunningNetwork, trust: verified.Trust
) -> None:
    with (
        anthropic.Anthropic(base_url=network.base_url, api_key="x") as plain,
        verified.wrap(plain, trust, keep_bodies=False) as claude,
    ):
        message = claude.messages.create(**ASKED)
        with pytest.raises(verified.NotShownError, match="did not keep"):
            proven(message)


async def test_clients_that_are_awaited(network: RunningNetwork, trust: verified.Trust) -> None:
    async with (
        openai.AsyncOpenAI(base_url=f"{network.base_url}/v1", api_key="x") as plain,
        verified.wrap(plain, trust) as wrapped,
    ):
        stream = await wrapped.chat.completions.create(**ASKED, stream=True)
        receipt = verified.receipt_of(stream)
        assert isinstance(receipt, verified.AsyncReceipt)
        async for _ in stream:
            assert receipt.state == "provisional"
        assert established(await receipt.final(FINAL_S_MAX))["response"] == "pass"
        assert receipt.state == "final"
    async with httpx2.AsyncClient(
        transport=verified.wrap(httpx2.AsyncHTTPTransport(), trust), timeout=60
    ) as http:
        reply = await http.post(f"{network.base_url}/v1/chat/completions", json=ASKED)
        receipt = verified.receipt_of(reply)
        assert isinstance(receipt, verified.AsyncReceipt)
        assert established(await receipt.final(FINAL_S_MAX))["response"] == "pass"


def test_an_answer_left_half_read_is_not_proven(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(**ASKED | {"max_tokens": 80}, stream=True)
    next(iter(stream))
    stream.close()

    with pytest.raises(verified.UnreadError):
        proven(stream)


@pytest.fixture
def liar(network: RunningNetwork) -> Iterator[Liar]:
    with lying(network.base_url) as liar:
        yield liar


def altered(now: Told, before: list[Told]) -> Told:
    return replace(now, body=now.body.replace(b'"content":"', b'"content":"Not ', 1))


def dropped(now: Told, before: list[Told]) -> Told:
    events = now.body.split(b"\n\n")
    return replace(now, body=b"\n\n".join(events[:2] + events[3:]))


def swapped(now: Told, before: list[Told]) -> Told:
    return replace(now, body=before[-1].body)


def receipt_of_another(now: Told, before: list[Told]) -> Told:
    headers = now.headers | {"trunkline-receipt": before[-1].headers["trunkline-receipt"]}
    return replace(now, headers=headers)


def replayed(now: Told, before: list[Told]) -> Told:
    return before[-1]


def stripped(now: Told, before: list[Told]) -> Told:
    return replace(now, headers={k: v for k, v in now.headers.items() if k != "trunkline-receipt"})


LIES: dict[str, tuple[Lie, str, type[verified.ReceiptError], str]] = {
    "an altered chunk": (altered, "no", verified.AnswerChangedError, "answer_changed"),
    "a dropped chunk": (dropped, "no", verified.AnswerChangedError, "answer_changed"),
    "another answer": (swapped, "no", verified.AnswerChangedError, "answer_changed"),
    "another's receipt": (receipt_of_another, "no", verified.OtherAnswerError, "other_answer"),
    "another answer with its receipt": (replayed, "no", verified.OtherAnswerError, "other_answer"),
    "an old answer": (replayed, "Say yes.", verified.ReplayedError, "answer_replayed"),
    "no receipt": (stripped, "no", verified.NoReceiptError, "receipt_missing"),
}


@pytest.mark.parametrize(("lie", "before", "error", "code"), LIES.values(), ids=LIES.keys())
def test_a_lie_is_called_by_its_name(
    liar: Liar,
    trust: verified.Trust,
    lie: Lie,
    before: str,
    error: type[verified.ReceiptError],
    code: str,
) -> None:
    with (
        openai.OpenAI(base_url=f"{liar.base_url}/v1", api_key="x", max_retries=0) as plain,
        verified.wrap(plain, trust) as wrapped,
    ):
        earlier = ASKED | {"messages": [{"role": "user", "content": before}], "stream": True}
        first = wrapped.chat.completions.create(**earlier)
        list(first)
        assert proven(first)["response"] == "pass"
        liar.lie = lie
        stream = wrapped.chat.completions.create(**ASKED, stream=True)
        list(stream)

        with pytest.raises(error) as caught:
            proven(stream)
    assert caught.value.error_code == code


def other_words(body: bytes) -> bytes:
    return body.replace(b"Say yes.", b"Say no. ")


def flipped(told: Told) -> Told:
    return replace(told, body=told.body.replace(rb"\"completion\":", rb"\"completion\":1", 1))


def unproven(told: Told) -> Told:
    at = told.body.index(b'"proof":"')
    end = told.body.index(b'"', at + len(b'"proof":"'))
    return replace(told, body=told.body[:at] + b'"proof":null' + told.body[end + 1 :])


def gone(told: Told) -> Told:
    return replace(told, status=404, body=b"{}")


def test_what_a_node_was_asked_instead_shows(liar: Liar, trust: verified.Trust) -> None:
    liar.request = other_words
    with verified.wrap(httpx2.Client(timeout=60), trust) as wrapped:
        reply = wrapped.post(f"{liar.base_url}/v1/chat/completions", json=ASKED)
        with pytest.raises(verified.RequestChangedError):
            proven(reply)


@pytest.mark.parametrize(
    ("lie", "error"),
    [
        (flipped, verified.FalseEvidenceError),
        (unproven, verified.NotFinalError),
        (gone, verified.NoReceiptError),
    ],
)
def test_evidence_that_was_meddled_with_is_refused(
    network: RunningNetwork,
    liar: Liar,
    trust: verified.Trust,
    lie: Any,
    error: type[verified.ReceiptError],
) -> None:
    assert liar.lie is honest
    liar.evidence = lie
    with verified.wrap(httpx2.Client(timeout=60), trust) as wrapped:
        reply = wrapped.post(f"{liar.base_url}/v1/chat/completions", json=ASKED)
        receipt = verified.receipt_of(reply)
        assert isinstance(receipt, verified.Receipt)
        # The truth is there to be had; what the client is shown of it is not.
        evidence(network, reply.headers["trunkline-receipt"])
        with pytest.raises(error):
            receipt.final(deadline_s=1.0)
    assert receipt.state == "provisional"


def test_a_nonce_that_is_none_is_refused_by_name(network: RunningNetwork) -> None:
    with httpx2.Client(headers={"trunkline-nonce": "AB"}, timeout=60) as plain:
        reply = plain.post(f"{network.base_url}/v1/chat/completions", json=ASKED)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "trunkline-nonce")


def test_a_call_that_is_repeated_keeps_its_nonce_and_its_proof(
    network: RunningNetwork, trust: verified.Trust
) -> None:
    """The gateway rightly gives one key one answer: that is no replay."""
    with verified.wrap(httpx2.Client(timeout=60), trust) as wrapped:
        once, again = (
            wrapped.post(
                f"{network.base_url}/v1/chat/completions",
                json=ASKED,
                headers={"idempotency-key": "the same one"},
            )
            for _ in range(2)
        )
        assert once.content == again.content
        assert proven(once) == proven(again)


def test_the_file_at_its_word_is_said_to_be_that(network: RunningNetwork) -> None:
    with verified.wrap(httpx2.Client(timeout=60), verified.Trust.in_file()) as wrapped:
        reply = wrapped.post(f"{network.base_url}/v1/chat/completions", json=ASKED)
        receipt = verified.receipt_of(reply)
        assert isinstance(receipt, verified.Receipt)
        assert receipt.final(FINAL_S_MAX).trust == "file"
