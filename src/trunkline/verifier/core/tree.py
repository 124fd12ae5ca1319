"""The log's tree as a follower keeps it: the roots of its complete subtrees, a hash per level.

Entries give roots: whoever has read them all sees whether they are those of a cosigned checkpoint,
and needs nobody's word for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from trunkline.base.errors import require
from trunkline.crypto import merkle
from trunkline.tlog.tile_proof import fold


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """A tree of ``size`` entries, as far as it takes to go on from it."""

    size: int
    hashes: tuple[bytes, ...]
    """Roots of the complete subtrees, the largest first: one for each bit that ``size`` has."""

    @classmethod
    def empty(cls) -> Self:
        return cls(size=0, hashes=())

    @classmethod
    def decode(cls, size: int, data: bytes) -> Self:
        """Read what :meth:`encode` wrote. CorruptStateError if it is not of this size."""
        require(len(data) == size.bit_count() * merkle.HASH_BYTES, "a frontier fits its size")
        width = merkle.HASH_BYTES
        return cls(
            size=size, hashes=tuple(data[at : at + width] for at in range(0, len(data), width))
        )

    def encode(self) -> bytes:
        """The hashes one after another."""
        return b"".join(self.hashes)

    def grown(self, entries: Sequence[bytes]) -> "Frontier":
        """The tree with these entries after those that it has."""
        hashes, size = list(self.hashes), self.size
        for entry in entries:
            hashed = merkle.leaf_hash(entry)
            # As many subtrees close as the old size has ones at its end.
            for _ in range((~size & (size + 1)).bit_length() - 1):
                hashed = merkle.node_hash(hashes.pop(), hashed)
            hashes.append(hashed)
            size += 1
        return Frontier(size=size, hashes=tuple(hashes))

    def root(self) -> bytes:
        """The RFC 6962 root."""
        return fold(list(self.hashes)) if self.hashes else merkle.EMPTY_ROOT
