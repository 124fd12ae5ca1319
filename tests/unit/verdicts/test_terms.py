"""Terms: which of them let a node be verified, and which it still has to keep to."""

import pytest
from tests.support.audit_records import NOW_MS, OTHER, VERIFIER, terms

from trunkline.verdicts import in_force, too_small

ASKS = (str(VERIFIER.vkey),)


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        (terms(), ""),
        (terms(rate_ppm=1_000, keep_s=300, demands_per_min=6), ""),
        (terms(VERIFIER, OTHER), ""),
        (None, "no terms"),
        (terms(OTHER), "do not name"),
        (terms(rate_ppm=999), "999 receipts of a million"),
        (terms(keep_s=299), "299 s"),
        (terms(demands_per_min=5), "5 demands a minute"),
    ],
)
def test_terms_let_a_verifier_in_or_say_why_not(stated, why):
    found = too_small(stated, ASKS)
    assert why in found
    assert bool(found) == bool(why)


def test_who_drew_has_to_be_named_too():
    assert too_small(terms(VERIFIER), (*ASKS, str(OTHER.vkey)))


def test_terms_are_kept_to_for_as_long_as_they_promised():
    first = terms(keep_s=60)
    second = terms(keep_s=10, unix_ms=NOW_MS + 1_000)
    third = terms(keep_s=1, unix_ms=NOW_MS + 2_000)
    stated = (first, second, third)

    assert in_force((), NOW_MS) == ()
    assert in_force(stated[:1], NOW_MS + 10**9) == (first,)
    assert in_force(stated, NOW_MS + 2_000) == stated
    assert in_force(stated, NOW_MS + 12_000) == (first, third)
    assert in_force(stated, NOW_MS + 60_999) == (first, third)
    assert in_force(stated, NOW_MS + 61_000) == (third,)
