"""Split views: shown whenever a log forked, and never of a log that did not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import ConsistencyError, Error, MalformedError
from trunkline.crypto import merkle
from trunkline.crypto.signer import Signer, sign_note
from trunkline.evidence import split_view
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)
OTHER = Signer.generate("other.example/log", b"\x02" * 32)
POLICY = Policy.parse(f"log {LOG.vkey}\nquorum none\n")


def leaves(count, fork=None):
    """Leaf hashes; from ``fork`` on, those of another history."""
    names = (b"fork" if fork is not None and i >= fork else b"leaf" for i in range(count))
    return [merkle.leaf_hash(b"%s %d" % (name, i)) for i, name in enumerate(names)]


def checkpoint(hashes, origin=LOG.name):
    return Checkpoint(origin=origin, size=len(hashes), root=merkle.root(hashes))


def prefix_proof(hashes, size):
    return [merkle.root(hashes[a:b]) for a, b in merkle.prefix_ranges(size, len(hashes))]


def split(small, large, fork, signer=LOG):
    """The file about a log of ``small`` that went on to ``large`` from another history."""
    old, new = leaves(small), leaves(large, fork)
    notes = tuple(sign_note(checkpoint(one, signer.name).text(), signer) for one in (old, new))
    proof = prefix_proof(new, small) if small < large else []
    return split_view.encode(signer.vkey, notes, proof)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_a_prefix_proof_gives_the_prefixs_root_and_nothing_else(a, b, data):
    small, large = sorted((a, b))
    if small == large:
        return
    hashes = leaves(large)
    proof = prefix_proof(hashes, small)
    root = merkle.root(hashes)
    assert merkle.prefix_root(small, large, proof, root) == merkle.root(hashes[:small])
    at = data.draw(st.integers(0, len(proof) - 1))
    bent = [*proof[:at], bytes(32), *proof[at + 1 :]]
    for wrong in (bent, proof[:-1], [*proof, bytes(32)], []):
        with pytest.raises(ConsistencyError):
            merkle.prefix_root(small, large, wrong, root)
    with pytest.raises(ConsistencyError):
        merkle.prefix_root(small, large, proof, bytes(32))


@given(st.integers(1, 300), st.integers(0, 300), st.integers(0, 299))
def test_a_fork_before_the_smaller_size_is_shown(small, more, fork):
    data = split(small, small + more, min(fork, small - 1))
    assert split_view.is_split_view(data)
    assert split_view.contradicted(data, LOG.vkey).size == small + more
    report = split_view.verify(data, POLICY)
    assert (report.outcome, report.origin) == ("pass", LOG.name)
    assert [step.result for step in report.steps] == ["pass"] * 4
    assert split_view.verify(data, None).outcome == "inconclusive"


@given(st.integers(1, 200), st.integers(0, 200))
def test_an_honest_log_can_not_be_accused(small, more):
    with pytest.raises(ConsistencyError, match="agree"):
        split(small, small + more, None)
    # Nor by a log that forked only after the smaller one.
    if more:
        with pytest.raises(ConsistencyError, match="agree"):
            split(small, small + more, small)


def test_nothing_is_shown_by_what_another_key_signed_or_a_bent_file():
    data = split(5, 8, 3)
    theirs = split(5, 8, 3, OTHER)
    assert split_view.verify(theirs, POLICY).outcome == "inconclusive"
    with pytest.raises(ConsistencyError, match="another log"):
        split_view.contradicted(theirs, LOG.vkey)
    file = json.loads(data)
    stolen = json.dumps({**file, "larger": json.loads(theirs)["larger"]}).encode()
    assert split_view.verify(stolen, POLICY).outcome == "fail"
    swapped = {**file, "smaller": file["larger"], "larger": file["smaller"]}
    assert split_view.verify(json.dumps(swapped).encode(), POLICY).outcome == "fail"
    without = json.dumps({**file, "proof": []}).encode()
    assert split_view.verify(without, POLICY).outcome == "fail"
    for step, at in enumerate(range(0, len(data), 37)):
        bent = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        assert split_view.verify(bent, POLICY).outcome != "pass", step


def test_an_empty_tree_contradicts_nothing():
    empty = Checkpoint(origin=LOG.name, size=0, root=merkle.EMPTY_ROOT)
    assert split_view.check(empty, checkpoint(leaves(5)), [])
    other_empty = Checkpoint(origin=LOG.name, size=0, root=bytes(32))
    assert not split_view.check(empty, other_empty, [])


@given(st.binary(max_size=300))
def test_any_bytes_are_a_file_or_refused(data):
    assert split_view.verify(data, POLICY).outcome == "fail"
    with pytest.raises(Error):
        split_view.contradicted(data, LOG.vkey)
    with pytest.raises(MalformedError):
        split_view.decode(data)
