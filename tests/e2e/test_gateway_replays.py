"""Repeated requests: one answer, one charge, one receipt, whatever was cut or killed between."""

import asyncio
import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import anthropic
import msgspec
import openai
import pytest
from tests.e2e.test_gateway_keys import COST, PRICES, process
from tests.support.fake_answer import MODEL
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault, Script, with_hold
from tests.support.gateway import PlainClient, Reply, gateway_over, settings, write_config

from trunkline.base.errors import Error
from trunkline.gateway import recording
from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.store import EvidenceStore, create_store

CHAT = "/v1/chat/completions"
PATHS = {
    CHAT: {"messages": [{"role": "user", "content": "say it"}]},
    "/v1/messages": {"max_tokens": 64, "messages": [{"role": "user", "content": "say it"}]},
    "/v1/responses": {"input": "say it"},
}
SLOW = Timeouts()
"""No test here is about time."""
KEY = "8e03978e-40d5-43e8-bc93-6894a57f9324"


def body(path: str = CHAT, *, stream: bool = False, **more: object) -> bytes:
    return json.dumps({"model": MODEL, "stream": stream, **PATHS[path], **more}).encode()


class FullOnce(EvidenceStore):
    """A store whose disk is full for the first answer."""

    full = True

    async def add(self, *about: object, **more: object) -> None:
        if self.full:
            self.full = False
            raise Error("disk full", code="disk_failed")
        await super().add(*about, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", list(PATHS))
async def test_a_repetition_is_the_same_to_the_byte(
    tmp_path: Path, path: str, stream: bool
) -> None:
    async with FakeNode("alpha") as node:
        async with gateway_over([node], tmp_path) as stack:
            asked = body(path, stream=stream)
            first = await stack.http.post(path, asked, idempotency_key=KEY)
            again = await stack.http.post(path, asked, idempotency_key=f'"{KEY}"')
            assert first.status == again.status == 200
            assert first.body == again.body
            assert first.header("idempotent-replayed") is None
            assert again.header("idempotent-replayed") == "true"
            for name in ("trunkline-receipt", "content-type", "x-request-id", "request-id"):
                assert first.header(name) == again.header(name)
            other = await stack.http.post(path, asked, idempotency_key="another")
            assert other.header("trunkline-receipt") != first.header("trunkline-receipt")
        # A new process knows it too.
        async with gateway_over([node], tmp_path) as stack:
            again = await stack.http.post(path, asked, idempotency_key=KEY)
            assert again.body == first.body
            assert again.header("trunkline-receipt") == first.header("trunkline-receipt")
        assert len(node.attempts) == 2


async def test_embeddings_are_kept_too(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, gateway_over([node], tmp_path) as stack:
        asked = json.dumps({"model": MODEL, "input": "a"}).encode()
        first = await stack.http.post("/v1/embeddings", asked, idempotency_key=KEY)
        again = await stack.http.post("/v1/embeddings", asked, idempotency_key=KEY)
        assert (first.status, first.body) == (again.status, again.body)
        assert again.header("idempotent-replayed") == ("true" if first.status == 200 else None)


async def test_a_key_is_for_one_request(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, gateway_over([node], tmp_path) as stack:
        await stack.http.post(CHAT, body(), idempotency_key=KEY)
        for path, asked in ((CHAT, body(temperature=1)), ("/v1/messages", body("/v1/messages"))):
            reply = await stack.http.post(path, asked, idempotency_key=KEY)
            assert reply.status == 422
            assert b"idempotency_key_reused" in reply.body
        for bad in ("", '""', "x" * 256):
            reply = await stack.http.post(CHAT, body(), idempotency_key=bad)
            assert reply.status == 400
            assert b"invalid_idempotency_key" in reply.body


async def test_the_official_clients_are_shown_the_same(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, gateway_over([node], tmp_path) as stack:
        headers = {"Idempotency-Key": KEY}
        ask = stack.openai.chat.completions.create
        said = [{"role": "user", "content": "say it"}]
        texts = set()
        for _ in range(3):
            answer = await ask(model=MODEL, messages=said, extra_headers=headers)  # type: ignore[call-overload]
            texts.add((answer.id, answer.choices[0].message.content))
        assert len(texts) == 1
        streams = set()
        for _ in range(2):
            chunks = await ask(  # type: ignore[call-overload]
                model=MODEL, messages=said, stream=True, extra_headers={"Idempotency-Key": "s"}
            )
            streams.add(
                "".join([c.choices[0].delta.content or "" async for c in chunks if c.choices])
            )
        assert len(streams) == 1
        messages = set()
        for _ in range(2):
            async with stack.anthropic.messages.stream(
                model=MODEL,
                max_tokens=64,
                messages=[{"role": "user", "content": "say it"}],
                extra_headers={"Idempotency-Key": "a"},
            ) as stream:
                final = await stream.get_final_message()
                messages.add(final.model_dump_json())
        assert len(messages) == 1
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            await ask(model=MODEL, messages=said, temperature=1, extra_headers=headers)  # type: ignore[call-overload]
        assert refused.value.code == "idempotency_key_reused"
        with pytest.raises(anthropic.UnprocessableEntityError):
            await stack.anthropic.messages.create(
                model=MODEL,
                max_tokens=64,
                messages=[{"role": "user", "content": "another"}],
                extra_headers={"Idempotency-Key": "a"},
            )
        assert len(node.attempts) == 3


class Held:
    """A node whose next answers wait at a gate, and a gateway over it."""

    def __init__(self, node: FakeNode, events: int) -> None:
        self.gate = asyncio.Event()
        self.node = node
        node.always = with_hold(Script(after=events), self.gate)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_repeats_while_it_runs_follows_it(tmp_path: Path, stream: bool) -> None:
    async with FakeNode("alpha") as node, gateway_over([node], tmp_path, timeouts=SLOW) as stack:
        held, asked = Held(node, 2), body(stream=stream)

        async def ask() -> tuple[bytes, str | None]:
            reply = await stack.http.post(CHAT, asked, idempotency_key=KEY)
            return reply.body, reply.header("trunkline-receipt")

        tasks = [asyncio.create_task(ask()) for _ in range(150)]
        await node.reached.wait()
        other = await stack.http.post(CHAT, body(stream=not stream), idempotency_key=KEY)
        assert other.status == 422
        held.gate.set()
        found = set(await asyncio.gather(*tasks))
        assert len(found) == 1
        assert len(node.attempts) == 1


async def test_a_broken_connection_does_not_end_it(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, gateway_over([node], tmp_path, timeouts=SLOW) as stack:
        held, asked = Held(node, 4), body(stream=True)
        response = await stack.http.open(CHAT, asked, idempotency_key=KEY)
        seen = await anext(response.chunks())
        await response.aclose()
        held.gate.set()
        reply = await stack.http.post(CHAT, asked, idempotency_key=KEY)
        assert seen
        assert reply.body.startswith(seen)
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert reply.header("idempotent-replayed") == "true"
        assert len(node.attempts) == 1


async def test_nobody_comes_back_so_it_ends_and_its_key_is_free(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node:
        config = msgspec.structs.replace(settings([node], SLOW), replays_linger_s=0.0)
        async with gateway_over([node], tmp_path, config=config) as stack:
            held, asked = Held(node, 4), body(stream=True)
            response = await stack.http.open(CHAT, asked, idempotency_key=KEY)
            await anext(response.chunks())
            await response.aclose()
            async with asyncio.timeout(30):
                await node.left.wait()
            held.gate.set()
            reply = await stack.http.post(CHAT, asked, idempotency_key=KEY)
            assert reply.body.endswith(b"data: [DONE]\n\n")


async def test_a_failed_answer_frees_its_key(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, gateway_over([node], tmp_path) as stack:
        unknown = body().replace(MODEL.encode(), b"unknown")
        assert (await stack.http.post(CHAT, unknown, idempotency_key=KEY)).status == 404
        node.will(Fault.REJECT)
        failed = await stack.http.post(CHAT, body(), idempotency_key=KEY)
        assert failed.status == 400
        reply = await stack.http.post(CHAT, body(), idempotency_key=KEY)
        assert reply.status == 200
        assert reply.header("idempotent-replayed") is None


async def test_a_stream_that_fails_is_told_so_to_all_who_follow(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, gateway_over([node], tmp_path, timeouts=SLOW) as stack:
        held = Held(node, 4)
        node.always = with_hold(Script(fault=Fault.ERROR_FINAL, after=4), held.gate)
        asked = body(stream=True)
        tasks = [
            asyncio.create_task(stack.http.post(CHAT, asked, idempotency_key=KEY)) for _ in range(2)
        ]
        await node.reached.wait()
        held.gate.set()
        one, two = await asyncio.gather(*tasks)
        assert one.body == two.body
        assert b"answer_interrupted" in one.body
        assert b"[DONE]" not in one.body
        node.always = None
        reply = await stack.http.post(CHAT, asked, idempotency_key=KEY)
        assert reply.body.endswith(b"data: [DONE]\n\n")
        assert reply.header("trunkline-receipt") != one.header("trunkline-receipt")


async def test_evidence_that_can_not_be_stored_is_no_answer_and_no_replay(tmp_path: Path) -> None:
    create_store(tmp_path)
    async with (
        FakeNode("alpha") as node,
        gateway_over([node], tmp_path, store=FullOnce.open(tmp_path)) as stack,
    ):
        asked = body("/v1/responses", stream=True)
        failed = await stack.http.post("/v1/responses", asked, idempotency_key=KEY)
        assert b"evidence_not_stored" in failed.body
        assert b"response.completed" not in failed.body
        reply = await stack.http.post("/v1/responses", asked, idempotency_key=KEY)
        assert b"response.completed" in reply.body
        again = await stack.http.post("/v1/responses", asked, idempotency_key=KEY)
        assert again.body == reply.body


async def test_what_is_too_long_is_not_kept_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "ANSWER_BYTES_MAX", 500)
    async with FakeNode("alpha") as node, gateway_over([node], tmp_path) as stack:
        first = await stack.http.post(CHAT, body(stream=True), idempotency_key=KEY)
        assert first.body.endswith(b"data: [DONE]\n\n")
        assert len(first.body) > 500
        again = await stack.http.post(CHAT, body(stream=True), idempotency_key=KEY)
        assert again.status == 409
        assert (first.header("trunkline-receipt") or "?").encode() in again.body
        assert len(node.attempts) == 1


async def test_what_is_kept_is_bounded_and_leaves_the_disk(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node:
        config = msgspec.structs.replace(settings([node]), replays_bytes_max=4096)
        async with gateway_over([node], tmp_path, config=config) as stack:
            reply = await stack.http.post(CHAT, body(), idempotency_key=KEY)
            found = claims(tmp_path)
            assert found == [(200, reply.body)]
            assert await stack.store.claims.prune(0, 100) == 1
            assert claims(tmp_path) == []
            again = await stack.http.post(CHAT, body(), idempotency_key=KEY)
            assert again.header("trunkline-receipt") != reply.header("trunkline-receipt")
            assert await stack.store.claims.prune(1 << 60, 1 << 60) == 1


async def test_possible_double_work_is_on_record(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node, gateway_over([node], tmp_path) as stack:
        quiet = await stack.http.post(CHAT, body())
        node.will(Fault.STALL, after=0)
        slow = await stack.http.post(CHAT, body())
        node.will(Fault.BUSY)
        busy = await stack.http.post(CHAT, body())
        rows = (await stack.http.get("/trunkline/v1/receipts")).json()["answers"]
        said = {row["answer"]: row["possible_double_work"] for row in rows}
        replies = (quiet, slow, busy)
        assert [said[reply.header("trunkline-receipt")] for reply in replies] == [
            False,
            True,
            False,
        ]


async def test_stopping_ends_it_explicitly_and_a_new_process_makes_it_anew(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node:
        node.will(Fault.STALL, 5)
        asked = body(stream=True)
        async with gateway_over([node], tmp_path, timeouts=SLOW) as stack:
            client = PlainClient(stack.url)
            response = await client.open(CHAT, asked, idempotency_key=KEY)
            await node.reached.wait()
            reading = asyncio.create_task(response.read(1 << 20))
        cut = await reading
        await client.aclose()
        assert b'"code":"shutting_down"' in cut
        async with gateway_over([node], tmp_path) as stack:
            reply = await stack.http.post(CHAT, asked, idempotency_key=KEY)
            assert reply.body.endswith(b"data: [DONE]\n\n")
            assert reply.header("idempotent-replayed") is None


# Killed without warning.


def written(folder: Path, node: FakeNode) -> Path:
    config = settings([node], SLOW)
    create_store(folder / "data")
    return write_config(folder, config, routing=PRICES)


def charged(data: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(data / "evidence.db")) as connection:
        return list(connection.execute("SELECT answer, nusd FROM charges"))


def claims(data: Path) -> list[tuple[int, bytes]]:
    with closing(sqlite3.connect(data / "evidence.db")) as connection:
        return list(connection.execute("SELECT status, body FROM claims"))


async def post(url: str, asked: bytes, key: str = KEY) -> Reply:
    client = PlainClient(url)
    try:
        return await client.post(CHAT, asked, idempotency_key=key)
    finally:
        await client.aclose()


@pytest.mark.parametrize("stream", [False, True])
async def test_killed_after_the_end_it_is_the_same_answer(tmp_path: Path, stream: bool) -> None:
    async with FakeNode("alpha") as node:
        config, asked = written(tmp_path, node), body(stream=stream)
        async with process(config) as (child, url):
            first = await post(url, asked)
            child.send_signal(signal.SIGKILL)
            await child.wait()
        async with process(config) as (_, url):
            again = await post(url, asked)
        assert (again.status, again.body) == (first.status, first.body)
        assert again.header("trunkline-receipt") == first.header("trunkline-receipt")
        assert len(node.attempts) == 1
        assert charged(tmp_path / "data") == [(first.header("trunkline-receipt"), COST)]


async def test_killed_in_the_middle_it_is_made_anew_under_the_same_id(tmp_path: Path) -> None:
    async with FakeNode("alpha") as node:
        held = Held(node, 4)
        config, asked = written(tmp_path, node), body(stream=True)
        async with process(config) as (child, url):
            client = PlainClient(url)
            response = await client.open(CHAT, asked, idempotency_key=KEY)
            name = response.header("trunkline-receipt")
            await anext(response.chunks())
            child.send_signal(signal.SIGKILL)
            await child.wait()
            await response.aclose()
            await client.aclose()
        assert charged(tmp_path / "data") == []
        held.gate.set()
        async with process(config) as (_, url):
            again = await post(url, asked)
            once_more = await post(url, asked)
            client = PlainClient(url)
            rows = (await client.get("/trunkline/v1/receipts")).json()["answers"]
            await client.aclose()
        assert again.body.endswith(b"data: [DONE]\n\n")
        assert again.body == once_more.body
        assert again.header("trunkline-receipt") == name
        assert charged(tmp_path / "data") == [(name, COST)]
        assert [row["possible_double_work"] for row in rows] == [True]


@pytest.mark.parametrize("answers", [1, 5, 11])
async def test_killed_at_any_point_each_key_has_one_answer(tmp_path: Path, answers: int) -> None:
    """Four callers ask on; the gateway is killed under them; all of it is asked again, twice."""
    async with FakeNode("alpha") as node:
        config, whole = written(tmp_path, node), dict[str, Reply]()
        enough = asyncio.Event()

        async def ask_on(url: str, caller: int) -> None:
            for number in range(1000):
                key = f"{caller}-{number}"
                try:
                    reply = await post(url, body(stream=True, n=1), key)
                except Error:
                    return
                if reply.body.endswith(b"data: [DONE]\n\n"):
                    whole[key] = reply
                if len(whole) >= answers:
                    enough.set()

        async with process(config) as (child, url), asyncio.TaskGroup() as group:
            for caller in range(4):
                group.create_task(ask_on(url, caller))
            async with asyncio.timeout(120):
                await enough.wait()
            child.send_signal(signal.SIGKILL)
        first, keys = dict(whole), {*whole, *(f"{caller}-{len(whole)}" for caller in range(4))}
        async with process(config) as (_, url):
            for key in [*keys, *keys]:
                reply = await post(url, body(stream=True, n=1), key)
                known = first.setdefault(key, reply)
                assert reply.body == known.body
                assert reply.header("trunkline-receipt") == known.header("trunkline-receipt")
        names = [reply.header("trunkline-receipt") for reply in first.values()]
        found = charged(tmp_path / "data")
        assert len(set(names)) == len(names)
        assert set(names) <= {answer for answer, _ in found}
        assert len(found) == len({answer for answer, _ in found})
        assert sum(nusd for _, nusd in found) == COST * len(found)
