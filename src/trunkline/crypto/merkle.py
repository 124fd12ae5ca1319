"""RFC 6962 §2.1 Merkle trees over SHA-256: hashing, proofs, and checking them.

Pure functions of hashes. A proof is refused unless it is exactly as long as its index and sizes
demand: nothing is read from it before its length is known to be right.
"""

from collections.abc import Sequence
from hashlib import sha256

from trunkline.base.errors import ConsistencyError, InclusionError, VerificationError

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
PROOF_HASHES_MAX = 63


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Root of the tree with these leaf hashes; of none, the hash of the empty string."""
    level = list(leaf_hashes)
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def _parents(level: Sequence[bytes]) -> list[bytes]:
    """One level up; a last hash without a sibling rises as it is."""
    above = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    if len(level) % 2:
        above.append(level[-1])
    return above


def audit_path(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Sibling hashes from leaf ``index`` up to the root's child. IndexError outside the tree."""
    if not 0 <= index < len(leaf_hashes):
        raise IndexError(f"no leaf {index} in a tree of {len(leaf_hashes)}")
    path = []
    level: Sequence[bytes] = leaf_hashes
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        level = _parents(level)
        index >>= 1
    return path


def split_point(size: int) -> int:
    """Largest power of two smaller than ``size`` (at least 2): RFC 6962's k."""
    return 1 << ((size - 1).bit_length() - 1)


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The subtrees ``[begin, end)`` whose hashes are the audit path, from leaf to root.

    IndexError outside the tree.
    """
    if not 0 <= index < size:
        raise IndexError(f"no leaf {index} in a tree of {size}")
    ranges = []
    begin, end = 0, size
    while end - begin > 1:
        middle = begin + split_point(end - begin)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
    ranges.reverse()
    return ranges


def consistency_ranges(size1: int, size2: int) -> list[tuple[int, int]]:
    """The subtrees whose hashes are the consistency proof (RFC 6962 §2.1.2), in its order.

    Empty for equal sizes and for ``size1 == 0``. IndexError when ``size1 > size2``.
    """
    if not 0 <= size1 <= size2:
        raise IndexError(f"no consistency proof from {size1} to {size2}")
    if size1 in (0, size2):
        return []
    ranges = []
    begin, end = 0, size2
    # `whole` is RFC 6962's b: whether the old tree is still exactly this subtree, in which case the
    # verifier knows its hash already.
    whole = True
    while size1 != end:
        middle = begin + split_point(end - begin)
        if size1 <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((begin, middle))
            begin = middle
            whole = False
    if not whole:
        ranges.append((begin, end))
    ranges.reverse()
    return ranges


def consistency_proof(leaf_hashes: Sequence[bytes], size1: int) -> list[bytes]:
    """Proof that the tree of the first ``size1`` leaves is a prefix of the tree of all."""
    return [
        root(leaf_hashes[begin:end]) for begin, end in consistency_ranges(size1, len(leaf_hashes))
    ]


def levels_below_edge(index: int, size: int, path_hashes: int) -> int:
    """How many steps of an audit path are below the tree's right edge: each of those is one level
    up, from the side that a bit of ``index`` says. Beyond, every sibling is to the left.

    InclusionError outside the tree, or for a path of another length than is the leaf's.
    """
    if not 0 <= index < size:
        raise InclusionError(f"no leaf {index} in a tree of {size}")
    inner, border = _decompose(index, size)
    if path_hashes != inner + border:
        raise InclusionError(f"the audit path has {path_hashes} hashes, not {inner + border}")
    return inner


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that an audit path leads to. InclusionError for a path of the wrong shape."""
    inner = levels_below_edge(index, size, len(path))
    _check_hashes((leaf, *path), InclusionError)
    hashed = leaf
    for level, sibling in enumerate(path):
        left = level >= inner or (index >> level) & 1
        hashed = node_hash(sibling, hashed) if left else node_hash(hashed, sibling)
    return hashed


