"""Batches and chains: under concurrency, after a crash, and when the disk refuses."""

import asyncio
from pathlib import Path
from sqlite3 import OperationalError

import msgspec
import pytest
from tests.unit.node.harness import KEY, SIGNER, attempt, chat

from trunkline.base.errors import ConfigError, CorruptStateError, MalformedError, OverloadedError
from trunkline.crypto.signer import Signer
from trunkline.node import signing, store
from trunkline.node.core.content import Kept
from trunkline.node.core.statement import Identity, Outcome, Sent, statement
from trunkline.node.signing import ReceiptSigner
from trunkline.receipts import (
    Receipt,
    ReceiptModel,
    ReceiptPolicy,
    ReceiptSampling,
    ReceiptTimes,
    ReceiptUsage,
    VerifiedReceipt,
    verify_signed,
)
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.store import Connection, Database
from trunkline.schema.attempt import SignedReceipt

IDENTITY = Identity(node=SIGNER.name, operator="alpha.example", key=str(KEY))
DIGEST = "sha256:" + "0" * 64


def receipt(number: int, **more: object) -> Receipt:
    made = statement(
        IDENTITY,
        attempt(chat(), number=number),
        Outcome(
            model=ReceiptModel(provider="embedded", requested="m", served="m"),
            sampling=ReceiptSampling(caller_nonce="ab" * 32, source="none"),
            usage=ReceiptUsage(completion=1, counted=True, prompt=1),
        ),
        Sent(
            request=DIGEST,
            chunks=1,
            digest=DIGEST,
            times=ReceiptTimes(arrived_ms=1, ended_ms=2, first_token_ms=1),
        ),
        salt=bytes(32),
    )
    return msgspec.structs.replace(made, **more)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    store.create_store(tmp_path)
    return store.open_store(tmp_path)


def signer_over(database: Database, key: Signer = SIGNER) -> ReceiptSigner:
    return ReceiptSigner(key, database, clock=SystemClock(), enqueue=None)


def opened(data: bytes) -> VerifiedReceipt:
    return verify_signed(msgspec.json.decode(data, type=SignedReceipt), KEY)


def check_chain(all_of_them: list[VerifiedReceipt]) -> None:
    """Every receipt names the one before it, and every batch the root before it."""
    by_previous = {each.receipt.previous: each for each in all_of_them}
    assert len(by_previous) == len(all_of_them)
    previous, roots = "", [None]
    for _ in all_of_them:
        found = by_previous[previous]
        previous = found.leaf.hex()
        if found.batch.root != roots[-1]:
            assert found.batch.previous == roots[-1]
            roots.append(found.batch.root)
    assert previous not in by_previous


async def test_a_lone_receipt_is_a_batch_of_one(database: Database) -> None:
    signer = signer_over(database)
    found = opened(await signer.sign(receipt(1)))
    await database.aclose()

    assert (found.batch.count, found.batch.previous, found.receipt.previous) == (1, None, "")


async def test_concurrent_receipts_share_batches_and_make_one_chain(database: Database) -> None:
    signer = signer_over(database)
    data = await asyncio.gather(*(signer.sign(receipt(number)) for number in range(200)))
    await database.aclose()

    found = [opened(each) for each in data]
    check_chain(found)
    assert max(each.batch.count for each in found) <= 64
    assert signer.batches < 200


async def test_receipts_that_may_be_audited_come_first_and_are_counted(
    database: Database,
) -> None:
    """Whatever order they were asked for in: the place of each, what opens it and the chain are
    those of the batch."""
    kept: list[tuple[int, bytes]] = []
    signer = ReceiptSigner(
        SIGNER,
        database,
        clock=SystemClock(),
        enqueue=None,
        keep=lambda _connection, _batch, contents, _ms: kept.extend(contents),
    )
    audited = ReceiptPolicy(audit=True, mode="batched")
    private = ReceiptPolicy(mode="private")
    asked = [receipt(n, policy=audited if n % 3 == 1 else private) for n in range(8)]
    asked[4] = msgspec.structs.replace(asked[4], salt="not hex")
    data = await asyncio.gather(
        *(
            signer.sign(one, Kept(b"%d" % n) if one.policy.audit else None)
            for n, one in enumerate(asked)
        ),
        return_exceptions=True,
    )
    await database.aclose()

    signed = [
        msgspec.json.decode(each, type=SignedReceipt) for each in data if isinstance(each, bytes)
    ]
    found = [verify_signed(one, KEY) for one in signed]
    check_chain(found)
    (batch,) = {each.batch.root: each.batch for each in found}.values()
    assert (batch.count, batch.audited) == (7, 2)
    places = {each.receipt.attempt: one.index for each, one in zip(found, signed, strict=True)}
    assert list(places) == [f"att_{n}" for n in (0, 1, 2, 3, 5, 6, 7)]
    assert list(places.values()) == [2, 0, 3, 4, 5, 6, 1]
    assert kept == [(0, b"1"), (1, b"7")]


