"""Two nodes and two verifiers that are scripted, for a gateway that hears of verdicts."""

from collections.abc import AsyncIterator

import pytest
from tests.support.fake_node import FakeNode
from tests.support.fake_verifier import FakeVerifier, two_verifiers

from trunkline.gateway import routing, verification


@pytest.fixture
async def nodes() -> AsyncIterator[list[FakeNode]]:
    async with FakeNode("alpha") as alpha, FakeNode("beta") as beta:
        yield [alpha, beta]


@pytest.fixture
async def verifiers() -> AsyncIterator[list[FakeVerifier]]:
    async with two_verifiers() as both:
        yield both


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway looks at its routing file and at verifiers all the time."""
    monkeypatch.setattr(routing, "LOOK_S", 0.01)
    monkeypatch.setattr(verification, "LOOK_S", 0.01)
    monkeypatch.setattr(verification, "PAUSE_S", 0.01)
