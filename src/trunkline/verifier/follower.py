"""Follows the log: entries out of tiles, believed only once they are of the cosigned tree.

It keeps where it is in the transaction that keeps what it found, so a crash repeats at most one
step, with the same outcome. It refuses to go on from a log whose entries and checkpoint disagree,
and waits where the witnesses have not cosigned yet.
"""

from collections.abc import Sequence
from typing import Final

from trunkline.base.errors import (
    BadResponseError,
    ConflictError,
    ConsistencyError,
    MalformedError,
    QuorumError,
)
from trunkline.base.ports import Clock
from trunkline.crypto import merkle
from trunkline.remote.log import BAD_LOG, LogCaller
from trunkline.runtime.crash import CrashHook
from trunkline.runtime.store import Database
from trunkline.tlog.checkpoint import Checkpoint
from trunkline.tlog.policy import Policy
from trunkline.tlog.tile import TILE_WIDTH, decode_bundle, tile_at
from trunkline.verifier import crash, store
from trunkline.verifier.core.entry import Entry, Reader
from trunkline.verifier.core.tree import Frontier
from trunkline.verifier.store import Head

STEP_BUNDLES: Final = 64
"""Bundles of entries taken in by one transaction, at most."""
HISTORY_ENTRIES: Final = store.WHOLE_ENTRIES
"""A verifier that starts on a longer log reads this much of its end."""


class Follower:
    """One log, followed into one store."""

    def __init__(
        self,
        database: Database,
        log: LogCaller,
        policy: Policy,
        reader: Reader,
        *,
        clock: Clock,
        reach: CrashHook,
    ) -> None:
        self._database = database
        self._log = log
        self._policy = policy
        self._reader = reader
        self._clock = clock
        self._reach = reach
        self.followed_ms = 0
        """When the log was asked for what this process has followed to its end; 0: never."""
        self._ended = b""
        """The checkpoint to whose end this process knows the log to be followed."""

    async def step(self) -> bool:
        """Take in what the log has published since. Whether there may be more at once.

        Raises UpstreamErrors of the network, and the VerificationError of a log that is not sound.
        """
        asked_ms = self._clock.unix_ms()
        note = await self._log.checkpoint()
        if note == self._ended:
            self.followed_ms = asked_ms
            return False
        try:
            checkpoint = self._policy.accepts(note).checkpoint
        except QuorumError:
            return False
        head = await self._database.read(store.read_head)
        frontier = await self._start(checkpoint) if head is None else head.frontier
        if checkpoint.size <= frontier.size:
            self._ended, self.followed_ms = note, asked_ms
            return False
        found, grown = await self._grow(frontier, checkpoint.size)
        await self._check(grown, checkpoint)
        after, now_ms = Head(frontier=grown, checkpoint=note), self._clock.unix_ms()
        try:
            # A crash before the commit: the same entries are fetched again. After it: they are
            # known, and what follows from them is looked for at the next start too.
            await self._database.write(
                lambda c: store.advance(c, head, after, found, now_ms=now_ms)
            )
        except ConflictError:
            return True
        self._reach(crash.ENTRIES_FOLLOWED)
        if grown.size < checkpoint.size:
            return True
        self._ended, self.followed_ms = note, asked_ms
        return False

    async def _grow(self, frontier: Frontier, size: int) -> tuple[list[Entry], Frontier]:
        """Go on in the tree of ``size``, by a step at most that ends where a bundle does."""
        found: list[Entry] = []
        grown = frontier
        end = min(size, (frontier.size // TILE_WIDTH + STEP_BUNDLES) * TILE_WIDTH)
        while grown.size < end:
            entries = await self._bundle(grown.size, size)
            read = (self._reader.read(grown.size + at, entry) for at, entry in enumerate(entries))
            found += [entry for entry in read if entry is not None]
            grown = grown.grown(entries)
        return found, grown

    async def _bundle(self, first: int, size: int) -> Sequence[bytes]:
        """Entries from ``first`` to the end of its bundle."""
        tile = tile_at(None, first // TILE_WIDTH, size)
        try:
            entries = decode_bundle(await self._log.tile(tile.path), tile.width)
        except MalformedError as error:
            raise BadResponseError(f"the log's entries: {error.message}", code=BAD_LOG) from None
        return entries[first - tile.start :]

    async def _start(self, checkpoint: Checkpoint) -> Frontier:
        """Where a verifier begins that has never followed this log."""
        first = max(0, checkpoint.size - HISTORY_ENTRIES) // TILE_WIDTH * TILE_WIDTH
        if first == 0:
            return Frontier.empty()
        frontier = Frontier(size=first, hashes=tuple(await self._log.subtree_roots(first)))
        await self._check(frontier, checkpoint)
        return frontier

    async def _check(self, frontier: Frontier, checkpoint: Checkpoint) -> None:
        """ConsistencyError unless the cosigned tree begins with this one."""
        if frontier.size == checkpoint.size:
            root = checkpoint.root
        else:
            proof = await self._log.prefix_proof(frontier.size, checkpoint.size)
            root = merkle.prefix_root(frontier.size, checkpoint.size, proof, checkpoint.root)
        if frontier.root() != root:
            raise ConsistencyError(
                "the log's entries are not those of its cosigned tree", code="log_inconsistent"
            )
