"""Nothing that comes from outside, and no full or busy disk, ends a verifier's work for good."""

import asyncio
import sqlite3
from pathlib import Path

import msgspec
import pytest
from tests.support import audit_records
from tests.support.toy_network import (
    LAMBDA,
    MU,
    ToyEngine,
    ToyNetwork,
    app_of,
    honest,
    revealed,
    write_verifier,
)

from trunkline.crypto.signer import sign_note
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.logger import get_logger
from trunkline.runtime.server import serving
from trunkline.verdicts import Draw, Verdict
from trunkline.verifier import app as verifier_app
from trunkline.verifier import auditing
from trunkline.verifier.app import VerifierApp
from trunkline.verifier.config import read, render
from trunkline.verifier.judging import Judge


async def healthy(transport: HttpTransport, url: str) -> bool:
    response = await transport.request("GET", url + "/healthz")
    async with response:
        await response.read(1 << 10)
        return response.status == 200


@pytest.mark.parametrize("batches", [1, 2])
async def test_one_receipt_at_two_places_has_one_verdict(network, transport, batches):
    """A node may sign it so."""
    if batches == 1:
        network.node.answer(honest(1), honest(1))
    else:
        network.node.answer(honest(1))
        network.node.answer(honest(1))
    network.node.answer(honest(2))
    url = await network.verifier(LAMBDA)
    caller = VerifierCaller(transport, url)

    found = await revealed(caller, 2)

    while (await caller.info()).waiting:
        pass
    assert {one.receipt for one in found} == {honest(1).leaf.hex(), honest(2).leaf.hex()}
    assert (await caller.info()).verdicts == 2
    assert await healthy(transport, url)


async def test_an_audit_that_fails_in_us_is_tried_again_and_others_are_made(
    network, transport, monkeypatch
):
    monkeypatch.setattr(auditing, "FAILED_MS", 1)
    settle, failed = Judge.settle, list[int]()

    async def fails_twice(self: Judge, what: object, *rest: object) -> object:
        if len(failed) < 2:
            failed.append(1)
            raise sqlite3.IntegrityError("not what anybody expected")
        return await settle(self, what, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Judge, "settle", fails_twice)
    network.node.answer(honest(1), honest(2))
    url = await network.verifier(LAMBDA)

    found = await revealed(VerifierCaller(transport, url), 2)

    assert len({one.receipt for one in found}) == 2
    assert await healthy(transport, url)


def without(path: Path, **changed: object) -> VerifierApp:
    """The verifier once its configuration has changed."""
    path.write_text(render(msgspec.structs.replace(read(path), **changed)))
    return app_of(path)


async def test_a_node_that_is_configured_no_longer_was_not_reached(
    network: ToyNetwork, transport: HttpTransport, tmp_path: Path
) -> None:
    network.node.answer(honest(1))
    path = write_verifier(
        tmp_path / "v", LAMBDA, log_url=network.log_url, node_url=network.node_url
    )
    app = VerifierApp(read(path), base=path, engines=[lambda: ToyEngine(down=True)])
    async with serving(app, shutdown_grace_s=0.05):
        opened = "SELECT count(*) FROM jobs WHERE opening IS NOT NULL"
        while not await app._database.read(lambda c: c.execute(opened).fetchone()[0]):
            pass
    async with serving(without(path, nodes=()), shutdown_grace_s=0.05) as url:
        (found,) = await revealed(VerifierCaller(transport, url), 1)
        assert await healthy(transport, url)
    verdict = Verdict.open_note(found.note.encode(), LAMBDA.vkey)
    assert verdict.result == "inconclusive"


async def test_what_a_verifier_said_that_is_configured_no_longer_is_passed_over(
    network: ToyNetwork, transport: HttpTransport, tmp_path: Path
) -> None:
    network.node.answer(honest(1))
    away = "http://127.0.0.1:1"
    path = write_verifier(
        tmp_path / "v", LAMBDA, log_url=network.log_url, node_url=network.node_url,
        peers=[(MU, away)], rate_ppm=0, poll_s=3600.0,
    )  # fmt: skip
    app = app_of(path)
    drawn = Draw(
        checkpoint=network.log.checkpoint(1).decode(), from_=0, to=1, key=str(MU.vkey),
        operator="mu.example", rate_ppm=1_000_000, unix_ms=1,
    )  # fmt: skip
    wrong = audit_records.verdict(MU, receipt=honest(1).leaf.hex(), result="fail")
    async with serving(app, shutdown_grace_s=0.05) as url:
        while not (await VerifierCaller(transport, url).info()).followed:
            pass
        for record in (drawn, wrong):
            network.log.append(sign_note(record.text(), MU))
        assert app._parts is not None
        while await app._parts.follower.step():
            pass
    async with serving(without(path, verifiers=(), rate_ppm=1_000_000, poll_s=0.05)) as url:
        caller = VerifierCaller(transport, url)
        network.node.answer(honest(2))
        assert await revealed(caller, 1)
        assert await healthy(transport, url)


class Watched:
    """A logger that tells of a pause, and says nothing else."""

    def __init__(self, paused: asyncio.Event) -> None:
        self.paused = paused

    def error(self, event: str, **_: object) -> None:
        if event == "background.paused":
            self.paused.set()

    def __getattr__(self, name: str) -> object:
        return getattr(get_logger("verifier"), name)


async def test_a_store_that_another_process_holds_is_waited_for(
    network: ToyNetwork, transport: HttpTransport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier_app, "DISK_PAUSE_S", 0.01)
    path = write_verifier(
        tmp_path / "v", LAMBDA, log_url=network.log_url, node_url=network.node_url
    )
    paused = asyncio.Event()
    app = app_of(path)
    app._logger = Watched(paused)  # type: ignore[assignment]
    async with serving(app, shutdown_grace_s=0.05) as url:
        caller = VerifierCaller(transport, url)
        while not (await caller.info()).followed:
            pass
        other = sqlite3.connect(path.parent / "verifier.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        await paused.wait()
        other.execute("ROLLBACK")
        other.close()
        network.node.answer(honest(1))

        assert await revealed(caller, 1)
        assert await healthy(transport, url)


async def test_a_store_that_is_gone_ends_its_work_and_it_says_so(
    network: ToyNetwork, transport: HttpTransport, tmp_path: Path
) -> None:
    """Only a process that opens it anew can tell what is there."""
    path = write_verifier(
        tmp_path / "v", LAMBDA, log_url=network.log_url, node_url=network.node_url
    )
    async with serving(app_of(path), shutdown_grace_s=0.05) as url:
        caller = VerifierCaller(transport, url)
        while not (await caller.info()).followed:
            pass
        file = path.parent / "verifier.db"
        file.rename(file.with_suffix(".away"))
        network.node.answer(honest(1))
        while await healthy(transport, url):
            pass
