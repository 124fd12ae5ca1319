"""Chains: what is drawn by one can not be chosen, and nobody draws otherwise unseen."""

import hashlib
from collections.abc import Iterator
from itertools import islice

import msgspec
import pytest
from tests.support import audit_records as make

from trunkline.base.errors import MalformedError
from trunkline.verdicts import CHAIN_ENTRIES, Chain, Draw, bound, chain, chain_of, examine
from trunkline.verdicts.chain import chances

SEED, OTHER = make.hash32("seed"), make.hash32("other seed")
PAD = b"trunkline.batch/v1\nan entry of somebody's\n"
FIRST = 4

change = msgspec.structs.replace


def by_chain(from_: int, size: int, *, seed: bytes = SEED, at_s: int = 1_780_000_000) -> Draw:
    return make.draw(from_, size, at_s=at_s, seeds={FIRST: seed}, rate_ppm=500_000)


def walk(seed: bytes) -> Iterator[bytes]:
    """A chain's values, the last first, as the specification has them."""
    while True:
        yield seed
        seed = hashlib.sha256(b"trunkline.draw-chain/v1\n" + seed).digest()


def test_the_values_are_those_of_the_specification() -> None:
    values = [*islice(walk(SEED), CHAIN_ENTRIES + 1)][::-1]
    """By how far they are from the anchor; the first entry's is the one after it."""
    assert chain_of(SEED, FIRST) == Chain(anchor=values[0].hex(), first=FIRST)
    for to in (1, 2, 127, 128, 129, 255, 256, 9_000, CHAIN_ENTRIES - 1, CHAIN_ENTRIES, 20_000):
        shown = bound(SEED, FIRST, FIRST + to)
        last = min(to, CHAIN_ENTRIES)
        assert shown.link == values[last].hex()
        for from_ in {1, max(1, last - 1), max(1, last - 130), last}:
            assert chances(shown, FIRST + from_ - 1, FIRST + to) == {
                FIRST + at - 1: hashlib.sha256(b"trunkline.draw-chance/v1\n" + values[at]).digest()
                for at in range(from_, last + 1)
            }


def test_a_chain_is_not_walked_again_for_each_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    seed, hashed = make.hash32("a seed of its own"), 0
    hashing = chain.sha256

    def counted(data: bytes) -> bytes:
        nonlocal hashed
        hashed += 1
        return hashing(data)

    monkeypatch.setattr(chain, "sha256", counted)
    end = FIRST + CHAIN_ENTRIES // 2
    chances(bound(seed, FIRST, end), end - 10, end)
    assert CHAIN_ENTRIES <= hashed < CHAIN_ENTRIES + 500
    for to in range(end + 10, end + 200, 10):
        before = hashed
        chances(bound(seed, FIRST, to), to - 10, to)
        assert hashed - before < 500


def test_neither_the_checkpoint_nor_the_end_of_a_draw_changes_what_is_drawn() -> None:
    whole = by_chain(4, 40)
    expected = [whole.chosen(entry, 8) for entry in range(4, 40)]
    assert any(expected)
    assert len(set(expected)) > 1
    for size in (40, 41, 300):
        for later_s in (0, 1, 77):
            one = by_chain(4, size, at_s=1_780_000_000 + later_s)
            assert [one.chosen(entry, 8) for entry in range(4, 40)] == expected
    parts = [by_chain(4, 9), by_chain(9, 30), by_chain(30, 40)]
    assert [
        part.chosen(entry, 8) for part in parts for entry in range(part.from_, part.to)
    ] == expected
    assert [by_chain(4, 40, seed=OTHER).chosen(entry, 8) for entry in range(4, 40)] != expected


def test_entries_that_no_chain_is_for_are_drawn_by_the_checkpoint() -> None:
    one = by_chain(0, 10)
    assert set(one.chances()) == set(range(FIRST, 10))
    assert one.chance(3) == one.randomness() != one.chance(4)
    end = FIRST + CHAIN_ENTRIES
    both = make.draw(end - 5, end + 5, seeds={FIRST: SEED, end: OTHER})
    assert set(both.chances()) == set(range(end - 5, end + 5))
    assert len(set(both.chances().values())) == 10


def test_a_value_that_leads_elsewhere_is_no_draw() -> None:
    one = by_chain(4, 10)
    (shown,) = one.bound if isinstance(one.bound, tuple) else ()
    with pytest.raises(MalformedError, match="not of the chain"):
        change(one, bound=(change(shown, link=make.hash32("x").hex()),)).text()
    with pytest.raises(MalformedError, match="not of the chain"):
        change(one, bound=(change(shown, first=3),)).text()
    with pytest.raises(MalformedError, match="for none of its entries"):
        change(by_chain(4, 10), from_=0, to=4, checkpoint=make.draw(0, 4).checkpoint).text()
    with pytest.raises(MalformedError, match="two chains"):
        make.draw(4, 10, seeds={4: SEED, 7: OTHER}).text()
    with pytest.raises(MalformedError, match="draws from"):
        make.draw(4, 10, announced=chain_of(SEED, 9)).text()


def findings(*entries: Draw | bytes) -> tuple[int, list[tuple[int, str]]]:
    """Draws from no chain, and what was found, of a verifier whose log this is."""
    log = [one if isinstance(one, bytes) else make.signed(one) for one in entries]
    (found,) = examine(log, (make.VERIFIER.vkey,), make.POLICY)
    return found.unchained, [(one.entry, one.detail) for one in found.findings]


def test_draws_by_the_chain_that_was_announced() -> None:
    first = make.draw(0, 1, announced=chain_of(SEED, FIRST))
    log = [PAD, first, PAD, PAD, PAD, PAD, by_chain(1, 5), PAD, by_chain(5, 8)]
    assert findings(*log) == (2, [])


@pytest.mark.parametrize(
    ("drawn", "why"),
    [
        (make.draw(1, 6), "a draw otherwise than by the chain that was announced for its entries"),
        (
            by_chain(1, 6, seed=OTHER),
            "a draw by a chain that was not announced before the entries that it is for",
        ),
        (
            change(by_chain(1, 6), next=chain_of(OTHER, FIRST + 10)),
            "a draw and announced a second chain for entries that one is for",
        ),
    ],
)
def test_a_verifier_that_draws_otherwise_is_found(drawn: Draw, why: str) -> None:
    first = make.draw(0, 1, announced=chain_of(SEED, FIRST))
    assert findings(PAD, first, PAD, PAD, PAD, PAD, drawn)[1] == [(6, why)]


def test_a_chain_that_is_announced_after_its_entries_is_none() -> None:
    late: Chain = chain_of(SEED, FIRST)
    log = [PAD] * FIRST
    assert findings(*log, make.draw(0, 4, announced=late), PAD, by_chain(4, 6))[1] == [
        (6, "a draw by a chain that was not announced before the entries that it is for")
    ]
    assert findings(*log, make.draw(0, 4, announced=late), PAD, make.draw(4, 6)) == (2, [])


def test_a_chain_for_entries_before_those_of_another_is_no_second_one() -> None:
    """They are announced in whatever order: what counts is that no entry has two."""
    later, sooner = chain_of(OTHER, FIRST + CHAIN_ENTRIES), chain_of(SEED, FIRST)
    log = [PAD, make.draw(0, 1, announced=later), make.draw(1, 2, announced=sooner), PAD]
    assert findings(*log, PAD, PAD, by_chain(2, 6)) == (3, [])
