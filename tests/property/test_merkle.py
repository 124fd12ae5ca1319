"""Merkle proofs: every honest one verifies, every altered one does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import ConsistencyError, InclusionError
from trunkline.crypto import merkle

SIZE_MAX = 70
LEAVES = [merkle.leaf_hash(b"%d" % i) for i in range(SIZE_MAX)]
ROOTS = [merkle.root(LEAVES[:size]) for size in range(SIZE_MAX + 1)]


@st.composite
def trees(draw):
    size = draw(st.integers(1, SIZE_MAX))
    return size, draw(st.integers(0, size - 1))


def recursive_root(leaves):
    """RFC 6962's definition, word for word."""
    if not leaves:
        return merkle.EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = merkle.split_point(len(leaves))
    return merkle.node_hash(recursive_root(leaves[:k]), recursive_root(leaves[k:]))


def test_roots_are_those_of_the_definition():
    for size in range(SIZE_MAX + 1):
        assert ROOTS[size] == recursive_root(LEAVES[:size])


@given(trees())
def test_an_audit_path_verifies_and_no_other_place_does(tree):
    size, index = tree
    path = merkle.audit_path(LEAVES[:size], index)
    merkle.verify_inclusion(LEAVES[index], index, size, path, ROOTS[size])
    assert path == [merkle.root(LEAVES[b:e]) for b, e in merkle.inclusion_ranges(index, size)]
    for other in {index - 1, index + 1} - {-1, size}:
        with pytest.raises(InclusionError):
            merkle.verify_inclusion(LEAVES[index], other, size, path, ROOTS[size])


@given(trees(), st.data())
def test_a_flipped_bit_breaks_an_audit_path(tree, data):
    size, index = tree
    path = merkle.audit_path(LEAVES[:size], index)
    parts = [LEAVES[index], *path, ROOTS[size]]
    at = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, 255))
    flipped = int.from_bytes(parts[at], "big") ^ (1 << bit)
    parts[at] = flipped.to_bytes(32, "big")
    with pytest.raises(InclusionError):
        merkle.verify_inclusion(parts[0], index, size, parts[1:-1], parts[-1])


@given(trees(), st.lists(st.binary(max_size=33), max_size=70), st.integers(), st.integers())
def test_any_path_verifies_or_is_refused(tree, path, index, size):
    with pytest.raises(InclusionError):
        merkle.verify_inclusion(LEAVES[0], index, size, path, b"\x00" * 32)
    with pytest.raises(ConsistencyError):
        merkle.verify_consistency(index, size, path, b"\x00" * 32, b"\x01" * 32)


def test_every_consistency_proof_verifies_and_only_for_its_sizes():
    for size2 in range(1, SIZE_MAX + 1):
        for size1 in range(1, size2 + 1):
            proof = merkle.consistency_proof(LEAVES[:size2], size1)
            merkle.verify_consistency(size1, size2, proof, ROOTS[size1], ROOTS[size2])
            wrong = ROOTS[size1 - 1]
            with pytest.raises(ConsistencyError):
                merkle.verify_consistency(size1, size2, proof, wrong, ROOTS[size2])
            with pytest.raises(ConsistencyError):
                merkle.verify_consistency(size1, size2, proof, ROOTS[size1], wrong)
            with pytest.raises(ConsistencyError):
                extended = [*proof, ROOTS[0]]
                merkle.verify_consistency(size1, size2, extended, ROOTS[size1], ROOTS[size2])


def test_ranges_outside_the_tree_are_refused():
    with pytest.raises(IndexError):
        merkle.inclusion_ranges(5, 5)
    with pytest.raises(IndexError):
        merkle.audit_path(LEAVES[:5], -1)
    with pytest.raises(IndexError):
        merkle.consistency_ranges(6, 5)
