"""What is drawn, by whom, under which checkpoint."""

import msgspec
import pytest
from tests.support import audit_records as make

from trunkline.base.errors import MalformedError, QuorumError, SignatureError
from trunkline.crypto import note
from trunkline.crypto.signer import Signer
from trunkline.verdicts import (
    DRAWN_ENTRIES_MAX,
    Draw,
    Fault,
    check_draw,
    check_sequence,
    drawn,
    opinions,
    plain_checkpoint,
    randomness,
)

NOW_S = make.NOW_MS // 1000
CHANCE = make.hash32("chance")


def chosen(draw: Draw) -> list[tuple[int, int]]:
    return [
        (entry, leaf) for entry in range(draw.from_, draw.to) for leaf in draw.chosen(entry, 64)
    ]


def test_a_draw_is_under_a_checkpoint_of_the_policy() -> None:
    check_draw(make.draw(), make.POLICY)


def test_anybody_draws_the_same() -> None:
    assert chosen(make.draw()) == chosen(Draw.parse(make.draw().text()))
    assert 2800 < len(chosen(make.draw())) < 3600


def test_nothing_is_drawn_outside_the_range() -> None:
    draw = make.draw(from_=10, size=20, rate_ppm=1_000_000)
    assert [draw.chosen(entry, 2) for entry in (9, 10, 19, 20)] == [(), (0, 1), (0, 1), ()]


def test_each_cosignature_changes_the_draw() -> None:
    """Whoever does not know the witnesses' next signatures does not know what will be drawn."""
    first = make.draw()
    later = make.draw(at_s=NOW_S + 1)
    assert chosen(first) != chosen(later)
    parsed = note.parse(first.checkpoint.encode())
    replaced = note.parse(later.checkpoint.encode())
    seen = {first.randomness()}
    for at in range(1, len(parsed.signatures)):
        lines = list(parsed.signatures)
        lines[at] = replaced.signatures[at]
        changed = note.format(parsed.text, lines).decode()
        one = msgspec.structs.replace(first, checkpoint=changed)
        check_draw(one, make.POLICY)
        assert chosen(one) != chosen(first)
        seen.add(one.randomness())
    assert len(seen) == 3


def test_a_line_of_ones_own_does_not_change_what_is_drawn() -> None:
    """Else the verifier would add lines until it likes the draw."""
    raw = make.checkpoint_note(1000)
    parsed = note.parse(raw)
    stranger = Signer("stranger.example", b"\x66" * 32).signature(parsed.text)
    padded = note.format(parsed.text, [stranger, *parsed.signatures])
    assert plain_checkpoint(padded, make.POLICY) == plain_checkpoint(raw, make.POLICY)
    for data in (
        padded,
        note.format(parsed.text, parsed.signatures[::-1]),
        note.format(parsed.text, [*parsed.signatures, parsed.signatures[0]]),
        raw,
    ):
        with pytest.raises(SignatureError, match="not the policy's"):
            check_draw(msgspec.structs.replace(make.draw(), checkpoint=data.decode()), make.POLICY)


def test_a_witness_that_cosigned_twice_gives_one_draw() -> None:
    once = make.checkpoint_note(1000)
    parsed = note.parse(once)
    again = make.WITNESS.cosignature(parsed.text, NOW_S + 1)
    both = note.format(parsed.text, [*parsed.signatures, again])
    assert plain_checkpoint(both, make.POLICY) == plain_checkpoint(once, make.POLICY)


def test_too_few_witnesses_or_another_log_give_none() -> None:
    parsed = note.parse(make.draw().checkpoint.encode())
    alone = note.format(parsed.text, parsed.signatures[:2]).decode()
    with pytest.raises(QuorumError):
        check_draw(msgspec.structs.replace(make.draw(), checkpoint=alone), make.POLICY)
    other = make.checkpoint_note(1000, log=Signer("other.example", b"\x67" * 32)).decode()
    with pytest.raises(SignatureError):
        check_draw(msgspec.structs.replace(make.draw(), checkpoint=other), make.POLICY)


@pytest.mark.parametrize(
    ("from_", "to", "size"), [(0, 0, 0), (5, 5, 5), (6, 5, 5), (0, 4, 5), (0, 6, 5)]
)
def test_a_range_ends_with_its_checkpoint(from_: int, to: int, size: int) -> None:
    checkpoint = plain_checkpoint(make.checkpoint_note(size), make.POLICY).decode()
    draw = msgspec.structs.replace(make.draw(), checkpoint=checkpoint, from_=from_, to=to)
    with pytest.raises(MalformedError):
        draw.text()


