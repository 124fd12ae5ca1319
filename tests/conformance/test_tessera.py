"""A whole small log as Tessera writes it: checkpoints, tiles and bundles, byte for byte."""

import os
from pathlib import Path

import pytest

from trunkline.crypto import merkle
from trunkline.crypto.signer import Signer, sign_note
from trunkline.log.core.tree import Tree, edge_tiles, grow, load
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.tlog.tile import Tile, decode_bundle
from trunkline.tlog.tile_proof import consistency_proof, inclusion_proof

REPOSITORY = Path(__file__).resolve().parents[2]
VECTORS = Path(os.environ.get("TRUNKLINE_VECTORS", REPOSITORY.parent / "shared" / "vectors"))
TESSERA = VECTORS / "tessera"

pytestmark = pytest.mark.skipif(
    not TESSERA.is_dir(),
    reason=f"third-party vectors are absent: no {TESSERA} (set TRUNKLINE_VECTORS)",
)

# The key and the entries are published with the vectors; the key is for this test log alone.
SIGNER = Signer.parse(
    "PRIVATE+KEY+example.com/log/testdata+33d7b496+AeymY/SZAX0jZcJ8enZ5FY1Dz+wTML2yWSkK+9DSF3eg"
)
ENTRIES = (
    b"one two three four five six seven eit nain ten ileven twelf threeten fourten fivten".split()
)


def checkpoint_note(tree: Tree) -> bytes:
    checkpoint = Checkpoint(origin=SIGNER.name, size=tree.size, root=tree.root())
    return sign_note(checkpoint.text(), SIGNER)


def published() -> dict[str, bytes]:
    files = (path for path in (TESSERA / "tile").rglob("*") if path.is_file())
    return {path.relative_to(TESSERA).as_posix(): path.read_bytes() for path in files}


def test_the_log_is_reproduced_entry_by_entry():
    tree = Tree()
    written: dict[str, bytes] = {}
    assert checkpoint_note(tree) == (TESSERA / "checkpoint.0").read_bytes()
    for number, entry in enumerate(ENTRIES, start=1):
        growth = grow(tree, [entry], [merkle.leaf_hash(entry)])
        tree = growth.tree
        written.update((tile.path, data) for tile, data in growth.files)
        assert checkpoint_note(tree) == (TESSERA / f"checkpoint.{number}").read_bytes()
    assert checkpoint_note(tree) == (TESSERA / "checkpoint").read_bytes()
    assert written == published()


def test_the_log_is_reproduced_in_one_round():
    growth = grow(Tree(), ENTRIES, [merkle.leaf_hash(entry) for entry in ENTRIES])
    files = published()
    assert len(growth.files) == 2
    assert all(files[tile.path] == data for tile, data in growth.files)
    assert checkpoint_note(growth.tree) == (TESSERA / "checkpoint").read_bytes()


def test_the_published_log_loads_at_every_size():
    files = {Tile.parse(path): data for path, data in published().items()}
    for size in range(16):
        note_bytes = (TESSERA / f"checkpoint.{size}").read_bytes()
        checkpoint = open_checkpoint(note_bytes, SIGNER.vkey)
        tree = load(size, checkpoint.root, {tile: files[tile] for tile in edge_tiles(size)})
        assert tree.size == checkpoint.size == size


def test_the_published_tiles_prove_everything():
    files = published()
    roots = [
        open_checkpoint((TESSERA / f"checkpoint.{size}").read_bytes(), SIGNER.vkey).root
        for size in range(16)
    ]
    entries = decode_bundle(files["tile/entries/000.p/15"], 15)
    assert list(entries) == ENTRIES
    for size in range(1, 16):
        for index in range(size):
            path = inclusion_proof(index, size, files)
            leaf = merkle.leaf_hash(entries[index])
            merkle.verify_inclusion(leaf, index, size, path, roots[size])
            proof = consistency_proof(index + 1, size, files)
            merkle.verify_consistency(index + 1, size, proof, roots[index + 1], roots[size])
