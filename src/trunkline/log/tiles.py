"""The port behind which a log's tiles and published checkpoint lie, and how it is chosen.

Implemented by a local folder (:mod:`trunkline.log.files`) and by an S3-compatible object store
(:mod:`trunkline.log.objects`). Every method blocks, and is called from a thread. What can not be
done raises OSError; it may have happened all the same, or half, or happen yet, and whoever calls
must be right in each case.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from trunkline.tlog.tile import Tile

CHECKPOINT_NAME: Final = "checkpoint"
TILE_TYPE: Final = "application/octet-stream"
CHECKPOINT_TYPE: Final = "text/plain; charset=utf-8"
TILE_CACHE: Final = "public, max-age=31536000, immutable"
"""A tile covered by a checkpoint never changes."""
CHECKPOINT_CACHE: Final = "no-cache"


class Tiles(Protocol):
    """The tiles and the published checkpoint of one log."""

    def prepare(self) -> None:
        """For the start, after :meth:`read_checkpoint`: make ready to write."""
        ...

    def write_tiles(self, files: Sequence[tuple[Tile, bytes]]) -> None:
        """Write tiles durably, so that each appears whole or not at all."""
        ...

    def read_tile(self, tile: Tile) -> bytes:
        """A tile's bytes; a partial one also from any wider one of the same index.

        FileNotFoundError if there is none; CorruptStateError for one of the wrong length.
        """
        ...

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """Proof from ``size1`` to ``size2``, both sequenced."""
        ...

    def prune_partials(self, written: Iterable[Tile]) -> None:
        """Delete partial tiles that these, durable now, make superfluous."""
        ...

    def discard_beyond(self, size: int, entries_max: int) -> int:
        """Delete tiles that a tree of ``size`` does not have; returns how many there were.

        They are what a round wrote before it failed. ``entries_max``: the most that a round adds.
        """
        ...

    def partial_widths(self, tile: Tile) -> list[int]:
        """Widths of the partial tiles of that index which are kept, ascending."""
        ...

    def names(self) -> Iterator[str]:
        """Names of everything that lies where tiles do."""
        ...

    def write_checkpoint(self, note: bytes) -> None:
        """Put the published checkpoint in place of the one before, atomically and durably."""
        ...

    def read_checkpoint(self) -> bytes | None:
        """The published checkpoint; None if there is none."""
        ...

    def close(self) -> None:
        """Let go of it; safe to repeat."""
        ...
