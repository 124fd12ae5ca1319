"""What surrounds an answer: evidence that becomes final, clients that leave, stopping, bounds."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_answer import MODEL, NUMERICS
from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault, Script
from tests.support.gateway import BrokenStore, FakeLog, Stack, gateway_over, settings

from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.directory import Directory
from trunkline.gateway.relay import Pump
from trunkline.gateway.store import FILE, EvidenceStore, create_store
from trunkline.remote.transport import Response
from trunkline.schema.sse import SseEvent, SseParser

PATIENT = Timeouts(idle_s=60.0, first_token_s=60.0, first_event_s=60.0)
BODY = b'  {"model":"tiny","stream":true,"messages":[{"role":"user","content":"say it"}]}\n'
WHOLE = b'{"model":"tiny","messages":[{"role":"user","content":"say it"}]}'
CHAT = "/v1/chat/completions"


@pytest.fixture
async def alpha() -> AsyncIterator[FakeNode]:
    async with FakeNode("alpha") as node:
        yield node


async def ask(stack: Stack, body: bytes = BODY, **headers: str) -> str:
    """The answer's id, once it is whole."""
    reply = await stack.http.post(CHAT, body, **headers)
    assert reply.status == 200, reply.body
    assert body is WHOLE or reply.body.endswith(b"data: [DONE]\n\n")
    return reply.header("trunkline-receipt") or ""


async def state_of(stack: Stack, answer: str, wait_s: int = 0) -> str:
    reply = await stack.http.get(f"/trunkline/v1/receipts/{answer}?wait_s={wait_s}")
    return reply.header("trunkline-state") or ""


async def read_until(response: Response, count: int) -> list[SseEvent]:
    """The first ``count`` events of a stream."""
    parser, found = SseParser(), []
    async for data in response.chunks():
        found += parser.feed(data)
        if len(found) >= count:
            break
    return found


async def test_answers_become_final(alpha: FakeNode, tmp_path: Path) -> None:
    async with gateway_over([alpha], tmp_path) as stack:
        answer = await ask(stack)
        assert await state_of(stack, answer, 60) == "final"
        evidence = (await stack.http.get(f"/trunkline/v1/receipts/{answer}")).json()
        assert evidence["type"] == "trunkline.evidence/v1"
        assert evidence["parts"][0]["proof"].startswith("c2sp.org/tlog-proof@v1\n")
        assert evidence["parts"][0]["signed"]["batch"].encode() in stack.log.entries
        assert [key["vkey"] for key in evidence["keys"]] == [alpha.vkey]


async def test_a_log_that_is_down_delays_proofs_only(alpha: FakeNode, tmp_path: Path) -> None:
    log = FakeLog()
    log.down = True
    async with gateway_over([alpha], tmp_path, log=log) as stack:
        answer = await ask(stack)
        await log.asked.wait()
        assert await state_of(stack, answer) == "provisional"
        log.down = False
        assert await state_of(stack, answer, 60) == "final"


async def test_a_bug_met_once_does_not_stop_proofs(alpha: FakeNode, tmp_path: Path) -> None:
    log = FakeLog()
    log.bugs = 1
    async with gateway_over([alpha], tmp_path, log=log) as stack:
        assert await state_of(stack, await ask(stack), 60) == "final"
    assert log.bugs == 0


async def test_a_restart_finishes_what_was_provisional(alpha: FakeNode, tmp_path: Path) -> None:
    log = FakeLog()
    log.down = True
    async with gateway_over([alpha], tmp_path, log=log) as stack:
        answer = await ask(stack)
        await log.asked.wait()
    log.down = False
    async with gateway_over([alpha], tmp_path, log=log) as stack:
        assert await state_of(stack, answer, 60) == "final"
        listed = (await stack.http.get("/trunkline/v1/receipts?limit=5")).json()["answers"]
        assert [(row["answer"], row["state"]) for row in listed] == [(answer, "final")]
        assert set(listed[0]) == {
            "answer", "created_ms", "ended_ms", "format", "model", "node", "operator", "attempts",
            "state", "tenant", "possible_double_work",
        }  # fmt: skip


async def test_a_disk_that_refuses_is_an_explicit_end(alpha: FakeNode, tmp_path: Path) -> None:
    create_store(tmp_path)
    store = BrokenStore.open(tmp_path)
    async with gateway_over([alpha], tmp_path, store=store) as stack:
        streamed = await stack.http.post(CHAT, BODY)
        assert b"evidence_not_stored" in streamed.body
        assert b"[DONE]" not in streamed.body
        assert b'"stop"' not in streamed.body
        whole = await stack.http.post(CHAT, WHOLE)
        assert whole.status == 503
        assert whole.json()["error"]["code"] == "evidence_not_stored"


