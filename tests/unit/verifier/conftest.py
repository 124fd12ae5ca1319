"""What most of these tests need: a network of toys, a way to call it, a verifier's store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.toy_network import ToyNetwork, toy_network

from trunkline.remote.http1 import HttpTransport
from trunkline.runtime.store import Database
from trunkline.verifier import store


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[ToyNetwork]:
    async with toy_network(tmp_path) as made:
        yield made


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    made = HttpTransport()
    yield made
    await made.aclose()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    store.create_store(tmp_path)
    opened = store.open_store(tmp_path)
    yield opened
    await opened.aclose()