def test_who_was_away_draws_several_times_under_one_checkpoint() -> None:
    size = 2 * DRAWN_ENTRIES_MAX + 5
    starts = (0, DRAWN_ENTRIES_MAX, 2 * DRAWN_ENTRIES_MAX)
    draws = [Draw.parse(make.draw(from_, size).text()) for from_ in starts]
    assert [draw.to for draw in draws] == [*starts[1:], size]
    assert check_sequence(draws) == ()


def test_of_what_may_be_audited_the_rate_is_drawn_whatever_else_a_batch_holds() -> None:
    """A batch of 64 of which ``may`` may be: neither their number nor the others' changes what is
    drawn of the rest, so nobody lowers the share by what he puts beside them."""
    draw = make.draw()
    entries = range(draw.from_, draw.to)
    for may in (1, 7, 40):
        found = [draw.chosen(entry, may) for entry in entries]
        of_all = [draw.chosen(entry, 64) for entry in entries]
        assert found == [tuple(leaf for leaf in one if leaf < may) for one in of_all]
        share_ppm = 1_000_000 * sum(map(len, found)) / (may * len(entries))
        assert 0.7 < share_ppm / draw.rate_ppm < 1.3
    assert draw.chosen(draw.from_, 0) == ()


def test_a_checkpoint_that_is_none() -> None:
    for text in ("", "log.example\n", "\ud800", make.draw().checkpoint[:-1]):
        with pytest.raises(MalformedError):
            msgspec.structs.replace(make.draw(), checkpoint=text).text()


def test_no_rate_draws_none_and_a_full_one_all() -> None:
    for entry in range(200):
        assert not drawn(CHANCE, 0, entry, 0)
        assert drawn(CHANCE, 1_000_000, entry, 0)


def test_the_randomness_is_of_the_whole_note() -> None:
    data = make.draw().checkpoint.encode()
    assert make.draw().randomness() == randomness(data)
    assert randomness(data) != randomness(data[:-2] + b"A\n")


VERIFIERS = {
    "one.example/verifier": "one.example",
    "one.example/second": "one.example",
    "two.example/verifier": "two.example",
    "three.example/verifier": "three.example",
}


def test_the_one_that_drew_and_others_by_chance() -> None:
    second = {
        opinions(make.hash32(f"chance {number}"), make.hash32("leaf"), VERIFIERS, drawn_by)[1]
        for number in range(64)
        for drawn_by in ("two.example/verifier",)
    }
    assert second == set(VERIFIERS) - {"two.example/verifier"}


def test_another_operator_comes_before_the_same() -> None:
    for number in range(32):
        chance = make.hash32(f"chance {number}")
        leaf = make.hash32("leaf")
        three = opinions(chance, leaf, VERIFIERS, "one.example/verifier", 3)
        assert three[0] == "one.example/verifier"
        assert {VERIFIERS[name] for name in three} == set(VERIFIERS.values())
        assert set(opinions(chance, leaf, VERIFIERS, "one.example/verifier", 9)) == set(VERIFIERS)
        assert opinions(chance, leaf, VERIFIERS, "one.example/verifier", 1) == three[:1]


def test_two_verifiers_both_audit_everything() -> None:
    two = {"a": "a.example", "b": "b.example"}
    for by in two:
        assert set(opinions(CHANCE, make.hash32("leaf"), two, by)) == set(two)


def test_a_leaf_is_a_hash() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        opinions(CHANCE, b"leaf", VERIFIERS, "one.example/verifier")


def test_a_sequence_shows_what_was_skipped_and_what_was_drawn_again() -> None:
    honest = [make.draw(0, 10), make.draw(10, 15), make.draw(15, 40)]
    assert check_sequence(honest) == ()
    assert check_sequence(honest[:1]) == check_sequence(()) == ()
    assert check_sequence(honest[::2]) == (Fault(kind="skipped", earlier=0, start=10, end=15),)
    picked = [make.draw(0, 10), make.draw(0, 12, at_s=NOW_S + 9)]
    assert check_sequence(picked) == (Fault(kind="again", earlier=0, start=0, end=10),)
    back = [make.draw(0, DRAWN_ENTRIES_MAX * 2), make.draw(DRAWN_ENTRIES_MAX, 12_000)]
    size = DRAWN_ENTRIES_MAX * 2
    assert check_sequence(back) == (Fault(kind="backwards", earlier=0, start=12_000, end=size),)


def test_a_sequence_is_of_one_verifier_and_one_log() -> None:
    theirs = msgspec.structs.replace(make.draw(10, 15), key=str(make.OTHER.vkey))
    with pytest.raises(ValueError, match="several"):
        check_sequence([make.draw(0, 10), theirs])
