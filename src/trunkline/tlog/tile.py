"""Tiles and entry bundles (C2SP tlog-tiles): their names and their bytes.

A tile is named by its path below the log's prefix, the same on disk and in a URL. What is in it is
not believed here: proofs and roots out of tiles are :mod:`trunkline.tlog.tile_proof`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from re import compile as regex
from typing import Self

from trunkline.base.errors import MalformedError
from trunkline.crypto.encoding import UINT63_MAX
from trunkline.crypto.merkle import HASH_BYTES

TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
LEVEL_MAX = 63
ENTRY_BYTES_MAX = 65_535
"""An entry's length is written in two bytes."""
BUNDLE_BYTES_MAX = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)
TILE_BYTES_MAX = TILE_WIDTH * HASH_BYTES

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

    @property
    def end(self) -> int:
        """Index after the last entry that the full tile spans."""
        return (self.index + 1) << TILE_HEIGHT * ((self.level or 0) + 1)


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
