"""Admission: a bounded number of places, a bounded queue before them, first come first served.

A caller holds a :class:`Ticket` from the moment it asks, and gives it back once, wherever it stands
then: so a caller cancelled at any point loses no place.
"""

import asyncio
from collections import deque
from typing import Final

from trunkline.base.errors import OverloadedError
from trunkline.base.ports import Clock

RETRY_AFTER_S_MIN: Final = 1.0
RETRY_AFTER_S_MAX: Final = 60.0
_WEIGHT: Final = 0.2
"""Of the latest holder in the running mean of how long places are held."""


class Ticket:
    """A claim to some places."""

    __slots__ = ("_gate", "admitted", "places")

    def __init__(self, gate: "Gate", places: int) -> None:
        self._gate = gate
        self.places = places
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the places are held. May be awaited and cancelled freely."""

    def give_back(self) -> None:
        """Leave the places, or the queue. Safe to repeat."""
        self._gate.release(self)


class Gate:
    """``places`` may be held at once; ``queue_max`` callers may wait. Belongs to one event loop."""

    def __init__(self, places: int, queue_max: int, *, clock: Clock) -> None:
        self._places = places
        self._free = places
        self._queue_max = queue_max
        self._clock = clock
        self._queue: deque[Ticket] = deque()
        self._inside: dict[Ticket, float] = {}
        """When each holder came in, monotonic seconds."""
        self._mean_s = 0.0

    @property
    def running(self) -> int:
        return len(self._inside)

    @property
    def queued(self) -> int:
        return len(self._queue)

    def ask(self, places: int) -> Ticket:
        """A ticket for ``places``, at most as many as there are; perhaps admitted at once.

        Raises :class:`OverloadedError` when the queue is full.
        """
        if not 1 <= places <= self._places:
            raise ValueError(f"a ticket is for 1 to {self._places} places, not {places}")
        ticket = Ticket(self, places)
        if len(self._queue) >= self._queue_max and (self._queue or places > self._free):
            raise OverloadedError(
                f"{self._queue_max} attempts wait already", retry_after_s=self.retry_after_s
            )
        self._queue.append(ticket)
        self._admit()
        return ticket

    def release(self, ticket: Ticket) -> None:
        """See :meth:`Ticket.give_back`."""
        since_s = self._inside.pop(ticket, None)
        if since_s is not None:
            self._free += ticket.places
            held_s = self._clock.monotonic_s() - since_s
            self._mean_s += (held_s - self._mean_s) * (_WEIGHT if self._mean_s else 1.0)
        elif ticket in self._queue:
            self._queue.remove(ticket)
        self._admit()

    @property
    def retry_after_s(self) -> float:
        """When a newcomer would probably be admitted."""
        wait_s = self._mean_s * (len(self._queue) + 1) / self._places
        return min(max(wait_s, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)

    def _admit(self) -> None:
        while self._queue and self._queue[0].places <= self._free:
            ticket = self._queue.popleft()
            self._free -= ticket.places
            self._inside[ticket] = self._clock.monotonic_s()
            if not ticket.admitted.done():
                ticket.admitted.set_result(None)
