"""fsck: silent about a sound log, and naming the file for each way to damage one."""

import asyncio
import sqlite3

import pytest

from trunkline.base.errors import ConfigError
from trunkline.crypto.signer import sign_note
from trunkline.log.fsck import fsck
from trunkline.tlog.checkpoint import Checkpoint


@pytest.fixture
async def data(network):
    """A log of 600 entries."""
    async with network.log() as (caller, _, _):
        await asyncio.gather(*(caller.add(network.entry(i)) for i in range(600)))
    return network.data


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_sound_log(data):
    report = fsck(data)
    assert report.sound
    assert (report.size, report.leftovers) == (600, 0)
    assert report.files == 7
    assert report.origin == "gamma.example/log"


@pytest.mark.parametrize(
    "name", ["tile/0/000", "tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/001"]
)
def test_a_flipped_bit_is_found(data, name):
    flip(data / name)
    problems = fsck(data).problems
    assert any(name in problem for problem in problems) or "entries" in name
    assert problems


@pytest.mark.parametrize("name", ["tile/0/001", "tile/1/000.p/2", "tile/entries/000", "checkpoint"])
def test_a_missing_file_is_named(data, name):
    (data / name).unlink()
    assert any(problem.startswith(name) for problem in fsck(data).problems)


def test_a_narrow_partial_must_be_a_beginning(data):
    kept = data / "tile/0/002.p/10"
    kept.write_bytes((data / "tile/0/002.p/88").read_bytes()[:320])
    assert fsck(data).sound
    flip(kept)
    assert fsck(data).problems == ["tile/0/002.p/10: not the beginning of its tile"]


def test_files_beyond_the_size_are_counted(data):
    (data / "tile/0/002.p/99").write_bytes(bytes(32 * 99))
    (data / "tile/0/003").write_bytes(bytes(8192))
    report = fsck(data)
    assert report.sound
    assert report.leftovers == 2


def test_strange_files_are_named(data):
    (data / "tile/0/notes.txt").write_bytes(b"")
    assert fsck(data).problems == ["tile/0/notes.txt: not a tile's name"]


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE journal SET first_index = first_index + 1", "misplaces"),
        ("DELETE FROM journal WHERE round = 0", "misplaces entry 5"),
        ("UPDATE places SET entry_index = entry_index + 1", "misplaces"),
        ("DELETE FROM places", "misplaces entry"),
        ("INSERT INTO places VALUES (zeroblob(16), 600)", "601 indexed entries"),
        ("UPDATE log SET size = 599", "size is not that"),
        ("UPDATE log SET checkpoint = x'00'", "its checkpoint"),
    ],
)
def test_a_wrong_database_is_named(data, statement, why):
    with sqlite3.connect(data / "log.db") as connection:
        connection.execute(statement)
    connection.close()
    assert any(why in problem for problem in fsck(data).problems)


@pytest.mark.parametrize("size", [599, 600, 256, 601])
def test_a_published_checkpoint_of_another_tree_is_found(data, network, size):
    text = Checkpoint(origin=network.log_key.name, size=size, root=bytes(32)).text()
    (data / "checkpoint").write_bytes(sign_note(text, network.log_key))
    assert any(problem.startswith("checkpoint: its") for problem in fsck(data).problems)


def test_a_damaged_database_is_a_finding(data):
    (data / "log.db").write_bytes(b"not a database" * 1000)
    for left in ("log.db-wal", "log.db-shm"):
        (data / left).unlink(missing_ok=True)
    assert fsck(data).problems


def test_no_log_is_an_error(tmp_path):
    with pytest.raises(ConfigError):
        fsck(tmp_path)


async def test_it_is_right_beside_a_running_log(network):
    async with network.log() as (caller, _, _):
        for i in range(5):
            await caller.add(network.entry(i))
            report = await asyncio.to_thread(fsck, network.data)
            assert report.problems == []
            assert report.size == i + 1