async def test_the_chain_goes_on_after_a_restart(tmp_path: Path, database: Database) -> None:
    first = [opened(await signer_over(database).sign(receipt(1)))]
    await database.aclose()
    again = store.open_store(tmp_path)
    second = [opened(await signer_over(again).sign(receipt(2)))]
    await again.aclose()

    check_chain(first + second)


async def test_what_was_signed_can_be_found(database: Database) -> None:
    signer = signer_over(database)
    data = await signer.sign(receipt(1))
    found = await database.read(lambda c: store.find_receipt(c, "att_1"))
    missing = await database.read(lambda c: store.find_receipt(c, "att_2"))
    await database.aclose()

    assert found == store.Found(signed=data, log_index=None)
    assert missing is None


async def test_a_caller_who_left_gets_no_receipt(database: Database) -> None:
    signer = signer_over(database)
    gone = asyncio.create_task(signer.sign(receipt(1)))
    stays = asyncio.create_task(signer.sign(receipt(2)))
    # Both have asked and nothing is chosen yet.
    await asyncio.sleep(0)
    gone.cancel()
    found = opened(await stays)
    stored = await database.read(lambda c: store.find_receipt(c, "att_1"))
    await database.aclose()

    assert gone.cancelled() or gone.cancelling()
    assert stored is None
    assert found.receipt.previous == ""


async def test_a_receipt_that_can_not_be_one_harms_no_other(database: Database) -> None:
    signer = signer_over(database)
    outcomes = await asyncio.gather(
        signer.sign(receipt(1)),
        signer.sign(receipt(2, salt="not hex")),
        signer.sign(receipt(3)),
        return_exceptions=True,
    )
    await database.aclose()

    assert isinstance(outcomes[1], MalformedError)
    check_chain([opened(each) for each in outcomes if isinstance(each, bytes)])


async def test_a_failed_write_fails_its_receipts_and_leaves_the_chain(database: Database) -> None:
    """Fault twin one: the disk refused, and nothing was stored."""
    broken = True

    def enqueue(connection: Connection, key: str, note: bytes) -> None:
        if broken:
            raise OperationalError("disk I/O error")

    signer = ReceiptSigner(SIGNER, database, clock=SystemClock(), enqueue=enqueue)
    first = await asyncio.gather(signer.sign(receipt(1)), return_exceptions=True)
    broken = False
    second = opened(await signer.sign(receipt(2)))
    await database.aclose()

    assert isinstance(first[0], Exception)
    assert second.receipt.previous == ""
    assert second.batch.previous is None


async def test_a_write_that_failed_but_was_stored_is_built_upon(database: Database) -> None:
    """Fault twin two: the store has the batch, though its callers were told of a failure."""
    real_write = database.write

    async def write(work: object) -> object:
        await real_write(work)  # type: ignore[arg-type]
        raise OSError("the answer was lost")

    signer = signer_over(database)
    database.write = write  # type: ignore[method-assign,assignment]
    lost = await asyncio.gather(signer.sign(receipt(1)), return_exceptions=True)
    database.write = real_write  # type: ignore[method-assign]
    found = await database.read(lambda c: store.find_receipt(c, "att_1"))
    second = opened(await signer.sign(receipt(2)))
    await database.aclose()

    assert isinstance(lost[0], OSError)
    assert found is not None
    check_chain([opened(found.signed), second])


async def test_a_second_process_with_the_same_chain_is_noticed(database: Database) -> None:
    one, other = signer_over(database), signer_over(database)
    await one.sign(receipt(1))
    await other.sign(receipt(2))
    with pytest.raises(CorruptStateError):
        await one.sign(receipt(3))
    await database.aclose()


async def test_too_many_waiting_receipts_are_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "WAITING_MAX", 1)
    signer = signer_over(database)
    outcomes = await asyncio.gather(
        signer.sign(receipt(1)), signer.sign(receipt(2)), return_exceptions=True
    )
    await database.aclose()

    assert isinstance(outcomes[0], bytes)
    assert isinstance(outcomes[1], OverloadedError)


async def test_closing_finishes_what_waits(database: Database) -> None:
    signer = signer_over(database)
    waiting = asyncio.create_task(signer.sign(receipt(1)))
    await asyncio.sleep(0)
    await signer.close()
    await database.aclose()

    assert opened(await waiting).receipt.attempt == "att_1"


async def test_batches_that_no_log_has_are_listed(database: Database) -> None:
    signer = signer_over(database)
    first = opened(await signer.sign(receipt(1)))
    await signer.sign(receipt(2))
    await database.write(lambda c: store.note_logged(c, first.batch.root.hex(), 5))
    left = await database.read(lambda c: store.not_logged(c, 0, 10))
    found = await database.read(lambda c: store.find_receipt(c, "att_1"))
    await database.aclose()

    assert [number for number, _, _ in left] == [2]
    assert found is not None
    assert found.log_index == 5


def test_a_store_is_made_once_and_never_unasked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such store"):
        store.open_store(tmp_path)
    store.create_store(tmp_path)
    with pytest.raises(ConfigError, match="already"):
        store.create_store(tmp_path)
