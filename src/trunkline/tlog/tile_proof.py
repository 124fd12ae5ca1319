"""Proofs and roots out of tiles: which tiles they take, and what they are once those are there.

The two halves are separate so that the shell between them can fetch tiles however it likes. What
comes out is as good as the tiles that went in: verify it against a signed root.
"""

from collections.abc import Iterable, Mapping

from trunkline.base.errors import MalformedError
from trunkline.crypto import merkle
from trunkline.tlog.tile import TILE_HEIGHT, Tile, decode_hashes, tile_at

Range = tuple[int, int]
"""Entries ``[begin, end)`` of a subtree, as RFC 6962 splits the tree."""


def tiles_needed_for_inclusion(index: int, size: int) -> list[str]:
    """Paths of the tiles that hold the audit path of entry ``index``. IndexError outside."""
    return _paths(merkle.inclusion_ranges(index, size), size)


def inclusion_proof(index: int, size: int, tiles: Mapping[str, bytes]) -> list[bytes]:
    """Audit path of entry ``index`` from fetched tiles. MalformedError: one is missing or odd."""
    return _hashes(merkle.inclusion_ranges(index, size), size, tiles)


def tiles_needed_for_consistency(size1: int, size2: int) -> list[str]:
    """Paths of the tiles that hold the proof from ``size1`` to ``size2``. IndexError outside."""
    return _paths(merkle.consistency_ranges(size1, size2), size2)


def consistency_proof(size1: int, size2: int, tiles: Mapping[str, bytes]) -> list[bytes]:
    """Consistency proof from fetched tiles. MalformedError when one is missing or odd."""
    return _hashes(merkle.consistency_ranges(size1, size2), size2, tiles)


def tiles_needed_for_prefix(size1: int, size2: int) -> list[str]:
    """Paths of the tiles that hold the prefix proof of ``size1`` in ``size2``. IndexError."""
    return _paths(merkle.prefix_ranges(size1, size2), size2)


def prefix_proof(size1: int, size2: int, tiles: Mapping[str, bytes]) -> list[bytes]:
    """Prefix proof from fetched tiles of ``size2``. MalformedError when one is missing or odd."""
    return _hashes(merkle.prefix_ranges(size1, size2), size2, tiles)


def tiles_needed_for_root(size: int) -> list[str]:
    """Paths of the tiles along the right edge of a tree of ``size``."""
    return _paths([(0, size)], size)


def tree_root(size: int, tiles: Mapping[str, bytes]) -> bytes:
    """The root of a tree of ``size`` from its right edge. MalformedError as above."""
    return _hashes([(0, size)], size, tiles)[0] if size else merkle.EMPTY_ROOT


def subtree_roots(size: int, tiles: Mapping[str, bytes]) -> list[bytes]:
    """Roots of the complete subtrees of a tree of ``size``, the largest first: what it takes to go
    on from there. From the tiles of :func:`tiles_needed_for_root`; MalformedError as above."""
    ranges = [(begin, begin + (1 << height)) for begin, height in _complete_subtrees(0, size)]
    return _hashes(ranges, size, tiles)


def _paths(ranges: Iterable[Range], size: int) -> list[str]:
    tiles = (
        _locate(begin, height, size)[0].path
        for one in ranges
        for begin, height in _complete_subtrees(*one)
    )
    return list(dict.fromkeys(tiles))


def _hashes(ranges: Iterable[Range], size: int, tiles: Mapping[str, bytes]) -> list[bytes]:
    decoded: dict[str, tuple[bytes, ...]] = {}

    def subtree(begin: int, height: int) -> bytes:
        tile, first, count = _locate(begin, height, size)
        hashes = decoded.get(tile.path)
        if hashes is None:
            data = tiles.get(tile.path)
            if data is None:
                raise MalformedError(f"{tile.path} is missing")
            hashes = decoded[tile.path] = decode_hashes(data, tile.width)
        return merkle.root(hashes[first : first + count])

    found = []
    for one in ranges:
        parts = [subtree(begin, height) for begin, height in _complete_subtrees(*one)]
        found.append(fold(parts))
    return found


def fold(parts: list[bytes]) -> bytes:
    """The hash over ever smaller complete subtrees, left to right: at least one."""
    hashed = parts[-1]
    for part in reversed(parts[:-1]):
        hashed = merkle.node_hash(part, hashed)
    return hashed


def _complete_subtrees(begin: int, end: int) -> list[tuple[int, int]]:
    """(first entry, height) of the complete subtrees that make up a range, ever smaller."""
    parts = []
    while begin < end:
        height = (end - begin).bit_length() - 1
        parts.append((begin, height))
        begin += 1 << height
    return parts


def _locate(begin: int, height: int, size: int) -> tuple[Tile, int, int]:
    """The tile whose hashes ``[first, first + count)`` are the leaves of a complete subtree."""
    level, within = divmod(height, TILE_HEIGHT)
    position = begin >> TILE_HEIGHT * level
    index, first = divmod(position, 1 << TILE_HEIGHT)
    return tile_at(level, index, size), first, 1 << within
