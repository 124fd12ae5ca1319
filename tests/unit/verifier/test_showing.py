"""What is public of a verifier's verdicts: what the log has, numbered as it came to have it."""

from pathlib import Path

import pytest
from tests.support.audit_records import verdict
from tests.support.toy_network import LAMBDA

from trunkline.crypto.signer import sign_note
from trunkline.runtime.store import Connection, Database
from trunkline.verdicts import Check, Result
from trunkline.verifier import ledger, plant_store, showing, store
from trunkline.verifier.ledger import Stored

ONE, TWO = "ab" * 32, "cd" * 32


class Queued:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.queued = list[tuple[str, bool]]()

    def verdict(self, connection: Connection, leaf: str, note: bytes, *, picked: bool) -> None:
        self.queued.append((leaf, picked))


def judge(connection: Connection, leaf: str, result: Result = "pass", *, picked: int = 0) -> None:
    checks = (Check(detail="as it is", name="tokens", result=result),)
    made = verdict(LAMBDA, receipt=leaf, result=result, checks=checks)
    note = sign_note(made.text(), LAMBDA)
    ledger.insert(
        connection,
        Stored(
            leaf=leaf, picked=bool(picked), root=leaf.encode(), position=0, subject="s",
            result=result, standing="open", note=note, bundle=b"{}", judged_ms=1,
        ),
        b"",
    )  # fmt: skip


def give(connection: Connection, leaf: str, *, picked: bool = False) -> None:
    ledger.reveal(connection, Queued(), leaf, picked=picked)  # type: ignore[arg-type]


def shown(connection: Connection) -> list[tuple[int, str, int | None]]:
    page = showing.page(connection, 0, LAMBDA)
    assert page.newest == len(page.verdicts)
    return [(one.number, one.receipt, one.entry) for one in page.verdicts]


async def test_nobody_is_shown_what_the_log_does_not_have(database: Database) -> None:
    def run(connection: Connection) -> None:
        for leaf in (ONE, TWO):
            judge(connection, leaf)
            give(connection, leaf)
        assert shown(connection) == []
        assert showing.public(connection, ONE) == []
        assert showing.bundle(connection, ONE) is None
        assert showing.results(connection) == {}
        assert ledger.at_place(connection, ONE.encode(), 0, picked=True) is not None
        _, told = ledger.at_place(connection, ONE.encode(), 0, picked=True) or (b"", True)
        assert not told

        showing.logged(connection, TWO, 7, picked=False)
        assert shown(connection) == [(1, TWO, 7)]
        showing.logged(connection, ONE, 5, picked=False)
        assert shown(connection) == [(1, TWO, 7), (2, ONE, 5)]
        assert [one.entry for one in showing.public(connection, ONE)] == [5]
        assert showing.bundle(connection, ONE) == b"{}"
        assert showing.results(connection) == {("pass",): 2}
        _, told = ledger.at_place(connection, ONE.encode(), 0, picked=True) or (b"", False)
        assert told

    await database.write(run)


async def test_what_is_given_twice_is_queued_once(database: Database) -> None:
    def run(connection: Connection) -> None:
        log = Queued()
        judge(connection, ONE)
        for _ in range(2):
            ledger.reveal(connection, log, ONE, picked=False)  # type: ignore[arg-type]
        assert log.queued == [(ONE, False)]

    await database.write(run)


async def test_who_asked_is_told_at_once(database: Database) -> None:
    def run(connection: Connection) -> None:
        judge(connection, ONE, picked=1)
        give(connection, ONE, picked=True)
        _, told = ledger.at_place(connection, ONE.encode(), 0, picked=True) or (b"", False)
        assert told
        assert shown(connection) == []

    await database.write(run)


def withdraw(connection: Connection) -> None:
    plant_store.settle(connection, ONE, planter="p", node="n", withdrawn=True, now_ms=1)
    judge(connection, ONE, "not_applicable", picked=1)
    give(connection, ONE, picked=True)


async def test_a_verdict_and_what_withdraws_it_are_shown_at_once(database: Database) -> None:
    def run(connection: Connection) -> None:
        judge(connection, ONE, "fail")
        give(connection, ONE)
        withdraw(connection)
        showing.logged(connection, ONE, 9, picked=True)
        assert shown(connection) == []
        # Others do not wait for it.
        judge(connection, TWO)
        give(connection, TWO)
        showing.logged(connection, TWO, 10, picked=False)
        showing.logged(connection, ONE, 11, picked=False)
        assert shown(connection) == [(1, TWO, 10), (2, ONE, 11), (3, ONE, 9)]

    await database.write(run)


