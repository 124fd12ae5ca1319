"""Tiles on disk: whole or absent, read from wider ones, deleted when superfluous."""

import pytest

from trunkline.base.errors import CorruptStateError
from trunkline.crypto import merkle
from trunkline.log.core.tree import Tree, grow
from trunkline.log.files import Folder
from trunkline.tlog.tile import Tile, encode_bundle, tile_at

ENTRIES = [b"entry %d" % i for i in range(600)]
LEAVES = [merkle.leaf_hash(entry) for entry in ENTRIES]


@pytest.fixture
def folder(tmp_path):
    found = Folder(tmp_path / "log")
    found.prepare()
    return found


def write(folder, tree, size):
    growth = grow(tree, ENTRIES[tree.size : size], LEAVES[tree.size : size])
    folder.write_tiles(growth.files)
    return growth.tree, [tile for tile, _ in growth.files]


def names(folder):
    return sorted(
        path.relative_to(folder.path).as_posix()
        for path in (folder.path / "tile").rglob("*")
        if path.is_file()
    )


def test_narrower_tiles_are_read_out_of_wider_ones(folder):
    tree = Tree()
    for size in (3, 10, 300):
        tree, written = write(folder, tree, size)
        folder.prune_partials(written)
        for width in range(1, min(size, 256) + 1):
            hashes = folder.read_tile(Tile(level=0, index=0, width=width))
            assert hashes == b"".join(LEAVES[:width])
            bundle = folder.read_tile(Tile(level=None, index=0, width=width))
            assert bundle == encode_bundle(ENTRIES[:width])


def test_superfluous_partials_are_deleted(folder):
    tree, written = write(folder, Tree(), 3)
    tree, more = write(folder, tree, 5)
    assert names(folder) == [
        "tile/0/000.p/3", "tile/0/000.p/5", "tile/entries/000.p/3", "tile/entries/000.p/5",
    ]  # fmt: skip
    folder.prune_partials(more)
    assert names(folder) == ["tile/0/000.p/5", "tile/entries/000.p/5"]
    tree, more = write(folder, tree, 256)
    folder.prune_partials(more)
    assert names(folder) == ["tile/0/000", "tile/1/000.p/1", "tile/entries/000"]
    assert written


def test_what_is_beyond_the_size_is_discarded(folder):
    tree, _ = write(folder, Tree(), 250)
    write(folder, tree, 252)
    write(folder, tree, 600)
    assert folder.discard_beyond(250, 1024) == 9
    assert names(folder) == ["tile/0/000.p/250", "tile/entries/000.p/250"]
    assert folder.discard_beyond(250, 1024) == 0
    grown, _ = write(folder, tree, 251)
    assert folder.read_tile(tile_at(0, 0, 251)) == b"".join(LEAVES[:251])
    assert grown.root() == merkle.root(LEAVES[:251])


def test_a_missing_tile(folder):
    with pytest.raises(FileNotFoundError):
        folder.read_tile(Tile(level=0, index=0, width=1))
    write(folder, Tree(), 5)
    with pytest.raises(FileNotFoundError):
        folder.read_tile(Tile(level=0, index=0, width=6))


def test_a_cut_tile_is_named(folder):
    write(folder, Tree(), 5)
    path = folder.path / "tile/0/000.p/5"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptStateError, match=r"tile/0/000\.p/5"):
        folder.read_tile(Tile(level=0, index=0, width=2))
    path = folder.path / "tile/entries/000.p/5"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptStateError, match=r"tile/entries/000\.p/5"):
        folder.read_tile(Tile(level=None, index=0, width=2))


def test_staged_files_are_cleared(folder):
    (folder.path / "staging" / "half").write_bytes(b"x")
    folder.prepare()
    assert list((folder.path / "staging").iterdir()) == []


def test_the_checkpoint_is_replaced(folder):
    assert folder.read_checkpoint() is None
    folder.write_checkpoint(b"one\n")
    folder.write_checkpoint(b"two\n")
    assert folder.read_checkpoint() == b"two\n"


def test_consistency_proofs_from_disk(folder):
    tree, _ = write(folder, Tree(), 300)
    first = tree.root()
    tree, written = write(folder, tree, 600)
    folder.prune_partials(written)
    proof = folder.consistency_proof(300, 600)
    merkle.verify_consistency(300, 600, proof, first, tree.root())
    # Still provable at sizes whose partial tiles are gone.
    middle = merkle.root(LEAVES[:520])
    proof = folder.consistency_proof(300, 520)
    merkle.verify_consistency(300, 520, proof, first, middle)
