"""What a gateway takes for a node's word that it begins: verdicts have to be about that model."""

import msgspec
import pytest
from tests.property.test_gateway_answer import deployment
from tests.support.fake_node import FakeNode

from trunkline.gateway.core.actions import Start
from trunkline.gateway.core.check import accepted_problem
from trunkline.schema.attempt import Accepted

START = Start(
    number=1, attempt="att_1", deployment=deployment(FakeNode("alpha")), previous=(), first_event=0
)
ACCEPTED = Accepted(
    attempt="att_1",
    node=START.deployment.node,
    operator=START.deployment.operator,
    model=START.deployment.model,
    weights=START.deployment.weights,
    numerics="numerics-1",
)


def problem(start: Start, **changes: str | None) -> str | None:
    accepted = msgspec.structs.replace(ACCEPTED, **changes)
    return accepted_problem(accepted, start, None, cache="")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": f"{ACCEPTED.model} "},
        {"model": "a name that no verdict is about"},
        {"weights": None},
        {"weights": "sha256:" + "0" * 64},
    ],
)
def test_a_node_serves_the_model_that_it_lists(changes: dict[str, str | None]) -> None:
    assert problem(START) is None
    assert problem(START, **changes) == "another model than it lists"


def test_a_provider_may_spell_its_models_as_it_likes() -> None:
    listed = msgspec.structs.replace(START.deployment, weights=None)
    start = msgspec.structs.replace(START, deployment=listed)
    assert problem(start, model=f"{ACCEPTED.model}-2026-05-01", weights=None) is None
