"""What the log alone shows of nodes: how many nonces they had for each receipt."""

import pytest
from tests.support import audit_records as make

from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import BatchBuilder, NonceCommitment
from trunkline.verdicts import Spending, examine_nodes
from trunkline.verdicts.spending import AGAIN, AHEAD

NODE = Signer("alpha.example/node", b"\x61" * 32)
STRANGER = Signer("alpha.example/node", b"\x62" * 32)


def nonces(count: int, by: Signer = NODE) -> bytes:
    said = NonceCommitment(node=NODE.name, count=count, root=b"\x07" * 32, unix_ms=1)
    return sign_note(said.text(), by)


def batch(receipts: int, by: Signer = NODE) -> bytes:
    builder = BatchBuilder(NODE.name)
    for number in range(receipts):
        builder.add(b"receipt %d" % number)
    return sign_note(builder.seal(previous=None, unix_ms=1).text, by)


def look(*entries: bytes) -> Spending:
    (found,) = examine_nodes(entries, (NODE.vkey,))
    return found


def test_a_node_that_has_committed_ahead_of_need() -> None:
    found = look(b"somebody's", nonces(1024), nonces(1024), batch(64), batch(3))
    assert (found.node, found.receipts, found.nonces) == (NODE.name, 67, 2048)
    assert found.finding == ""


@pytest.mark.parametrize(("spare", "found"), [(0, False), (1, True)])
def test_a_node_that_has_several_nonces_for_each_answer(spare: int, found: bool) -> None:
    count = AHEAD + 2 * 64 + spare
    entries = [nonces(min(1024, count - at)) for at in range(0, count, 1024)]
    assert bool(look(*entries, batch(64)).finding) is found


def test_a_process_that_began_anew_gave_some_up() -> None:
    test = make.self_test(NODE)
    entries = [nonces(1024)] * (AHEAD // 1024)
    assert look(*entries, nonces(AGAIN)).finding
    anew = look(*entries, nonces(AGAIN), sign_note(test.text(), NODE))
    assert (anew.self_tests, anew.finding) == (1, "")


def test_what_others_signed_in_its_name_counts_for_nobody() -> None:
    found = look(nonces(1024, STRANGER), batch(2, STRANGER), b"trunkline.nonces/v1\nbroken")
    assert (found.receipts, found.nonces, found.finding) == (0, 0, "")
