"""An answer that was taken over, in a whole verifier: the node that began it is asked for the place
of its nonce, and the answer passes only if it shows it."""

from collections.abc import Awaitable
from pathlib import Path

import msgspec
import pytest
from tests.support.auditing import ToyNode
from tests.support.fake_verifier import RoutedApp
from tests.support.toy_network import (
    LAMBDA,
    ToyEngine,
    ToyNetwork,
    honest,
    revealed,
    write_verifier,
)
from tests.unit.audit.test_inherited import BETA, shown

from trunkline.base.errors import Error
from trunkline.receipts import Receipt
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.http import Call, Router
from trunkline.runtime.server import serving
from trunkline.runtime.store import Connection
from trunkline.schema.audit import NONCES_PREFIX, ShownNonce
from trunkline.verdicts import Verdict
from trunkline.verifier import judging, store
from trunkline.verifier.app import VerifierApp
from trunkline.verifier.config import AuditedNode, read


class FirstNode:
    """The node that began the answer. ``shows``: None: it shows nothing."""

    def __init__(self, shows: ShownNonce | None) -> None:
        self._shows = shows
        self.router = Router(refuse)
        self.router.add_prefix("GET", NONCES_PREFIX, self._nonce)

    async def _nonce(self, call: Call) -> None:
        if self._shows is None:
            await call.reply_json(404, {"error": {"code": "not_found", "message": "no"}})
        else:
            await call.reply_json(200, self._shows)


async def refuse(call: Call, error: Error) -> None:
    raise AssertionError(f"asked for {call.path}") from error


@pytest.mark.parametrize(
    ("shows", "logged", "result"),
    [
        (shown(), True, "pass"),
        (shown(), False, "inconclusive"),
        (shown(index=9), True, "inconclusive"),
        (None, True, "inconclusive"),
    ],
    ids=["shown and logged", "never logged", "another place", "not shown"],
)
async def test_the_first_node_is_asked(
    network: ToyNetwork, shows: ShownNonce | None, logged: bool, result: str
) -> None:
    if logged:
        network.log.append(shown().note.encode())
    network.node.answer(ToyNode().serve(3, given=(4,)))
    origin = RoutedApp(FirstNode(shows).router)
    beta = await network.stack.enter_async_context(serving(origin))
    path = write_verifier(
        network.folder / "lambda", LAMBDA, log_url=network.log_url, node_url=network.node_url
    )
    config = read(path)
    more = AuditedNode(url=beta, vkey=str(BETA.vkey), operator="beta.example")
    app = VerifierApp(
        msgspec.structs.replace(config, nodes=(*config.nodes, more)),
        base=path,
        engines=[lambda: ToyEngine(None)],
    )
    url = await network.stack.enter_async_context(serving(app, shutdown_grace_s=0.05))
    transport = HttpTransport()
    try:
        (found,) = await revealed(VerifierCaller(transport, url), 1)
    finally:
        await transport.aclose()

    verdict = Verdict.open_note(found.note.encode(), LAMBDA.vkey)

    checks = {check.name: check.result for check in verdict.checks}
    assert checks["nonce"] == result, verdict.checks
    assert verdict.result == result
    assert checks["seed"] == checks["replay"] == "pass"


async def test_a_nonce_that_is_handed_on_to_its_own_node_spoils_no_answer_of_that(
    tmp_path: Path,
) -> None:
    """Whoever calls a node can hand it one that it used before, for another answer."""
    own = honest(1).receipt
    sampling = msgspec.structs.replace(own.sampling, source="inherited")
    handed = msgspec.structs.replace(own, answer="ans_other", sampling=sampling)
    store.create_store(tmp_path)
    database = store.open_store(tmp_path)

    def judged(receipt: Receipt) -> Awaitable[str]:
        def used_by(connection: Connection) -> str:
            before = judging.nonce_user(connection, receipt)
            judging.note_nonce(connection, receipt)
            return before

        return database.write(used_by)

    assert [await judged(one) for one in (handed, own)] == ["", ""]
    assert await judged(msgspec.structs.replace(own, answer="ans_new")) == own.answer
    assert await judged(handed) == own.answer
    await database.aclose()
