"""A verifier by script, over real HTTP: it reveals what a test says, and judges as it is told."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from tests.support.verifier_hand import VerifierHand

from trunkline.crypto.keys import VerifierKey
from trunkline.receipts import decode, receipt_leaf
from trunkline.runtime.http import Call, Receive, Router, Scope, Send
from trunkline.runtime.server import serving
from trunkline.schema.audit import (
    ASKED_BYTES_MAX,
    AUDITS_PATH,
    VERDICTS_MAX,
    VERDICTS_PATH,
    AskedAudit,
    AskedVerdict,
    RevealedVerdict,
    VerdictPage,
)
from trunkline.verdicts import Verdict

Judge = Callable[[AskedAudit, "FakeVerifier"], AskedVerdict | None]
"""What it answers to an audit; None: nothing, until the caller leaves."""


class FakeVerifier(VerifierHand):
    """One verifier. ``reveal`` verdicts; set ``judge``."""

    def __init__(self, name: str, operator: str = "") -> None:
        super().__init__(name, operator)
        self.notes: list[str] = []
        self.plants: dict[int, str] = {}
        """What opens the plant that a verdict withdraws one on, by its number."""
        self.commitments: dict[int, str] = {}
        """What it tells that it was bound by, likewise."""
        self.asked: list[AskedAudit] = []
        self.judge: Judge = passing
        self.polled: list[int] = []
        """``after`` of each poll."""
        self._news = asyncio.Event()

    def reveal(self, *verdicts: Verdict) -> None:
        """Publish verdicts, signed by this verifier whatever they say."""
        self.notes += [self.sign(verdict) for verdict in verdicts]
        self._news.set()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["FakeVerifier"]:
        """Listen; ``url`` says where."""
        router = Router(refuse)
        router.add("GET", VERDICTS_PATH, self._verdicts)
        router.add("POST", AUDITS_PATH, self._audit)
        async with serving(RoutedApp(router), shutdown_grace_s=0.05) as url:
            self.url = url
            yield self

    async def _verdicts(self, call: Call) -> None:
        after = int(call.query["after"])
        self.polled.append(after)
        if len(self.notes) <= after:
            self._news.clear()
            async with call.while_connected():
                await self._news.wait()
        page = [
            RevealedVerdict(
                number=number,
                receipt="",
                note=note,
                entry=None,
                plant=self.plants.get(number, ""),
                commitment=self.commitments.get(number, ""),
            )
            for number, note in enumerate(self.notes, start=1)
            if after < number <= after + VERDICTS_MAX
        ]
        await call.reply_json(200, VerdictPage(verdicts=tuple(page), newest=len(self.notes)))

    async def _audit(self, call: Call) -> None:
        asked = msgspec.json.decode(await call.body(ASKED_BYTES_MAX), type=AskedAudit)
        self.asked.append(asked)
        found = self.judge(asked, self)
        if found is None:
            async with call.while_connected():
                await asyncio.Event().wait()
        await call.reply_json(200, found)


class RoutedApp:
    """What a router does, as an application."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def startup(self) -> None:
        pass

    async def shutdown(self) -> None:
        pass

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._router.dispatch(Call(scope, receive, send))


async def refuse(call: Call, error: Exception) -> None:
    await call.reply(500, str(error).encode())


def judged(asked: AskedAudit, by: VerifierHand, *, passes: bool) -> AskedVerdict:
    """A signed verdict on the receipt that was asked about."""
    data = asked.signed.receipt.encode()
    receipt = decode(data)
    verdict = by.verdict(
        VerifierKey.parse(receipt.key),
        1_780_000_000_000 + len(receipt.answer),
        standing="good" if passes else "failed",
        result="pass" if passes else "fail",
        receipt=receipt_leaf(data).hex(),
        model=receipt.model.requested,
    )
    return AskedVerdict(result=verdict.result, note=by.sign(verdict))


def passing(asked: AskedAudit, by: VerifierHand) -> AskedVerdict:
    """Finds nothing wrong."""
    return judged(asked, by, passes=True)


@asynccontextmanager
async def two_verifiers() -> AsyncIterator[list[FakeVerifier]]:
    """Two that serve, of operators of their own."""
    async with FakeVerifier("one").serve() as one, FakeVerifier("two").serve() as two:
        yield [one, two]
