"""A node's terms: stated before its answers, once, and kept to after others were stated."""

import asyncio
from pathlib import Path

from tests.support.audit_records import OTHER, VERIFIER
from tests.unit.node.harness import KEY
from tests.unit.node.test_openings import (
    Log,
    ask,
    audited,
    audits,
    code,
    demand,
    draw_note,
    opened,
    place,
    unlogged,
)

from trunkline.node.config import AuditsConfig, AuditVerifier
from trunkline.receipts import open_batch
from trunkline.verdicts import TERMS_TYPE, Terms


def stated(log: Log) -> list[Terms]:
    head = f"{TERMS_TYPE}\n".encode()
    return [Terms.open_note(entry, KEY) for entry in log.entries if entry.startswith(head)]


async def test_they_are_in_the_log_before_the_first_receipt(tmp_path: Path) -> None:
    log = Log()
    async with audited(tmp_path, audits(rate_max=0.5, demands_per_s=2.0), log=log) as running:
        await place(running, await running.hear(ask()))
    terms = stated(log)[0]
    assert terms.verifiers == (str(VERIFIER.vkey), str(OTHER.vkey))
    assert (terms.rate_ppm, terms.keep_s, terms.demands_per_min) == (500_000, 3600, 120)
    assert (terms.chains, terms.counts, terms.whole) == (True, True, True)
    kinds = [entry.split(b"\n", 1)[0] for entry in log.entries]
    assert kinds.index(TERMS_TYPE.encode()) < kinds.index(b"trunkline.batch/v1")


async def test_every_batch_says_what_may_be_audited(tmp_path: Path) -> None:
    """As its terms say that it does: also of a node that nobody audits, and of private answers."""
    for number, config in enumerate((audits(), None)):
        log = Log()
        async with audited(tmp_path / str(number), config, log=log) as running:
            await place(running, await running.hear(ask()))
            await running.hear(ask(2, audit=False, mode="private"))
            async with asyncio.timeout(120):
                while await unlogged(running):
                    pass
        found = [open_batch(one, KEY) for one in log.entries if one.startswith(b"trunkline.batch")]
        assert [(batch.count, batch.audited) for batch in found] == [(1, 1), (1, 0)]


async def test_a_node_that_nobody_audits_says_that(tmp_path: Path) -> None:
    log = Log()
    async with audited(tmp_path, None, log=log) as running:
        await place(running, await running.hear(ask()))
    (terms,) = stated(log)
    assert (terms.verifiers, terms.rate_ppm) == ((), 0)


async def test_they_are_said_again_only_when_they_change(tmp_path: Path) -> None:
    log = Log()
    for number, rate in enumerate((0.5, 0.5, 0.1)):
        async with audited(tmp_path, audits(rate_max=rate), log=log) as running:
            await place(running, await running.hear(ask(number)), number)
    assert [terms.rate_ppm for terms in stated(log)] == [500_000, 100_000]


async def test_a_draw_at_a_higher_rate_is_one_at_the_nodes(tmp_path: Path) -> None:
    async with audited(tmp_path, audits(rate_max=0.0)) as running:
        at = await place(running, await running.hear(ask()))
        (opening,) = await opened(running, at)
    assert opening.reason == "not_drawn"


async def test_what_was_promised_before_is_kept(tmp_path: Path) -> None:
    less = AuditsConfig(verifiers=(AuditVerifier(vkey=str(VERIFIER.vkey)),), rate_max=0.0)
    async with audited(tmp_path, audits()) as running:
        at = await place(running, await running.hear(ask()))
    async with audited(tmp_path, less) as running:
        (opening,) = await opened(running, at, signer=OTHER)
        assert opening.content is not None
        assert await code(running, demand((at,), draw=draw_note(log=OTHER))) == "draw_refused"
