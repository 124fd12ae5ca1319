"""What a verifier serves: its verdicts as they are revealed, their bundles, and audits on demand.

An audit on demand answers by its deadline whatever happens; what could not be found out by then is
``inconclusive``, never a pass. Nothing is told of a verdict that is still kept back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from re import compile as regex
from typing import Final

import msgspec

from trunkline.base.errors import Error, MalformedError, OverloadedError, RequestError
from trunkline.crypto.signer import Signer
from trunkline.runtime.http import JSON_TYPE, TEXT_TYPE, Call, Router, http_status
from trunkline.runtime.polls import Polls
from trunkline.runtime.store import Database
from trunkline.schema.audit import (
    ALERTS_PATH,
    ASKED_BYTES_MAX,
    AUDITS_PATH,
    CALIBRATIONS_PATH,
    DEADLINE_MS_MAX,
    DRAWS_PATH,
    VERDICTS_MAX,
    VERDICTS_PATH,
    VERIFIER_INFO_PATH,
    WAIT_S_MAX,
    AlertPage,
    AskedAudit,
    AskedVerdict,
    RevealedVerdict,
    VerdictPage,
    VerifierInfo,
)
from trunkline.verifier import ledger, showing, store

NO_STORE: Final = ("cache-control", "no-store")
POLL_S: Final = 0.5
"""Between two looks for what another process of this verifier has revealed."""
LEAF_CHARS: Final = 64
BEGINNING: Final = regex(r"[0-9a-f]{8,64}")
"""Of a leaf: enough to find the one that is meant."""

BUSY: Final = AskedVerdict(result="inconclusive", reason="busy")

Ask = Callable[[AskedAudit], Awaitable[AskedVerdict]]


class Api:
    """The handlers of one process."""

    def __init__(
        self,
        database: Callable[[], Database],
        info: Callable[[], Awaitable[VerifierInfo]],
        ask: Ask,
        signer: Signer,
        *,
        asked_max: int,
    ) -> None:
        """``ask`` makes an audit and takes as long as it takes; ``signer``: this verifier's."""
        self._signer = signer
        self._polls = Polls()
        self._database = database
        self._info = info
        self._ask = ask
        self._asked_max = asked_max
        self._asked: set[asyncio.Task[AskedVerdict]] = set()
        self._reading = 0
        """Bodies that are being received: they are large, and anybody may send one."""
        self.revealed = asyncio.Event()
        """Set when something was revealed by this process."""

    def add_routes(self, router: Router) -> None:
        """Register what is served."""
        router.add("GET", VERIFIER_INFO_PATH, self._get_info)
        router.add("GET", VERDICTS_PATH, self._verdicts)
        router.add_prefix("GET", VERDICTS_PATH + "/", self._verdict)
        router.add("GET", ALERTS_PATH, self._alerts)
        router.add("POST", AUDITS_PATH, self._audit)
        router.add_prefix("GET", AUDITS_PATH + "/", self._bundle)
        router.add_prefix("GET", CALIBRATIONS_PATH + "/", self._calibration)
        router.add_prefix("GET", DRAWS_PATH + "/", self._draw)

    async def close(self) -> None:
        """Give up the audits that are under way; each is begun anew when somebody asks again."""
        for task in self._asked:
            task.cancel()
        await asyncio.gather(*self._asked, return_exceptions=True)

    async def _get_info(self, call: Call) -> None:
        await call.reply_json(200, await self._info(), [NO_STORE])

    async def _verdicts(self, call: Call) -> None:
        after = _number(call.query, "after", default=0, most=2**53)
        wait_s = _number(call.query, "wait_s", default=0, most=WAIT_S_MAX)
        if not wait_s:
            page = await self._page(call, after, 0)
        else:
            with self._polls.room(call.address) as room:
                async with call.while_connected():
                    page = await self._page(call, after, wait_s if room else 0)
        await call.reply_json(200, page, [NO_STORE])

    async def _page(self, call: Call, after: float, wait_s: float) -> VerdictPage:
        number, database, signer = int(after), self._database(), self._signer
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while wait_s:
                    self.revealed.clear()
                    page = await database.read(lambda c: showing.page(c, number, signer))
                    if page.verdicts or call.draining.is_set():
                        return page
                    await self._something(call)
        return await database.read(lambda c: showing.page(c, number, signer))

    async def _something(self, call: Call) -> None:
        """Until this process revealed something, or another may have, or the server stops."""
        events = (self.revealed.wait(), call.draining.wait())
        waits = {asyncio.create_task(event) for event in events}
        try:
            await asyncio.wait(waits, timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _verdict(self, call: Call) -> None:
        begins = call.path.removeprefix(VERDICTS_PATH + "/")
        found: list[RevealedVerdict] = []
        if BEGINNING.fullmatch(begins):
            found = await self._database().read(lambda c: showing.public(c, begins))
        if not found:
            raise RequestError("no verdict on that receipt", code="not_found", status=404)
        if len(found) > 1:
            raise RequestError("several receipts begin so", code="ambiguous", status=409)
        await call.reply_json(200, found[0], [NO_STORE])

    async def _alerts(self, call: Call) -> None:
        after = int(_number(call.query, "after", default=0, most=2**53))
        found = await self._database().read(lambda c: store.alerts(c, after, VERDICTS_MAX))
        await call.reply_json(200, AlertPage(alerts=found), [NO_STORE])

    async def _bundle(self, call: Call) -> None:
        named = call.path.removeprefix(AUDITS_PATH + "/")
        found = None
        if len(named) == LEAF_CHARS and named.isalnum():
            found = await self._database().read(lambda c: showing.bundle(c, named))
        await call.reply(200, _there(found, "no verdict on that receipt"), JSON_TYPE, [NO_STORE])

    async def _calibration(self, call: Call) -> None:
        digest = "sha256:" + call.path.removeprefix(CALIBRATIONS_PATH + "/")
        found = await self._database().read(lambda c: ledger.calibration(c, digest))
        await call.reply(200, _there(found, "no such calibration"), JSON_TYPE, [NO_STORE])

    async def _draw(self, call: Call) -> None:
        digest = "sha256:" + call.path.removeprefix(DRAWS_PATH + "/")
        found = await self._database().read(lambda c: ledger.draw(c, digest))
        await call.reply(200, _there(found, "no such draw in the log"), TEXT_TYPE, [NO_STORE])

    async def _audit(self, call: Call) -> None:
        if self._reading >= self._asked_max or len(self._asked) >= self._asked_max:
            await call.reply_json(200, BUSY, [NO_STORE])
            return
        self._reading += 1
        try:
            asked = msgspec.json.decode(await call.body(ASKED_BYTES_MAX), type=AskedAudit)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise MalformedError("the body is no audit to be made") from None
        finally:
            self._reading -= 1
        if not 1 <= asked.deadline_ms <= DEADLINE_MS_MAX:
            raise RequestError(
                f"deadline_ms is between 1 and {DEADLINE_MS_MAX}", param="deadline_ms"
            )
        await call.reply_json(200, await self._asked_for(asked), [NO_STORE])

    async def _asked_for(self, asked: AskedAudit) -> AskedVerdict:
        if len(self._asked) >= self._asked_max:
            return BUSY
        task = asyncio.ensure_future(self._ask(asked))
        self._asked.add(task)
        task.add_done_callback(self._ended)
        # The work goes on after the deadline: its verdict counts, though nobody waits for it.
        await asyncio.wait({task}, timeout=asked.deadline_ms / 1000)
        if not task.done():
            return AskedVerdict(result="inconclusive", reason="deadline")
        return task.result()

    def _ended(self, task: "asyncio.Task[AskedVerdict]") -> None:
        self._asked.discard(task)
        if not task.cancelled():
            # Whoever still waits is told; nobody else is interested.
            task.exception()


def _there(found: bytes | None, otherwise: str) -> bytes:
    """What was found. Raises RequestError (404), which says ``otherwise``."""
    if found is None:
        raise RequestError(otherwise, code="not_found", status=404)
    return found


def _number(query: Mapping[str, str], name: str, *, default: float, most: float) -> float:
    try:
        value = float(query.get(name, default))
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise RequestError(f"{name} is a number from 0 to {most:g}", param=name)
    return value


async def reply_error(call: Call, error: Error) -> None:
    """A failure as ``{"error": {"code", "message"}}``."""
    headers = [NO_STORE]
    if isinstance(error, OverloadedError):
        headers.append(("retry-after", str(max(1, round(error.retry_after_s)))))
    body = {"error": {"code": error.error_code, "message": error.message}}
    await call.reply_json(http_status(error), body, headers)
