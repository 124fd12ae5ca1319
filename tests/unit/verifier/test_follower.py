"""Following a log: to its end, from where it was left, and never past what is not cosigned."""

import pytest
from tests.support.auditing import NODE
from tests.support.fake_verifier import RoutedApp
from tests.support.toy_network import LAMBDA, POLICY, SmallLog, honest

from trunkline.base.errors import BadResponseError, VerificationError
from trunkline.crypto.signer import Signer, sign_note
from trunkline.receipts import BatchBuilder, encode
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.crash import no_crash
from trunkline.runtime.server import serving
from trunkline.tlog.policy import Policy
from trunkline.verifier import follower as following
from trunkline.verifier import store
from trunkline.verifier.core.entry import Reader
from trunkline.verifier.follower import Follower

STRANGER = Signer("zeta.example/node", b"\x77" * 32)


@pytest.fixture
async def log():
    return SmallLog()


@pytest.fixture
async def follower(log, database):
    transport = HttpTransport()
    async with serving(RoutedApp(log.router)) as url:
        yield Follower(
            database,
            LogCaller(transport, url),
            Policy.parse(POLICY),
            Reader({NODE.name: NODE.vkey}, {}, LAMBDA.vkey),
            clock=SystemClock(),
            reach=no_crash,
        )
        await transport.aclose()


def filler(number: int) -> bytes:
    return sign_note(b"trunkline.other/v1\n%d\n" % number, STRANGER)


def batch(number: int, signer: Signer = NODE) -> bytes:
    builder = BatchBuilder(signer.name)
    builder.add(encode(honest(number).receipt))
    return sign_note(builder.seal(previous=None, unix_ms=number).text, signer)


async def followed(database) -> int:
    head = await database.read(store.read_head)
    return 0 if head is None else head.frontier.size


async def test_it_takes_in_the_batches_of_its_nodes_alone(log, follower, database):
    log.append(batch(1))
    log.append(filler(0))
    log.append(batch(2, STRANGER))
    log.append(b"trunkline.batch/v1\nnot a note")

    assert await follower.step() is False

    found = await database.read(lambda c: store.batches_between(c, 0, 100))
    assert [(one.index, one.node, one.unix_ms) for one in found] == [(0, str(NODE.vkey), 1)]
    assert await followed(database) == 4


async def test_it_goes_on_from_where_it_was(log, follower, database):
    for number in range(300):
        log.append(filler(number))
    await follower.step()
    for number in range(300, 600):
        log.append(filler(number))
    log.append(batch(7))

    await follower.step()

    found = await database.read(lambda c: store.batches_between(c, 0, 1000))
    assert [one.index for one in found] == [600]
    assert await followed(database) == 601


async def test_a_log_that_says_nothing_new_costs_one_question(log, follower, database, monkeypatch):
    def read(*_):
        raise AssertionError("there is nothing to look up")

    log.append(batch(1))
    for _ in range(2):
        await follower.step()
        with monkeypatch.context() as patched:
            patched.setattr(database, "read", read)
            assert await follower.step() is False
        log.append(filler(0))
        log.append(batch(2))
    assert await followed(database) == 3


async def test_a_long_log_is_taken_in_steps_that_are_proven_each(
    log, follower, database, monkeypatch
):
    monkeypatch.setattr(following, "STEP_BUNDLES", 1)
    for number in range(600):
        log.append(filler(number))

    assert await follower.step() is True
    assert await followed(database) == 256
    assert await follower.step() is True
    assert await follower.step() is False
    assert await followed(database) == 600


async def test_a_new_verifier_reads_the_end_of_a_long_log(log, follower, database, monkeypatch):
    monkeypatch.setattr(following, "HISTORY_ENTRIES", 100)
    for number in range(600):
        log.append(filler(number))
    log.append(batch(7))

    await follower.step()

    found = await database.read(lambda c: store.batches_between(c, 0, 1000))
    assert [one.index for one in found] == [600]
    assert await followed(database) == 601


async def test_what_is_not_cosigned_is_waited_for(log, follower, database):
    log.append(batch(1))
    log.cosigned = False
    assert await follower.step() is False
    assert await followed(database) == 0

    log.cosigned = True
    await follower.step()
    assert await followed(database) == 1


async def test_entries_that_are_not_the_cosigned_tree_s_are_not_believed(
    log, follower, database, monkeypatch
):
    for number in range(3):
        log.append(filler(number))
    honest_tile = log.tile
    forged = [batch(9), *log.entries[1:]]

    def tile(path: str) -> bytes:
        kept, log.entries = log.entries, forged
        try:
            return honest_tile(path) if "entries" in path else b""
        finally:
            log.entries = kept

    monkeypatch.setattr(log, "tile", tile)

    with pytest.raises(VerificationError):
        await follower.step()
    assert await followed(database) == 0


async def test_a_broken_bundle_is_no_reason_to_believe_anything(
    log, follower, database, monkeypatch
):
    log.append(filler(0))
    monkeypatch.setattr(log, "tile", lambda _path: b"\x00\x09short")

    with pytest.raises(BadResponseError):
        await follower.step()
    assert await followed(database) == 0


async def test_what_has_been_concluded_is_not_looked_through_again(database):
    """This verifier's own draws stay in the store for long, and nothing follows from them."""

    def work(connection) -> list[int]:
        connection.executemany(
            "INSERT INTO statements (entry, kind, key, about, note) VALUES (?, ?, 'k', '', x'')",
            [*((at, "own_draw") for at in range(5_000)), (5_000, "verdict")],
        )
        steps: list[int] = []
        connection.set_progress_handler(lambda: steps.append(1), 100)
        found = [
            one.index
            for kind in ("draw", "commitment", "verdict")
            for one in store.unseen(connection, kind, 100)
        ]
        connection.set_progress_handler(None, 0)
        assert len(steps) < 10
        return found

    assert await database.write(work) == [5_000]
