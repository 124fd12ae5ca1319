"""Who may take over what is computed for a prompt, from an app's call to a node's engine."""

import json
from pathlib import Path

from tests.support.gateway import gateway_over
from tests.unit.node.harness import NAME, SIGNER, node
from tests.unit.node.scripted import ScriptedEngine, says

from trunkline.gateway.config import GatewayConfig
from trunkline.gateway.config import NodeConfig as NodeOf
from trunkline.node.config import NodeConfig


async def test_turns_of_one_conversation_share_and_private_ones_nothing(tmp_path: Path) -> None:
    engine = ScriptedEngine(says("Paris"))
    settings = NodeConfig(name=NAME, operator="alpha.example", embeddings=False)
    async with node(tmp_path / "node", engine, config=settings) as behind:
        known = NodeOf(url=behind.base_url, vkey=str(SIGNER.vkey))
        config = GatewayConfig(
            policy_file="policy", log_url="http://127.0.0.1:1", nodes=(known,), poll_s=0.2
        )
        async with gateway_over([], tmp_path, config=config) as stack:
            for texts, mode in (
                (["one"], "batched"),
                (["one", "Paris", "two"], "batched"),
                (["another"], "batched"),
                (["one", "Paris", "two"], "private"),
            ):
                roles = ("user", "assistant", "user")
                messages = [
                    {"role": role, "content": text}
                    for role, text in zip(roles, texts, strict=False)
                ]
                body = json.dumps({"model": "scripted", "messages": messages})
                reply = await stack.http.post(
                    "/v1/chat/completions", body.encode(), trunkline_mode=mode
                )
                assert reply.status == 200, reply.body
    first, turn, other, private = [job.sharing.scope for job in engine.jobs]
    assert len(bytes.fromhex(first)) == 32
    assert turn == first != other
    assert private == ""