async def test_a_client_that_leaves_stops_the_node(alpha: FakeNode, tmp_path: Path) -> None:
    alpha.will(Fault.STALL, 5)
    async with gateway_over([alpha], tmp_path, timeouts=PATIENT) as stack:
        response = await stack.http.open(CHAT, BODY)
        await read_until(response, 3)
        await alpha.reached.wait()
        assert not alpha.left.is_set()
        await response.aclose()
        async with asyncio.timeout(30):
            await alpha.left.wait()
        counts = (await stack.http.get("/trunkline/v1/status")).json()["answers"]
        assert counts["running"] == 0
        assert counts["client_gone"] == 1
        # The deployment is not blamed.
        answer = await ask(stack)
        assert answer.startswith("ans_")


async def test_tokens_are_relayed_as_they_come(alpha: FakeNode, tmp_path: Path) -> None:
    hold = asyncio.Event()
    alpha.scripts.append(Script(after=2, hold=hold))
    async with gateway_over([alpha], tmp_path, timeouts=PATIENT) as stack:
        response = await stack.http.open(CHAT, BODY)
        first = await read_until(response, 2)
        assert len(first) == 2, "the role and the first token are here while the node waits"
        hold.set()
        assert (await response.read(1 << 20)).endswith(b"data: [DONE]\n\n")


async def test_the_end_is_held_until_the_receipt(alpha: FakeNode, tmp_path: Path) -> None:
    hold = asyncio.Event()
    # Role, twelve tokens, finish chunk: everything but the receipt.
    alpha.scripts.append(Script(after=14, hold=hold))
    async with gateway_over([alpha], tmp_path, timeouts=PATIENT) as stack:
        response = await stack.http.open(CHAT, BODY)
        await alpha.reached.wait()
        parser, seen = SseParser(), b""
        async for data in response.chunks():
            seen += data
            if b" w" in seen and not hold.is_set():
                assert b'"stop"' not in seen
                hold.set()
        assert parser.feed(seen)[-1].data == b"[DONE]"


async def test_stopping_lets_streams_finish(alpha: FakeNode, tmp_path: Path) -> None:
    hold = asyncio.Event()
    alpha.scripts.append(Script(after=5, hold=hold))
    async with gateway_over([alpha], tmp_path, timeouts=PATIENT, grace_s=10.0) as stack:
        response = await stack.http.open(CHAT, BODY)
        await alpha.reached.wait()
        reading = asyncio.create_task(response.read(1 << 20))
        asyncio.get_running_loop().call_later(0.3, hold.set)
        stack_closed = stack.close
        stack.close = _nothing  # type: ignore[method-assign]
    body = await reading
    await stack_closed()
    assert body.endswith(b"data: [DONE]\n\n")


async def test_stopping_ends_what_does_not_finish_explicitly(
    alpha: FakeNode, tmp_path: Path
) -> None:
    alpha.will(Fault.STALL, 5)
    async with gateway_over([alpha], tmp_path, timeouts=PATIENT, grace_s=0.2) as stack:
        response = await stack.http.open(CHAT, BODY)
        await alpha.reached.wait()
        reading = asyncio.create_task(response.read(1 << 20))
        stack_closed = stack.close
        stack.close = _nothing  # type: ignore[method-assign]
    body = await reading
    await stack_closed()
    assert b'"code":"shutting_down"' in body
    assert b"[DONE]" not in body


@pytest.mark.parametrize("headers", [{}, {"idempotency_key": "once"}], ids=["plain", "repeatable"])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_a_bug_in_the_middle_ends_the_stream_explicitly(
    alpha: FakeNode,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    headers: dict[str, str],
) -> None:
    report, hold, bugs = Pump._report, asyncio.Event(), [KeyError("say it")]

    def broken(self: Pump, *arguments: Any) -> Any:
        if hold.is_set() and bugs:
            raise bugs.pop()
        return report(self, *arguments)

    monkeypatch.setattr(Pump, "_report", broken)
    alpha.scripts.append(Script(after=5, hold=hold))
    asked = BODY.replace(b'"stream"', b'"max_tokens":99,"stream"')
    async with gateway_over([alpha], tmp_path) as stack:
        response = await stack.http.open(path, asked, **headers)
        assert response.status == 200
        hold.set()
        body = await response.read(1 << 20)
        again = await stack.http.post(path, asked, **headers)
    assert not bugs
    assert b"say it" not in body
    last = SseParser().feed(body)[-1]
    assert b"internal_error" in (last.data or b"")
    assert b"internal_error" not in again.body
    assert again.body.endswith(b"[DONE]\n\n") or b"message_stop" in again.body


