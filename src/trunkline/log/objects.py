"""The log's tiles in an S3-compatible object store: :class:`trunkline.log.tiles.Tiles` over HTTP.

The local database stays the lock and the index; the bucket holds what readers are shown, named and
typed so that they may read it there themselves. A tile is written only where there is none, and the
published checkpoint only in place of the one that this process wrote or read last. So a second log
on the same bucket is noticed by both, whatever their databases say; a store that ignores such
conditions is refused at the start. Partial tiles stay until the full one is there, as C2SP
tlog-tiles demands of what readers can reach.
"""

import asyncio
import errno
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from functools import partial
from typing import Final, NoReturn, TypeVar

from trunkline.base.errors import (
    ConfigError,
    CorruptStateError,
    TimedOutError,
    TruncatedError,
    UpstreamError,
)
from trunkline.log.crash import TILES_PARTLY_WRITTEN, CrashHook, no_crash
from trunkline.log.files import cut, right_of
from trunkline.log.tiles import (
    CHECKPOINT_CACHE,
    CHECKPOINT_NAME,
    CHECKPOINT_TYPE,
    TILE_CACHE,
    TILE_TYPE,
)
from trunkline.remote.s3 import Condition, ObjectChangedError, S3Caller, Stored
from trunkline.remote.status import AUTH, NOT_FOUND, REDIRECT
from trunkline.remote.transport import Transport
from trunkline.tlog import tile_proof
from trunkline.tlog.checkpoint import CHECKPOINT_NOTE_BYTES_MAX
from trunkline.tlog.tile import BUNDLE_BYTES_MAX, TILE_BYTES_MAX, TILE_WIDTH, Tile

T = TypeVar("T")

OPERATION_TIMEOUT_S: Final = 25.0
"""For one object, tries and pauses together: less than a submitter waits."""
PAUSE_FIRST_S: Final = 0.1
PAUSE_S_MAX: Final = 2.0
RUNNING_MAX: Final = 16
"""Requests at once."""
READ_TRIES: Final = 3
FINAL_CODES: Final = frozenset({AUTH, NOT_FOUND, REDIRECT})
"""What trying again does not change."""
TILE_HEADERS: Final = {"content-type": TILE_TYPE, "cache-control": TILE_CACHE}
CHECKPOINT_HEADERS: Final = {"content-type": CHECKPOINT_TYPE, "cache-control": CHECKPOINT_CACHE}


