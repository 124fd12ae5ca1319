"""Commit, then reveal: when, what, and who could have known what."""

import msgspec
import pytest
from tests.support import audit_records as make

from trunkline.base.errors import DigestError, SignatureError
from trunkline.crypto.digest import sha256
from trunkline.verdicts import Logged, check_reveal, may_know, may_reveal

VERDICT = make.verdict()
NOTE = make.signed(VERDICT)


def test_a_verdict_is_kept_back_until_another_is_bound_or_had_its_time() -> None:
    def may(now_ms: int, *, another: bool) -> bool:
        return may_reveal(
            committed_ms=1000, now_ms=now_ms, another_committed=another, reveal_after_ms=500
        )

    assert not may(1000, another=False)
    assert not may(1499, another=False)
    assert may(1500, another=False)
    assert may(1000, another=True)
    # A clock that was set back keeps a verdict longer, and never shows it sooner.
    assert not may(0, another=False)


def test_the_verdict_is_the_one_that_was_committed_to() -> None:
    check_reveal(make.commitment(NOTE), VERDICT, NOTE)
    for member, value in (("result", "inconclusive"), ("salt", "00" * 32), ("unix_ms", 1)):
        other = make.verdict(**{member: value})
        with pytest.raises(DigestError):
            check_reveal(make.commitment(NOTE), other, make.signed(other))


def test_a_commitment_is_one_verifiers_about_one_receipt() -> None:
    stolen = make.commitment(NOTE, make.OTHER)
    with pytest.raises(SignatureError):
        check_reveal(stolen, VERDICT, NOTE)
    elsewhere = msgspec.structs.replace(make.commitment(NOTE), receipt="00" * 32)
    with pytest.raises(DigestError):
        check_reveal(elsewhere, VERDICT, NOTE)


def test_a_commitment_tells_nothing_that_could_be_copied() -> None:
    """All that is public of a verdict, and every result: without the salt none has the digest."""
    bound = make.commitment(NOTE)
    guesses = [
        make.verdict(result=result, salt=sha256(b"%d" % guess).hex())
        for result in ("fail", "inconclusive", "not_applicable")
        for guess in range(100)
    ]
    assert not any(bound.binds(make.signed(guess)) for guess in guesses)
    # Copying the digest itself binds the copier to a note that only the first can have signed.
    copied = msgspec.structs.replace(bound, key=str(make.OTHER.vkey))
    mine = make.verdict(make.OTHER)
    with pytest.raises(DigestError):
        check_reveal(copied, mine, make.signed(mine, make.OTHER))


def test_who_was_bound_after_another_s_verdict_was_shown_may_have_known_it() -> None:
    first = Logged(committed=3, revealed=6)
    for independent in (Logged(committed=5, revealed=7), Logged(committed=1, revealed=4)):
        assert not may_know(independent, first)
        assert not may_know(first, independent)
    late, early = Logged(committed=7, revealed=8), Logged(committed=1, revealed=2)
    assert may_know(late, first)
    assert may_know(first, early)
    assert not may_know(early, first), "that another copied it says nothing against the first"
    # Bound by nothing but itself.
    assert may_know(Logged(committed=7, revealed=7), first)
    assert not may_know(Logged(committed=5, revealed=5), first)
