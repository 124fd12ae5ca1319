"""Tiles and entry bundles (C2SP tlog-tiles): their names, their bytes, and the proofs in them.

A tile is named by its path below the log's prefix, the same on disk and in a URL. Building a proof
has two halves, which tiles it takes and what it is once those are there, so that the shell between
them can fetch however it likes. Nothing fetched is believed here: a proof or root is as good as its
tiles, and whoever asks for it checks it against a signed root afterwards.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from re import compile as regex
from typing import Self

from trunkline.base.errors import MalformedError
from trunkline.crypto import merkle
from trunkline.crypto.encoding import UINT63_MAX
from trunkline.crypto.merkle import HASH_BYTES

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
LEVEL_MAX = 63
ENTRY_BYTES_MAX = 65_535
"""An entry's length is written in two bytes."""
BUNDLE_BYTES_MAX = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)
TILE_BYTES_MAX = TILE_WIDTH * HASH_BYTES

Range = tuple[int, int]
"""Entries ``[begin, end)`` of a subtree, as RFC 6962 splits the tree."""

_PATH = regex(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})"
    r"(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """The name of one tile, or of one entry bundle (``level`` is None)."""

    level: int | None
    """0: leaf hashes. L: each hash is the root of a full tile of level L-1. None: entries."""
    index: int
    width: int = TILE_WIDTH
    """Hashes or entries in it, 1 to 256; below 256 the tile is partial."""

    @classmethod
    def parse(cls, path: str) -> Self:
        """Read ``tile/<L>/<N>[.p/<W>]``, the one spelling of each tile; MalformedError."""
        match = _PATH.fullmatch(path)
        if match is None:
            raise MalformedError("not a tile's path")
        level = None if match["level"] == "entries" else int(match["level"])
        width = int(match["width"] or TILE_WIDTH)
        index = int(match["index"].replace("/", "").replace("x", ""))
        tile = cls(level=level, index=index, width=width)
        # Out-of-range numbers, a written-out width of 256 and superfluous leading groups all end
        # here: none of them is how the tile's own path is spelled.
        in_range = (level or 0) <= LEVEL_MAX and index <= UINT63_MAX and width <= TILE_WIDTH
        if not in_range or tile.path != path:
            raise MalformedError("not a tile's path")
        return tile

    @property
    def path(self) -> str:
        """Path below the log's prefix."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03d}")
            rest //= 1000
        level = "entries" if self.level is None else str(self.level)
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"

    @property
    def start(self) -> int:
        """Index of the first entry that the full tile spans."""
        return self.index << TILE_HEIGHT * ((self.level or 0) + 1)


def width_at(level: int | None, index: int, size: int) -> int:
    """How many hashes tile ``index`` of ``level`` has in a tree of ``size``: 0 to 256."""
    hashes = size >> TILE_HEIGHT * (level or 0)
    return max(0, min(TILE_WIDTH, hashes - index * TILE_WIDTH))


def tile_at(level: int | None, index: int, size: int) -> Tile:
    """The tile as a tree of ``size`` has it. IndexError where it has none."""
    width = width_at(level, index, size)
    if width == 0:
        raise IndexError(f"no tile {index} on level {level} in a tree of {size}")
    return Tile(level=level, index=index, width=width)


def levels(size: int) -> int:
    """How many levels of hash tiles a tree of ``size`` has."""
    return (size.bit_length() + TILE_HEIGHT - 1) // TILE_HEIGHT


def new_tiles(old_size: int, size: int) -> Iterator[Tile]:
    """Every tile and bundle that a tree growing from ``old_size`` to ``size`` has to write.

    Bundles first, then hash tiles from the leaves up.
    """
    for level in (None, *range(levels(size))):
        shift = TILE_HEIGHT * (level or 0)
        had, has = old_size >> shift, size >> shift
        if had == has:
            continue
        for index in range(had // TILE_WIDTH, -(-has // TILE_WIDTH)):
            yield tile_at(level, index, size)


def decode_hashes(data: bytes, width: int) -> tuple[bytes, ...]:
    """The hashes of a tile of ``width``; MalformedError for any other length."""
    if len(data) != width * HASH_BYTES:
        raise MalformedError(f"a tile of {width} hashes has {width * HASH_BYTES} bytes")
    return tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))


def encode_entry(entry: bytes) -> bytes:
    """An entry as it stands in a bundle; MalformedError when it is too long for one."""
    if len(entry) > ENTRY_BYTES_MAX:
        raise MalformedError(f"an entry has at most {ENTRY_BYTES_MAX} bytes")
    return len(entry).to_bytes(2, "big") + entry


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """An entry bundle's bytes."""
    return b"".join(encode_entry(entry) for entry in entries)


def decode_bundle(data: bytes, width: int) -> tuple[bytes, ...]:
    """The ``width`` entries of a bundle; MalformedError when there are more, fewer or a piece."""
    entries = []
    at = 0
    for _ in range(width):
        if at + 2 > len(data):
            raise MalformedError("the bundle ends before its last entry")
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data):
            raise MalformedError("the bundle ends inside an entry")
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data):
        raise MalformedError("the bundle goes on after its last entry")
    return tuple(entries)


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


def tiles_needed_for_root(size: int) -> list[str]:
    """Paths of the tiles along the right edge of a tree of ``size``."""
    return _paths([(0, size)], size)


def tree_root(size: int, tiles: Mapping[str, bytes]) -> bytes:
    """The root of a tree of ``size`` from its right edge. MalformedError as above."""
    return _hashes([(0, size)], size, tiles)[0] if size else merkle.EMPTY_ROOT


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
