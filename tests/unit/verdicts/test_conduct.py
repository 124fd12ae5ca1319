"""What the log alone shows of verifiers: honest ones, and each way of cheating."""

from collections.abc import Sequence

import msgspec
from tests.support import audit_records as make

from trunkline.crypto.digest import digest
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import batch_text
from trunkline.verdicts import Conduct, Verdict, examine

change = msgspec.structs.replace
PAD = b"trunkline.batch/v1\nan entry of somebody's\n"


def look(entries: Sequence[bytes]) -> tuple[Conduct, Conduct]:
    first, second = examine(entries, (make.VERIFIER.vkey, make.OTHER.vkey), make.POLICY)
    return first, second


def details(conduct: Conduct) -> list[tuple[int, str]]:
    return [(one.entry, one.detail) for one in conduct.findings]


def verdict(signer: Signer = make.VERIFIER, **changes: object) -> tuple[bytes, bytes]:
    """Commitment and verdict."""
    said: Verdict = make.verdict(signer, **changes)
    note = make.signed(said, signer)
    bound = change(make.commitment(note, signer), receipt=said.receipt)
    return make.signed(bound, signer), note


def test_two_honest_verifiers() -> None:
    ours, theirs = verdict(), verdict(make.OTHER)
    draws = [make.signed(make.draw(0, 2)), make.signed(make.draw(2, 3))]
    first, second = look([PAD, PAD, draws[0], draws[1], ours[0], theirs[0], ours[1], theirs[1]])
    assert (first.draws, first.verdicts, first.kept_back, first.late) == (2, 1, 0, 0)
    assert (second.draws, second.verdicts, second.kept_back, second.late) == (0, 1, 0, 0)
    assert first.findings == second.findings == ()


def test_a_second_opinion_that_came_after_the_first_was_shown() -> None:
    first, second = look([*verdict(), *verdict(make.OTHER)])
    assert (first.late, second.late) == (0, 1)


def test_a_commitment_that_nobody_opened() -> None:
    first, _ = look([verdict()[0]])
    assert (first.kept_back, first.verdicts) == (1, 0)


def test_a_verdict_that_nobody_was_bound_to() -> None:
    bound, said = verdict()
    for entries in ([said], [said, bound]):
        assert details(look(entries)[0]) == [
            (0, "a verdict on a drawn receipt without a commitment before it")
        ]
    asked = make.signed(make.verdict(drawn=msgspec.UNSET))
    assert details(look([asked])[0]) == []


def test_a_verdict_that_was_changed_after_the_commitment() -> None:
    bound, _ = verdict()
    _, other = verdict(result="inconclusive")
    assert details(look([bound, other])[0]) == [
        (1, "the verdict is not the one that was committed to")
    ]


def test_two_verdicts_on_one_receipt() -> None:
    bound, said = verdict()
    _, other = verdict(result="inconclusive")
    assert details(look([bound, said, other])[0]) == [(2, "a second verdict on one drawn receipt")]


def test_a_verdict_on_what_its_batch_says_may_not_be_audited() -> None:
    """Its receipt is the fourth of entry 7's. Nothing is said where the node is not known."""
    found = {}
    for audited in (None, 3, 4):
        text = batch_text(
            node=make.NODE.name,
            count=5,
            root=bytes(32),
            previous=None,
            unix_ms=1,
            audited=audited,
        )
        entries = [*[PAD] * 7, sign_note(text, make.NODE), *verdict()]
        (known,) = examine(entries, (make.VERIFIER.vkey,), make.POLICY, nodes=(make.NODE.vkey,))
        found[audited] = details(known)
        assert details(look(entries)[0]) == []
    problem = [(9, "a verdict on a receipt that no draw can have")]
    assert found == {None: [], 3: problem, 4: []}
    for entries in ([*[PAD] * 8, *verdict()], [*verdict()]):
        (known,) = examine(entries, (make.VERIFIER.vkey,), make.POLICY, nodes=(make.NODE.vkey,))
        assert details(known) == [(len(entries) - 1, problem[0][1])]


def test_draws_that_skip_repeat_or_are_none() -> None:
    skipping = [make.signed(make.draw(0, 1)), make.signed(make.draw(2, 3))]
    again = [make.signed(make.draw(0, 2)), make.signed(make.draw(0, 3))]
    pad = [PAD] * 3
    assert details(look([*pad, *skipping])[0]) == [(4, "a draw, skipped: entries 1 to before 2")]
    assert details(look([*pad, *again])[0]) == [(4, "a draw, again: entries 0 to before 2")]
    assert details(look([make.signed(make.draw(0, 3))])[0]) == [
        (0, "a draw: from entries that come after it")
    ]
    raw = change(make.draw(0, 3), checkpoint=make.checkpoint_note(3).decode())
    assert [entry for entry, _ in details(look([*pad, make.signed(raw)])[0])] == [3]


def test_what_others_signed_says_nothing() -> None:
    stranger = Signer(make.VERIFIER.name, b"\x44" * 32)
    forged = make.signed(make.verdict(), stranger)
    assert digest(forged) != digest(make.signed(make.verdict()))
    for conduct in look([forged, PAD, b"", b"\xff", b"trunkline.verdict/v1\n"]):
        assert (conduct.verdicts, conduct.findings) == (0, ())
