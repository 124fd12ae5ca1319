"""The log's tiles, bundles and published checkpoint in a local folder, safe against crashes.

A file appears under its name only whole and durable: written beside, fsync'd, renamed, its folder
fsync'd. Blocking; call from a thread. Tiles are never changed once a checkpoint covers them; the
partial ones are deleted when a wider one is durable, and their bytes are cut from that on request.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from trunkline.base.errors import CorruptStateError, MalformedError
from trunkline.crypto.merkle import HASH_BYTES
from trunkline.log.crash import TILES_PARTLY_WRITTEN, CrashHook, no_crash
from trunkline.log.disk import Disk
from trunkline.log.tiles import CHECKPOINT_NAME
from trunkline.tlog import tile_proof
from trunkline.tlog.tile import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    decode_bundle,
    encode_bundle,
    levels,
    width_at,
)

STAGING_NAME: Final = "staging"
READ_TRIES: Final = 3


class Folder:
    """The data folder of one log: :class:`trunkline.log.tiles.Tiles` on a local disk."""

    def __init__(self, path: Path, crash: CrashHook = no_crash, disk: Disk | None = None) -> None:
        self.path = path
        self._crash = crash
        self._disk = Disk() if disk is None else disk
        self._durable: set[Path] = set()

    def prepare(self) -> None:
        """Delete what a crash left half-written."""
        staging = self.path / STAGING_NAME
        staging.mkdir(parents=True, exist_ok=True)
        for left in staging.iterdir():
            self._disk.delete(left)

    def write_tiles(self, files: Sequence[tuple[Tile, bytes]]) -> None:
        """Write tiles durably. OSError if the disk refuses; some may then be there already."""
        staged = [self._stage(tile.path.replace("/", "."), data) for tile, data in files]
        folders: dict[Path, None] = {}
        for number, (source, (tile, _)) in enumerate(zip(staged, files, strict=True)):
            target = self.path / tile.path
            self._make_folders(target.parent, folders)
            self._disk.rename(source, target)
            folders[target.parent] = None
            if number == 0:
                # A crash here leaves some of a round's tiles, beyond every checkpoint: nobody has
                # been told of them, none is served, and the next start deletes them.
                self._crash(TILES_PARTLY_WRITTEN)
        for folder in folders:
            self._disk.sync_folder(folder)
        self._durable.update((self.path / tile.path).parent for tile, _ in files)

    def write_checkpoint(self, note: bytes) -> None:
        """Put the published checkpoint in place of the one before, atomically and durably."""
        source = self._stage(CHECKPOINT_NAME, note)
        self._disk.rename(source, self.path / CHECKPOINT_NAME)
        self._disk.sync_folder(self.path)

    def read_checkpoint(self) -> bytes | None:
        """The published checkpoint; None if there is none."""
        try:
            return (self.path / CHECKPOINT_NAME).read_bytes()
        except FileNotFoundError:
            return None

    def read_tile(self, tile: Tile) -> bytes:
        """A tile's bytes; a partial one also from any wider file of the same tile.

        FileNotFoundError if there is none; CorruptStateError for one of the wrong length.
        """
        for _ in range(READ_TRIES):
            found = self._widest(tile)
            try:
                data = (self.path / found.path).read_bytes()
            except FileNotFoundError:
                # Replaced by a wider one since it was looked for.
                continue
            return cut(data, found, tile.width)
        raise FileNotFoundError(tile.path)

    def read_tiles(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Tiles by path."""
        return {path: self.read_tile(Tile.parse(path)) for path in paths}

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """Proof from ``size1`` to ``size2``, both sequenced."""
        tiles = self.read_tiles(tile_proof.tiles_needed_for_consistency(size1, size2))
        return tile_proof.consistency_proof(size1, size2, tiles)

    def partial_widths(self, tile: Tile) -> list[int]:
        """Widths of the partial files of a tile, ascending."""
        try:
            names = [entry.name for entry in self._partials(tile).iterdir()]
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if name.isascii() and name.isdigit())

    def prune_partials(self, written: Iterable[Tile]) -> None:
        """Delete the partial files that a durable, wider one makes superfluous.

        A crash half-way leaves some: they are right, and go when their tile grows again.
        """
        for tile in written:
            for width in self.partial_widths(tile):
                if width < tile.width:
                    self._disk.delete(self._partial(tile, width))
            if tile.width == TILE_WIDTH and self._partials(tile).is_dir():
                self._durable.discard(self._partials(tile))
                self._disk.delete_folder(self._partials(tile))

    def discard_beyond(self, size: int, entries_max: int) -> int:
        """Delete tiles that a tree of ``size`` does not have; returns how many there were.

        They are what a round wrote before it failed. ``entries_max``: the most that a round adds.
        """
        doomed = (self._discard(tile, width) for tile, width in right_of(size, entries_max))
        return sum(doomed)

    def names(self) -> Iterator[str]:
        """See :class:`trunkline.log.tiles.Tiles`."""
        for path in _files(self.path / "tile"):
            yield path.relative_to(self.path).as_posix()

    def close(self) -> None:
        """Nothing is held."""

    def _discard(self, full: Tile, width: int) -> int:
        doomed = [
            self._partial(full, found) for found in self.partial_widths(full) if found > width
        ]
        if width < TILE_WIDTH and (self.path / full.path).exists():
            doomed.append(self.path / full.path)
        for path in doomed:
            self._disk.delete(path)
        return len(doomed)

    def _widest(self, tile: Tile) -> Tile:
        """The file to read ``tile`` from: itself, or else the next wider one."""
        if (self.path / tile.path).exists():
            return tile
        wider = [width for width in self.partial_widths(tile) if width >= tile.width]
        return Tile(level=tile.level, index=tile.index, width=min(wider, default=TILE_WIDTH))

    def _partials(self, tile: Tile) -> Path:
        return self.path / (Tile(level=tile.level, index=tile.index).path + ".p")

    def _partial(self, tile: Tile, width: int) -> Path:
        return self._partials(tile) / str(width)

    def _stage(self, name: str, data: bytes) -> Path:
        """Write a file durably under a name that nobody reads."""
        path = self.path / STAGING_NAME / name
        self._disk.write(path, data)
        return path

    def _make_folders(self, folder: Path, changed: dict[Path, None]) -> None:
        """Create ``folder``, noting each parent whose names are to be made durable.

        One that is there already may be what a failed round left: its name need not be durable
        before a round that used it has succeeded.
        """
        if folder in self._durable:
            return
        above = [folder, *(one for one in folder.parents if self.path in one.parents)]
        for one in reversed(above):
            if not one.is_dir():
                self._disk.make_folder(one)
            changed[one.parent] = None


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from _files(entry)
            else:
                yield entry


def right_of(size: int, entries_max: int) -> Iterator[tuple[Tile, int]]:
    """The tiles in which ``entries_max`` entries after ``size`` would lie, each named as full, with
    the width that it has in a tree of ``size``."""
    for level in (None, *range(levels(size + entries_max))):
        shift = TILE_HEIGHT * (level or 0)
        first = (size >> shift) // TILE_WIDTH
        last = ((size + entries_max) >> shift) // TILE_WIDTH
        for index in range(first, last + 1):
            yield Tile(level=level, index=index), width_at(level, index, size)


def cut(data: bytes, found: Tile, width: int) -> bytes:
    """The first ``width`` hashes or entries of a file."""
    if found.level is None:
        if found.width == width:
            return data
        try:
            return encode_bundle(decode_bundle(data, found.width)[:width])
        except MalformedError as error:
            raise CorruptStateError(f"{found.path}: {error.message}") from error
    if len(data) != found.width * HASH_BYTES:
        raise CorruptStateError(f"{found.path} has {len(data)} bytes")
    return data[: width * HASH_BYTES]
