"""How long a node is asked, and what silence and refusal come to."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.embedding import ToyEmbedder, served
from tests.support.repeating import again
from tests.support.toy_network import honest

from trunkline.schema.audit import Opening
from trunkline.verifier.core.patience import (
    REFUSED,
    SILENT,
    TRIES_MIN,
    Again,
    Over,
    Patience,
    after_failure,
    excuse,
    is_conclusive,
    why_closed,
)

PATIENCE = Patience(opening_ms=60_000, unreachable_ms=3_600_000)


@pytest.mark.parametrize(
    ("reason", "after_ms", "over"),
    [
        (REFUSED, 59_999, None),
        (REFUSED, 60_000, "withheld"),
        ("later", 60_000, "withheld"),
        (SILENT, 60_000, None),
        (SILENT, 3_600_000, "unreachable"),
    ],
)
def test_a_node_that_serves_has_less_time_than_one_that_is_gone(reason, after_ms, over):
    decided = after_failure(
        reason, asked_ms=1000, attempts=9, now_ms=1000 + after_ms, patience=PATIENCE
    )

    assert (decided.reason if isinstance(decided, Over) else None) == over


def test_a_node_that_was_away_is_not_held_to_its_first_word():
    def decided(before: str) -> Again | Over:
        return after_failure(
            "not_logged", asked_ms=0, attempts=9, now_ms=900_000, patience=PATIENCE,
            refused_before=before,
        )  # fmt: skip

    assert decided(SILENT) == Again(due_ms=930_000)
    assert decided("not_logged") == Over(reason="withheld")


def test_a_node_that_works_for_others_is_not_away():
    def decided(now_ms: int, *, signing: bool) -> Again | Over:
        return after_failure(
            SILENT, asked_ms=0, attempts=9, now_ms=now_ms, patience=PATIENCE, signing=signing
        )

    assert isinstance(decided(3_599_999, signing=True), Again)
    assert decided(3_600_000, signing=True) == Over(reason="withheld")
    assert decided(3_600_000, signing=False) == Over(reason="unreachable")


def test_one_late_try_after_an_absence_of_the_verifier_s_own_blames_nobody():
    decided = after_failure(
        REFUSED, asked_ms=1, attempts=TRIES_MIN - 2, now_ms=10**9, patience=PATIENCE
    )

    assert isinstance(decided, Again)


@given(
    attempts=st.integers(0, 1000),
    waited_ms=st.integers(0, 10**8),
    reason=st.sampled_from([SILENT, REFUSED, "later", "not_logged"]),
)
def test_it_is_always_asked_again_later_and_never_too_late(attempts, waited_ms, reason):
    decided = after_failure(
        reason, asked_ms=0, attempts=attempts, now_ms=waited_ms, patience=PATIENCE
    )

    if isinstance(decided, Again):
        assert waited_ms < decided.due_ms <= waited_ms + 30_000


@pytest.mark.parametrize(
    ("reason", "after_ms", "comes_to"),
    [
        ("not_kept", 10**9, "withheld"),
        ("expired", 359_999, "withheld"),
        ("expired", 360_000, "expired"),
        ("not_audited", 0, "not_audited"),
    ],
)
def test_not_to_have_what_could_be_opened_is_to_withhold_it(reason, after_ms, comes_to):
    receipt = honest(1).receipt

    now_ms = receipt.times.ended_ms + after_ms
    assert why_closed(receipt, reason, now_ms, keep_s=600) == comes_to


def test_a_node_that_backdates_its_receipts_has_them_expire_no_sooner():
    receipt = honest(1).receipt
    long_ago = msgspec.structs.replace(receipt.times, ended_ms=0)
    backdated = msgspec.structs.replace(receipt, times=long_ago)

    now_ms = receipt.created_s * 1000 + 1000
    assert why_closed(backdated, "expired", now_ms, keep_s=600) == "withheld"


def test_what_nobody_could_open_is_not_withheld():
    receipt = honest(1).receipt
    bare = msgspec.structs.replace(
        receipt, model=msgspec.structs.replace(receipt.model, weights="")
    )

    assert why_closed(bare, "not_kept", receipt.times.ended_ms, keep_s=600) == "not_kept"


async def test_vectors_and_answers_given_again_could_be_opened_too():
    vectors = await served(ToyEmbedder(), ["one text"])
    for made in (vectors, again(honest(1))):
        assert not made.receipt.response.tokens
        ended_ms = made.receipt.times.ended_ms
        assert why_closed(made.receipt, "not_kept", ended_ms, keep_s=600) == "withheld"


@pytest.mark.parametrize(
    ("code", "apart_ms", "drawn_otherwise", "excused"),
    [
        ("demand_stale", 240_000, True, False),
        ("demand_stale", -240_001, False, True),
        ("draw_conflict", 10**9, False, False),
        ("draw_conflict", 0, True, True),
        ("demand_refused", 10**9, True, False),
        ("demands_rate_limited", 10**9, True, False),
    ],
)
def test_only_what_may_be_the_verifier_s_own_mistake_is_excused(
    code, apart_ms, drawn_otherwise, excused
):
    why = excuse(
        code, asked_ms=10**12 + apart_ms, cosigned_ms=10**12, drawn_otherwise=drawn_otherwise
    )

    assert bool(why) is excused


def test_what_is_excused_ends_when_withholding_would():
    decided = after_failure(
        REFUSED, asked_ms=1, attempts=TRIES_MIN, now_ms=10**9, patience=PATIENCE, excused=True
    )

    assert decided == Over(reason="excused")


def test_what_is_conclusive():
    made = honest(1)
    assert not is_conclusive(Opening(batch="", index=0, content=made.content))
    assert not is_conclusive(Opening(batch="", index=0, reason="expired"))
    assert not is_conclusive(Opening(batch="", index=0, reason="later"))
    assert is_conclusive(Opening(batch="", index=0, reason="not_audited", leaf="00" * 32))
