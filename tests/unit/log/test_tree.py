"""The tree's edge: what growing writes, and that loading trusts nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import CorruptStateError, MalformedError
from trunkline.crypto import merkle
from trunkline.log.core.tree import Tree, edge_tiles, grow, load
from trunkline.tlog.tile import Tile, new_tiles

ENTRIES = [b"entry %d" % i for i in range(1300)]
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]


def grown(*sizes):
    """A tree grown in rounds to each of ``sizes``, and all its files by tile."""
    tree, files = Tree(), {}
    for size in sizes:
        growth = grow(tree, ENTRIES[tree.size : size], LEAVES[tree.size : size])
        assert {tile for tile, _ in growth.files} == set(new_tiles(tree.size, size))
        files.update(growth.files)
        tree = growth.tree
    return tree, files


@given(st.lists(st.integers(0, 1300), min_size=1, max_size=5).map(sorted))
def test_rounds_of_any_size_make_the_same_tree(sizes):
    tree, files = grown(*sizes)
    size = sizes[-1]
    assert tree.root() == merkle.root(LEAVES[:size])
    assert tree == grown(size)[0] or size == 0
    assert load(size, tree.root(), {tile: files[tile] for tile in edge_tiles(size)}).root() == (
        tree.root()
    )


def test_a_loaded_tree_grows_on():
    tree, files = grown(700)
    loaded = load(700, tree.root(), files)
    growth = grow(loaded, ENTRIES[700:], LEAVES[700:])
    assert growth.tree.root() == merkle.root(LEAVES)
    assert dict(growth.files) == {
        tile: data for tile, data in grown(700, 1300)[1].items() if tile in dict(growth.files)
    }


def test_three_levels():
    leaf = merkle.leaf_hash(b"")
    tree = Tree()
    for _ in range(17):
        tree = grow(tree, [b""] * 4096, [leaf] * 4096).tree
    assert tree.size == 69_632
    assert [len(hashes) // 32 for hashes in tree.edge] == [0, 16, 1]
    full = merkle.root([leaf] * 256)
    assert tree.root() == merkle.root([full] * 272)


def test_an_entry_that_does_not_fit_is_refused():
    with pytest.raises(MalformedError):
        grow(Tree(), [bytes(65_536)], [merkle.leaf_hash(b"")])


def test_nothing_is_written_for_nothing():
    tree, _ = grown(300)
    growth = grow(tree, [], [])
    assert growth.files == ()
    assert growth.tree == tree


def altered(files, tile, data):
    return {**files, tile: data}


BUNDLE = Tile(level=None, index=1, width=44)
LEAF_TILE = Tile(level=0, index=1, width=44)


@pytest.mark.parametrize(
    ("alter", "why"),
    [
        (lambda files: {k: v for k, v in files.items() if k != BUNDLE}, "missing"),
        (lambda files: {k: v for k, v in files.items() if k != LEAF_TILE}, "missing|not those"),
        (lambda files: altered(files, LEAF_TILE, files[LEAF_TILE][:-1]), "leaf hashes"),
        (lambda files: altered(files, BUNDLE, files[BUNDLE][:-1]), "inside an entry"),
        (
            lambda files: altered(files, BUNDLE, files[BUNDLE].replace(b"entry", b"Entry")),
            "leaf hashes",
        ),
        (
            lambda files: altered(files, Tile(level=1, index=0, width=1), bytes(32)),
            "checkpoint's root",
        ),
        (lambda files: altered(files, Tile(level=1, index=0, width=1), bytes(31)), "31 bytes"),
    ],
)
def test_a_damaged_edge_does_not_load(alter, why):
    tree, files = grown(300)
    with pytest.raises(CorruptStateError, match=why):
        load(300, tree.root(), alter(files))
