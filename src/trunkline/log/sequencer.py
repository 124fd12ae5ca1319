"""Sequencing: entries in, indexes out, one round at a time, nothing acknowledged before it lasts.

:meth:`Sequencer._round` is the one place where the log grows. A comment at each of its steps says
what a crash there means. Everything that may fail before the swap is survivable: the round's
callers are told to come back. From the swap on, failing is fatal, because only the database knows
what happened: the process stops, and the next start asks it.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from trunkline.base.errors import CorruptStateError, Error, OverloadedError
from trunkline.base.ports import Clock
from trunkline.crypto.merkle import leaf_hash
from trunkline.crypto.signer import Signer, sign_note
from trunkline.log import crash
from trunkline.log.core.cosigning import Signed
from trunkline.log.core.tree import Growth, Tree, grow
from trunkline.log.store import LogStore
from trunkline.log.tiles import Tiles
from trunkline.runtime.logger import Logger
from trunkline.runtime.store import DiskError
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.tile import Tile

ROUND_ENTRIES_MAX: Final = 1024
ROUND_BYTES_MAX: Final = 8 * 1024 * 1024
ADD_TIMEOUT_S: Final = 30.0
RETRY_AFTER_S: Final = 1.0


@dataclass(slots=True)
class _Pending:
    """An entry on its way in, and everybody who waits for its index."""

    entry: bytes
    leaf: bytes
    index: "asyncio.Future[int]"


class Sequencer:
    """The log's only writer."""

    def __init__(
        self,
        *,
        tree: Tree,
        checkpoint: bytes,
        store: LogStore,
        tiles: Tiles,
        signer: Signer,
        clock: Clock,
        logger: Logger,
        publish: Callable[[Signed], Awaitable[None]],
        interval_ms: int,
        entries_max: int,
        bytes_max: int,
        reach: crash.CrashHook,
    ) -> None:
        """``tree`` and ``checkpoint`` are the sequenced state; ``publish`` gets each new one.

        ``reach`` is called at the named crash points.
        """
        self._tree = tree
        self._checkpoint = checkpoint
        self._store = store
        self._tiles = tiles
        self._signer = signer
        self._clock = clock
        self._logger = logger
        self._publish = publish
        self._interval_s = interval_ms / 1000
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._reach = reach
        self._queue: deque[_Pending] = deque()
        self._waiting: dict[bytes, _Pending] = {}
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._stopping = asyncio.Event()

    @property
    def size(self) -> int:
        """Entries sequenced: those that are durable for ever."""
        return self._tree.size

    @property
    def pending(self) -> int:
        """Entries waiting for a round, or in one."""
        return len(self._waiting)

    async def add(self, entry: bytes) -> int:
        """The entry's index, once it is in the log durably; the same again for the same entry.

        OverloadedError when too many wait, or it took ``ADD_TIMEOUT_S`` (it may be sequenced
        yet: adding it again is safe). DiskError when the disk refused it.
        """
        leaf = leaf_hash(entry)
        pending = self._waiting.get(leaf)
        if pending is None:
            pending = self._enqueue(entry, leaf)
        try:
            async with asyncio.timeout(ADD_TIMEOUT_S):
                # Shielded: one caller giving up must not cancel it for the others.
                return await asyncio.shield(pending.index)
        except TimeoutError:
            raise OverloadedError("the log is slow; add it again", code="log_slow") from None

    def _enqueue(self, entry: bytes, leaf: bytes) -> _Pending:
        full = len(self._waiting) >= self._entries_max or (
            self._bytes + len(entry) > self._bytes_max and bool(self._waiting)
        )
        if full:
            raise OverloadedError(
                "too many entries wait to be sequenced",
                code="log_overloaded",
                retry_after_s=RETRY_AFTER_S,
            )
        if self._stopping.is_set():
            raise OverloadedError("the log is stopping", code="log_stopping")
        pending = _Pending(entry, leaf, asyncio.get_running_loop().create_future())
        # Nobody may be waiting any more when it fails; that is not an event of its own.
        pending.index.add_done_callback(_seen)
        self._queue.append(pending)
        self._waiting[leaf] = pending
        self._bytes += len(entry)
        self._arrived.set()
        return pending

    def stop(self) -> None:
        """Let :meth:`run` end after sequencing what has been accepted."""
        self._stopping.set()
        self._arrived.set()

    async def run(self) -> None:
        """Sequence until stopped. An exception out of here is fatal for the process."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._queue:
                started_s = self._clock.monotonic_s()
                await self._run_round(self._take())
                await self._pause(started_s + self._interval_s - self._clock.monotonic_s())
            if self._stopping.is_set():
                return

    async def _pause(self, seconds: float) -> None:
        """Let entries gather for the next round; not when stopping."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _take(self) -> list[_Pending]:
        """The next round's entries: at least one."""
        taken = [self._queue.popleft()]
        size = len(taken[0].entry)
        while self._queue and len(taken) < ROUND_ENTRIES_MAX:
            size += len(self._queue[0].entry)
            if size > ROUND_BYTES_MAX:
                break
            taken.append(self._queue.popleft())
        return taken

    async def _run_round(self, batch: list[_Pending]) -> None:
        """One round, and its outcome to everybody who waits for it."""
        try:
            indexes = await self._round(batch)
        except DiskError as error:
            # Survivable: nothing of it was sequenced.
            self._logger.error("round.failed", error=error.error_code, entries=len(batch))
            self._fail(batch, error)
        except BaseException:
            unknown = DiskError("the log stopped; add it again", code="log_stopping")
            self._fail([*batch, *self._queue], unknown)
            raise
        else:
            for pending in batch:
                self._forget(pending)
                if not pending.index.done():
                    pending.index.set_result(indexes[pending.leaf])
            self._reach(crash.ROUND_ACKNOWLEDGED)

    def _fail(self, batch: list[_Pending], error: Error) -> None:
        for pending in batch:
            self._forget(pending)
            if not pending.index.done():
                pending.index.set_exception(type(error)(error.message, code=error.error_code))

    def _forget(self, pending: _Pending) -> None:
        if self._waiting.pop(pending.leaf, None) is not None:
            self._bytes -= len(pending.entry)

    async def _round(self, batch: list[_Pending]) -> dict[bytes, int]:
        """Sequence a batch: the index of every entry in it, by leaf hash."""
        known = dict(await self._store.find([pending.leaf for pending in batch]))
        fresh = [pending for pending in batch if pending.leaf not in known]
        if not fresh:
            return known
        leaves = [pending.leaf for pending in fresh]
        growth = grow(self._tree, [pending.entry for pending in fresh], leaves)
        checkpoint = Checkpoint(
            origin=self._signer.name, size=growth.tree.size, root=growth.tree.root()
        )

        # 1. Planned. A crash here: nothing has happened; callers were told nothing.
        self._reach(crash.ROUND_PLANNED)

        # 2. Tiles, durably, beyond the current checkpoint. A crash in it or after it: files that no
        #    checkpoint covers. They are not served, and the next start deletes them; the entries
        #    are not in the log, and their callers, told nothing, add them again.
        await self._write_tiles(growth)
        self._reach(crash.TILES_WRITTEN)

        # 3. Swap the checkpoint: this makes the entries part of the log, for ever. Signed only now,
        #    so that no signature exists for a tree whose tiles are not durable. A crash before the
        #    commit: as in 2. After it: sequenced, not acknowledged; added again, the entries get
        #    these same indexes. An error: only the database knows which, so the process stops.
        signed = sign_note(checkpoint.text(), self._signer)
        indexes = {leaf: self._tree.size + number for number, leaf in enumerate(leaves)}
        await self._swap(signed, growth.tree.size, leaves)
        self._tree, self._checkpoint = growth.tree, signed
        self._reach(crash.CHECKPOINT_SWAPPED)

        # 4. Publish, or hand over to be cosigned first (see core.cosigning). A crash before or in
        #    it: readers see the checkpoint before, which stays true; the next start publishes this.
        await self._publish(Signed(size=growth.tree.size, note=signed))
        self._reach(crash.CHECKPOINT_PUBLISHED)

        # 5. Delete the partial tiles that wider ones replace. A crash in it leaves superfluous
        #    files, which are right, and are deleted when their tile grows next.
        await self._prune(growth)
        self._logger.info("round.sequenced", size=growth.tree.size, entries=len(fresh))
        return known | indexes

    async def _write_tiles(self, growth: Growth) -> None:
        try:
            await asyncio.to_thread(self._tiles.write_tiles, growth.files)
        except OSError as error:
            # The disk is full or failing. What got through would be taken for tiles of the log by
            # a later, wider round, so it goes now; if even that fails, stop.
            try:
                await asyncio.to_thread(
                    self._tiles.discard_beyond, self._tree.size, ROUND_ENTRIES_MAX
                )
            except OSError:
                raise CorruptStateError("tiles of a failed round can not be deleted") from None
            raise DiskError(f"tiles can not be written: {error.strerror}") from None

    async def _swap(self, signed: bytes, size: int, leaves: Sequence[bytes]) -> None:
        try:
            await self._store.swap(self._checkpoint, size, signed, self._tree.size, leaves)
        except Error as error:
            raise CorruptStateError(
                f"the checkpoint could not be swapped: {error.message}", code=error.error_code
            ) from error

    async def _prune(self, growth: Growth) -> None:
        tiles: list[Tile] = [tile for tile, _ in growth.files]
        try:
            await asyncio.to_thread(self._tiles.prune_partials, tiles)
        except OSError as error:
            self._logger.warning("partials.kept", error_type=type(error).__name__)


def _seen(future: "asyncio.Future[int]") -> None:
    if not future.cancelled():
        future.exception()
