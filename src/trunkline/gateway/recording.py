"""An answer that several calls may be shown: it is written down, and each call follows it.

The one who asked first and whoever repeats the request see the same bytes, from the beginning. The
end is written down before the evidence is stored, and shown after it. It refuses to hold more than
its share of the memory: a longer answer goes at the pace of its slowest follower, and nobody who
comes later can follow it. An answer that nobody follows is given up after a while.
"""

import asyncio
import copy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from trunkline.base.errors import Error, MalformedError, OverloadedError, require
from trunkline.gateway.core.actions import Failure
from trunkline.gateway.core.replay import REPLAYED, Headers, Kept, not_kept
from trunkline.gateway.writer import StreamWriter, WholeWriter
from trunkline.runtime.http import JSON_TYPE, Call, ClientGoneError, HeaderItems

ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024
FOLLOWERS_MAX: Final = 1024
"""Calls that may be shown one answer at a time: each is a connection, and no more than that."""


class Memory:
    """What all recordings of a process hold together, bytes."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0


class Recording:
    """One answer's response, as a writer writes it and as calls are shown it."""

    def __init__(
        self, claim: bytes, memory: Memory, stopping: asyncio.Event, linger_s: float
    ) -> None:
        """``claim``: the id of the one it is kept for. ``stopping``: the server's. ``linger_s``:
        how long it goes on with nobody there."""
        self.claim = claim
        self._memory = memory
        self._linger_s = linger_s
        self._head: tuple[int, Headers] | None = None
        self._parts: list[bytes] = []
        self._bytes = 0
        self._dropped = 0
        """Parts that every follower has and that are held no more."""
        self._shown = 0
        """Parts that followers may see, the dropped ones included."""
        self._sealed: tuple[bool, int] | None = None
        """While the end is written but not shown: what there was before it."""
        self._ended = False
        self._error: Error | None = None
        self._followers: dict[object, int] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._lonely: asyncio.TimerHandle | None = None
        self._given_up = False
        self._closed = False
        self.failing = False
        """It ends without a whole answer: whoever asks from now on asks anew."""
        self.answer = ""
        self.stopping = stopping
        self.started = False

    # As a writer sees it.

    async def start(self, status: int, headers: HeaderItems = ()) -> None:
        """The head."""
        self.started = True
        self._head = (status, tuple(headers))
        self._notify()

    async def send(self, data: bytes) -> None:
        """A part of the body. Waits for followers only where there is too much to hold."""
        if not data:
            return
        self._parts.append(data)
        self._bytes += len(data)
        self._memory.held += len(data)
        self._notify()
        full = self._bytes > ANSWER_BYTES_MAX or self._memory.held > self._memory.bytes_max
        if self._sealed is None and (full or self._dropped):
            while not self._seen():
                changed = self._changed
                await changed.wait()
            self._drop()

    async def finish(self, data: bytes = b"") -> None:
        """The last part."""
        await self.send(data)
        self._ended = True
        self._notify()

    async def reply(
        self,
        status: int,
        body: bytes,
        content_type: str = JSON_TYPE,
        headers: HeaderItems = (),
    ) -> None:
        """A whole answer."""
        fixed = (("content-type", content_type), ("content-length", str(len(body))))
        await self.start(status, (*fixed, *headers))
        await self.finish(body)

    def seal(self) -> None:
        """From here on nothing is shown until ``reveal``, or undone by ``unseal``."""
        self._sealed = (self.started, len(self._parts))

    def unseal(self) -> None:
        """What was written since ``seal`` was never said."""
        if self._sealed is None:
            return
        self.started, count = self._sealed
        if not self.started:
            self._head = None
        gone = sum(map(len, self._parts[count:]))
        del self._parts[count:]
        self._bytes -= gone
        self._memory.held -= gone
        self._sealed, self._ended = None, False

    def reveal(self) -> None:
        """Show what was written since ``seal``."""
        self._sealed = None
        self._notify()

    def kept(self) -> Kept:
        """All that was written."""
        require(self._head is not None, "an answer that is whole has a head")
        status, headers = self._head or (0, ())
        held = not self._dropped and self._bytes <= ANSWER_BYTES_MAX
        body = b"".join(self._parts) if held else None
        return Kept(claim=self.claim, status=status, headers=headers, body=body)

    # As whoever makes the answer sees it.

    @asynccontextmanager
    async def while_connected(self) -> AsyncIterator[None]:
        """Do the work inside. Once nobody has followed for a while it is cancelled, and
        :class:`ClientGoneError` is raised in its place."""
        self._task = asyncio.current_task()
        self._watch()
        try:
            yield
        except asyncio.CancelledError:
            if self._task is not None and self._given_up and self._task.uncancel() == 0:
                raise ClientGoneError from None
            raise
        finally:
            self._task = None
            self._watch()

    def load(self, answer: str, kept: Kept) -> None:
        """Take what an earlier request was answered with. Raises :class:`OverloadedError` where
        there is no room for it."""
        body = kept.body or b""
        if self._memory.held and self._memory.held + len(body) > self._memory.bytes_max:
            raise OverloadedError("too many repeated requests at once", retry_after_s=1.0)
        self._bytes = len(body)
        self._memory.held += len(body)
        self.answer = answer
        self.started = True
        self._head = (kept.status, (*kept.headers, REPLAYED))
        self._parts = [body]
        self._shown, self._ended = 1, True
        self._wake()

    def fail(self, error: Error) -> None:
        """There is no answer: each follower is told so, unless it is told already how it ended."""
        if not self._ended or self._sealed is not None:
            self._error = error
        self._wake()

    # As those who follow see it.

    async def follow(self, call: Call, *, first: bool) -> None:
        """Show ``call`` the answer from its beginning. Raises what kept it from being made, and
        :class:`RequestError` if its beginning is held no more."""
        if self._dropped:
            raise not_kept(self.answer)
        if len(self._followers) >= FOLLOWERS_MAX:
            raise OverloadedError("too many repeated requests at once", retry_after_s=1.0)
        me = object()
        self._followers[me] = 0
        self._watch()
        try:
            async with call.while_connected():
                await self._show(call, me, () if first else (REPLAYED,))
        finally:
            del self._followers[me]
            self._forget()
            self._wake()
            self._watch()

    async def _show(self, call: Call, me: object, more: Headers) -> None:
        while True:
            if self._error is not None:
                # One instance must not be raised in several tasks.
                raise copy.copy(self._error)
            changed, at = self._changed, self._followers[me]
            visible = self._sealed is None or self._sealed[0]
            if self._head is not None and visible and not call.started:
                status, headers = self._head
                extra = more if REPLAYED not in headers else ()
                await call.start(status, (*headers, *extra))
            if at < self._shown:
                parts = self._parts[at - self._dropped : self._shown - self._dropped]
                at += len(parts)
                await call.send(b"".join(parts))
                self._followers[me] = at
                self._wake()
            elif self._ended and self._sealed is None:
                await call.finish()
                return
            else:
                await changed.wait()

    # Inside.

    def _seen(self) -> bool:
        return all(at >= self._shown for at in self._followers.values())

    def _drop(self) -> None:
        self._memory.held -= self._bytes
        self._dropped += len(self._parts)
        self._parts, self._bytes = [], 0

    def close(self) -> None:
        """Nobody will follow it any more; those who do are shown it to its end, and it takes its
        room until then."""
        self._closed = True
        self._forget()
        if self._lonely is not None:
            self._lonely.cancel()

    def _forget(self) -> None:
        """Give its room back once nobody needs it."""
        if self._closed and not self._followers:
            self._memory.held -= self._bytes
            self._bytes = 0

    def _notify(self) -> None:
        if self._sealed is None:
            self._shown = self._dropped + len(self._parts)
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _watch(self) -> None:
        """Begin or end the wait for somebody to come back."""
        if self._lonely is not None:
            self._lonely.cancel()
            self._lonely = None
        if self._task is not None and not self._followers:
            loop = asyncio.get_running_loop()
            self._lonely = loop.call_later(self._linger_s, self._give_up)

    def _give_up(self) -> None:
        if self._task is not None and not self._followers:
            self._given_up = self.failing = True
            self._task.cancel()


