"""What serves an attempt, as the attempt's shell sees it: prepare, begin, run."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from trunkline.inference.answer import Event
from trunkline.node.core.statement import Outcome
from trunkline.schema.attempt import Accepted, Attempt, Limits, ServedModel

ALIVE_S: Final = 1.0
"""Longest silence while an attempt waits (``docs/spec/attempt-protocol.md``, rule 11)."""

T = TypeVar("T")


async def patiently(wait: Awaitable[T], alive: Callable[[], Awaitable[None]]) -> T:
    """Await ``wait``, calling ``alive`` after each second that it takes. Cancelling cancels it."""
    task = asyncio.ensure_future(wait)
    try:
        while not (await asyncio.wait((task,), timeout=ALIVE_S))[0]:
            await alive()
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
        if not task.cancelled():
            # Looked at, so that a failure beside a cancellation is not reported as forgotten.
            task.exception()


class Output(Protocol):
    """Where a running attempt's events go: into the stream digest and to the gateway."""

    async def event(self, event: Event) -> None:
        """Send one event. Waits while the gateway is slow."""
        ...

    async def replayed(self, digest: str) -> None:
        """Say what the tokens that were given show (``schema.attempt.Replayed``)."""
        ...

    async def limits(self, limits: Limits) -> None:
        """Say what the provider said of its limits."""
        ...

    async def alive(self) -> None:
        """Send a comment: still at work, nothing to say yet."""
        ...


class Work(Protocol):
    """One attempt that can be served."""

    @property
    def places(self) -> int:
        """How many of the gate's places it takes."""
        ...

    @property
    def accepted(self) -> Accepted:
        """The first event. Asked for after :meth:`begin`."""
        ...

    async def begin(self) -> None:
        """What may fail before anything is promised. Runs once places are held."""
        ...

    async def run(self, output: Output) -> Outcome:
        """Send the whole answer and say what it was. Cancelling stops the work at once."""
        ...

    async def close(self) -> None:
        """Let go of whatever ``begin`` took, however the attempt ended. Safe to repeat."""
        ...


class Service(Protocol):
    """Serves one kind of attempt."""

    def models(self) -> tuple[ServedModel, ...]:
        """What it serves, as far as is known now."""
        ...

    def serves(self, attempt: Attempt) -> bool:
        """Whether the attempt's kind and model are its own."""
        ...

    async def prepare(self, attempt: Attempt) -> Work:
        """Check and plan. Raises :class:`RequestError` naming what can not be honoured."""
        ...
