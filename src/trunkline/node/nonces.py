"""Hands out the node's nonces, each at most once, and committed to before it is needed.

``docs/spec/receipt.md``, "Nonces". A set's secret, its signed commitment and the commitment's place
in the outbox are stored in one transaction; then ranges of the set are reserved, durably, and only
then handed out. Both happen ahead of need, in the background, so that an answer takes a nonce from
memory; it waits only where the disk is slower than 64 answers.

What a crash means: what was reserved and not used is never used. Refuses to go on with a set that
another process has used.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from trunkline.base.errors import VerificationError
from trunkline.base.ports import Clock, Randomness
from trunkline.crypto import merkle
from trunkline.crypto.encoding import encode_base64
from trunkline.crypto.signer import Signer, sign_note
from trunkline.node import nonce_store
from trunkline.node.nonce_store import NonceSet
from trunkline.receipts import Nonce, NonceCommitment, open_nonces
from trunkline.receipts.batch import root_and_paths
from trunkline.receipts.nonces import nonce_at, nonce_leaf, nonce_leaves
from trunkline.runtime.crash import CrashHook, no_crash
from trunkline.runtime.store import Connection, Database
from trunkline.schema.audit import NonceProof, ShownNonce

COUNT: Final = 1024
"""Nonces in a set; 3 ms to make one."""
RESERVE: Final = 128
"""Reserved at a time; half of it may go by while the next is being reserved."""
SECRET_BYTES: Final = 32
PROVEN_SETS_MAX: Final = 4
"""Sets whose paths are kept in memory, 300 kB each."""

NONCES_RESERVED: Final = "nonces.reserved"
"""Crash point: reserved on disk, and nobody has been given one."""

Enqueue = Callable[[Connection, str, bytes], object]


class NonceSource(Protocol):
    """Where a seed's nonce comes from."""

    async def take(self) -> Nonce:
        """A nonce that was never handed out before."""
        ...


class _Range(msgspec.Struct):
    """Reserved nonces of one set that were not handed out."""

    set_: NonceSet
    next: int
    until: int


class Nonces:
    """The node's :class:`NonceSource`. Belongs to one event loop."""

    def __init__(
        self,
        signer: Signer,
        database: Database,
        *,
        clock: Clock,
        randomness: Randomness,
        enqueue: Enqueue | None,
        crash: CrashHook = no_crash,
    ) -> None:
        """``enqueue``: None for a node that submits to no log."""
        self._signer = signer
        self._database = database
        self._clock = clock
        self._randomness = randomness
        self._enqueue = enqueue
        self._crash = crash
        self._sets: deque[NonceSet] | None = None
        """Those with something left to reserve, oldest first; None until they were read."""
        self._ranges: deque[_Range] = deque()
        self._left = 0
        self._task: asyncio.Task[None] | None = None
        self._paths: OrderedDict[bytes, tuple[tuple[bytes, ...], ...]] = OrderedDict()

    async def open(self) -> None:
        """Make what is needed to hand out the first ones."""
        await self._filled()

    async def take(self) -> Nonce:
        """The next nonce: from memory, or once more are reserved. Raises the store's errors."""
        while not self._left:
            await self._filled()
        range_ = self._ranges[0]
        set_, index = range_.set_, range_.next
        range_.next += 1
        self._left -= 1
        if range_.next == range_.until:
            self._ranges.popleft()
        if self._left < RESERVE // 2 and self._task is None:
            self._begin()
        return Nonce(value=nonce_at(set_.secret, index), root=set_.root, index=index)

    async def prove(self, root: bytes, index: int) -> NonceProof | None:
        """That nonce ``index`` was committed to under ``root``; None for a set not ours."""
        shown = await self.show(root, index)
        if shown is None:
            return None
        return NonceProof(note=shown.note, index=index, path=shown.path)

    async def show(self, root: bytes, index: int) -> ShownNonce | None:
        """The leaf of nonce ``index`` under ``root``, proven; None for a set not ours."""
        found = await self._database.read(lambda c: nonce_store.find(c, root))
        if found is None or not 0 <= index < found.count:
            return None
        paths = self._paths.pop(root, None)
        if paths is None:
            _, paths = root_and_paths(nonce_leaves(found.secret, found.count))
        self._paths[root] = paths
        if len(self._paths) > PROVEN_SETS_MAX:
            self._paths.popitem(last=False)
        return ShownNonce(
            note=found.note.decode(),
            index=index,
            leaf=encode_base64(nonce_leaf(nonce_at(found.secret, index))),
            path=tuple(map(encode_base64, paths[index])),
        )

    async def close(self) -> None:
        """Finish what is under way."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    async def _filled(self) -> None:
        """Wait for more. A caller that is cancelled does not take it from the others."""
        await asyncio.shield(self._task or self._begin())

    def _begin(self) -> "asyncio.Task[None]":
        task = self._task = asyncio.create_task(self._fill(), name="node.nonces")
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled():
            # Whoever waits is told; where nobody does, the next one to need it tries again.
            task.exception()

    async def _fill(self) -> None:
        if self._sets is None:
            found = await self._database.read(nonce_store.unused)
            self._sets = deque(made for made in found if self._is_ours(made))
        # One set more than is needed now, so that it is in the log long before it is used.
        while len(self._sets) < 2:
            self._sets.append(await self._make())
        await self._reserve(self._sets)

    def _is_ours(self, made: NonceSet) -> bool:
        """Not committed to by a key that the node had before."""
        try:
            open_nonces(made.note, self._signer.vkey)
        except VerificationError:
            return False
        return True

    async def _make(self) -> NonceSet:
        secret = self._randomness.token(SECRET_BYTES)
        root = merkle.root(nonce_leaves(secret, COUNT))
        commitment = NonceCommitment(
            node=self._signer.name, count=COUNT, root=root, unix_ms=self._clock.unix_ms()
        )
        note = sign_note(commitment.text(), self._signer)
        made = NonceSet(root=root, secret=secret, count=COUNT, note=note)

        def insert(connection: Connection) -> None:
            nonce_store.insert(connection, made)
            if self._enqueue is not None:
                self._enqueue(connection, made.key, note)

        # A crash before the commit: a commitment that nobody has. After it: it will be logged.
        await self._database.write(insert)
        return made

    async def _reserve(self, sets: deque[NonceSet]) -> None:
        first = sets[0]
        until = min(first.reserved + RESERVE, first.count)
        try:
            await self._database.write(
                lambda c: nonce_store.reserve(c, first.root, first.reserved, until)
            )
        except BaseException:
            # What the store holds is unknown here: ask it before the next.
            self._sets = None
            raise
        self._crash(NONCES_RESERVED)
        # A crash here: these are never used.
        self._ranges.append(_Range(first, first.reserved, until))
        self._left += until - first.reserved
        if until == first.count:
            sets.popleft()
        else:
            sets[0] = msgspec.structs.replace(first, reserved=until)
