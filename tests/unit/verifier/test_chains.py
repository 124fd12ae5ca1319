"""What a verifier knows of its own chains, and of another's that it reads from the middle on."""

import pytest
from tests.support import audit_records as make

from trunkline.verdicts import CHAIN_ENTRIES, Draw, chain_of
from trunkline.verifier import chains

SEED, NEXT, OTHER = (make.hash32(what) for what in ("seed", "next seed", "other seed"))
BEGINS = 40
END = BEGINS + CHAIN_ENTRIES


async def problems(database, *draws: Draw) -> list[str]:
    """What is found wrong with each, as they come in the log."""

    def work(connection) -> list[str]:
        return [chains.look(connection, draw, draw.to + 1) for draw in draws]

    return await database.write(work)


async def test_what_was_announced_before_the_first_draw_that_was_seen_is_believed(database) -> None:
    seen = make.draw(20, 30)
    shows = make.draw(30, 50, seeds={BEGINS: SEED})
    goes_on = make.draw(50, 60, seeds={BEGINS: SEED}, announced=chain_of(NEXT, END))
    assert await problems(database, seen, shows, goes_on) == ["", "", ""]


async def test_so_is_one_that_follows_the_one_that_it_was_drawn_by(database) -> None:
    seen = make.draw(END - 30, END - 20, seeds={BEGINS: SEED})
    shows = make.draw(END - 20, END + 10, seeds={BEGINS: SEED, END: NEXT})
    goes_on = make.draw(END + 10, END + 20, seeds={END: NEXT})
    assert await problems(database, seen, shows, goes_on) == ["", "", ""]


@pytest.mark.parametrize(
    "then",
    [
        make.draw(50, 60, seeds={BEGINS: OTHER}),
        make.draw(50, 60, seeds={50: OTHER}),
        make.draw(50, 60, seeds={45: OTHER}),
    ],
    ids=["another", "one beside it", "one that began before"],
)
async def test_what_was_believed_is_kept_to(database, then: Draw) -> None:
    seen = make.draw(20, 30)
    shows = make.draw(30, 50, seeds={BEGINS: SEED})
    found = await problems(database, seen, shows, then)
    assert found[:2] == ["", ""]
    assert "not announced" in found[2]


async def test_what_had_to_be_seen_is_not_believed(database) -> None:
    far = 31 + CHAIN_ENTRIES
    seen = make.draw(20, 30)
    between = make.draw(30, far)
    (first, second, third) = await problems(
        database, seen, between, make.draw(between.to, far + 9, seeds={far: SEED})
    )
    assert (first, second) == ("", "")
    assert "not announced" in third


async def test_a_chain_that_began_unshown_is_not_believed(database) -> None:
    found = await problems(
        database, make.draw(20, 30), make.draw(30, 50), make.draw(50, 60, seeds={BEGINS: SEED})
    )
    assert found[:2] == ["", ""]
    assert "not announced" in found[2]


async def test_a_late_chain_of_one_that_catches_up_is_followed_by_one_not_far_ahead(
    database,
) -> None:
    """It came 50 entries late; that its draw ended 100,000 before them says nothing of the log."""
    size, lag = 120_000, 50
    begins = size + chains.AHEAD_ENTRIES
    entry = begins + lag
    note = make.signed(make.draw(10_000, size, announced=chain_of(SEED, begins)))

    def work(connection) -> tuple[chains.Own | None, int | None]:
        number = connection.execute(
            "INSERT INTO draws (key, first, last, digest, note, entry) "
            "VALUES ('k', ?, ?, 'd', ?, ?)",
            (10_000, 20_000, note, entry),
        ).lastrowid
        chains.announced(connection, begins, SEED, number)
        own = chains.own(connection, 20_000, 30_000)
        ahead = 0 if own is None else own.ahead
        return own, chains.wanted(connection, 30_000, entry + 1 + ahead)

    own, following = await database.write(work)
    assert own is not None
    assert own.bound == ()
    late = entry + 1 - size
    assert own.ahead == chains.LATE_FACTOR * late
    assert following == entry + 1 + own.ahead