class ObjectTiles:
    """One log's part of a bucket."""

    def __init__(
        self,
        caller: S3Caller,
        transport: Transport,
        prefix: str,
        *,
        crash: CrashHook = no_crash,
        operation_timeout_s: float = OPERATION_TIMEOUT_S,
    ) -> None:
        """``transport`` is the caller's own, used by nothing else, and closed with this.
        ``prefix``: what the log's names are put behind; empty, or without a slash at its end."""
        self._caller = caller
        self._transport = transport
        self._prefix = f"{prefix}/" if prefix else ""
        self._crash = crash
        self._timeout_s = operation_timeout_s
        self._published: Stored | None = None
        """As it was when this process last read or wrote it."""
        self._gate = asyncio.Semaphore(RUNNING_MAX)
        self._loop = _LoopThread()

    def prepare(self) -> None:
        """Refuse a store that ignores the conditions of a write. What it is asked to write for that
        is what is there already, so nothing is lost where it does."""
        published = self._published
        if published is None:
            raise CorruptStateError("the object store has no checkpoint")
        self._loop.run(self._probe(published))

    async def _probe(self, published: Stored) -> None:
        for condition in (Condition.absent(), Condition.unchanged('"0"')):

            async def write(condition: Condition = condition) -> None:
                await self._caller.put(
                    self._prefix + CHECKPOINT_NAME, published.body, condition, CHECKPOINT_HEADERS
                )

            try:
                await self._persist(write)
            except ObjectChangedError:
                continue
            raise ConfigError("key tiles: this store ignores the conditions of a write")

    def write_tiles(self, files: Sequence[tuple[Tile, bytes]]) -> None:
        """See :class:`trunkline.log.tiles.Tiles`."""
        self._loop.run(self._write_tiles(files))

    async def _write_tiles(self, files: Sequence[tuple[Tile, bytes]]) -> None:
        for first in files[:1]:
            await self._write_tile(*first)
            # A crash here or below leaves some of a round's tiles, beyond every checkpoint: nobody
            # has been told of them, and the next start deletes them.
            self._crash(TILES_PARTLY_WRITTEN)
        await self._all(self._write_tile(tile, data) for tile, data in files[1:])

    async def _write_tile(self, tile: Tile, data: bytes) -> None:
        async def write() -> None:
            key = self._prefix + tile.path
            try:
                await self._caller.put(key, data, Condition.absent(), TILE_HEADERS)
            except ObjectChangedError:
                found = await self._caller.get(key, _limit(tile))
                # The same bytes: an earlier try was stored, though it seemed to fail. Others: what
                # a failed round left came late, or another process writes here. The round fails,
                # and what is beyond the checkpoint is deleted, after a look at who wrote that.
                if found is None or found.body != data:
                    _fail(errno.EEXIST, f"{tile.path}: another object has this name")

        await self._persist(write)

    def read_tile(self, tile: Tile) -> bytes:
        """See :class:`trunkline.log.tiles.Tiles`."""
        return self._loop.run(self._read_tile(tile))

    async def _read_tile(self, tile: Tile) -> bytes:
        found = tile
        for _ in range(READ_TRIES):
            stored = await self._get(found.path, _limit(tile))
            if stored is not None:
                return cut(stored.body, found, tile.width)
            if tile.width == TILE_WIDTH:
                break
            wider = [width for width in await self._widths(tile) if width >= tile.width]
            width = min(wider, default=TILE_WIDTH)
            found = Tile(level=tile.level, index=tile.index, width=width)
        raise FileNotFoundError(tile.path)

    def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """See :class:`trunkline.log.tiles.Tiles`."""
        return self._loop.run(self._consistency_proof(size1, size2))

    async def _consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        paths = list(tile_proof.tiles_needed_for_consistency(size1, size2))
        read = await self._all(self._read_tile(Tile.parse(path)) for path in paths)
        return tile_proof.consistency_proof(size1, size2, dict(zip(paths, read, strict=True)))

    def prune_partials(self, written: Iterable[Tile]) -> None:
        """Delete the partial tiles of those that are full now. A crash half-way leaves some, which
        are right."""
        self._loop.run(self._prune_partials([tile for tile in written if tile.width == TILE_WIDTH]))

    async def _prune_partials(self, full: Sequence[Tile]) -> None:
        widths = await self._all(self._widths(tile) for tile in full)
        partials = [
            _partial(tile, w) for tile, found in zip(full, widths, strict=True) for w in found
        ]
        await self._delete(partials)

    def discard_beyond(self, size: int, entries_max: int) -> int:
        """See :class:`trunkline.log.tiles.Tiles`. CorruptStateError, and nothing is deleted, if the
        published checkpoint is another than this process knows: then the tiles are another's."""
        return self._loop.run(self._discard_beyond(size, entries_max))

    async def _discard_beyond(self, size: int, entries_max: int) -> int:
        known = self._published
        found = await self._get(CHECKPOINT_NAME, CHECKPOINT_NOTE_BYTES_MAX)
        if found is None or known is None or found.body != known.body:
            _foreign()
        right = list(right_of(size, entries_max))
        there = await self._all(self._list(tile.path) for tile, _ in right)
        doomed = [
            tile
            for (full, width), names in zip(right, there, strict=True)
            for tile in (Tile.parse(name) for name in names)
            if tile.index == full.index and tile.width > width
        ]
        # One that nothing is heard of is not tried again: the first may be under way still, and
        # would delete what the next round writes there. It is an error, and the log stops.
        await self._delete(doomed, certain=True)
        return len(doomed)

    def partial_widths(self, tile: Tile) -> list[int]:
        """See :class:`trunkline.log.tiles.Tiles`."""
        return self._loop.run(self._widths(tile))

    def names(self) -> Iterator[str]:
        """See :class:`trunkline.log.tiles.Tiles`."""
        return iter(self._loop.run(self._list("tile/")))

    def write_checkpoint(self, note: bytes) -> None:
        """See :class:`trunkline.log.tiles.Tiles`. CorruptStateError if somebody else published."""
        self._loop.run(self._write_checkpoint(note))

    async def _write_checkpoint(self, note: bytes) -> None:
        async def write() -> Stored:
            known = self._published
            condition = Condition.absent() if known is None else Condition.unchanged(known.etag)
            key = self._prefix + CHECKPOINT_NAME
            try:
                etag = await self._caller.put(key, note, condition, CHECKPOINT_HEADERS)
            except ObjectChangedError:
                found = await self._caller.get(key, CHECKPOINT_NOTE_BYTES_MAX)
                # Ours: an earlier try was stored, though it seemed to fail. Any other: two logs
                # publish here, and going on would show readers now one tree and now the other.
                if found is None or found.body != note:
                    _foreign()
                return found
            return Stored(body=note, etag=etag)

        # A crash before it is stored: readers see the one before. After it: they see this one, and
        # the next start reads it.
        self._published = await self._persist(write)

    def read_checkpoint(self) -> bytes | None:
        """See :class:`trunkline.log.tiles.Tiles`."""
        read = self._get(CHECKPOINT_NAME, CHECKPOINT_NOTE_BYTES_MAX)
        self._published = self._loop.run(read)
        return None if self._published is None else self._published.body

    def close(self) -> None:
        """Cut the connections."""
        self._loop.close(self._transport.aclose)

    async def _get(self, name: str, limit: int) -> Stored | None:
        return await self._persist(lambda: self._caller.get(self._prefix + name, limit))

    async def _widths(self, tile: Tile) -> list[int]:
        names = await self._list(Tile(level=tile.level, index=tile.index).path + ".p/")
        return sorted(Tile.parse(name).width for name in names)

    async def _list(self, beginning: str) -> list[str]:
        async def collect() -> list[str]:
            keys = self._caller.keys(self._prefix + beginning)
            return [key.removeprefix(self._prefix) async for key in keys]

        return await self._persist(collect)

    async def _delete(self, tiles: Iterable[Tile], *, certain: bool = False) -> None:
        async def delete(tile: Tile) -> None:
            work = partial(self._caller.delete, self._prefix + tile.path)
            await self._persist(work, certain=certain)

        await self._all(delete(tile) for tile in tiles)

    async def _all(self, works: Iterable[Coroutine[None, None, T]]) -> list[T]:
        """The results of all; or, when none runs any more, the first failure."""
        results = await asyncio.gather(*works, return_exceptions=True)
        done: list[T] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            done.append(result)
        return done

    async def _persist(self, work: Callable[[], Awaitable[T]], *, certain: bool = False) -> T:
        """Try until it works, is refused for good, or time is up: then OSError. ``certain``: also
        when a try was not answered."""
        pause_s, code = PAUSE_FIRST_S, "upstream_timeout"
        try:
            async with self._gate, asyncio.timeout(self._timeout_s):
                while True:
                    try:
                        return await work()
                    except UpstreamError as error:
                        code = error.error_code
                        silent = certain and isinstance(error, TimedOutError | TruncatedError)
                        if code in FINAL_CODES or not error.retryable or silent:
                            _fail(errno.EIO, f"the object store: {code}")
                        wait_s = min(error.retry_after_s or pause_s, PAUSE_S_MAX)
                    await asyncio.sleep(wait_s)
                    pause_s *= 2
        except TimeoutError:
            _fail(errno.ETIMEDOUT, f"the object store: {code}")


