"""Two nodes and two verifiers that are scripted, for a gateway that hears of verdicts; and the
embedded engine, one for each file that asks for it, since loading it is what takes long."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.fake_node import FakeNode
from tests.support.fake_verifier import FakeVerifier, two_verifiers
from tests.support.small_engine import small

from trunkline.engine.client import EmbeddedEngine
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


@pytest.fixture(scope="module")
def cache(model_cache: Path) -> Path:
    """Where the engine's derived weights are."""
    return model_cache


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(cache: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = small(cache)
    await engine.model()
    yield engine
    await engine.close()
