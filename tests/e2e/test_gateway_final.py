"""From an app's call to evidence that a stranger accepts: a real log, a real proof, no network."""

import json
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

from tests.support.fake_node import FakeNode
from tests.support.fake_script import Fault
from tests.support.gateway import gateway_over

from trunkline.cli.prove import prove
from trunkline.crypto.signer import Signer
from trunkline.evidence.file import EvidenceKey, decode
from trunkline.evidence.verify import verify
from trunkline.gateway.prover import LogProver
from trunkline.log.app import build
from trunkline.log.config import LogConfig, render
from trunkline.log.store import create_log
from trunkline.remote.http1 import HttpTransport
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.server import serving
from trunkline.tlog.policy import Policy

BODY = b'{"model":"tiny","stream":true,"messages":[{"role":"user","content":"say it"}]}'


def make_log(folder: Path) -> tuple[Path, Signer]:
    signer = Signer.generate("net.localhost/log", sha256(b"log").digest())
    folder.mkdir()
    (folder / "key").write_text(signer.skey())
    (folder / "key").chmod(0o600)
    path = folder / "log.toml"
    path.write_text(render(LogConfig(origin=signer.name, checkpoint_interval_ms=20)))
    create_log(folder, signer)
    return path, signer


async def test_evidence_of_a_survived_answer_verifies_offline(tmp_path: Path) -> None:
    log_path, log_key = make_log(tmp_path / "log")
    log, _ = build(log_path)
    policy = f"log {log_key.vkey}\nquorum none\n"
    transport = HttpTransport()
    async with (
        FakeNode("alpha") as alpha,
        FakeNode("beta") as beta,
        serving(log) as log_url,
    ):
        beta.scripts = alpha.scripts
        prover = LogProver(transport, log_url, policy, clock=SystemClock())
        async with gateway_over(
            [alpha, beta], tmp_path / "gateway", prover=prover, policy=policy
        ) as stack:
            alpha.will(Fault.CUT, 5)
            reply = await stack.http.post("/v1/chat/completions", BODY, trunkline_keep="bodies")
            answer = reply.header("trunkline-receipt")
            found = await stack.http.get(f"/trunkline/v1/receipts/{answer}?wait_s=60")
            assert found.header("trunkline-state") == "final"
            # The log grows, and still holds it: in a later tree that begins with that one.
            for _ in range(3):
                later = await stack.http.post("/v1/chat/completions", BODY)
                after = later.header("trunkline-receipt")
                await stack.http.get(f"/trunkline/v1/receipts/{after}?wait_s=60")
            steps = await prove(found.body, Policy.parse(policy), log_url)
            assert [step.result for step in steps] == ["pass"] * 6, steps
            # Another log, with other entries, is not it.
            other_path, _ = make_log(tmp_path / "other")
            other, _ = build(other_path)
            async with serving(other) as other_url:
                refused = await prove(found.body, Policy.parse(policy), other_url)
            assert [step.result for step in refused][:3] == ["pass"] * 3
            assert "pass" not in [step.result for step in refused][4:]
            dead = await prove(found.body, Policy.parse(policy), "http://127.0.0.1:9")
            assert [step.result for step in dead][3:] == ["inconclusive"] * 3
        served = [node for node in (alpha, beta) if node.attempts[0].resume is not None]
    await transport.aclose()
    keys = [
        EvidenceKey(name=node.name, vkey=node.vkey, role="node", operator=node.operator)
        for node in served
    ]
    report = verify(found.body, policy=policy, trusted_keys=keys, request=BODY)
    assert report.outcome == "pass", [(s.title, s.result, s.detail) for s in report.steps]
    (part,) = decode(found.body).parts
    assert part.bodies is not None
    assert json.loads(part.signed.receipt)["route"][0]["error"] == "upstream_truncated"
    raw = json.loads(found.body)["parts"][0]["bodies"]
    assert b64decode(raw["client_request"]) == BODY