async def test_one_that_was_shown_before_is_followed_by_it(database: Database) -> None:
    def run(connection: Connection) -> None:
        judge(connection, ONE, "fail")
        give(connection, ONE)
        showing.logged(connection, ONE, 3, picked=False)
        withdraw(connection)
        assert shown(connection) == [(1, ONE, 3)]
        showing.logged(connection, ONE, 4, picked=True)
        assert shown(connection) == [(1, ONE, 3), (2, ONE, 4)]

    await database.write(run)


async def test_no_page_ends_between_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "VERDICTS_MAX", 2)

    def run(connection: Connection) -> None:
        judge(connection, TWO)
        give(connection, TWO)
        showing.logged(connection, TWO, 1, picked=False)
        judge(connection, ONE, "fail")
        give(connection, ONE)
        withdraw(connection)
        for entry, picked in ((2, False), (3, True)):
            showing.logged(connection, ONE, entry, picked=picked)
        pages = [showing.page(connection, after, LAMBDA).verdicts for after in (0, 1)]
        assert [[one.number for one in page] for page in pages] == [[1], [2, 3]]

    await database.write(run)


async def test_what_a_withdrawal_takes_the_place_of_is_told_with_a_later_one(
    database: Database,
) -> None:
    def run(connection: Connection) -> None:
        judge(connection, ONE, "fail")
        give(connection, ONE)
        showing.logged(connection, ONE, 3, picked=False)
        plant_store.show(connection, TWO, newest=showing.newest(connection))
        assert plant_store.shown_with(connection, 2) == TWO
        withdraw(connection)
        showing.logged(connection, ONE, 4, picked=True)
        assert plant_store.shown_with(connection, 2) is None
        assert plant_store.shown_with(connection, 3) == TWO

    await database.write(run)


async def test_what_an_older_process_has_logged_is_shown(database: Database) -> None:
    def run(connection: Connection) -> None:
        for leaf in (ONE, TWO):
            judge(connection, leaf)
            give(connection, leaf)
        connection.execute("UPDATE verdicts SET entry = 4 WHERE leaf = ?", (TWO,))
        for _ in range(2):
            showing.catch_up(connection)
            assert shown(connection) == [(1, TWO, 4)]

    await database.write(run)


async def test_what_others_say_is_heeded_once_the_own_word_on_it_is_public(
    database: Database,
) -> None:
    def run(connection: Connection) -> None:
        connection.execute(
            "INSERT INTO statements (entry, kind, key, about, note) "
            "VALUES (9, 'verdict', 'k', ?, x'')",
            (ONE,),
        )
        judge(connection, ONE)
        assert store.unheeded(connection, 5, since_ms=0) == []
        give(connection, ONE)
        assert store.unheeded(connection, 5, since_ms=0) == []
        # One that the log never takes is not waited for until the end of time.
        assert len(store.unheeded(connection, 5, since_ms=1)) == 1
        showing.logged(connection, ONE, 10, picked=False)
        assert len(store.unheeded(connection, 5, since_ms=0)) == 1

    await database.write(run)


async def test_what_an_older_version_has_shown_stays_shown(tmp_path: Path) -> None:
    """It numbered verdicts as it gave them to the log."""
    before = store.MIGRATIONS[: store.MIGRATIONS.index(showing.SCHEMA)]
    path = tmp_path / store.DATABASE_NAME
    old = Database.open(path, must_exist=False, migrations=before)
    columns = "leaf, picked, root, position, subject, result, standing, digest, note, bundle"

    def fill(connection: Connection) -> None:
        for leaf, number in ((ONE, 1), (TWO, None)):
            note = sign_note(verdict(LAMBDA, receipt=leaf).text(), LAMBDA)
            connection.execute(
                f"INSERT INTO verdicts ({columns}, judged_ms, number) "  # noqa: S608 - above
                "VALUES (?, 0, ?, 0, '', 'pass', 'open', ?, ?, x'', 1, ?)",
                (leaf, leaf.encode(), leaf, note, number),
            )

    await old.write(fill)
    await old.aclose()
    database = store.open_store(tmp_path)

    def run(connection: Connection) -> None:
        assert shown(connection) == [(1, ONE, None)]
        showing.logged(connection, ONE, 8, picked=False)
        assert shown(connection) == [(1, ONE, 8)]
        give(connection, TWO)
        showing.logged(connection, TWO, 9, picked=False)
        assert shown(connection) == [(1, ONE, 8), (2, TWO, 9)]

    await database.write(run)
    await database.aclose()
