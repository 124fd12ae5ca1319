"""What a verifier serves: pages, long polls, deadlines and bounds."""

import asyncio
import json
import time

import pytest
from tests.support.auditing import ToyScorer
from tests.support.toy_network import LAMBDA, MU, honest, revealed, toy_network, write_verifier

from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.polls import POLLS_PER_ADDRESS_MAX
from trunkline.runtime.server import serving
from trunkline.schema.audit import AskedAudit, VerdictPage
from trunkline.verifier.app import VerifierApp
from trunkline.verifier.auditing import KEPT_BACK
from trunkline.verifier.config import read


class SlowEngine(ToyScorer):
    """Scores when it is let."""

    pid = None

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()

    async def score(self, job):
        await self.let.wait()
        return await super().score(job)


@pytest.fixture
async def slow(tmp_path):
    """A network, a verifier whose engine waits, and a caller."""
    engine, transport = SlowEngine(), HttpTransport()
    async with toy_network(tmp_path) as network:
        path = write_verifier(
            tmp_path / "verifier", LAMBDA, log_url=network.log_url, node_url=network.node_url,
            rate_ppm=0, asked_max=1,
        )  # fmt: skip
        app = VerifierApp(read(path), base=path, engines=[lambda: engine])
        async with serving(app, shutdown_grace_s=0.05) as url:
            yield network, engine, VerifierCaller(transport, url), transport, url
    await transport.aclose()


def asked(network, number: int, deadline_ms: int = 60_000) -> AskedAudit:
    made = honest(number)
    (signed,) = network.node.answer(made)
    return AskedAudit(signed=signed, content=made.content, deadline_ms=deadline_ms)


async def test_a_deadline_is_met_and_the_work_goes_on(slow):
    network, engine, caller, *_ = slow

    early = await caller.audit(asked(network, 1, deadline_ms=50), 90)
    assert (early.result, early.reason, early.note) == ("inconclusive", "deadline", "")

    engine.let.set()
    (one,) = await revealed(caller, 1)
    assert one.receipt == honest(1).leaf.hex()


async def test_more_than_may_wait_are_told_at_once(slow):
    network, engine, caller, *_ = slow
    first = await caller.audit(asked(network, 1, deadline_ms=50), 90)

    assert (first.reason, (await caller.audit(asked(network, 2), 90)).reason) == (
        "deadline", "busy",
    )  # fmt: skip
    engine.let.set()
    assert len(await revealed(caller, 1)) == 1


async def test_polls_beyond_what_one_caller_may_hold_are_answered_at_once(slow):
    caller = slow[2]
    polls = {asyncio.create_task(caller.verdicts(0, 30)) for _ in range(POLLS_PER_ADDRESS_MAX + 3)}
    answered: set[asyncio.Task[VerdictPage]] = set()
    while len(answered) < 3:
        done, _ = await asyncio.wait(polls - answered, return_when=asyncio.FIRST_COMPLETED)
        answered |= done
    assert [task.result().verdicts for task in answered] == [(), (), ()]

    for task in polls:
        task.cancel()
    await asyncio.gather(*polls, return_exceptions=True)

    async def was_held() -> bool:
        began_s = time.monotonic()
        await caller.verdicts(0, 0.05)
        return time.monotonic() - began_s >= 0.05

    while not await was_held():  # those who left give their places back
        continue


async def test_a_receipt_of_somebody_else_s_node_is_not_judged(slow):
    network, _, caller, *_ = slow
    one = asked(network, 1)
    other = json.loads(one.signed.receipt) | {"key": str(LAMBDA.vkey)}
    signed = type(one.signed)(
        receipt=json.dumps(other), batch=one.signed.batch, index=0, path=one.signed.path
    )

    answer = await caller.audit(AskedAudit(signed=signed, content=one.content, deadline_ms=99), 90)

    assert (answer.result, answer.note) == ("inconclusive", "")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/verdicts?after=-1", 400),
        ("/v1/verdicts?wait_s=31", 400),
        ("/v1/verdicts?after=x", 400),
        ("/v1/audits/" + "0" * 64, 404),
        ("/v1/verdicts/" + "0" * 64, 404),
        ("/v1/verdicts/" + "0" * 7, 404),
        ("/v1/verdicts/" + "g" * 8, 404),
        ("/v1/calibrations/" + "0" * 64, 404),
        ("/v1/verdicts?after=5", 200),
        ("/v1/alerts", 200),
        ("/v1/info", 200),
        ("/healthz", 200),
        ("/metrics", 200),
    ],
)
async def test_what_is_asked_for_wrongly_is_refused(slow, path, status):
    _, _, _, transport, url = slow
    async with await transport.request("GET", url + path) as response:
        assert response.status == status


async def test_a_body_that_is_no_audit_is_refused(slow):
    _, _, _, transport, url = slow
    async with await transport.request("POST", f"{url}/v1/audits", body=b"{}") as response:
        assert response.status == 400


async def test_what_is_kept_back_is_told_to_nobody(tmp_path):
    transport = HttpTransport()
    async with toy_network(tmp_path) as network:
        (signed,) = network.node.answer(honest(1))

        url = await network.verifier(LAMBDA, [(MU, "http://127.0.0.1:1")], reveal_after_s=3600)
        caller = VerifierCaller(transport, url)
        while not network.log.statements("trunkline.verdict-commitment/v1"):
            await caller.verdicts(0, 0.05)

        assert (await caller.info()).verdicts == 0
        for path in ("verdicts", "audits"):
            leaf = honest(1).leaf.hex()
            async with await transport.request("GET", f"{url}/v1/{path}/{leaf}") as response:
                assert response.status == 404
        asked = AskedAudit(signed=signed, content=honest(1).content, deadline_ms=60_000)
        assert await caller.audit(asked, 90) == KEPT_BACK
    await transport.aclose()
