"""What the log alone shows of nodes: how many nonces they had for each receipt."""

import pytest
from tests.support import audit_records as make

from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import BatchBuilder, NonceCommitment, open_batch
from trunkline.verdicts import Spending, examine_nodes
from trunkline.verdicts.spending import AGAIN, AHEAD, SET_BACK_MS

NODE = Signer("alpha.example/node", b"\x61" * 32)
STRANGER = Signer("alpha.example/node", b"\x62" * 32)


def nonces(count: int, by: Signer = NODE) -> bytes:
    said = NonceCommitment(node=NODE.name, count=count, root=b"\x07" * 32, unix_ms=1)
    return sign_note(said.text(), by)


def batch(
    receipts: int, by: Signer = NODE, *, audited: int | None = None, unix_ms: int = 1
) -> bytes:
    builder = BatchBuilder(NODE.name)
    for number in range(receipts):
        builder.add(b"receipt %d" % number)
    sealed = builder.seal(previous=None, unix_ms=unix_ms, audited=audited)
    return sign_note(sealed.text, by)


def follows(before: bytes, unix_ms: int, leaf: bytes = b"another") -> bytes:
    """The batch after that one, dated so."""
    builder = BatchBuilder(NODE.name)
    builder.add(leaf)
    root = open_batch(before, NODE.vkey).root
    return sign_note(builder.seal(previous=root, unix_ms=unix_ms).text, NODE)


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


def terms(unix_ms: int, **said: object) -> bytes:
    return sign_note(make.terms(node=NODE, unix_ms=unix_ms, **said).text(), NODE)


def test_a_node_that_says_that_its_batches_count_and_signs_one_that_does_not() -> None:
    counts, silent = terms(10, counts=True), terms(20)
    found = look(batch(3), counts, batch(5, unix_ms=9), batch(4, audited=0, unix_ms=10))
    assert (found.receipts, found.uncounted, found.finding) == (12, 8, "")
    broken = look(counts, batch(2, unix_ms=10), batch(7, audited=7, unix_ms=11))
    assert broken.uncounted == 2
    assert broken.finding.startswith("2 receipts in batches that do not say")
    # What it states later holds from then on, wherever the log has the two.
    for entries in ((counts, silent), (silent, counts)):
        assert look(*entries, batch(6, unix_ms=20)).finding == ""
        assert look(*entries, batch(6, unix_ms=19)).finding


@pytest.mark.parametrize(
    ("back_ms", "told"), [(0, False), (SET_BACK_MS, False), (SET_BACK_MS + 1, True)]
)
@pytest.mark.parametrize("late", [False, True])
def test_a_node_that_dates_an_answer_back_to_have_it_read_by_what_it_stated_then(
    back_ms: int, told: bool, late: bool
) -> None:
    """In whichever order the log has them: each batch names the one before it."""
    first = batch(1, unix_ms=100_000)
    second = follows(first, 100_000 - back_ms)
    found = look(*((second, first) if late else (first, second)))
    assert bool(found.finding) is told
    assert ("1 batches are dated before" in found.finding) is told


def test_a_batch_whose_predecessor_is_not_in_the_log_says_nothing() -> None:
    first = batch(1, unix_ms=100_000)
    assert look(follows(first, 1)).finding == ""
