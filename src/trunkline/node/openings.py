"""Opens receipts to verifiers: ``POST /v1/openings``, and the keeping of what opens them.

``docs/spec/audit.md``. What opens a receipt is stored with its batch, is shown only to verifiers
that the operator named and only if it was drawn, and is overwritten when its time is over or the
space is wanted. No word of it is in a log line, a metric or an error.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from trunkline.base.errors import Error, MalformedError, RequestError, TimedOutError, UpstreamError
from trunkline.base.ports import Clock
from trunkline.crypto.keys import VerifierKey
from trunkline.node import opening_store
from trunkline.node.config import AuditsConfig
from trunkline.node.core import demand as decide
from trunkline.node.core.content import opened, origin_of, read
from trunkline.node.core.demand import Chance, Once, Pace, Rules
from trunkline.node.nonces import Nonces
from trunkline.node.opening_store import Demanded
from trunkline.node.terms import StatedTerms
from trunkline.receipts import Receipt, decode, receipt_leaf
from trunkline.runtime.http import Call
from trunkline.runtime.logger import Logger
from trunkline.runtime.store import Connection, Database
from trunkline.schema.attempt import SignedReceipt
from trunkline.schema.audit import (
    DEMAND_BYTES_MAX,
    OPENINGS_BYTES_MAX,
    NonceProof,
    OpenedContent,
    Opening,
    Openings,
    WantedReceipt,
)

DEMAND_S_MAX: Final = 30.0
"""Longest that one demand takes, the wait for its turn included."""
AT_ONCE: Final = 2
LOG_S_MAX: Final = 5.0
"""For so long a demand waits for the log to show its draw."""
LOGGED_MAX: Final = 256
"""Draws of which it is remembered that the log shows them: a verifier demands by one many times."""
SWEEP_S_MAX: Final = 60.0
EXPANSION: Final = 4
"""Bytes in the answer for one that is kept, at most: token ids and vectors become text."""


class OpeningKeeper:
    """What is kept. ``keep`` runs on the store's thread, all else on the loop."""

    def __init__(
        self, config: AuditsConfig, database: Database, terms: StatedTerms, *, clock: Clock
    ) -> None:
        self._config = config
        self._database = database
        self._terms = terms
        self._clock = clock
        self._unscrubbed = False
        self.dropped = 0
        """Deleted before their time, since this process began: the node can not be audited on
        these."""

    @property
    def keep_ms(self) -> int:
        """As configured; longer while an older promise is to be kept."""
        promised_s = [terms.keep_s for terms in self._terms.in_force()]
        return int(max(self._config.keep_s, *promised_s, 0) * 1000)

    def keep(
        self,
        connection: Connection,
        batch: int,
        contents: Sequence[tuple[int, bytes]],
        now_ms: int,
    ) -> None:
        """Keep what opens receipts, inside the transaction that stores their batch."""
        opening_store.keep(connection, batch, contents, now_ms)
        excess = opening_store.total_bytes(connection) - self._config.bytes_max
        if excess > 0:
            self.dropped += opening_store.drop_oldest(connection, excess)
            self._unscrubbed = True

    async def kept_bytes(self) -> int:
        """What is kept now."""
        return await self._database.read(opening_store.total_bytes)

    async def run(self) -> None:
        """Delete what has had its time, until cancelled."""
        while True:
            await self.sweep()
            await asyncio.sleep(min(SWEEP_S_MAX, self._config.keep_s / 4))

    async def sweep(self) -> None:
        """Delete it now, from the write-ahead file as well."""
        now_ms = self._clock.unix_ms()
        before_ms, after_ms = now_ms - self.keep_ms, now_ms + self.keep_ms
        while await self._database.write(lambda c: opening_store.expire(c, before_ms, after_ms)):
            self._unscrubbed = True
        if self._unscrubbed:
            self._unscrubbed = not await self._database.scrub()


