"""Signs receipts in micro-batches and makes them durable before anybody is told.

A lone receipt goes at once, as a batch of one. Those that arrive while a batch is being stored make
the next one, at most 64 together, so one signature and one fsync serve them all. Batches follow one
another strictly: each names the root before it, and each receipt names the receipt before it,
which is why ``previous`` is filled in here, at signing, and nowhere else. The receipts that may be
audited come first in their batch, which says how many they are: what was drawn can not be called
private afterwards.

Refuses to sign past a chain that it does not know the end of, and to sign for a caller who left.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from trunkline.base.errors import Error, OverloadedError
from trunkline.base.ports import Clock
from trunkline.crypto.signer import Signer, sign_note
from trunkline.node import store
from trunkline.node.core.content import Kept
from trunkline.node.store import Head
from trunkline.receipts import BATCH_RECEIPTS_MAX, BatchBuilder, Receipt, SealedBatch, encode
from trunkline.runtime.store import Connection, Database

WAITING_MAX: Final = 4096
"""Receipts waiting to be signed; one that finds no place fails its attempt."""

Enqueue = Callable[[Connection, str, bytes], object]
"""Puts a batch's note into the outbox, inside the transaction: key (root in hex), note."""


Keep = Callable[[Connection, int, Sequence[tuple[int, bytes]], int], object]
"""Keeps what opens receipts, in the transaction: batch's number, (place, content), Unix ms."""


class _Waiting(msgspec.Struct, frozen=True):
    receipt: Receipt
    content: Kept | None
    signed: "asyncio.Future[bytes]"


class _Chosen(msgspec.Struct, frozen=True):
    waiting: list[_Waiting]
    sealed: SealedBatch


class ReceiptSigner:
    """The one place where receipts are signed. Belongs to one event loop."""

    def __init__(
        self,
        signer: Signer,
        database: Database,
        *,
        clock: Clock,
        enqueue: Enqueue | None,
        keep: Keep | None = None,
    ) -> None:
        """``enqueue``: None for a node that submits to no log; ``keep``: for one that is not
        audited."""
        self._signer = signer
        self._database = database
        self._clock = clock
        self._enqueue = enqueue
        self._keep = keep
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self._head: Head | None = None
        self.batches = 0
        """Stored by this process."""

    async def sign(self, receipt: Receipt, content: Kept | None = None) -> bytes:
        """The receipt event's data, once it is durable. ``receipt.previous`` is filled in here.
        ``content``, which opens the receipt, is stored in the same transaction.

        A caller that is cancelled before its batch is formed gets no receipt. Raises
        :class:`OverloadedError`, :class:`MalformedError` for a receipt that can not be one, and
        the store's errors, after which nothing was signed that anybody holds.
        """
        if len(self._waiting) >= WAITING_MAX:
            raise OverloadedError("too many receipts wait to be signed", code="signer_overloaded")
        signed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(receipt, content, signed))
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="node.signing")
        return await signed

    async def close(self) -> None:
        """Finish what is waiting."""
        while self._task is not None:
            await self._task

    async def _drain(self) -> None:
        try:
            while self._waiting:
                chosen = await self._choose()
                if chosen is not None:
                    await self._store(chosen)
        finally:
            self._task = None
            self._fail(list(self._waiting), OverloadedError("the signer stopped"))
            self._waiting.clear()

    async def _choose(self) -> _Chosen | None:
        """Form the next batch of those whose callers still wait."""
        taken: list[_Waiting] = []
        try:
            if self._head is None:
                self._head = await self._database.read(store.read_head)
        except Exception as error:  # noqa: BLE001 - goes to the callers
            taken = [self._waiting.popleft() for _ in range(len(self._waiting))]
            self._fail(taken, error)
            return None
        builder = BatchBuilder(self._signer.name)
        previous = self._head.leaf
        for item in self._next():
            try:
                data = encode(msgspec.structs.replace(item.receipt, previous=previous.hex()))
            except Error as error:
                # This one can not be a receipt; the chain goes on without it.
                item.signed.set_exception(error)
                continue
            previous = builder.add(data)
            taken.append(item)
        if not taken:
            return None
        sealed = builder.seal(
            previous=self._head.root,
            unix_ms=self._clock.unix_ms(),
            audited=sum(item.receipt.policy.audit for item in taken),
        )
        return _Chosen(taken, sealed)

    def _next(self) -> list[_Waiting]:
        """At most a batch of those that still wait, the ones that may be audited first."""
        found: list[_Waiting] = []
        while self._waiting and len(found) < BATCH_RECEIPTS_MAX:
            item = self._waiting.popleft()
            if not item.signed.done():
                found.append(item)
        return sorted(found, key=lambda item: not item.receipt.policy.audit)

    async def _store(self, chosen: _Chosen) -> None:
        before = self._head or Head()
        note = sign_note(chosen.sealed.text, self._signer)
        signed = [store.encode_signed(item) for item in chosen.sealed.signed(note)]
        attempts = [item.receipt.attempt for item in chosen.waiting]
        contents = [
            (place, item.content.data)
            for place, item in enumerate(chosen.waiting)
            if item.content is not None
        ]
        signed_ms = self._clock.unix_ms()

        def insert(connection: Connection) -> Head:
            head = store.insert_batch(
                connection,
                before,
                chosen.sealed,
                note,
                attempts=attempts,
                signed=signed,
                signed_ms=signed_ms,
            )
            if self._keep is not None and contents:
                self._keep(connection, head.batch, contents, signed_ms)
            if self._enqueue is not None:
                self._enqueue(connection, chosen.sealed.root.hex(), note)
            return head

        # A crash before the commit: the batch was signed and nobody has it; the next batch takes
        # its place in the chain, and the two never meet.
        try:
            self._head = await self._database.write(insert)
        except Exception as error:  # noqa: BLE001 - goes to the callers
            # What the store holds is unknown here: ask it before the next batch.
            self._head = None
            self._fail(chosen.waiting, error)
            return
        # A crash after it: the receipts exist and will be logged, though their callers saw the
        # stream cut and go elsewhere. They can be fetched by attempt id.
        self.batches += 1
        for item, data in zip(chosen.waiting, signed, strict=True):
            if not item.signed.done():
                item.signed.set_result(data)

    def _fail(self, waiting: list[_Waiting], error: Exception) -> None:
        for item in waiting:
            if not item.signed.done():
                item.signed.set_exception(error)
