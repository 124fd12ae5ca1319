"""An attempt from envelope to receipt, over real HTTP with a scripted engine."""

from pathlib import Path

import msgspec
import pytest
from tests.unit.node.harness import KEY, NAME, attempt, chat, node
from tests.unit.node.scripted import EOS, MODEL, ScriptedEngine, says

from trunkline.crypto.digest import parse_digest
from trunkline.receipts import prompt_digest, request_digest, tokens_digest, verify_signed
from trunkline.receipts.stream import stream_digest
from trunkline.remote.node import NodeRefusedError


async def test_a_streamed_answer_ends_with_a_receipt_that_verifies(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("Hi é!"))
    async with node(tmp_path, engine) as running:
        what = attempt(chat("hello"))
        heard = await running.hear(what)

    assert heard.text == "Hi é!"
    assert heard.signed is not None
    receipt = verify_signed(heard.signed, KEY).receipt
    assert heard.accepted is not None
    assert heard.accepted.seed == receipt.sampling.seed
    assert heard.accepted.numerics == receipt.model.numerics == MODEL.numerics
    assert receipt.node == NAME
    assert receipt.request.digest == request_digest(bytes(what.request))
    assert receipt.request.prompt == prompt_digest(engine.jobs[0].prompt)
    assert receipt.response.tokens == tokens_digest([[*"Hi é!".encode(), EOS]])
    digest = parse_digest(receipt.request.digest)
    assert receipt.response.digest == stream_digest(digest, what.attempt, heard.data)
    assert receipt.response.chunks == len(heard.data)
    assert receipt.response.finish == ("stop",)
    assert receipt.usage.completion == len("Hi é!".encode()) + 1
    assert receipt.usage.prompt == len(engine.jobs[0].prompt)
    assert receipt.sampling.source == "nonces"
    assert receipt.previous == ""


async def test_every_token_is_one_event_and_ids_count_from_zero(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine(says("aé"))) as running:
        heard = await running.hear(attempt(chat()))

    assert [chunk.id for chunk in heard.chunks] == list(range(len(heard.chunks)))
    # Role, a, first half of é (no text yet), é, the end token, the finish chunk.
    assert [chunk.tokens for chunk in heard.chunks] == [
        (),
        ((0, ord("a")),),
        ((0, 0xC3),),
        ((0, 0xA9),),
        ((0, EOS),),
        (),
    ]
    assert [chunk.data is None for chunk in heard.chunks] == [
        False, False, True, False, True, False,
    ]  # fmt: skip


async def test_a_whole_answer_is_one_event_after_the_progress(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine(says("Paris"))) as running:
        heard = await running.hear(attempt(chat(stream=False)))

    assert len(heard.chunks) == 1
    assert heard.chunks[0].id == 0
    whole = msgspec.json.decode(heard.data[0])
    assert whole["choices"][0]["message"]["content"] == "Paris"
    assert whole["usage"]["completion_tokens"] == 6
    assert [token for tokens in heard.progress for token in tokens] == [
        (0, token) for token in (*b"Paris", EOS)
    ]
    assert heard.signed is not None


async def test_a_used_attempt_id_is_refused(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine(says("x"))) as running:
        await running.hear(attempt(chat(), number=3))
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(attempt(chat(), number=3))

    assert refused.value.error_code == "attempt_exists"


async def test_a_crash_of_the_engine_is_an_error_event_and_no_receipt(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("never whole"))
    engine.fail_at = 4
    async with node(tmp_path, engine) as running:
        heard = await running.hear(attempt(chat()))
        status, _, _ = await running.get("/v1/receipts/att_1")

    assert heard.text == "neve"
    assert heard.signed is None
    assert heard.error is not None
    assert (heard.error.code, heard.error.retryable) == ("engine_crashed", True)
    assert status == 404
