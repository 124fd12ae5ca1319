"""Own questions to nodes, now and then: new evidence on those that nobody asks any more, and work
with a known outcome for the other verifiers.

The answer is audited here first. Then each other verifier is asked to audit it as a caller would,
either as it is (known-good) or with a token changed (known-bad, which its receipt does not bind).
One that passes the bad, or fails the good, is written down. So a verifier is caught that answers
without looking. Whoever knows that it is tried can behave; so some of the questions are plants,
which come to the others as any receipt does (``plants``).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from trunkline.base.errors import Error, UpstreamError
from trunkline.base.ports import Clock, Randomness
from trunkline.receipts import receipt_leaf
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.logger import Logger
from trunkline.runtime.store import Connection, Database
from trunkline.schema.attempt import ServedModel
from trunkline.schema.audit import AskedAudit, AskedVerdict
from trunkline.verdicts import Expected
from trunkline.verifier import ledger, store
from trunkline.verifier.asking import ask, tampered
from trunkline.verifier.demanding import KnownNode
from trunkline.verifier.plants import Plants

TICK_S: Final = 5.0
"""Between two throws of the dice, on average."""
FAILED_FACTOR: Final = 50
"""A node that has failed is asked so much oftener: nobody else may ask it, and it must be able to
win its standing back."""
PEER_TIMEOUT_S: Final = 70.0
BAD_SHARE: Final = 0.75
"""Of plants: the others are known-good, which show no more than two verifiers' disagreement."""

Auditing = Callable[[AskedAudit], Awaitable[AskedVerdict]]


class Planter:
    """One verifier's own questions."""

    def __init__(
        self,
        database: Database,
        nodes: Sequence[KnownNode],
        peers: Mapping[str, VerifierCaller],
        audit: Auditing,
        *,
        plants: Plants | None = None,
        per_minute: float,
        plant_share: float = 0.0,
        clock: Clock,
        randomness: Randomness,
        logger: Logger,
    ) -> None:
        """``peers``: the other verifiers by their keys' names; ``audit`` makes one here;
        ``plants``: None where nobody is there to be tried."""
        self._database = database
        self._nodes = nodes
        self._peers = peers
        self._audit = audit
        self._plants = plants
        self._per_minute = per_minute
        self._plant_share = plant_share
        self._clock = clock
        self._randomness = randomness
        self._logger = logger

    async def run(self) -> None:
        """Ask until cancelled, each node at times that it can not foresee."""
        async with asyncio.TaskGroup() as group:
            for node in self._nodes:
                group.create_task(self._visit(node))

    async def _visit(self, node: KnownNode) -> None:
        while True:
            # Not by a beat that a node could know a verifier by.
            part = int.from_bytes(self._randomness.token(4), "big") / 2**32
            await asyncio.sleep(2 * TICK_S * part)
            try:
                failed = await self._database.read(lambda c: ledger.has_failed(c, node.key.name))
                chance = self._per_minute * TICK_S / 60 * (FAILED_FACTOR if failed else 1)
                if self._happens(chance):
                    await self._use(node, failed=failed)
            except Error as error:
                self._logger.info("question.failed", node=node.key.name, error=error.error_code)

    async def _use(self, node: KnownNode, *, failed: bool) -> None:
        """A question, or a plant. A node that has failed needs the first to win its standing back,
        and what it answers is nothing that is known."""
        if self._plants is None or failed or not self._happens(self._plant_share):
            await self.question(node)
            return
        model = await self._model(node)
        if model:
            expect: Expected = "fail" if self._happens(BAD_SHARE) else "pass"
            await self._plants.plant(node, model, expect=expect)

    def _happens(self, chance: float) -> bool:
        return int.from_bytes(self._randomness.token(4), "big") < chance * 2**32

    async def _model(self, node: KnownNode) -> str:
        """One that the node serves and that can be replayed; empty: none."""
        models = [one.name for one in (await node.caller.info()).models if _replayable(one)]
        return models[self._randomness.token(1)[0] % len(models)] if models else ""

    async def question(self, node: KnownNode) -> None:
        """Ask one question, audit the answer, and try the other verifiers with it."""
        model = await self._model(node)
        if not model:
            return
        asked = await ask(node, model, clock=self._clock, randomness=self._randomness)
        ours = await self._audit(asked)
        for name, caller in self._peers.items():
            bad = bool(self._randomness.token(1)[0] & 1)
            try:
                theirs = await caller.audit(tampered(asked) if bad else asked, PEER_TIMEOUT_S)
            except UpstreamError as error:
                self._logger.info("peer.untried", verifier=name, error=error.error_code)
                continue
            await self._compare(name, asked, ours, theirs, bad=bad)

    async def _compare(
        self,
        peer: str,
        asked: AskedAudit,
        ours: AskedVerdict,
        theirs: AskedVerdict,
        *,
        bad: bool,
    ) -> None:
        if bad and theirs.result == "pass":
            kind, detail = "lazy", "passed an opening that its receipt does not bind"
        elif not bad and {ours.result, theirs.result} == {"pass", "fail"}:
            kind, detail = "lying", f"says {theirs.result} where this verifier says {ours.result}"
        else:
            return
        leaf = receipt_leaf(asked.signed.receipt.encode()).hex()

        def write(connection: Connection) -> None:
            store.alert(
                connection,
                unix_ms=self._clock.unix_ms(),
                kind=kind,
                about=peer,
                receipt=leaf,
                detail=detail,
            )

        await self._database.write(write)


def _replayable(model: ServedModel) -> bool:
    return model.kind == "chat" and bool(model.weights)