class _LoopThread:
    """An event loop in a thread of its own, for callers that block."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="log.objects", daemon=True
        )
        self._thread.start()
        self._lock = threading.Lock()
        self._ending = False

    def run(self, work: Coroutine[None, None, T]) -> T:
        """What the work returns or raises. Its own deadlines bound it. OSError once this ends:
        whoever waits in another thread then would wait for ever."""
        with self._lock:
            if self._ending:
                work.close()
                _fail(errno.ECANCELED, "the object store: closed")
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            _fail(errno.ECANCELED, "the object store: closed")

    def close(self, last: Callable[[], Coroutine[None, None, None]]) -> None:
        """End it and what still runs, and then ``last``. Safe to repeat."""
        with self._lock:
            if self._ending:
                return
            self._ending = True
        asyncio.run_coroutine_threadsafe(self._end(last), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self, last: Callable[[], Coroutine[None, None, None]]) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await last()


def _limit(tile: Tile) -> int:
    return BUNDLE_BYTES_MAX if tile.level is None else TILE_BYTES_MAX


def _partial(full: Tile, width: int) -> Tile:
    return Tile(level=full.level, index=full.index, width=width)


def _fail(number: int, why: str) -> NoReturn:
    raise OSError(number, why)


def _foreign() -> NoReturn:
    raise CorruptStateError("the published checkpoint is not the one that this log wrote last")
