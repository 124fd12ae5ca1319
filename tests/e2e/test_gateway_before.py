"""Answers that are shown only after a verdict, on loopback: held, passed, failed, not decided."""

import asyncio
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.fake_answer import EMBEDDER, TOKENS
from tests.support.fake_node import FakeNode
from tests.support.fake_verifier import FakeVerifier, Judge, judged, passing
from tests.support.gateway import QUICK, Stack, gateway_over, settings

from trunkline.crypto.encoding import decode_base64
from trunkline.gateway import relay
from trunkline.receipts import decode, receipt_leaf
from trunkline.schema.audit import AskedAudit, AskedVerdict

pytestmark = pytest.mark.usefixtures("looks_often")

WHOLE = b'{"model":"tiny","messages":[{"role":"user","content":"say it"}]}'
STREAM = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"say it"}]}'
BEFORE = {"trunkline_verify": "before", "trunkline_detail": "1"}


@pytest.fixture
def policy(tmp_path: Path, verifiers: list[FakeVerifier]) -> Callable[[str], Path]:
    def write(more: str = "") -> Path:
        file = tmp_path / "routing.toml"
        head = f'[models.payments]\nuse = ["tiny"]\nverify = "before"\n[verification]\n{more}\n'
        file.write_text(head + "".join(verifier.toml for verifier in verifiers))
        return file

    return write


def failing(*nodes: FakeNode) -> Judge:
    """Fails answers of these nodes, and passes others."""
    keys = {node.vkey for node in nodes}

    def judge(asked: AskedAudit, by: FakeVerifier) -> AskedVerdict:
        receipt = decode(asked.signed.receipt.encode())
        return judged(asked, by, passes=receipt.key not in keys)

    return judge


def silent(asked: AskedAudit, by: FakeVerifier) -> None:
    """Never answers."""


async def served(stack: Stack, body: bytes) -> str:
    """The text that an app without `trunkline-verify` is sent."""
    return (await stack.http.post("/v1/chat/completions", body)).body.decode()


