"""The tree as a follower keeps it, against the one that all leaves give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import CorruptStateError
from trunkline.crypto import merkle
from trunkline.verifier.core.tree import Frontier

ENTRIES = st.lists(st.binary(max_size=8), max_size=70)


@given(entries=ENTRIES, cut=st.integers(0, 70))
def test_it_grows_to_the_tree_of_all_entries_however_they_come(entries, cut):
    grown = Frontier.empty().grown(entries[:cut]).grown(entries[cut:])

    assert grown.size == len(entries)
    assert grown.root() == merkle.root([merkle.leaf_hash(entry) for entry in entries])


@given(entries=ENTRIES)
def test_it_reads_back(entries):
    grown = Frontier.empty().grown(entries)

    assert Frontier.decode(grown.size, grown.encode()) == grown


def test_hashes_of_another_size_are_refused():
    grown = Frontier.empty().grown([b"a", b"b", b"c"])

    with pytest.raises(CorruptStateError):
        Frontier.decode(4, grown.encode())
