"""Pruning (C2SP tlog-tiles): the oldest entries are refused, all else can still be had."""

import asyncio

import pytest

from trunkline.base.errors import ConfigError, UpstreamError
from trunkline.crypto import merkle
from trunkline.log.fsck import fsck
from trunkline.runtime.server import serving
from trunkline.tlog.checkpoint import open_checkpoint
from trunkline.tlog.tile import Tile

MINIMUM = 520
"""Inside the third tile: two are pruned, and that one is not."""
SIZE = 600
DEADLINE_S = 90.0


async def fill(network):
    async with network.log() as (caller, _, _):
        await asyncio.gather(*(caller.add(network.entry(i)) for i in range(SIZE)))
        return open_checkpoint(await caller.checkpoint(), network.log_key.vkey)


async def find(caller, network, index):
    """Which entry got an index: those that arrive together are in no particular order."""
    indexes = await asyncio.gather(*(caller.add(network.entry(i)) for i in range(SIZE)))
    return indexes.index(index)


async def test_what_is_below_the_minimum_index_is_refused_and_nothing_else(network):
    checkpoint = await fill(network)
    async with network.log(minimum_index=MINIMUM) as (caller, _, service):
        for level in ("0", "entries"):
            for path in (f"tile/{level}/000", f"tile/{level}/001", f"tile/{level}/001.p/7"):
                with pytest.raises(UpstreamError, match="410"):
                    await caller.tile(path)
            assert await caller.tile(f"tile/{level}/002.p/{SIZE - 512}")
        # The level above spans entries that are published still.
        assert len(await caller.tile("tile/1/000.p/2")) == 64
        assert service._config.minimum_index == MINIMUM

        # What the specification says must still be possible.
        policy = network.policy(quorum=0)
        entry = network.entry(await find(caller, network, MINIMUM))
        assert await caller.fetch_inclusion(entry, MINIMUM, policy, timeout_s=DEADLINE_S)
        proof = await caller.prefix_proof(MINIMUM, SIZE)
        assert merkle.prefix_root(MINIMUM, SIZE, proof, checkpoint.root)
        # A pruned entry is still in the log: added again, it has its index.
        assert await caller.add(network.entry(0)) in range(SIZE)
    report = fsck(network.data)
    assert (report.size, report.problems) == (SIZE, [])


async def test_the_mistake_is_undone_by_lowering_the_number(network):
    await fill(network)
    async with network.log(minimum_index=256) as (caller, _, _):
        with pytest.raises(UpstreamError):
            await caller.tile("tile/entries/000")
        assert await caller.tile("tile/entries/001")
    async with network.log() as (caller, _, _):
        assert await caller.tile("tile/entries/000")


async def test_nothing_is_pruned_that_is_not_published(network):
    await fill(network)
    with pytest.raises(ConfigError, match="above the published size"):
        async with serving(network.service(minimum_index=SIZE + 1)):
            pytest.fail("it started")
    with pytest.raises(ValueError, match="negative"):
        network.service(minimum_index=-1)


def test_where_a_tile_ends():
    assert [Tile(level=one, index=2).end for one in (None, 0, 1)] == [768, 768, 3 * 65_536]
