"""A batch's tree says of every path what a tree that remembers nothing says."""

from hashlib import sha256
from itertools import product
from random import Random

import pytest

from trunkline.base.errors import InclusionError, MalformedError
from trunkline.crypto.encoding import decode_hash, encode_base64
from trunkline.receipts.batch import BATCH_RECEIPTS_MAX, root_and_paths
from trunkline.receipts.tree import BatchTree

Path = tuple[str, ...]


def make(count: int) -> tuple[bytes, list[bytes], list[Path]]:
    leaves = [sha256(b"%d of %d" % (index, count)).digest() for index in range(count)]
    root, paths = root_and_paths(leaves)
    return root, leaves, [tuple(map(encode_base64, path)) for path in paths]


def is_in(tree: BatchTree, leaf: bytes, index: int, path: Path) -> bool:
    try:
        tree.verify(leaf, index, path)
    except InclusionError:
        return False
    return True


@pytest.mark.parametrize("count", range(1, BATCH_RECEIPTS_MAX + 1))
def test_in_any_order_every_leaf_is_shown_and_shown_again(count: int) -> None:
    root, leaves, paths = make(count)
    tree, order = BatchTree(root, count), list(range(count))
    Random(count).shuffle(order)  # noqa: S311 - an order that can be repeated
    for index in order * 2:
        tree.verify(leaves[index], index, paths[index])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 7, 8, 12, 13])
def test_nothing_else_is_in_the_tree_whatever_was_shown(count: int) -> None:
    """Every hash of the tree at every place with every path of it, and beyond."""
    root, leaves, paths = make(count)
    hashes = {*leaves, *(decode_hash(text) for path in paths for text in path)}
    shown = BatchTree(root, count)
    for index in range(count):
        shown.verify(leaves[index], index, paths[index])
    for leaf, index, path in product(hashes, range(-count, 3 * count), set(paths)):
        expected = 0 <= index < count and (leaves[index], paths[index]) == (leaf, path)
        assert is_in(shown, leaf, index, path) is expected


def test_one_path_shows_its_own_and_its_neighbours_alone() -> None:
    count = 11
    root, leaves, paths = make(count)
    for first, second, third in product(range(count), repeat=3):
        tree = BatchTree(root, count)
        tree.verify(leaves[first], first, paths[first])
        assert is_in(tree, leaves[second], third, paths[third]) is (second == third)
        assert is_in(tree, leaves[third], third, paths[second]) is (paths[second] == paths[third])


def test_what_failed_is_not_remembered() -> None:
    root, leaves, paths = make(8)
    tree = BatchTree(root, 8)
    for wrong in leaves[1:]:
        assert not is_in(tree, wrong, 0, paths[0])
    for index, leaf in enumerate(leaves):
        for path in paths[index + 1 :]:
            assert not is_in(tree, leaf, index, path)
        assert is_in(tree, leaf, index, paths[index])


@pytest.mark.parametrize("count", [2, 5, 8])
def test_what_is_no_hash_is_malformed_whatever_was_shown(count: int) -> None:
    root, leaves, paths = make(count)
    tree = BatchTree(root, count)
    for index in range(count):
        tree.verify(leaves[index], index, paths[index])
    for index, path in enumerate(paths):
        for level, text in enumerate(path):
            for wrong in ("", "!", text + "=", text[:-1], text.replace("=", " ")):
                with pytest.raises(MalformedError):
                    tree.verify(leaves[index], index, (*path[:level], wrong, *path[level + 1 :]))