@pytest.mark.parametrize("headers", [{}, {"idempotency_key": "once"}], ids=["plain", "repeatable"])
async def test_stopping_tells_who_waits_for_a_first_look_at_the_nodes(
    alpha: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    alpha.secretive = True
    waits = asyncio.Event()
    settled = Directory.settled

    async def settle(self: Directory, timeout_s: float, stopping: asyncio.Event) -> None:
        waits.set()
        await settled(self, PATIENT.first_event_s, stopping)

    monkeypatch.setattr(Directory, "settled", settle)
    async with gateway_over([alpha], tmp_path) as stack:
        asking = asyncio.create_task(stack.http.post(CHAT, WHOLE, **headers))
        await waits.wait()
        stack_closed = stack.close
        stack.close = _nothing  # type: ignore[method-assign]
    reply = await asking
    await stack_closed()
    assert reply.status == 503
    assert reply.json()["error"]["code"] == "shutting_down"
    assert reply.header("retry-after") == "1"


async def _nothing() -> None:
    return None


async def test_the_callers_deadline_ends_it(alpha: FakeNode, tmp_path: Path) -> None:
    alpha.will(Fault.STALL, 0)
    async with gateway_over([alpha], tmp_path, timeouts=PATIENT) as stack:
        reply = await stack.http.post(CHAT, WHOLE, trunkline_deadline_ms="2000")
        assert reply.status == 504
        assert reply.json()["error"]["code"] == "deadline_exceeded"
        assert alpha.attempts[0].deadline_ms <= 2000
        bad = await stack.http.post(CHAT, WHOLE, trunkline_deadline_ms="soon")
        assert bad.json()["error"]["param"] == "trunkline-deadline-ms"


async def test_a_node_with_another_key_is_not_used(alpha: FakeNode, tmp_path: Path) -> None:
    async with FakeNode("beta") as beta:
        beta.vkey_shown = alpha.vkey
        async with gateway_over([alpha, beta], tmp_path) as stack:
            for _ in range(3):
                await ask(stack)
            status = (await stack.http.get("/trunkline/v1/status")).json()
        assert len(alpha.attempts) == 3
        assert [node["error"] for node in status["nodes"]] == ["", "wrong_key"]
        assert status["answers"]["succeeded"] == 3
        assert status["nodes"][0]["models"][0]["numerics"] == NUMERICS


async def test_headers_say_who_answered_only_when_asked(alpha: FakeNode, tmp_path: Path) -> None:
    async with gateway_over([alpha], tmp_path) as stack:
        plain = await stack.http.post(CHAT, WHOLE)
        assert plain.header("trunkline-model") == MODEL
        assert plain.header("trunkline-node") is None
        assert plain.header("x-request-id") == plain.header("trunkline-receipt")
        detailed = await stack.http.post(CHAT, WHOLE, trunkline_detail="1")
        assert detailed.header("trunkline-node") == alpha.name
        assert detailed.header("trunkline-attempts") == "1"


async def test_bodies_are_bounded(alpha: FakeNode, tmp_path: Path) -> None:
    config = settings([alpha])
    small = {name: getattr(config, name) for name in config.__struct_fields__}
    small["body_bytes_max"] = 100
    async with gateway_over([alpha], tmp_path, config=type(config)(**small)) as stack:
        reply = await stack.http.post(CHAT, b'{"model":"tiny","messages":[' + b" " * 200 + b"]}")
        assert reply.status == 413
        assert reply.json()["error"]["code"] == "body_too_large"


def contents(folder: Path) -> str:
    """Every byte of every file of a folder, as text."""
    return "".join(path.read_bytes().decode("latin-1") for path in folder.iterdir())


async def test_no_content_and_no_key_reaches_disk_or_logger(
    alpha: FakeNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": "vEry-sEcret-prompt"}]}
    ).encode()
    async with gateway_over([alpha], tmp_path) as stack:
        reply = await stack.http.post(CHAT, body, authorization="Bearer sk-vEry-sEcret-key")
        answer = reply.header("trunkline-receipt") or ""
        assert await state_of(stack, answer, 60) == "final"
        text = reply.json()["choices"][0]["message"]["content"]
        await stack.http.post(CHAT, body[:-5], x_api_key="sk-vEry-sEcret-key")
    said = "".join(capsys.readouterr()) + contents(tmp_path)
    assert "vEry-sEcret" not in said
    assert text.encode().decode("latin-1") not in said
    assert answer in said, "the store was read"


async def test_a_missing_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no such store"):
        EvidenceStore.open(tmp_path)
    create_store(tmp_path)
    assert (tmp_path / FILE).exists()
    with pytest.raises(Exception, match="exists already"):
        create_store(tmp_path)