class Scribe:
    """A :class:`Writer` of what is to be kept: its last words are written before they are said."""

    def __init__(self, recording: Recording, writer: StreamWriter | WholeWriter) -> None:
        """``writer`` writes to ``recording``."""
        self._recording = recording
        self._writer = writer
        self._before: StreamWriter | WholeWriter | None = None

    async def seal(self, rest: list[bytes]) -> Kept:
        """The whole answer, given the data that is still to come. Nothing of it is shown."""
        self._before = self._writer.copy()
        self._recording.seal()
        try:
            if rest:
                await self._writer.relay(rest)
            await self._writer.finish()
        except MalformedError:
            # The app is told so after the evidence is stored, as every other one is.
            self._unseal()
            return Kept(claim=self._recording.claim, status=0, headers=(), body=None)
        return self._recording.kept()

    async def relay(self, data: list[bytes]) -> None:
        """As in :class:`Writer`."""
        if self._before is None:
            await self._writer.relay(data)

    async def alive(self) -> None:
        """As in :class:`Writer`."""
        await self._writer.alive()

    async def finish(self) -> None:
        """As in :class:`Writer`."""
        if self._before is None:
            await self._writer.finish()
        else:
            self._recording.reveal()

    async def fail(self, failure: Failure) -> None:
        """As in :class:`Writer`."""
        self._recording.failing = True
        self._unseal()
        await self._writer.fail(failure)

    def _unseal(self) -> None:
        if self._before is not None:
            self._writer, self._before = self._before, None
            self._recording.unseal()
