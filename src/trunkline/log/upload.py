"""Bringing a stopped log's tiles from its folder into the bucket that its configuration names.

Tiles first and the published checkpoint last, each written only where there is none: what is
interrupted is run again, and a bucket that holds another log is left as it is. Nothing is deleted.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from trunkline.base.errors import ConfigError, CorruptStateError
from trunkline.log.config import read
from trunkline.log.core.tree import edge_tiles
from trunkline.log.files import Folder
from trunkline.log.opening import open_tiles
from trunkline.log.store import LogStore
from trunkline.log.tiles import Tiles
from trunkline.runtime.config import resolve
from trunkline.runtime.store import DiskError
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.tile import TILE_WIDTH, Tile, levels, width_at

TILES_AT_ONCE = 16


async def upload(config_path: Path) -> int:
    """Copy the log; returns how many tiles and bundles it has. ConfigError if it runs, or if no
    bucket is configured or it holds something else; DiskError for what can not be read or written.
    """
    config = read(config_path)
    if config.tiles is None:
        raise ConfigError("key tiles: it names no bucket")
    data = resolve(config_path, config.data)
    store = LogStore.open(data)
    try:
        size = (await store.load()).size
        target = open_tiles(config_path, config)
        try:
            return await asyncio.to_thread(_copy, Folder(data), target, size)
        except OSError as error:
            raise DiskError(f"the log can not be copied: {error.strerror}") from None
        finally:
            target.close()
    finally:
        await store.aclose()


def _copy(source: Folder, target: Tiles, size: int) -> int:
    note = source.read_checkpoint()
    if note is None:
        raise CorruptStateError("the published checkpoint is missing")
    there = target.read_checkpoint()
    if there not in (None, note):
        raise ConfigError("key tiles: another log, or another state of this one, is there already")
    published = Checkpoint.parse(note.rpartition(b"\n\n")[0] + b"\n")
    # A partial tile of the published size is owed to readers; a wider one may be there already.
    owed = [tile for tile in edge_tiles(published.size) if tile not in edge_tiles(size)]
    copied, batch = 0, list[tuple[Tile, bytes]]()
    for tile in (*_tiles(size), *owed):
        batch.append((tile, source.read_tile(tile)))
        copied += 1
        if len(batch) == TILES_AT_ONCE:
            target.write_tiles(batch)
            batch = []
    target.write_tiles(batch)
    if there is None:
        # A crash before it leaves a bucket without a checkpoint, which no log starts on.
        target.write_checkpoint(note)
    return copied


def _tiles(size: int) -> Iterator[Tile]:
    for level in (None, *range(levels(size))):
        index = 0
        while width := width_at(level, index, size):
            yield Tile(level=level, index=index, width=width)
            if width < TILE_WIDTH:
                break
            index += 1
