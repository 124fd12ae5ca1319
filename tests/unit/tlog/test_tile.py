"""Tiles against the numbers in C2SP tlog-tiles, and what is refused."""

import pytest

from trunkline.base.errors import MalformedError
from trunkline.crypto import merkle
from trunkline.tlog import tile, tile_proof
from trunkline.tlog.tile import Tile


@pytest.mark.parametrize(
    ("one", "path"),
    [
        (Tile(level=0, index=0), "tile/0/000"),
        (Tile(level=0, index=1234067), "tile/0/x001/x234/067"),
        (Tile(level=63, index=999, width=255), "tile/63/999.p/255"),
        (Tile(level=None, index=1000, width=1), "tile/entries/x001/000.p/1"),
    ],
)
def test_paths(one, path):
    assert one.path == path
    assert Tile.parse(path) == one


@pytest.mark.parametrize(
    "path",
    [
        "",
        "tile/0",
        "tile/00/000",
        "tile/64/000",
        "tile/-1/000",
        "tile/0/0",
        "tile/0/0000",
        "tile/0/x000/000",
        "tile/0/001/000",
        "tile/0/x001/x000",
        "tile/0/000.p/0",
        "tile/0/000.p/01",
        "tile/0/000.p/256",
        "tile/0/000.p/257",
        "tile/0/../../key",
        "tile/Entries/000",
        "tile/0/000\n",
        "/tile/0/000",
        "tile/0/٠٠٠",
        "tile/0/x999/x999/x999/x999/x999/x999/999",
        "tile/0/" + "x001/" * 100 + "000",
    ],
)
def test_what_is_not_a_path(path):
    with pytest.raises(MalformedError):
        Tile.parse(path)


def test_the_tiles_of_a_tree_of_70000():
    tiles = [one for one in tile.new_tiles(0, 70_000) if one.level is not None]
    by_level = {level: [one for one in tiles if one.level == level] for level in range(3)}
    assert [one.width for one in by_level[0]] == [256] * 273 + [112]
    assert [one.width for one in by_level[1]] == [256, 17]
    assert [one.width for one in by_level[2]] == [1]
    assert len(tiles) == 277


def test_the_tiles_of_a_tree_of_256():
    paths = [one.path for one in tile.new_tiles(0, 256)]
    assert paths == ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"]


def test_growing_past_a_tile_finishes_it_first():
    paths = [one.path for one in tile.new_tiles(255, 257)]
    assert paths == [
        "tile/entries/000",
        "tile/entries/001.p/1",
        "tile/0/000",
        "tile/0/001.p/1",
        "tile/1/000.p/1",
    ]
    assert list(tile.new_tiles(5, 5)) == []


def test_where_tiles_start():
    assert Tile(level=None, index=3).start == 768
    assert Tile(level=0, index=3).start == 768
    assert Tile(level=1, index=3).start == 3 * 65_536


def test_a_tile_outside_the_tree():
    with pytest.raises(IndexError):
        tile.tile_at(0, 1, 256)
    assert tile.width_at(0, 1, 256) == 0


def test_a_missing_or_cut_tile_is_named():
    with pytest.raises(MalformedError, match=r"tile/0/000\.p/5 is missing"):
        tile_proof.inclusion_proof(1, 5, {})
    with pytest.raises(MalformedError, match="160 bytes"):
        tile_proof.inclusion_proof(1, 5, {"tile/0/000.p/5": bytes(159)})


def test_a_lone_entry_needs_no_tiles():
    assert tile_proof.tiles_needed_for_inclusion(0, 1) == []
    assert tile_proof.inclusion_proof(0, 1, {}) == []
    assert tile_proof.tiles_needed_for_root(0) == []
    assert tile_proof.tree_root(0, {}) == merkle.EMPTY_ROOT
    assert tile_proof.tiles_needed_for_consistency(0, 5) == []


def test_proofs_in_a_large_tree_take_few_tiles():
    size = 5_000_000_000
    assert len(tile_proof.tiles_needed_for_inclusion(1_234_567_890, size)) <= 9
    assert len(tile_proof.tiles_needed_for_consistency(1_234_567_890, size)) <= 9


def test_entries_are_bounded():
    with pytest.raises(MalformedError):
        tile.encode_entry(bytes(65_536))
    assert len(tile.encode_entry(bytes(65_535))) == 65_537


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x02a", b"\x00\x01ab", b"\x00\x01a\x00"])
def test_what_is_not_a_bundle_of_one(data):
    with pytest.raises(MalformedError):
        tile.decode_bundle(data, 1)