def _decompose(index: int, size: int) -> tuple[int, int]:
    """Lengths of the two parts of an audit path: below and along the tree's right edge."""
    inner = (index ^ (size - 1)).bit_length()
    return inner, (index >> inner).bit_count()


def verify_inclusion(
    leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> None:
    """Check that leaf hash ``leaf`` is leaf ``index`` of the tree of ``size`` with ``root``.

    InclusionError if it is not, or the path has any other shape than RFC 6962 §2.1.1 gives it.
    """
    if root_from_path(leaf, index, size, path) != root:
        raise InclusionError("the audit path does not lead to the root")


def verify_consistency(
    size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes
) -> None:
    """Check that the tree ``(size1, root1)`` is a prefix of ``(size2, root2)``. ConsistencyError.

    An empty old tree is refused: it is consistent with anything, so its "proof" proves nothing;
    callers decide about it themselves. For equal sizes the proof is empty and the roots equal.
    """
    if not 0 < size1 <= size2:
        raise ConsistencyError(f"nothing to prove from size {size1} to {size2}")
    if size1 == size2:
        if proof or root1 != root2:
            raise ConsistencyError("two different trees of one size")
        return
    _check_hashes((root1, root2, *proof[: PROOF_HASHES_MAX + 1]), ConsistencyError)
    whole = size1 & (size1 - 1) == 0
    if not whole and not proof:
        raise ConsistencyError("the consistency proof is empty")
    # Where the old tree is one complete subtree, its hash is known: RFC 6962 leaves it out.
    old, new = _climb(size1, size2, (root1, *proof) if whole else proof)
    if old != root1:
        raise ConsistencyError("the proof does not lead to the old root")
    if new != root2:
        raise ConsistencyError("the proof does not lead to the new root")


def prefix_ranges(size1: int, size2: int) -> list[tuple[int, int]]:
    """The subtrees whose hashes are a prefix proof: a consistency proof that leaves nothing out.

    From them follow both roots, so it shows which tree of ``size1`` a tree of ``size2`` goes on
    from, whatever anybody says of it. IndexError unless ``0 < size1 < size2``.
    """
    if not 0 < size1 < size2:
        raise IndexError(f"no prefix proof from {size1} to {size2}")
    ranges = consistency_ranges(size1, size2)
    return [(0, size1), *ranges] if size1 & (size1 - 1) == 0 else ranges


def prefix_root(size1: int, size2: int, proof: Sequence[bytes], root2: bytes) -> bytes:
    """The root of the first ``size1`` entries of the tree ``(size2, root2)``, by a prefix proof.

    ConsistencyError when the proof does not lead to ``root2``: it then shows nothing.
    """
    if not 0 < size1 < size2 or not proof:
        raise ConsistencyError(f"no prefix proof from size {size1} to {size2}")
    _check_hashes((root2, *proof[: PROOF_HASHES_MAX + 1]), ConsistencyError)
    old, new = _climb(size1, size2, proof)
    if new != root2:
        raise ConsistencyError("the proof does not lead to the new root")
    return old


def _climb(size1: int, size2: int, proof: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Both roots that a prefix proof of at least one hash leads to. ConsistencyError for a proof
    of the wrong length."""
    # Follow the last leaf of the old tree upwards (RFC 9162 §2.1.4.2), from the largest complete
    # subtree that ends there.
    shift = (size1 & -size1).bit_length() - 1
    inner, border = _decompose(size1 - 1, size2)
    inner -= shift
    if len(proof) - 1 != inner + border:
        raise ConsistencyError(f"the proof has {len(proof)} hashes, not the number it takes")
    index = (size1 - 1) >> shift
    old = new = proof[0]
    for level, sibling in enumerate(proof[1:]):
        if level >= inner or (index >> level) & 1:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
        else:
            new = node_hash(new, sibling)
    return old, new


def _check_hashes(hashes: Sequence[bytes], error: type[VerificationError]) -> None:
    for item in hashes:
        if len(item) != HASH_BYTES:
            raise error("a hash is 32 bytes")