class OpeningDesk:
    """Answers demands. Belongs to one event loop."""

    def __init__(
        self,
        config: AuditsConfig,
        keeper: OpeningKeeper,
        database: Database,
        nonces: Nonces | None,
        terms: StatedTerms,
        *,
        node: str,
        log: VerifierKey,
        show: Callable[[bytes], Awaitable[None]],
        clock: Clock,
        logger: Logger,
    ) -> None:
        """``node``: name of the node's key; ``nonces``: None where seeds are not its own; ``show``
        has the log show an entry, which it may have."""
        self._keeper = keeper
        self._database = database
        self._nonces = nonces
        self._terms = terms
        self._clock = clock
        self._node = node
        self._log = log
        self._show = show
        self._logger = logger
        self._logged: OrderedDict[bytes, None] = OrderedDict()
        """Digests of draws that the log is known to show, the last ones."""
        self._since_ms = clock.unix_ms()
        self._once = Once()
        self._pace = Pace(config.demands_per_s)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def handle(self, call: Call) -> None:
        """One demand."""
        body = await call.body(DEMAND_BYTES_MAX)
        try:
            async with call.while_connected(), asyncio.timeout(DEMAND_S_MAX), self._turns:
                await call.reply_json(200, await self._answer(body))
        except TimeoutError:
            raise TimedOutError("the demand took too long", code="demand_timeout") from None

    async def _answer(self, body: bytes) -> Openings:
        now_ms = self._clock.unix_ms()
        rules = self._rules()
        asked = decide.asked(decide.read(body), rules, now_ms)
        # In this order: whoever repeats what he overheard takes nothing of the verifier's pace, and
        # a verifier that asks too often none of our memory.
        self._once.check(asked)
        self._pace.take(asked.verifier, self._clock.monotonic_s())
        self._once.use(asked, now_ms)
        chance = decide.chance(asked.draw, rules)
        await self._honour(chance, now_ms)
        await self._log_draw(asked.draw, chance.digest)
        openings = []
        left_bytes = OPENINGS_BYTES_MAX
        for wanted in asked.wanted:
            opening, size = await self._opening(wanted, chance, left_bytes)
            openings.append(opening)
            left_bytes -= size
        return Openings(openings=tuple(openings))

    def _rules(self) -> Rules:
        """The most that any terms in force allow: what was promised is kept."""
        terms = self._terms.in_force()
        named = dict.fromkeys(vkey for one in terms for vkey in one.verifiers)
        return Rules(
            node=self._node,
            log=self._log,
            verifiers=tuple(map(VerifierKey.parse, named)),
            rate_ppm_max=max(one.rate_ppm for one in terms),
            since_ms=self._since_ms,
            unchained=not all(one.chains is True for one in terms),
        )

    async def _honour(self, chance: Chance, now_ms: int) -> None:
        honoured = await self._database.write(
            lambda c: opening_store.honour(
                c, chance.verifier, chance.first, chance.after, chance.digest, now_ms
            )
        )
        if not honoured:
            raise RequestError(
                "the verifier drew from these entries before, in another way",
                code="draw_conflict",
                status=409,
            )

    async def _log_draw(self, draw: str, digest: bytes) -> None:
        """Have the log show a draw before anything is opened under it: who drew could ask another
        verifier first, and log it afterwards (ADR 0030). Where the log does not answer, it is
        opened all the same: to withhold is a fault."""
        if digest in self._logged:
            return
        try:
            async with asyncio.timeout(LOG_S_MAX):
                await self._show(draw.encode())
        except (TimeoutError, UpstreamError, MalformedError) as error:
            code = error.error_code if isinstance(error, Error) else "upstream_timeout"
            self._logger.warning("draw.unlogged", error=code)
            return
        self._logged[digest] = None
        if len(self._logged) > LOGGED_MAX:
            self._logged.popitem(last=False)

    async def _opening(
        self, wanted: WantedReceipt, chance: Chance, left_bytes: int
    ) -> tuple[Opening, int]:
        """One receipt's opening, and the most bytes that it takes in the answer."""
        bare = Opening(batch=wanted.batch, index=wanted.index)
        root = bytes.fromhex(wanted.batch)
        found = await self._database.read(lambda c: opening_store.find(c, root, wanted.index))
        if found is None:
            return msgspec.structs.replace(bare, reason="unknown"), 0
        if found.log_index is None:
            return msgspec.structs.replace(bare, reason="not_logged"), 0
        if not chance.has(found.log_index, wanted.index):
            return msgspec.structs.replace(bare, reason="not_drawn"), 0
        return await self._drawn(bare, found, left_bytes)

    async def _drawn(self, bare: Opening, found: Demanded, left_bytes: int) -> tuple[Opening, int]:
        signed = msgspec.json.decode(found.signed, type=SignedReceipt)
        data = signed.receipt.encode()
        receipt = decode(data)
        if receipt.policy.mode == "private":
            leaf = receipt_leaf(data).hex()
            return msgspec.structs.replace(
                bare, leaf=leaf, path=signed.path, reason="not_audited"
            ), 0
        shown = msgspec.structs.replace(bare, signed=signed)
        reason = decide.closed(
            receipt,
            kept=found.opening is not None,
            age_ms=self._clock.unix_ms() - found.signed_ms,
            keep_ms=self._keeper.keep_ms,
        )
        size = EXPANSION * found.size + 2 * len(found.signed)
        if reason is None and size > left_bytes:
            reason = "later"
        if reason is not None:
            return msgspec.structs.replace(shown, reason=reason), 0
        content = await self._content(found, receipt)
        if content is None:
            return msgspec.structs.replace(shown, reason="not_kept"), 0
        return msgspec.structs.replace(shown, content=content), size

    async def _content(self, found: Demanded, receipt: Receipt) -> OpenedContent | None:
        number = found.opening or 0
        data = await self._database.read(lambda c: opening_store.content(c, number))
        if data is None:
            return None
        kept = read(data)
        origin = origin_of(kept)
        made = receipt if origin is None else decode(origin.receipt.encode())
        return opened(kept, await self._proof(made))

    async def _proof(self, receipt: Receipt) -> NonceProof | None:
        """That the nonce was committed to; an inherited one is another node's to prove."""
        sampling = receipt.sampling
        if self._nonces is None or not sampling.nonces or sampling.source != "nonces":
            return None
        return await self._nonces.prove(bytes.fromhex(sampling.nonces), sampling.nonce_index)


async def nothing_kept(call: Call) -> None:
    """``POST /v1/openings`` of a node that is not audited: it says so to anybody."""
    wanted = decide.read(await call.body(DEMAND_BYTES_MAX)).receipts
    openings = tuple(
        Opening(batch=each.batch, index=each.index, reason="not_kept") for each in wanted
    )
    await call.reply_json(200, Openings(openings=openings))
