"""Cancelling, deadlines, queues, stopping and taking over, over real HTTP."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.unit.node.harness import KEY, NAME, attempt, chat, node
from tests.unit.node.scripted import EOS, MODEL, ScriptedEngine, noise, says

from trunkline.base.errors import TruncatedError
from trunkline.engine.client import JOBS_MAX
from trunkline.node.app import _transport
from trunkline.node.config import EmbeddedEngine, NodeConfig, VllmEngine
from trunkline.receipts import tokens_digest, verify_signed
from trunkline.remote.node import AcceptedEvent, ChunkEvent, NodeRefusedError, ReceiptEvent
from trunkline.runtime.clock import SystemClock
from trunkline.schema.attempt import PreviousAttempt


def config(**more: object) -> NodeConfig:
    given: dict[str, object] = {
        "name": NAME,
        "operator": "alpha.example",
        "embeddings": False,
        "engine": EmbeddedEngine(sequences=2),
    }
    return NodeConfig(**given | more)  # type: ignore[arg-type]


async def until(engine: ScriptedEngine, *, running: int) -> None:
    async with asyncio.timeout(10):
        await (engine.busy if running else engine.idle).wait()


async def test_closing_the_connection_stops_the_engine_and_signs_nothing(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("long"))
    engine.pause = asyncio.Event()
    async with node(tmp_path, engine) as running:
        stream = await running.caller.attempt(attempt(chat()), 5.0)
        assert isinstance(await anext(stream), AcceptedEvent)
        await until(engine, running=1)
        await stream.aclose()
        await until(engine, running=0)
        info = await running.caller.info()
        status, _, _ = await running.get("/v1/receipts/att_1")

    assert engine.cancelled == 1
    assert status == 404
    assert info.queued == 0


async def test_the_first_tokens_time_is_not_the_role_chunks(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("words"))
    engine.pause = asyncio.Event()
    clock = SystemClock()
    async with node(tmp_path, engine) as running:
        stream = await running.caller.attempt(attempt(chat(stream=True)), 5.0)
        assert isinstance(await anext(stream), AcceptedEvent)
        role = await anext(stream)
        assert isinstance(role, ChunkEvent)
        assert not role.tokens
        arrived_ms = clock.unix_ms()
        while (released_ms := clock.unix_ms()) == arrived_ms:
            pass
        engine.pause.set()
        signed = [event.signed async for event in stream if isinstance(event, ReceiptEvent)]

    times = verify_signed(signed[0], KEY).receipt.times
    assert released_ms <= times.first_token_ms <= times.ended_ms


async def test_the_deadline_ends_the_attempt_with_an_error(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("long"))
    engine.pause = asyncio.Event()
    async with node(tmp_path, engine) as running:
        heard = await running.hear(attempt(chat(), deadline_ms=2_000))

    assert heard.error is not None
    assert (heard.error.code, heard.error.status) == ("deadline_exceeded", 504)
    assert heard.signed is None
    assert engine.cancelled == 1


async def test_a_full_queue_refuses_and_says_when_to_come_back(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("x"))
    engine.pause = asyncio.Event()
    async with node(tmp_path, engine, config=config(queue_max=1)) as running:
        answered = [
            asyncio.create_task(running.hear(attempt(chat(n=2), number=number)))
            for number in range(2)
        ]
        async with asyncio.timeout(10):
            while (await running.caller.info()).queued < 1:
                pass
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(attempt(chat(), number=9))
        engine.pause.set()
        heard = await asyncio.gather(*answered)

    assert refused.value.error_code == "overloaded"
    assert refused.value.retryable
    assert refused.value.retry_after_s is not None
    assert refused.value.node_error.status == 503
    assert [each.signed is not None for each in heard] == [True, True]


async def test_a_waiting_attempt_shows_signs_of_life(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("x"))
    engine.pause = asyncio.Event()
    body = msgspec.json.encode(attempt(chat(), number=2))
    async with node(tmp_path, engine, config=config(engine=EmbeddedEngine(sequences=1))) as running:
        first = asyncio.create_task(running.hear(attempt(chat(), number=1)))
        await until(engine, running=1)
        response = await running.transport.request(
            "POST", running.base_url + "/v1/attempts", body=body
        )
        async with response:
            begun = await anext(response.chunks())
            engine.pause.set()
        await first

    assert begun == b": queued\n\n"


async def test_more_choices_than_places_are_refused(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine(), config=config()) as running:
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(attempt(chat(n=3)))

    assert refused.value.node_error.param == "n"


async def test_choices_go_in_lock_step(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine(noise), config=config()) as running:
        heard = await running.hear(attempt(chat(n=2, max_tokens=5)))

    assert [choice for choice, _ in heard.tokens] == [0, 1] * 5
    assert heard.signed is not None
    receipt = verify_signed(heard.signed, KEY).receipt
    assert receipt.response.finish == ("length", "length")
    assert receipt.usage.completion == 10


async def test_another_node_takes_over_exactly(tmp_path: Path) -> None:
    """Cut after every event: what was heard before and what comes after are the whole answer."""
    async with (
        node(tmp_path / "a", ScriptedEngine(noise)) as first,
        node(tmp_path / "b", ScriptedEngine(noise)) as second,
    ):
        what = chat(seed=7, max_tokens=12, stream_options={"include_usage": True})
        whole = await first.hear(attempt(what))
        assert whole.accepted is not None
        assert whole.signed is not None
        for cut in range(13):
            given = [token for _, token in whole.tokens[:cut]]
            sent = next(
                (c.id for c in whole.chunks if cut and len(given) == _tokens_until(whole, c.id)),
                -1,
            )
            rest = await second.hear(
                attempt(
                    what,
                    number=100 + cut,
                    seed=whole.accepted.seed,
                    numerics=MODEL.numerics,
                    resume=[given],
                    previous=(
                        PreviousAttempt(
                            attempt="att_1", node=NAME, error="upstream_truncated", tokens=(cut,)
                        ),
                    ),
                ),
                first_id=sent + 1,
            )
            before = [chunk for chunk in whole.chunks if chunk.id <= sent]
            assert before + rest.chunks == whole.chunks
            assert rest.signed is not None
            receipt = verify_signed(rest.signed, KEY).receipt
            assert receipt.response.resumed == (cut,)
            assert receipt.response.resumed_digest == tokens_digest([given])
            assert receipt.sampling.source == "inherited"
            assert receipt.route[0].tokens == (cut,)
            tokens = verify_signed(whole.signed, KEY).receipt.response.tokens
            assert receipt.response.tokens == tokens


def _tokens_until(heard: object, last: int) -> int:
    chunks = heard.chunks  # type: ignore[attr-defined]
    return sum(len(chunk.tokens) for chunk in chunks if chunk.id <= last)


@pytest.mark.parametrize(
    ("more", "code", "status"),
    [
        ({"numerics": "other"}, "cannot_resume", 409),
        ({"numerics": None}, "cannot_resume", 409),
        ({"seed": None}, "invalid_attempt", 400),
        ({"resume": [[1], [2]]}, "invalid_resume", 400),
        ({"resume": [[10_000]]}, "invalid_resume", 400),
    ],
)
async def test_what_can_not_be_taken_over_is_refused(
    tmp_path: Path, more: dict[str, object], code: str, status: int
) -> None:
    given: dict[str, object] = {
        "seed": "ab" * 32,
        "numerics": MODEL.numerics,
        "resume": [[65]],
    } | more
    async with node(tmp_path, ScriptedEngine(noise)) as running:
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(attempt(chat(), **given))  # type: ignore[arg-type]

    assert refused.value.error_code == code
    assert refused.value.node_error.status == status


async def test_tokens_past_the_end_are_refused(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine(noise)) as running:
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(
                attempt(chat(), seed="ab" * 32, numerics=MODEL.numerics, resume=[[65, EOS, 65]])
            )

    assert refused.value.error_code == "invalid_resume"
    assert not refused.value.retryable


async def test_stopping_ends_a_running_attempt_with_an_error(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("long"))
    engine.pause = asyncio.Event()
    async with node(tmp_path, engine, grace_s=0.0) as running:
        stream = await running.caller.attempt(attempt(chat()), 5.0)
        assert isinstance(await anext(stream), AcceptedEvent)
        await until(engine, running=1)
        last = asyncio.create_task(_rest(stream))
    events = await last
    await running.transport.aclose()

    assert [type(event).__name__ for event in events] == ["ChunkEvent", "ErrorEvent"]
    assert events[-1].error.code == "node_stopping"  # type: ignore[attr-defined]
    assert engine.running == 0
    assert engine.closed


async def _rest(stream: object) -> list[object]:
    events: list[object] = []
    try:
        events += [event async for event in stream]  # type: ignore[attr-defined]
    except TruncatedError as error:
        events.append(error)
    return events


async def test_two_attempts_with_one_id_do_not_both_run(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("x"))
    engine.pause = asyncio.Event()
    async with node(tmp_path, engine) as running:
        first = asyncio.create_task(running.hear(attempt(chat())))
        await until(engine, running=1)
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(attempt(chat()))
        engine.pause.set()
        heard = await first

    assert refused.value.error_code == "attempt_exists"
    assert heard.signed is not None


async def test_what_the_node_says_of_itself(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine(says("x"))) as running:
        info = await running.caller.info()
        heard = await running.hear(attempt(chat()))
        status, body, index = await running.get("/v1/receipts/att_1")
        health, _, _ = await running.get("/healthz")
        missing, _, _ = await running.get("/v1/receipts/att_2")
        odd, _, _ = await running.get("/v1/receipts/../../key")

    assert (info.node, info.operator, info.key) == (NAME, "alpha.example", str(KEY))
    assert [model.name for model in info.models] == ["scripted"]
    assert info.models[0].numerics == MODEL.numerics
    assert info.ready
    assert (status, index, health, missing, odd) == (200, None, 200, 404, 404)
    assert body == msgspec.json.encode(heard.signed)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_attempt"),
        (b"{}", "invalid_attempt"),
        (b"[" * 100_000, "invalid_attempt"),
        (
            msgspec.json.encode(attempt(chat(), number=1)).replace(b"att_1", b"../a"),
            "invalid_attempt",
        ),
    ],
)
async def test_an_envelope_that_is_none_is_refused(tmp_path: Path, body: bytes, code: str) -> None:
    async with node(tmp_path, ScriptedEngine()) as running:
        status, answer = await running.post(body)

    assert status == 400
    error = msgspec.json.decode(answer)["error"]
    assert (error["code"], error["retryable"]) == (code, False)


async def test_another_model_is_not_served(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine()) as running:
        with pytest.raises(NodeRefusedError) as refused:
            await running.hear(attempt(chat(), model="gpt-x"))

    assert refused.value.error_code == "model_not_found"
    assert refused.value.node_error.status == 404


async def test_one_line_an_attempt_and_no_text_in_it(tmp_path: Path) -> None:
    with capture_logs() as lines:
        async with node(tmp_path, ScriptedEngine(says("the secret answer"))) as running:
            await running.hear(attempt(chat("the secret question")))

    ended = [line for line in lines if line["event"] == "attempt.ended"]
    assert len(ended) == 1
    assert ended[0]["outcome"] == "answered"
    assert ended[0]["completion_tokens"] == 18
    assert "secret" not in repr(lines)


async def test_a_vllm_server_has_a_connection_for_each_choice_of_each_answer() -> None:
    together = asyncio.Barrier(JOBS_MAX)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await together.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = _transport(VllmEngine(server=url, sequences=1))
        answers = await asyncio.gather(*(transport.request("GET", url) for _ in range(JOBS_MAX)))
        assert [answer.status for answer in answers] == [204] * JOBS_MAX
        await transport.aclose()
