"""Own questions: other verifiers are tried with work whose outcome is known."""

import json

import pytest
from tests.support.auditing import NODE
from tests.support.fake_verifier import FakeVerifier, judged
from tests.support.toy_network import LAMBDA, MU, honest

from trunkline.remote.http1 import HttpTransport
from trunkline.remote.node import NodeCaller
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.logger import get_logger
from trunkline.schema.audit import AskedAudit, AskedVerdict
from trunkline.verifier import ledger, planting, store
from trunkline.verifier.asking import tampered
from trunkline.verifier.demanding import KnownNode
from trunkline.verifier.planting import Planter


class Bytes:
    """Randomness that is none: odd bytes plant the bad, even ones the good."""

    def __init__(self, byte: int) -> None:
        self._byte = byte

    def token(self, size_bytes: int) -> bytes:
        return bytes([self._byte]) * size_bytes


GOOD, BAD = Bytes(0), Bytes(1)


@pytest.fixture
async def planted(network, tmp_path, monkeypatch):
    """Asks one question and tries the verifier at a URL with it; the alerts that came of it."""
    folder = tmp_path / "planter"
    store.create_store(folder)
    database, transport = store.open_store(folder), HttpTransport()
    made = honest(1)
    (signed,) = network.node.answer(made)
    asked = AskedAudit(signed=signed, content=made.content, deadline_ms=60_000)

    async def answered(*_: object, **__: object) -> AskedAudit:
        return asked

    monkeypatch.setattr(planting, "ask", answered)

    async def passed(_: AskedAudit) -> AskedVerdict:
        return AskedVerdict(result="pass")

    async def tried(url: str, randomness: Bytes):
        node = KnownNode(
            key=NODE.vkey,
            operator="alpha.example",
            caller=NodeCaller(transport, network.node_url),
        )
        planter = Planter(
            database,
            (node,),
            {MU.name: VerifierCaller(transport, url)},
            passed,
            per_minute=1,
            clock=SystemClock(),
            randomness=randomness,
            logger=get_logger("verifier"),
        )
        await planter.question(node)
        return await database.read(lambda c: store.alerts(c, 0, 10))

    yield tried
    await transport.aclose()
    await database.aclose()


async def test_a_verifier_that_passes_what_no_receipt_binds_is_lazy(planted):
    async with FakeVerifier(MU.name).serve() as lazy:
        (alert,) = await planted(lazy.url, BAD)

    assert (alert.kind, alert.about) == ("lazy", MU.name)
    assert alert.receipt == honest(1).leaf.hex()


async def test_a_verifier_that_fails_an_honest_answer_is_lying(planted):
    async with FakeVerifier(MU.name).serve() as liar:
        liar.judge = lambda asked, by: judged(asked, by, passes=False)
        (alert,) = await planted(liar.url, GOOD)

    assert (alert.kind, alert.about) == ("lying", MU.name)


@pytest.mark.parametrize("randomness", [GOOD, BAD])
async def test_an_honest_verifier_is_not_accused(network, planted, randomness):
    url = await network.verifier(MU, rate_ppm=0)

    assert await planted(url, randomness) == ()


async def test_a_verifier_that_is_away_is_not_accused(planted):
    assert await planted("http://127.0.0.1:1", BAD) == ()


def test_what_is_tampered_with_is_one_token():
    made = honest(1)
    asked = AskedAudit(signed=None, content=made.content, deadline_ms=1)  # type: ignore[arg-type]

    ours, theirs = made.content.tokens[0], tampered(asked).content.tokens[0]

    assert ours[:-1] == theirs[:-1]
    assert ours[-1] != theirs[-1]


async def test_a_node_that_failed_is_known_until_it_is_restored(network, tmp_path):
    folder = tmp_path / "asked"
    store.create_store(folder)
    database = store.open_store(folder)

    def put(standing: str, judged_ms: int, numerics: str = "old", **other: str):
        subject = {"key": str(LAMBDA.vkey), "node": LAMBDA.name, "model": "toy", "weights": "w"}
        named = json.dumps(subject | {"numerics": numerics} | other)
        return database.write(
            lambda c: c.execute(
                "INSERT OR REPLACE INTO subjects VALUES (?, x'', '', ?, 1, ?)",
                (named, standing, judged_ms),
            )
        )

    def failed(name: str = LAMBDA.name):
        return database.read(lambda c: ledger.has_failed(c, name))

    await put("failed", 5)
    assert await failed()
    assert not await failed(MU.name)
    await put("good", 6)
    assert not await failed()
    # An upgrade: the old subject is never spoken of again.
    await put("failed", 7)
    await put("good", 8, model="another")
    await put("good", 6, numerics="new")
    assert await failed()
    await put("good", 8, numerics="new")
    assert not await failed()
    await put("failed", 9)
    assert await failed()
    await put("good", 10)
    # Before anything was known to hold it against.
    await put("failed", 11, configuration="")
    assert await failed()
    await put("good", 12, configuration="calibrated")
    assert not await failed()
    await database.aclose()
