"""Where each entry is: what the index knows against a plain dictionary, over crashes and rounds."""

import sqlite3
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.base.errors import ConflictError, CorruptStateError
from trunkline.crypto.signer import Signer
from trunkline.log.core.recent import KEY_BYTES, PARTS, Recent, split_keys
from trunkline.log.store import DATABASE_NAME, MIGRATIONS, LogStore, create_log, find, read_recent

LOG = Signer.generate("gamma.example/log", b"\x01" * 32)


def leaf(number: int) -> bytes:
    return sha256(b"%d" % number).digest()


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 40)), min_size=1, max_size=30),
    st.integers(0, 255),
)
def test_every_entry_is_in_one_place_at_any_time(runs, offset):
    """``runs``: so many entries a round, for so many rounds. The index on disk is a dictionary."""
    rows, places, recent, size = [], {}, Recent(), 0
    for count, rounds in runs:
        for _ in range(rounds):
            keys = [leaf(offset + size + number)[:KEY_BYTES] for number in range(count)]
            due = dict(recent.due())
            assert not due.keys() & places.keys()
            places |= due
            rows = [row for row in rows if row[0] >= recent.journaled_from]
            rows.append((recent.round, size, b"".join(keys)))
            recent.advance(size, keys)
            size += count
        assert len(rows) <= PARTS
        # A crash here: what is read back is what memory held.
        again = Recent(rows)
        assert (again._parts, again.round) == (recent._parts, recent.round)
        recent = again
        assert len(places) + len(recent) == size
        for number in range(size):
            key = leaf(offset + number)[:KEY_BYTES]
            assert (places | {key: recent.get(key)} if key not in places else places)[key] == number


def test_a_rows_keys_are_split():
    assert split_keys(b"a" * 16 + b"b" * 16) == [b"a" * 16, b"b" * 16]
    assert split_keys(b"") == []


async def swap_rounds(store, checkpoint, first, rounds):
    for number in range(first, first + rounds):
        after = b"checkpoint %d" % (number + 1)
        leaves = [leaf(3 * number + n) for n in range(3)]
        await store.swap(checkpoint, 3 * (number + 1), after, 3 * number, leaves)
        checkpoint = after


async def test_the_stored_index_knows_all_and_forgets_nothing(tmp_path):
    create_log(tmp_path, LOG)
    done = 0
    # Opened again each time, so that what is found is what the disk holds.
    for rounds in (1, 100, PARTS, 100):
        store = LogStore.open(tmp_path)
        current = await store.load()
        assert current.size == 3 * done
        await swap_rounds(store, current.checkpoint, done, rounds)
        done += rounds
        every = [leaf(number) for number in range(3 * done)]
        assert await store.find(every) == {one: number for number, one in enumerate(every)}
        assert await store.find([leaf(-1), leaf(3 * done)]) == {}
        with pytest.raises(ConflictError):
            await store.swap(b"another", 3 * done + 1, b"x", 3 * done, [leaf(3 * done)])
        await store.aclose()
    with sqlite3.connect(tmp_path / DATABASE_NAME) as connection:
        journaled = connection.execute("SELECT count(*) FROM journal").fetchone()
        (placed,) = connection.execute("SELECT count(*) FROM places").fetchone()
        assert journaled == (PARTS,)
        assert placed + len(read_recent(connection)) == 3 * done
    connection.close()


async def test_an_entry_is_not_sequenced_twice(tmp_path):
    create_log(tmp_path, LOG)
    store = LogStore.open(tmp_path)
    checkpoint = (await store.load()).checkpoint
    twin = leaf(0)
    await store.swap(checkpoint, 1, b"1", 0, [twin])
    for number in range(1, PARTS + 1):
        await store.swap(b"%d" % number, number + 1, b"%d" % (number + 1), number, [leaf(number)])
    await store.swap(b"%d" % (PARTS + 1), PARTS + 2, b"again", PARTS + 1, [twin])
    with pytest.raises(CorruptStateError, match="sequenced twice"):
        await swap_until_due(store, b"again", PARTS + 2)
    await store.aclose()


async def swap_until_due(store, checkpoint, size):
    for number in range(size, size + PARTS):
        after = b"%d" % (number + 1)
        await store.swap(checkpoint, number + 1, after, number, [leaf(number)])
        checkpoint = after


async def test_a_store_of_the_first_version_is_taken_over(tmp_path):
    path = tmp_path / DATABASE_NAME
    connection = sqlite3.connect(path)
    connection.executescript(MIGRATIONS[0] + "PRAGMA user_version=1;")
    rows = [(leaf(number), number) for number in range(1000)]
    connection.executemany("INSERT INTO entries VALUES (?, ?)", rows)
    connection.execute("INSERT INTO log VALUES (1, ?, 1000, x'00')", (str(LOG.vkey),))
    connection.commit()
    connection.close()
    store = LogStore.open(tmp_path)
    assert (await store.load()).size == 1000
    assert await store.find([one for one, _ in rows]) == dict(rows)
    await store.aclose()
    connection = sqlite3.connect(path)
    assert find(connection, read_recent(connection), [leaf(7)]) == {leaf(7): 7}
    connection.close()
