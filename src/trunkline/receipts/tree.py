"""Checks the paths of one batch's receipts, which meet: from there on they are the same.

What was shown to be under a root stays so, and is a shorter way to a yes for the next receipt of
the batch. It is no way to a no: what is not exactly what was shown goes the whole way, and what
fails there is not remembered. Trees are those of RFC 6962 (:mod:`trunkline.crypto.merkle`).
"""

from functools import lru_cache

from trunkline.base.errors import InclusionError
from trunkline.crypto import merkle
from trunkline.crypto.encoding import decode_hash, encode_base64

TREES_MAX = 64
"""Batches whose trees are remembered: those whose receipts are still being handed out."""

_FIRST_LEAF = 2**16
"""A power of two, and more than a batch has leaves."""


class BatchTree:
    """The tree of one batch, as far as it was shown."""

    __slots__ = ("_count", "_root", "_shown")

    def __init__(self, root: bytes, count: int) -> None:
        self._root = root
        self._count = count
        self._shown: dict[int, tuple[bytes, tuple[str, ...]]] = {}
        """By place: a hash, and the path from it to the root. Places are counted as in a heap of
        which the leaves are the last level: one's parent is at half its number."""

    def verify(self, leaf: bytes, index: int, path: tuple[str, ...]) -> None:
        """Check that ``leaf`` is at ``index``. Raises :class:`MalformedError` or
        :class:`InclusionError`."""
        below_edge = merkle.levels_below_edge(index, self._count, len(path))
        node, place, rest = leaf, _FIRST_LEAF + index, path
        climbed: list[tuple[int, bytes, bytes, tuple[str, ...]]] = []
        for _ in range(below_edge):
            shown = self._shown.get(place)
            if shown is not None and shown == (node, rest):
                break
            sibling = decode_hash(rest[0])
            climbed.append((place, node, sibling, rest))
            node = merkle.node_hash(sibling, node) if place & 1 else merkle.node_hash(node, sibling)
            place, rest = place >> 1, rest[1:]
        else:
            for text in rest:
                node = merkle.node_hash(decode_hash(text), node)
            if node != self._root:
                raise InclusionError("the path does not lead to the batch's root")
        for place, node, sibling, rest in climbed:
            # What is beside a path was shown with it.
            self._shown[place] = (node, rest)
            self._shown[place ^ 1] = (sibling, (encode_base64(node), *rest[1:]))


batch_tree = lru_cache(maxsize=TREES_MAX)(BatchTree)
"""The tree with this root and count of leaves, with what was shown of it before."""
