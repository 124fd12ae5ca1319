"""Nonces: each handed out at most once, whatever is restarted, and committed to before that."""

import asyncio
from pathlib import Path
from sqlite3 import OperationalError

import pytest
from tests.unit.node.harness import SIGNER, attempt, chat, node
from tests.unit.node.scripted import ScriptedEngine, says

from trunkline.base.errors import CorruptStateError
from trunkline.crypto.encoding import decode_base64
from trunkline.crypto.signer import Signer
from trunkline.node import nonce_store, nonces, store
from trunkline.node.nonces import COUNT, RESERVE, Nonces
from trunkline.receipts import Nonce, open_nonces, verify_nonce
from trunkline.receipts.nonces import nonce_leaf, verify_nonce_leaf
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.store import Connection, Database, DiskError
from trunkline.schema.audit import NONCES_PREFIX


@pytest.fixture
def database(tmp_path: Path) -> Database:
    store.create_store(tmp_path)
    return store.open_store(tmp_path)


class Queue:
    """Stands for the outbox: what was enqueued, in the order of the commits."""

    def __init__(self) -> None:
        self.notes: dict[str, bytes] = {}

    def enqueue(self, _connection: Connection, key: str, note: bytes) -> None:
        self.notes[key] = note


def over(database: Database, queue: Queue | None = None, signer: Signer = SIGNER) -> Nonces:
    return Nonces(
        signer,
        database,
        clock=SystemClock(),
        randomness=SystemRandomness(),
        enqueue=None if queue is None else queue.enqueue,
    )


def place(nonce: Nonce) -> tuple[bytes, int]:
    return nonce.root, nonce.index


async def test_none_is_handed_out_twice_over_restarts_and_sets(database: Database) -> None:
    queue = Queue()
    taken: list[Nonce] = []
    for life in range(4):
        source = over(database, queue)
        await source.open()
        # All at once: more than is reserved ahead, and in all more than one set holds.
        taken += await asyncio.gather(*(source.take() for _ in range(COUNT // 2 + life)))
        await source.close()
    assert len({place(nonce) for nonce in taken}) == len(taken)
    assert len({nonce.value for nonce in taken}) == len(taken)
    committed = {
        open_nonces(note, SIGNER.vkey).root: open_nonces(note, SIGNER.vkey)
        for note in queue.notes.values()
    }
    assert {nonce.root for nonce in taken} < set(committed), "the next set is committed to already"
    assert len({nonce.root for nonce in taken}) >= 2
    for nonce in (taken[0], taken[-1]):
        proof = await over(database).prove(nonce.root, nonce.index)
        assert proof is not None
        assert proof.note == queue.notes[nonce_store.KEY_PREFIX + nonce.root.hex()].decode()
        path = [decode_base64(hash_) for hash_ in proof.path]
        verify_nonce(committed[nonce.root], nonce.index, nonce.value, path)
    await database.aclose()


async def test_taking_one_waits_for_nothing_while_some_are_left(database: Database) -> None:
    source = over(database)
    await source.open()
    for _ in range(RESERVE // 2):
        taking = source.take()
        with pytest.raises(StopIteration) as done:
            taking.send(None)
        assert isinstance(done.value.value, Nonce)
    await source.close()
    await database.aclose()


async def test_what_was_reserved_is_not_used_after_a_restart(database: Database) -> None:
    first = over(database)
    await first.open()
    used = [await first.take() for _ in range(3)]
    # Nothing is given back, as after a crash.
    second = over(database)
    await second.open()
    assert place(await second.take()) == (used[0].root, RESERVE)
    await database.aclose()


async def test_a_full_disk_is_an_error_and_then_it_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = over(database)
    await source.open()
    taken = [await source.take() for _ in range(RESERVE // 2)]
    real = nonce_store.reserve

    def full(*_: object) -> None:
        raise OperationalError("disk full")

    monkeypatch.setattr(nonces.nonce_store, "reserve", full)
    taken += [await source.take() for _ in range(RESERVE // 2)]
    with pytest.raises((OperationalError, DiskError)):
        await source.take()
    monkeypatch.setattr(nonces.nonce_store, "reserve", real)
    taken += [await source.take() for _ in range(RESERVE)]
    assert len({place(nonce) for nonce in taken}) == len(taken)
    await source.close()
    await database.aclose()


async def test_a_caller_that_leaves_takes_nothing_from_the_others(database: Database) -> None:
    source = over(database)
    leaving = asyncio.create_task(source.take())
    staying = asyncio.create_task(source.take())
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).index == 0
    assert leaving.cancelled() or leaving.cancelling()
    await source.close()
    await database.aclose()


async def test_a_set_that_another_process_used_is_refused(database: Database) -> None:
    ours, theirs = over(database), over(database)
    await ours.open()
    await theirs.open()
    with pytest.raises(CorruptStateError):
        for _ in range(3 * RESERVE):
            await ours.take()
    await ours.close()
    await theirs.close()
    await database.aclose()


async def test_a_new_key_commits_anew(database: Database) -> None:
    before = over(database)
    await before.open()
    old = await before.take()
    other = Signer.generate(SIGNER.name, b"\x21" * 32)
    queue = Queue()
    after = over(database, queue, other)
    await after.open()
    new = await after.take()
    assert new.root != old.root
    assert open_nonces(queue.notes[nonce_store.KEY_PREFIX + new.root.hex()], other.vkey)
    assert await after.prove(bytes(32), 0) is None
    assert await after.prove(new.root, COUNT) is None
    await database.aclose()


async def test_a_set_does_not_show_its_secret(database: Database) -> None:
    source = over(database)
    await source.open()
    found = await database.read(nonce_store.unused)
    assert found
    assert all(repr(made.secret) not in repr(made) for made in found)
    await database.aclose()


async def test_the_place_of_a_nonce_is_shown_to_anybody(tmp_path: Path) -> None:
    async with node(tmp_path, ScriptedEngine(says("Paris"))) as running:
        heard = await running.hear(attempt(chat()))
        assert heard.accepted is not None
        assert heard.accepted.nonces is not None
        assert heard.accepted.node_nonce is not None
        root, index = heard.accepted.nonces, heard.accepted.nonce_index
        shown = await running.caller.nonce(root, index)
        for path in (
            f"{'00' * 32}/0",
            f"{root}/{COUNT}",
            f"{root}/-1",
            f"{root}/01",
            f"{root}/{'9' * 30}",
            f"{root.upper()}x/1",
            root,
            "",
        ):
            status, body, _ = await running.get(NONCES_PREFIX + path)
            assert status == 404, path
            assert b"not_found" in body
    commitment = open_nonces(shown.note.encode(), SIGNER.vkey)
    assert commitment.root.hex() == root
    leaf, nonce = decode_base64(shown.leaf), bytes.fromhex(heard.accepted.node_nonce)
    assert leaf == nonce_leaf(nonce)
    path_hashes = [decode_base64(hash_) for hash_ in shown.path]
    verify_nonce_leaf(commitment, index, leaf, path_hashes)
    verify_nonce(commitment, index, nonce, path_hashes)
