"""An engine that is replaced under a running node: a vLLM server that was upgraded, say."""

import msgspec
import pytest
from tests.unit.node.harness import NAME, attempt, chat
from tests.unit.node.scripted import MODEL, ScriptedEngine

from trunkline.base.errors import CorruptStateError, UpstreamError
from trunkline.node.chat import EmbeddedChat
from trunkline.node.core.statement import Identity
from trunkline.receipts import Nonce

NOW = msgspec.structs.replace(MODEL, numerics="upgraded")
ASKED = attempt(chat(seed=7))
"""By a seed of its own, so that it takes no nonce."""


class NoNonces:
    async def take(self) -> Nonce:
        raise CorruptStateError("nobody asks for one")


def service(engine: ScriptedEngine) -> EmbeddedChat:
    identity = Identity(node=NAME, operator="alpha.example", key=NAME)
    return EmbeddedChat(engine, identity, choices_max=4, nonces=NoNonces())


async def test_an_attempt_that_waited_meanwhile_is_not_answered_under_the_old_name() -> None:
    engine = ScriptedEngine()
    made = service(engine)
    await made.load()
    waiting = await made.prepare(ASKED)
    await waiting.begin()

    engine.info = NOW
    with pytest.raises(UpstreamError, match="replaced") as refused:
        await waiting.begin()
    assert (refused.value.error_code, refused.value.retryable) == ("engine_replaced", True)

    later = await made.prepare(ASKED)
    await later.begin()
    assert later.accepted.numerics == "upgraded"
    assert [model.numerics for model in made.models()] == ["upgraded"]
