"""What each mode publishes, byte for byte: every byte that goes to the log, and what is served."""

import json
import re
from base64 import b64encode
from pathlib import Path

import pytest
from tests.support.fake_node import FakeNode
from tests.support.gateway import Stack, gateway_over

from trunkline.evidence import decode, verify
from trunkline.evidence.file import EvidenceKey
from trunkline.gateway.own_api import FORGET_PATH, PUBLISHED_PATH, RECEIPTS_PATH
from trunkline.receipts import receipt_leaf

SECRET = "the moon is made of cheese"
BODY = json.dumps(
    {"model": "tiny", "messages": [{"role": "user", "content": SECRET}]}, separators=(",", ":")
).encode()
ENTRY = re.compile(
    rb"trunkline\.batch/v1\n[a-z./]+\n[0-9]{1,2}\n[A-Za-z0-9+/]{43}=\n"
    rb"(?:-|[A-Za-z0-9+/]{43}=)\n[0-9]+\n[01]\n\n\xe2\x80\x94 [a-z./]+ [A-Za-z0-9+/=]+\n"
)


def holds_words(folder: Path) -> bool:
    """Whether the evidence store's files hold the request, as it is or in any base64 of it."""
    data = b"".join(path.read_bytes() for path in (folder / "data").glob("evidence.db*"))
    spelled = [b64encode(b"x" * shift + SECRET.encode())[4:-4] for shift in range(3)]
    return any(words in data for words in (SECRET.encode(), *spelled))


async def ask(stack: Stack, **headers: str) -> str:
    reply = await stack.http.post("/v1/chat/completions", BODY, **headers)
    assert reply.status == 200, reply.body
    answer = reply.header("trunkline-receipt")
    assert answer is not None
    found = await stack.http.get(f"{RECEIPTS_PATH}/{answer}?wait_s=60")
    assert found.header("trunkline-state") == "final"
    return answer


async def published(stack: Stack) -> list[dict[str, str]]:
    found: list[dict[str, str]] = (await stack.http.get(PUBLISHED_PATH)).json()["published"]
    return found


@pytest.mark.parametrize("mode", ["private", "batched", "full"])
async def test_the_log_is_given_the_signed_root_and_nothing_else(tmp_path: Path, mode: str) -> None:
    async with FakeNode() as node, gateway_over([node], tmp_path / "data") as stack:
        answer = await ask(stack, trunkline_mode=mode)
        evidence = decode((await stack.http.get(f"{RECEIPTS_PATH}/{answer}")).body)
        # Byte for byte the node's signed note, whose every line is one of seven that tell nothing
        # but whether it may be audited.
        assert stack.log.entries == [evidence.parts[0].signed.batch.encode()]
        assert ENTRY.fullmatch(stack.log.entries[0])
        assert json.loads(evidence.parts[0].signed.receipt)["policy"] == {"mode": mode}


@pytest.mark.parametrize("mode", ["private", "batched"])
async def test_nothing_is_published_unless_the_mode_is_full(tmp_path: Path, mode: str) -> None:
    async with FakeNode() as node, gateway_over([node], tmp_path / "data") as stack:
        answer = await ask(stack, trunkline_mode=mode)
        assert await published(stack) == []
        data = (await stack.http.get(f"{RECEIPTS_PATH}/{answer}")).body
        assert decode(data).parts[0].bodies is None
        assert SECRET.encode() not in data
    assert not holds_words(tmp_path)


async def test_full_publishes_request_and_answer_under_the_receipts_own_hash(
    tmp_path: Path,
) -> None:
    async with FakeNode() as node, gateway_over([node], tmp_path / "data") as stack:
        answer = await ask(stack, trunkline_mode="full")
        (entry,) = await published(stack)
        blob = (await stack.http.get(f"{PUBLISHED_PATH}/{entry['leaf']}")).body
        own = (await stack.http.get(f"{RECEIPTS_PATH}/{answer}")).body
        missing = await stack.http.get(f"{PUBLISHED_PATH}/{'0' * 64}")
        assert (missing.status, missing.json()["error"]["code"]) == (404, "not_found")
    assert blob == own
    (part,) = decode(blob).parts
    # The address is what the reader computes from the bytes that it got.
    assert entry["leaf"] == receipt_leaf(part.signed.receipt.encode()).hex()
    assert part.bodies is not None
    assert part.bodies.client_request == BODY
    report = verify(blob, trusted_keys=[key_of(node)])
    assert [step.result for step in report.steps[:7]] == ["pass"] * 7


async def test_forgetting_takes_away_the_words_and_leaves_the_evidence(tmp_path: Path) -> None:
    async with FakeNode() as node, gateway_over([node], tmp_path / "data") as stack:
        answer = await ask(stack, trunkline_mode="full")
        path = f"{RECEIPTS_PATH}/{answer}"
        before = decode((await stack.http.get(path)).body)
        assert holds_words(tmp_path)
        salts = list(before.parts[0].salts.values())
        assert salts
        assert (await stack.http.post(f"{FORGET_PATH}/{answer}", b"")).status == 204
        # While the gateway runs, the write-ahead file included.
        assert not holds_words(tmp_path)
        assert await published(stack) == []
        data = (await stack.http.get(path)).body
        after = decode(data)
        assert (after.parts[0].bodies, after.parts[0].salts) == (None, {})
        # Receipt, batch, path and proof are what they were, here and for everybody.
        assert after.parts[0].signed == before.parts[0].signed
        assert after.parts[0].proof == before.parts[0].proof
        report = verify(data, trusted_keys=[key_of(node)], request=BODY)
        assert [step.result for step in report.steps[1:5]] == ["pass"] * 4
        assert report.steps[5].result == "inconclusive"
        assert (await stack.http.post(f"{FORGET_PATH}/ans_nobody", b"")).status == 404


@pytest.mark.parametrize(
    ("mode", "keep"), [("private", "bodies"), ("full", "none"), ("secret", "none")]
)
async def test_headers_that_contradict_each_other_are_refused(
    tmp_path: Path, mode: str, keep: str
) -> None:
    async with FakeNode() as node, gateway_over([node], tmp_path / "data") as stack:
        reply = await stack.http.post(
            "/v1/chat/completions", BODY, trunkline_mode=mode, trunkline_keep=keep
        )
        assert (reply.status, reply.json()["error"]["code"]) == (400, "invalid_header")
        assert node.attempts == []


def key_of(node: FakeNode) -> EvidenceKey:
    return EvidenceKey(name=node.name, vkey=node.vkey, role="node", operator=node.operator)
