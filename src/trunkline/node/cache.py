"""The node's exact cache: off unless configured, in memory alone, and never silent about itself.

It stands around the work of an attempt: what is made is written down on its way out, and kept once
it is whole and its receipt signed; what was kept is work that takes no time. Either way the
attempt is accepted, streamed and signed for like any other, and the receipt of an answer that was
kept names the original (``docs/spec/receipt.md``, "Cached answers"). Nothing is written to disk.
What may be audited is given again once the log has its receipt. Two attempts that miss at once both
do the work.
"""

import msgspec

from trunkline.base.errors import RequestError
from trunkline.base.ports import Clock
from trunkline.inference.answer import Event
from trunkline.node.config import CacheConfig
from trunkline.node.core.cache import (
    AUDITED_S_MAX,
    ENTRY_BYTES,
    EVENT_BYTES,
    Entries,
    Kept,
    cache_key,
    given_again,
    may_keep,
    may_take,
    renamed,
)
from trunkline.node.core.content import Before
from trunkline.node.core.content import Kept as Opening
from trunkline.node.core.statement import Outcome
from trunkline.node.store import find_receipt
from trunkline.node.work import Output, Service, Work
from trunkline.receipts import ReceiptCached, receipt_leaf
from trunkline.runtime.store import Database
from trunkline.schema.attempt import Accepted, Attempt, Limits, SignedReceipt


class AnswerCache:
    """Belongs to one event loop."""

    def __init__(self, config: CacheConfig, database: Database, *, clock: Clock) -> None:
        """``database``: the node's, which says what of it the log has."""
        self._database = database
        self._kinds = frozenset(config.kinds)
        self._entries = Entries(bytes_max=config.bytes_max, keep_s=config.keep_s)
        self._clock = clock

    async def prepare(self, service: Service, attempt: Attempt) -> Work:
        """Work for the attempt: the service's own, or an answer that was kept."""
        if not may_keep(attempt, self._kinds):
            return await service.prepare(attempt)
        key = cache_key(attempt, _weights(service, attempt))
        if may_take(attempt, self._kinds):
            kept = self._entries.get(key, self._clock.monotonic_s())
            if kept is not None and not self._is_old(kept):
                # One that is not bound yet is not replaced: the next would not be bound either.
                bound = await self._bound(kept)
                return Again(kept, attempt) if bound else await service.prepare(attempt)
        work = await service.prepare(attempt)
        return Recorded(work, self, key, attempt, bytes_max=self._entries.largest_bytes)

    async def _bound(self, kept: Kept) -> bool:
        """Whether the node is bound to an answer that may be audited: the log has its receipt."""
        if kept.before is None:
            return True
        found = await self._database.read(lambda c: find_receipt(c, kept.accepted.attempt))
        return found is not None and found.log_index is not None

    def _is_old(self, kept: Kept) -> bool:
        """Whether an answer that may be audited was made too long ago by the times that receipts
        say: a machine that slept, or whose clock was set, counts other seconds."""
        age_ms = self._clock.unix_ms() - kept.original.ended_ms
        return kept.before is not None and age_ms > AUDITED_S_MAX * 1000

    def put(self, key: bytes, kept: Kept) -> None:
        """Keep an answer from now on."""
        self._entries.put(key, kept, self._clock.monotonic_s())


def _weights(service: Service, attempt: Attempt) -> str:
    """Digest of the weights that serve the attempt; empty where they are not known."""
    for model in service.models():
        if model.name == attempt.model and model.kind == attempt.kind:
            return model.weights or ""
    return ""


class Again:
    """An answer that was kept, given to one more attempt."""

    places = 1

    def __init__(self, kept: Kept, attempt: Attempt) -> None:
        self.accepted, self._data, self._outcome = given_again(kept, attempt)

    async def begin(self) -> None:
        """Nothing can fail."""

    async def run(self, output: Output) -> Outcome:
        for number, data in enumerate(self._data):
            await output.event(Event(id=number, data=data))
        return self._outcome

    async def close(self) -> None:
        """Nothing is held."""


class Recorded:
    """Work whose answer is kept if it ends well."""

    def __init__(
        self, work: Work, cache: AnswerCache, key: bytes, attempt: Attempt, *, bytes_max: int
    ) -> None:
        self._work = work
        self._cache = cache
        self._key = key
        self._attempt = attempt
        self._bytes_max = bytes_max
        self._tape: _Tape | None = None
        self._outcome: Outcome | None = None

    @property
    def places(self) -> int:
        return self._work.places

    @property
    def accepted(self) -> Accepted:
        return self._work.accepted

    async def begin(self) -> None:
        await self._work.begin()

    async def run(self, output: Output) -> Outcome:
        self._tape = _Tape(output, self._attempt, self._bytes_max)
        self._outcome = await self._work.run(self._tape)
        return self._outcome

    async def close(self) -> None:
        await self._work.close()

    def keep(self, signed: bytes, ended_ms: int, opening: Opening | None) -> None:
        """The answer is whole, and this its receipt event's data, which is durable. ``opening``:
        what opens that receipt, if anything does."""
        tape, outcome = self._tape, self._outcome
        if tape is None or tape.data is None or outcome is None:
            return
        receipt = msgspec.json.decode(signed, type=SignedReceipt).receipt.encode()
        kept = Kept(
            accepted=self._work.accepted,
            data=tuple(tape.data),
            # Words and numbers are in the opening, for those who may be shown them.
            outcome=msgspec.structs.replace(outcome, made=None),
            original=ReceiptCached(ended_ms=ended_ms, receipt=receipt_leaf(receipt).hex()),
            before=None if opening is None else Before(signed=signed, content=opening),
        )
        self._cache.put(self._key, kept)


class _Tape:
    """Passes an attempt's output on, and writes down what the app is shown."""

    def __init__(self, output: Output, attempt: Attempt, bytes_max: int) -> None:
        self._output = output
        self._attempt = attempt
        self._left_bytes = bytes_max - ENTRY_BYTES
        self.data: list[bytes] | None = []
        """None: it can not be kept."""

    async def event(self, event: Event) -> None:
        if event.id is not None and event.data is not None:
            self._write(event.data)
        await self._output.event(event)

    async def replayed(self, digest: str) -> None:
        await self._output.replayed(digest)

    async def limits(self, limits: Limits) -> None:
        await self._output.limits(limits)

    async def alive(self) -> None:
        await self._output.alive()

    def _write(self, data: bytes) -> None:
        if self.data is None:
            return
        self._left_bytes -= len(data) + EVENT_BYTES
        if self._left_bytes < 0:
            self.data = None
            return
        try:
            renamed(data, self._attempt)
        except RequestError:
            # Beyond what may be read again, as an answer with very many log-probabilities.
            self.data = None
        else:
            self.data.append(data)
