"""Calling a log: submitting entries, and reading checkpoints and tiles (C2SP tlog-tiles).

Nothing that a log says is believed: :meth:`LogCaller.fetch_inclusion` returns a proof only after
it verified under the caller's policy.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from trunkline.base.errors import (
    BadResponseError,
    MalformedError,
    QuorumError,
    TimedOutError,
    UpstreamError,
)
from trunkline.crypto.encoding import decode_decimal
from trunkline.crypto.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from trunkline.remote.plain import PlainCaller
from trunkline.remote.status import NOT_FOUND
from trunkline.remote.transport import Transport
from trunkline.tlog.checkpoint import CHECKPOINT_NOTE_BYTES_MAX, Checkpoint
from trunkline.tlog.policy import Policy
from trunkline.tlog.proof import Proof
from trunkline.tlog.tile import BUNDLE_BYTES_MAX, TILE_BYTES_MAX, TILE_WIDTH, Tile
from trunkline.tlog.tile_proof import (
    inclusion_proof,
    prefix_proof,
    subtree_roots,
    tiles_needed_for_inclusion,
    tiles_needed_for_prefix,
    tiles_needed_for_root,
)

ADD_PATH: Final = "/add"
CHECKPOINT_PATH: Final = "/checkpoint"
INDEX_BYTES_MAX: Final = 21
POLL_FIRST_S: Final = 0.1
POLL_MAX_S: Final = 1.0
VIEW_S_MAX: Final = POLL_FIRST_S
"""How long proofs are made from one checkpoint before the log is asked for a newer one."""

BAD_LOG: Final = "log_bad_response"
NOT_YET: Final = "log_inclusion_timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """The log as one accepted checkpoint shows it, shared by those who look at about one time."""

    policy: Policy
    note: bytes
    checkpoint: Checkpoint
    seen_s: float
    """Loop time at which it was accepted."""
    tiles: dict[str, bytes] = field(default_factory=dict)
    """What was read for it, by path. Not verified: the proofs made of it are."""
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class LogCaller:
    """One log, by the URL prefix of its tiles."""

    __slots__ = ("_looking", "_looks", "_observe", "_plain", "_view")

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        *,
        timeout_s: float = 10.0,
        observe: Callable[[bytes], Awaitable[str]] | None = None,
    ) -> None:
        """``observe`` is given every checkpoint that :meth:`fetch_inclusion` reads, before it is
        used. An UpstreamError from it is waited out, any other Error ends the waiting."""
        self._plain = PlainCaller(transport, base_url, timeout_s)
        self._observe = observe
        self._view: _View | None = None
        self._looking = asyncio.Lock()
        self._looks = 0

    async def add(self, entry: bytes) -> int:
        """Submit an entry; returns its index once the log has it durably. Submitting the same
        entry again gives the same index."""
        body = await self._plain.call("POST", ADD_PATH, INDEX_BYTES_MAX, body=entry)
        try:
            return decode_decimal(body.removesuffix(b"\n"))
        except MalformedError:
            raise BadResponseError("the log answered without an index", code=BAD_LOG) from None

    async def checkpoint(self) -> bytes:
        """The latest checkpoint's signed note. Not verified."""
        return await self._plain.call("GET", CHECKPOINT_PATH, CHECKPOINT_NOTE_BYTES_MAX)

    async def tile(self, path: str) -> bytes:
        """A tile or an entry bundle, by its path below the prefix. Not verified.

        A partial hash tile that the log has replaced by the full one (as it may) is cut from that.
        """
        tile = Tile.parse(path)
        limit = BUNDLE_BYTES_MAX if tile.level is None else TILE_BYTES_MAX
        try:
            return await self._plain.call("GET", "/" + path, limit)
        except UpstreamError as error:
            if tile.width == TILE_WIDTH or tile.level is None or error.error_code != NOT_FOUND:
                raise
        full = Tile(level=tile.level, index=tile.index)
        return (await self._plain.call("GET", "/" + full.path, limit))[: tile.width * HASH_BYTES]

    async def prefix_proof(self, size1: int, size2: int) -> list[bytes]:
        """Prefix proof of ``size1`` in ``size2`` (``0 < size1 < size2``). Not verified.

        BadResponseError ``log_bad_response`` where the tiles make none.
        """
        tiles = await self._tiles(tiles_needed_for_prefix(size1, size2))
        try:
            return prefix_proof(size1, size2, tiles)
        except MalformedError as error:
            raise BadResponseError(f"the log's tiles: {error.message}", code=BAD_LOG) from None

    async def consistency_proof(self, size1: int, size2: int) -> list[bytes]:
        """RFC 6962 consistency proof (``0 < size1 < size2``). Not verified; raises as above."""
        proof = await self.prefix_proof(size1, size2)
        # RFC 6962 leaves out the old tree's own root, where that is one of the hashes.
        return proof[1:] if size1 & (size1 - 1) == 0 else proof

    async def subtree_roots(self, size: int) -> list[bytes]:
        """Roots of the complete subtrees of the tree of ``size``. Not verified; raises as above."""
        tiles = await self._tiles(tiles_needed_for_root(size))
        try:
            return subtree_roots(size, tiles)
        except MalformedError as error:
            raise BadResponseError(f"the log's tiles: {error.message}", code=BAD_LOG) from None

    async def _tiles(self, paths: Sequence[str]) -> dict[str, bytes]:
        """Tiles by path, fetched at once: a proof takes at most some dozens."""
        fetched = await asyncio.gather(*(self.tile(path) for path in paths))
        return dict(zip(paths, fetched, strict=True))

    async def fetch_inclusion(
        self, entry: bytes, index: int, policy: Policy, *, timeout_s: float
    ) -> Proof:
        """A verified proof that ``entry`` is at ``index`` under a checkpoint that ``policy``
        accepts; waits for the log and its witnesses until ``timeout_s``.

        Raises TimedOutError ``log_inclusion_timeout`` if that has not come about by then, and at
        once the VerificationError (but for a missing quorum) or MalformedError of a log that
        shows something unsound. Failures of the network are waited out.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._await_inclusion(leaf_hash(entry), index, policy)
        except TimeoutError:
            raise TimedOutError(
                f"no accepted checkpoint holds entry {index} within {timeout_s:g} s", code=NOT_YET
            ) from None

    async def _await_inclusion(self, leaf: bytes, index: int, policy: Policy) -> Proof:
        pause_s = POLL_FIRST_S
        while True:
            try:
                found = await self._try_inclusion(leaf, index, policy)
            except UpstreamError:
                found = None
            if found is not None:
                return found
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, POLL_MAX_S)

    async def _try_inclusion(self, leaf: bytes, index: int, policy: Policy) -> Proof | None:
        """The proof, or None where the accepted checkpoint does not reach so far yet."""
        view = await self._look(index, policy)
        if view is None:
            return None
        checkpoint = view.checkpoint
        needed = tiles_needed_for_inclusion(index, checkpoint.size)
        async with view.reading:
            missing = [path for path in needed if path not in view.tiles]
            view.tiles.update(await self._tiles(missing))
        path = inclusion_proof(index, checkpoint.size, view.tiles)
        verify_inclusion(leaf, index, checkpoint.size, path, checkpoint.root)
        return Proof(index=index, path=tuple(path), checkpoint_note=view.note)

    async def _look(self, index: int, policy: Policy) -> _View | None:
        """An accepted checkpoint that holds ``index``, or None. Many wait for one log at a time:
        whoever has to wait for another's look makes do with what that one saw."""
        looks = self._looks
        async with self._looking:
            if looks == self._looks and self._known(index, policy) is None:
                try:
                    self._view = await self._accepted(policy)
                finally:
                    self._looks += 1
        return self._known(index, policy)

    def _known(self, index: int, policy: Policy) -> _View | None:
        """What was seen a moment ago, if that holds ``index``. Nothing older: a log that is caught
        at a lie is believed no longer than it takes to look."""
        view = self._view
        if view is None or view.policy is not policy or view.checkpoint.size <= index:
            return None
        age_s = asyncio.get_running_loop().time() - view.seen_s
        return view if age_s < VIEW_S_MAX else None

    async def _accepted(self, policy: Policy) -> _View | None:
        """The log's newest checkpoint, if enough witnesses have seen it."""
        checkpoint_note = await self.checkpoint()
        if self._observe is not None:
            await self._observe(checkpoint_note)
        try:
            checkpoint: Checkpoint = policy.accepts(checkpoint_note).checkpoint
        except QuorumError:
            return None
        seen_s = asyncio.get_running_loop().time()
        return _View(policy=policy, note=checkpoint_note, checkpoint=checkpoint, seen_s=seen_s)