async def test_a_whole_answer_waits_for_a_pass_and_is_what_the_node_sent(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    policy: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    async with gateway_over(nodes, tmp_path, routing=policy("")) as stack:
        reply = await stack.http.post("/v1/chat/completions", WHOLE, **BEFORE)
        assert reply.status == 200
        assert reply.header("trunkline-verify") == "before"
        assert reply.header("trunkline-verified") == "pass"
        assert reply.header("trunkline-node") == nodes[0].name
        (attempt,) = nodes[0].attempts
        assert attempt.audit
        evidence = (
            await stack.http.get(f"/trunkline/v1/receipts/{reply.header('trunkline-receipt')}")
        ).json()
        asked = verifiers[0].asked[0]
        assert bytes(asked.content.request) == WHOLE
        (tokens,) = asked.content.tokens
        assert len(tokens) == TOKENS
        signed = evidence["parts"][0]["signed"]["receipt"].encode()
        assert asked.signed.receipt.encode() == signed
        assert asked.content.salts == evidence["parts"][0]["salts"]
        assert evidence["verdicts"]
        assert receipt_leaf(signed).hex() in evidence["verdicts"][0]["verdict"]
        assert evidence["verdicts"][0]["proof"].startswith("c2sp.org/tlog-proof@v1")
        assert {key["role"] for key in evidence["keys"]} == {"node", "verifier"}


@pytest.mark.parametrize("body", [WHOLE, STREAM])
async def test_an_answer_that_fails_is_made_elsewhere_and_nothing_of_it_is_shown(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    policy: Callable[[str], Path],
    tmp_path: Path,
    body: bytes,
) -> None:
    alpha, beta = nodes
    for verifier in verifiers:
        verifier.judge = failing(alpha)
    async with gateway_over(nodes, tmp_path, routing=policy("")) as stack:
        reply = await stack.http.post("/v1/chat/completions", body, **BEFORE)
        assert reply.status == 200
        assert reply.header("trunkline-verified") == "pass"
        assert reply.header("trunkline-node") == beta.name
        (made,) = beta.attempts
        assert [(past.node, past.error) for past in made.previous] == [
            (alpha.name, "verification_failed")
        ]
        assert made.resume is None
        evidence = (
            await stack.http.get(f"/trunkline/v1/receipts/{reply.header('trunkline-receipt')}")
        ).json()
        route = json.loads(evidence["parts"][0]["signed"]["receipt"])["route"]
        assert route[0]["error"] == "verification_failed"
        again = await stack.http.post("/v1/chat/completions", body, trunkline_detail="1")
        assert again.header("trunkline-node") == beta.name, "its standing is heard at once"


async def test_a_stream_is_kept_alive_while_it_is_held(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    policy: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay, "ALIVE_S", 0.02)
    released = asyncio.Event()

    def late(asked: AskedAudit, by: FakeVerifier) -> AskedVerdict | None:
        return passing(asked, by) if released.is_set() else None

    for verifier in verifiers:
        verifier.judge = late
    async with gateway_over(nodes, tmp_path, routing=policy("before_deadline_s = 2")) as stack:
        plain = await served(stack, STREAM)
        response = await stack.http.open("/v1/chat/completions", STREAM, **BEFORE)
        async with response:
            assert response.header("trunkline-verify") == "before"
            held = (await response.read(1 << 20)).decode()
        assert ": held for a verdict" in held
        assert "verification_inconclusive" in held
        assert "content" not in held.replace("content-type", "")
        released.set()
        whole = (await stack.http.post("/v1/chat/completions", STREAM, **BEFORE)).body.decode()
        assert whole.count("data:") == plain.count("data:")
        assert whole.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("kind", ["chat", "embeddings"])
@pytest.mark.parametrize(("said", "status"), [("refuse", 503), ("release", 200)])
async def test_without_a_verdict_in_time_the_policy_decides(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    policy: Callable[[str], Path],
    tmp_path: Path,
    kind: str,
    said: str,
    status: int,
) -> None:
    path, body = (
        ("/v1/embeddings", EMBED) if kind == "embeddings" else ("/v1/chat/completions", WHOLE)
    )
    for verifier in verifiers:
        verifier.judge = silent
    more = f'before_deadline_s = 0.2\nbefore_inconclusive = "{said}"'
    async with gateway_over(nodes, tmp_path, routing=policy(more)) as stack:
        reply = await stack.http.post(path, body, **BEFORE)
        assert reply.status == status
        if said == "refuse":
            assert reply.json()["error"]["code"] == "verification_inconclusive"
            newest = (await stack.http.get("/trunkline/v1/receipts")).json()
            assert newest["answers"] == []
        else:
            assert reply.header("trunkline-verified") == "inconclusive"


def unsigned(asked: AskedAudit, by: FakeVerifier) -> AskedVerdict:
    """Says that all is well, and does not sign it."""
    return AskedVerdict(result="pass")


def of_another(asked: AskedAudit, by: FakeVerifier) -> AskedVerdict:
    """Signs a verdict on another receipt."""
    key = FakeNode("alpha").signer.vkey
    return AskedVerdict(result="pass", note=by.sign(by.verdict(key, 1, result="pass")))


@pytest.mark.parametrize("judge", [unsigned, of_another])
async def test_what_is_no_signed_verdict_on_this_answer_passes_nothing(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    policy: Callable[[str], Path],
    tmp_path: Path,
    judge: Judge,
) -> None:
    for verifier in verifiers:
        verifier.judge = judge
    async with gateway_over(nodes, tmp_path, routing=policy("")) as stack:
        reply = await stack.http.post("/v1/chat/completions", WHOLE, **BEFORE)
        assert reply.json()["error"]["code"] == "verification_inconclusive"


async def test_as_many_operators_must_pass_it_as_the_policy_says(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    policy: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    verifiers[1].judge = silent
    file = policy("before_agree = 2\nbefore_deadline_s = 2")
    async with gateway_over(nodes, tmp_path, routing=file) as stack:
        reply = await stack.http.post("/v1/chat/completions", WHOLE, **BEFORE)
        assert reply.json()["error"]["code"] == "verification_inconclusive"
        verifiers[1].judge = passing
        reply = await stack.http.post("/v1/chat/completions", WHOLE, **BEFORE)
        assert reply.header("trunkline-verified") == "pass"


async def test_a_policy_demands_it_and_a_call_can_not_undo_that(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    policy: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    body = WHOLE.replace(b'"tiny"', b'"payments"')
    async with gateway_over(nodes, tmp_path, routing=policy("")) as stack:
        reply = await stack.http.post("/v1/chat/completions", body)
        assert reply.header("trunkline-verified") == "pass"
        weaker = await stack.http.post("/v1/chat/completions", body, trunkline_verify="after")
        assert (weaker.status, weaker.json()["error"]["code"]) == (403, "verify_not_allowed")
        private = await stack.http.post("/v1/chat/completions", body, trunkline_mode="private")
        assert (private.status, private.json()["error"]["code"]) == (
            422,
            "verification_unavailable",
        )
        wrong = await stack.http.post("/v1/chat/completions", WHOLE, trunkline_verify="maybe")
        assert wrong.json()["error"]["code"] == "invalid_header"
        private = await stack.http.post("/v1/chat/completions", WHOLE, trunkline_mode="private")
        assert private.status == 200
        assert not nodes[0].attempts[-1].audit


async def test_without_verifiers_nothing_can_be_verified_before(
    nodes: list[FakeNode], tmp_path: Path
) -> None:
    async with gateway_over(nodes, tmp_path, config=settings(nodes, QUICK)) as stack:
        reply = await stack.http.post("/v1/chat/completions", WHOLE, **BEFORE)
        assert reply.json()["error"]["code"] == "verification_unavailable"
        assert nodes[0].attempts == []


async def test_a_repeated_request_is_shown_the_same_verified_answer(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    policy: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    async with gateway_over(nodes, tmp_path, routing=policy("")) as stack:
        replies = [
            await stack.http.post("/v1/chat/completions", STREAM, idempotency_key="k", **BEFORE)
            for _ in range(2)
        ]
    assert replies[0].body == replies[1].body
    assert [reply.header("trunkline-verified") for reply in replies] == ["pass", "pass"]
    assert len(nodes[0].attempts) + len(nodes[1].attempts) == 1


EMBED = b'{"model":"%b","input":"a text"}' % EMBEDDER.encode()


async def test_embeddings_wait_for_a_verdict_too(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    policy: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    alpha, beta = nodes
    for verifier in verifiers:
        verifier.judge = failing(alpha)
    async with gateway_over(nodes, tmp_path, routing=policy("")) as stack:
        plain = await stack.http.post("/v1/embeddings", EMBED)
        assert not verifiers[0].asked
        reply = await stack.http.post("/v1/embeddings", EMBED, **BEFORE)
    assert (reply.status, reply.header("trunkline-verified")) == (200, "pass")
    assert reply.header("trunkline-node") == beta.name
    assert reply.body == plain.body
    (made,) = beta.attempts
    assert [past.error for past in made.previous] == ["verification_failed"]
    asked = verifiers[0].asked[-1]
    assert (asked.content.tokens, bytes(asked.content.request)) == ((), EMBED)
    (vector,) = asked.content.vectors
    assert struct.unpack("<2f", decode_base64(vector)) == (0.5, 0.5)


async def test_what_is_held_is_made_and_not_given_again(
    nodes: list[FakeNode],
    verifiers: list[FakeVerifier],
    policy: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    """Nobody but its node could open an answer from a cache."""
    file = policy("")
    file.write_text(f'{file.read_text()}\n[keys.anonymous]\ncache = "always"\n')
    async with gateway_over(nodes, tmp_path, routing=file) as stack:
        await served(stack, WHOLE)
        kept = {one.attempt: one.cache for node in nodes for one in node.attempts}
        await stack.http.post("/v1/chat/completions", WHOLE, **BEFORE)
        held = {one.attempt: one.cache for node in nodes for one in node.attempts}
    assert all(kept.values())
    assert {cache for name, cache in held.items() if name not in kept} == {""}


async def test_where_nothing_may_be_audited_nothing_can_be_verified_before(
    nodes: list[FakeNode], policy: Callable[[str], Path], tmp_path: Path
) -> None:
    async with gateway_over(nodes, tmp_path, routing=policy("audit = false")) as stack:
        reply = await stack.http.post("/v1/chat/completions", WHOLE, **BEFORE)
    assert (reply.status, reply.json()["error"]["code"]) == (422, "verification_unavailable")
