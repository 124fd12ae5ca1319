"""The tree's right edge, and what adding entries to it writes.

The edge is all of a tree that adding needs: per level the hashes of the last, partial tile, and the
last, partial bundle. It stays under 100 kB of hashes for any size of tree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trunkline.base.errors import CorruptStateError, MalformedError
from trunkline.crypto import merkle
from trunkline.crypto.merkle import HASH_BYTES
from trunkline.tlog.tile import (
    TILE_HEIGHT,
    TILE_WIDTH,
    Tile,
    decode_bundle,
    decode_hashes,
    encode_entry,
    levels,
    width_at,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree by its size and right edge."""

    size: int = 0
    edge: tuple[bytes, ...] = ()
    """Per level from the leaves up, the hashes of the partial tile, joined; empty if none is."""
    bundle: bytes = b""
    """The partial entry bundle."""

    def root(self) -> bytes:
        """The tree's RFC 6962 root, 32 bytes."""
        parts: list[bytes] = []
        for hashes in self.edge:
            # Rightmost and smallest subtree first, so that each fold takes in the next on its left.
            parts.extend(reversed(_complete_subtrees(hashes)))
        if not parts:
            return merkle.EMPTY_ROOT
        hashed = parts[0]
        for left in parts[1:]:
            hashed = merkle.node_hash(left, hashed)
        return hashed


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A tree after some entries, and the files that make it so."""

    tree: Tree
    files: tuple[tuple[Tile, bytes], ...]
    """Every tile and bundle that the old tree did not have, bundles first."""


def grow(tree: Tree, entries: Sequence[bytes], leaf_hashes: Sequence[bytes]) -> Growth:
    """Add entries at the right. MalformedError for one too long to be written in a bundle.

    ``leaf_hashes`` are the entries' own, in order.
    """
    files, bundle = _grow_bundles(tree, entries)
    edge: list[bytes] = []
    added = list(leaf_hashes)
    while added or len(edge) < len(tree.edge):
        level = len(edge)
        before = tree.edge[level] if level < len(tree.edge) else b""
        tiles, rest = _grow_level(level, tree.size, before, added)
        files += tiles
        edge.append(rest)
        # Only a full tile has a hash on the level above.
        full = (hashes for tile, hashes in tiles if tile.width == TILE_WIDTH)
        added = [merkle.root(decode_hashes(hashes, TILE_WIDTH)) for hashes in full]
    grown = Tree(size=tree.size + len(entries), edge=tuple(edge), bundle=bundle)
    return Growth(tree=grown, files=tuple(files))


def _grow_level(
    level: int, size: int, before: bytes, added: Sequence[bytes]
) -> tuple[list[tuple[Tile, bytes]], bytes]:
    """The tiles that ``added`` hashes make on one level, and the partial one that remains."""
    if not added:
        return [], before
    hashes = before + b"".join(added)
    first = (size >> TILE_HEIGHT * level) // TILE_WIDTH
    tiles: list[tuple[Tile, bytes]] = []
    for at in range(0, len(hashes), TILE_WIDTH * HASH_BYTES):
        part = hashes[at : at + TILE_WIDTH * HASH_BYTES]
        tile = Tile(level=level, index=first + len(tiles), width=len(part) // HASH_BYTES)
        tiles.append((tile, part))
    return tiles, b"" if tiles[-1][0].width == TILE_WIDTH else tiles[-1][1]


def _grow_bundles(tree: Tree, entries: Sequence[bytes]) -> tuple[list[tuple[Tile, bytes]], bytes]:
    """The bundles to write, and the partial one that remains."""
    files: list[tuple[Tile, bytes]] = []
    size = tree.size
    parts = [tree.bundle]
    for entry in entries:
        parts.append(encode_entry(entry))
        size += 1
        if size % TILE_WIDTH == 0:
            tile = Tile(level=None, index=size // TILE_WIDTH - 1)
            files.append((tile, b"".join(parts)))
            parts = []
    bundle = b"".join(parts)
    if entries and size % TILE_WIDTH:
        tile = Tile(level=None, index=size // TILE_WIDTH, width=size % TILE_WIDTH)
        files.append((tile, bundle))
    return files, bundle


def _complete_subtrees(hashes: bytes) -> list[bytes]:
    """Roots of the complete subtrees over a partial tile's hashes, largest first."""
    split = decode_hashes(hashes, len(hashes) // HASH_BYTES)
    roots = []
    at = 0
    while at < len(split):
        width = 1 << ((len(split) - at).bit_length() - 1)
        roots.append(merkle.root(split[at : at + width]))
        at += width
    return roots


def edge_tiles(size: int) -> list[Tile]:
    """The partial tiles, and the partial bundle, of a tree of ``size``: what :func:`load` takes."""
    tiles = []
    for level in (None, *range(levels(size))):
        index = (size >> TILE_HEIGHT * (level or 0)) // TILE_WIDTH
        width = width_at(level, index, size)
        if width:
            tiles.append(Tile(level=level, index=index, width=width))
    return tiles


def load(size: int, root: bytes, tiles: Mapping[Tile, bytes]) -> Tree:
    """The tree of ``size`` from its edge tiles, checked against its root and against each other.

    CorruptStateError when the tiles are not those of that tree.
    """
    edge = [b""] * levels(size)
    bundle = b""
    for tile in edge_tiles(size):
        data = tiles.get(tile)
        if data is None:
            raise CorruptStateError(f"{tile.path} is missing; the checkpoint needs it")
        if tile.level is None:
            bundle = data
            _check_bundle(tile, data, tiles)
        elif len(data) != tile.width * HASH_BYTES:
            raise CorruptStateError(f"{tile.path} has {len(data)} bytes")
        else:
            edge[tile.level] = data
    tree = Tree(size=size, edge=tuple(edge), bundle=bundle)
    if tree.root() != root:
        raise CorruptStateError("the tiles on disk do not have the checkpoint's root")
    return tree


def _check_bundle(bundle: Tile, data: bytes, tiles: Mapping[Tile, bytes]) -> None:
    try:
        entries = decode_bundle(data, bundle.width)
    except MalformedError as error:
        raise CorruptStateError(f"{bundle.path}: {error.message}") from error
    leaves = tiles.get(Tile(level=0, index=bundle.index, width=bundle.width))
    if b"".join(merkle.leaf_hash(entry) for entry in entries) != leaves:
        raise CorruptStateError(f"{bundle.path}: the entries are not those of the leaf hashes")
