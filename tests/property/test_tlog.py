"""The log's texts and tiles: any bytes give a value or MalformedError, and values read back."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import MalformedError, SignatureError, VerificationError
from trunkline.crypto import merkle, note
from trunkline.crypto.signer import Signer, sign_note
from trunkline.tlog import add_checkpoint, proof, tile, tile_proof
from trunkline.tlog.checkpoint import Checkpoint, open_checkpoint
from trunkline.tlog.policy import Policy

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
WITNESS = Signer.generate("delta.example/witness", b"\x02" * 32)
POLICY = Policy.parse(
    f"log {LOG.vkey}\nwitness delta {WITNESS.cosigner_vkey} http://delta.example\nquorum delta\n"
)
SIZE_MAX = 2**63 - 1

hashes = st.binary(min_size=32, max_size=32)
lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
checkpoints = st.builds(
    Checkpoint,
    origin=lines,
    size=st.integers(0, SIZE_MAX),
    root=hashes,
    extensions=st.lists(lines, max_size=3).map(tuple),
)
proofs = st.builds(
    proof.Proof,
    index=st.integers(0, SIZE_MAX),
    path=st.lists(hashes, max_size=63).map(tuple),
    checkpoint_note=st.binary(max_size=50),
    extra=st.none() | st.binary(max_size=50),
)
requests = st.builds(
    add_checkpoint.AddCheckpoint,
    old_size=st.integers(0, SIZE_MAX),
    proof=st.lists(hashes, max_size=63).map(tuple),
    checkpoint_note=st.binary(max_size=50),
)


@st.composite
def tiles(draw):
    level = draw(st.none() | st.integers(0, 63))
    index = draw(st.integers(0, 2000) | st.integers(0, SIZE_MAX))
    return tile.Tile(level=level, index=index, width=draw(st.integers(1, 256)))


@given(checkpoints)
def test_checkpoints_read_back(checkpoint):
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


@given(st.binary(max_size=150) | lines.map(lambda t: (t + "\n5\n" + t + "\n").encode()))
def test_any_bytes_are_a_checkpoint_or_malformed(data):
    with suppress(MalformedError):
        assert Checkpoint.parse(data).text() == data


@given(checkpoints, st.data())
def test_a_flipped_bit_breaks_a_checkpoint(checkpoint, data):
    signed = sign_note(checkpoint.text(), LOG)
    assert open_checkpoint(signed, LOG.vkey, origin=checkpoint.origin) == checkpoint
    bit = data.draw(st.integers(0, len(signed) * 8 - 1))
    flipped = bytearray(signed)
    flipped[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises((MalformedError, SignatureError)):
        open_checkpoint(bytes(flipped), LOG.vkey, origin=checkpoint.origin)


@given(proofs)
def test_proofs_read_back(one):
    assert proof.parse(proof.format(one)) == one


@given(st.binary(max_size=100) | st.binary(max_size=99).map(b"c2sp.org/tlog-proof@v1\n".__add__))
def test_any_bytes_are_a_proof_or_malformed(data):
    with suppress(MalformedError):
        assert proof.format(proof.parse(data)) == data


@given(requests)
def test_requests_read_back(request):
    assert add_checkpoint.parse_add_checkpoint(request.body()) == request


@given(st.binary(max_size=100) | st.binary(max_size=99).map(b"old 1".__add__))
def test_any_bytes_are_a_request_or_malformed(data):
    with suppress(MalformedError):
        assert add_checkpoint.parse_add_checkpoint(data).body() == data
    with suppress(MalformedError):
        assert b"%d\n" % add_checkpoint.parse_size(data) == data


@given(tiles())
def test_tile_paths_read_back(one):
    assert tile.Tile.parse(one.path) == one


@given(st.text(max_size=40) | st.from_regex(r"tile/[0-9e]{1,3}/[x0-9/]{3,20}(\.p/[0-9]{1,3})?"))
def test_any_text_is_a_tile_path_or_malformed(text):
    with suppress(MalformedError):
        assert tile.Tile.parse(text).path == text


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_bundles_read_back(entries):
    data = tile.encode_bundle(entries)
    assert tile.decode_bundle(data, len(entries)) == tuple(entries)
    with pytest.raises(MalformedError):
        tile.decode_bundle(data, len(entries) + 1)
    with pytest.raises(MalformedError):
        tile.decode_bundle(data + b"\x00", len(entries))


@given(st.binary(max_size=100), st.integers(0, 256))
def test_any_bytes_are_a_bundle_or_malformed(data, width):
    with suppress(MalformedError):
        assert tile.encode_bundle(tile.decode_bundle(data, width)) == data


@given(
    st.binary(max_size=200)
    | st.lists(
        st.sampled_from(
            [
                f"log {LOG.vkey}",
                f"witness a {WITNESS.cosigner_vkey}",
                "group g 1 a",
                "group h any g",
                "quorum g",
                "quorum none",
                "# \xff",
                "",
            ]
        ),
        max_size=6,
    ).map(lambda chosen: "\n".join(chosen).encode("latin-1"))
)
def test_any_bytes_are_a_policy_or_malformed(data):
    with suppress(MalformedError):
        policy = Policy.parse(data)
        everybody = {witness.name for witness in policy.witnesses}
        assert policy.is_quorum(everybody)
        assert policy.is_quorum(set()) == (policy.quorum == "none")


@given(st.binary(max_size=200))
def test_any_note_is_accepted_or_refused_by_name(data):
    with pytest.raises((MalformedError, VerificationError)):
        POLICY.accepts(data)


# Leaves of a tree that spans three tile levels would take 65,536 hashes; two levels show every case
# of an edge, and the arithmetic of the levels above is the same.
LEAVES = [merkle.leaf_hash(b"%d" % i) for i in range(900)]


def tiles_of(size):
    """Every tile of the tree, straight from the definition in the specification."""
    level, found = LEAVES[:size], {}
    for number in range(tile.levels(size)):
        for index in range(-(-len(level) // 256)):
            chunk = level[index * 256 : (index + 1) * 256]
            found[tile.Tile(level=number, index=index, width=len(chunk)).path] = b"".join(chunk)
        full = [level[at : at + 256] for at in range(0, len(level) - 255, 256)]
        level = [merkle.root(chunk) for chunk in full]
    return found


@given(st.integers(1, 900), st.data())
def test_proofs_from_tiles_verify(size, data):
    have = tiles_of(size)
    index = data.draw(st.integers(0, size - 1))
    root = merkle.root(LEAVES[:size])
    needed = {path: have[path] for path in tile_proof.tiles_needed_for_inclusion(index, size)}
    path = tile_proof.inclusion_proof(index, size, needed)
    merkle.verify_inclusion(LEAVES[index], index, size, path, root)

    size1 = data.draw(st.integers(1, size))
    needed = {path: have[path] for path in tile_proof.tiles_needed_for_consistency(size1, size)}
    found = tile_proof.consistency_proof(size1, size, needed)
    merkle.verify_consistency(size1, size, found, merkle.root(LEAVES[:size1]), root)

    needed = {path: have[path] for path in tile_proof.tiles_needed_for_root(size)}
    assert tile_proof.tree_root(size, needed) == root


@given(st.integers(0, 900), st.integers(0, 900))
def test_new_tiles_are_those_that_the_old_tree_has_not(first, second):
    old, new = sorted((first, second))
    added = {one.path for one in tile.new_tiles(old, new) if one.level is not None}
    assert added == tiles_of(new).keys() - tiles_of(old).keys()


@given(st.integers(1, 900), st.integers(0, 63), st.binary(min_size=1, max_size=5))
def test_a_quorum_proof_verifies_for_its_entry_alone(size, extra, other):
    index = size - 1
    text = Checkpoint(origin=LOG.name, size=size, root=merkle.root(LEAVES[:size])).text()
    signed = note.format(text, (LOG.signature(text), WITNESS.cosignature(text, 1_700_000_000)))
    path = tuple(merkle.audit_path(LEAVES[:size], index))
    one = proof.Proof(index=index, path=path, checkpoint_note=signed, extra=bytes(extra))
    accepted = proof.verify(one, LEAVES[index], POLICY)
    assert accepted.witnesses == (("delta", 1_700_000_000),)
    with pytest.raises(VerificationError):
        proof.verify(one, merkle.leaf_hash(b"x" + other), POLICY)
