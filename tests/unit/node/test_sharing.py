"""What a node tells its engine of who may take over what it computes for a prompt."""

from pathlib import Path

import msgspec
import pytest
from tests.unit.node.harness import attempt, chat, node
from tests.unit.node.scripted import BOS, ScriptedEngine, says

from trunkline.inference.ports import Sharing
from trunkline.remote.node import NodeRefusedError
from trunkline.schema.attempt import Attempt

SHARE = "5a" * 32
LEAD = (BOS, *b"user\n")
"""What the template writes before the first message."""


def changed(**changes: object) -> Attempt:
    return msgspec.structs.replace(attempt(chat()), **changes)


@pytest.mark.parametrize(
    ("asked", "scope"),
    [
        (changed(share=SHARE), SHARE),
        (changed(share=SHARE, mode="private"), ""),
        (changed(), ""),
    ],
)
async def test_only_what_is_said_is_shared_and_of_private_answers_the_template_alone(
    tmp_path: Path, asked: Attempt, scope: str
) -> None:
    engine = ScriptedEngine(says("Paris"))
    async with node(tmp_path / "alpha", engine) as alpha:
        await alpha.hear(asked)
    job, *_ = engine.jobs
    assert job.prompt[: len(LEAD)] == LEAD
    assert job.sharing == Sharing(lead=len(LEAD), scope=scope)


async def test_a_scope_that_is_none_is_refused(tmp_path: Path) -> None:
    async with node(tmp_path / "alpha", ScriptedEngine(says("Paris"))) as alpha:
        with pytest.raises(NodeRefusedError) as refused:
            await alpha.hear(changed(share="5a"))
    assert refused.value.error_code == "invalid_attempt"
