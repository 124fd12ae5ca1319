"""Evidence files, and a log that is really served, read by ``outside.py``: what follows from the
specifications alone must agree with what Trunkline's own readers find."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from tests.conformance import outside
from tests.unit.log.conftest import Network

from trunkline.evidence import EvidenceKey, verify

SPEC = Path(__file__).resolve().parents[2] / "docs" / "spec"
VECTORS = json.loads((SPEC / "evidence-vectors.json").read_text())
POLICY = outside.Policy.read(VECTORS["policy"])
SHOWN = ("signatures", "batch paths", "log", "witnesses", "inclusion")
"""Steps of ``evidence.md`` that the outsider takes too."""


def pinned(case):
    return case.get("trusted_keys", VECTORS["trusted_keys"])


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_an_outsider_finds_in_evidence_what_the_verifier_finds(case):
    nodes = {key["vkey"] for key in pinned(case) if key["role"] == "node"}
    keys = msgspec.convert(pinned(case), tuple[EvidenceKey, ...])
    policy = case.get("policy", VECTORS["policy"])
    report = verify(case["evidence"].encode(), policy=policy, trusted_keys=keys)
    steps = {step.title: step.result for step in report.steps}
    try:
        receipts = list(outside.evidence(case["evidence"], outside.Policy.read(policy), nodes))
    except outside.REFUSALS:
        # An operator's statement instead of a node's key is more than the outsider reads.
        stated = any(key["role"] == "operator" for key in pinned(case))
        assert stated or report.outcome != "pass"
    else:
        assert receipts
        assert {steps[title] for title in SHOWN} == {"pass"}


def test_an_outsider_finds_the_bodies_in_the_receipt():
    (case,) = [one for one in VECTORS["cases"] if one["name"] == "final_with_bodies"]
    (part,) = json.loads(case["evidence"])["parts"]
    receipt, salts = json.loads(part["signed"]["receipt"]), part.get("salts", {})
    request, response = receipt["request"], receipt["response"]
    digest = outside.request_digest(VECTORS["request"].encode())
    assert outside.binds(request["client"], "request.client", digest, salts)
    chunks = part["bodies"]["chunks"]
    for said, agrees in ((chunks, True), (chunks[:-1], False), (chunks[::-1], False)):
        digest = outside.stream_digest(request["digest"], receipt["attempt"], said)
        assert outside.binds(response["digest"], "response.digest", digest, salts) is agrees


def reader(url: str) -> Callable[[str], bytes]:
    """What a path of the log holds, as HTTP caches may keep it."""

    def fetch(path: str) -> bytes:
        connection = HTTPConnection(urlsplit(url).netloc, timeout=20)
        try:
            connection.request("GET", path, headers={"accept-encoding": "identity"})
            answer = connection.getresponse()
            assert answer.status == 200, path
            cached = answer.getheader("cache-control", "")
            kind = answer.getheader("content-type")
            if path == "/checkpoint":
                assert (kind, cached) == ("text/plain; charset=utf-8", "no-cache")
            else:
                assert kind == "application/octet-stream"
                assert "immutable" in cached
            return answer.read()
        finally:
            connection.close()

    return fetch


@pytest.mark.parametrize("size", [1, 255, 256, 300])
async def test_an_outsider_audits_a_log_and_its_witness(tmp_path, size):
    async with AsyncExitStack() as stack:
        network = Network(tmp_path, stack)
        stack.push_async_callback(network.transport.aclose)
        witness = await network.witness("one.example")
        async with network.log(witnesses=(witness,)) as (caller, url, _):
            entries = [network.entry(number) for number in range(size)]
            indexes = await asyncio.gather(*map(caller.add, entries))
            policy = outside.Policy.read(
                f"log {network.log_key.vkey}\nwitness one {witness.vkey}\nquorum one\n"
            )
            # Once the last of them is proven, the checkpoint that is served covers all.
            last = indexes.index(size - 1)
            await caller.fetch_inclusion(entries[last], size - 1, network.policy(), timeout_s=90)
            found = await asyncio.to_thread(outside.audit, reader(url), policy)
            log = outside.sha(network.log_key.vkey.name.encode()).hex()
            latest = await network.transport.request("GET", f"{witness.url}/{log}/checkpoint")
            async with latest:
                assert policy.open((await latest.read(100_000)).decode())[0] == size
    assert len(found) == size
    assert [found[index] for index in indexes] == entries
