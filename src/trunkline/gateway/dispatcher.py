"""Finds each attempt its place: a deployment, from now until the attempt is over.

The answer's machine asks by ``Seek``; this answers with a lease, at once or when one comes free.
:class:`DirectDispatcher` takes the best deployment as it is and never waits.
"""

from typing import Protocol

from trunkline.base.errors import NoRouteError
from trunkline.gateway.core.breaker import Admission
from trunkline.gateway.core.route import Deployment, Need, choose, order
from trunkline.gateway.core.ticket import Outcome, Ticket
from trunkline.gateway.directory import Directory
from trunkline.schema.attempt import Limits


class Lease(Protocol):
    """A place at a deployment."""

    @property
    def deployment(self) -> Deployment:
        """Where the attempt may go."""
        ...

    def release(self, outcome: Outcome) -> None:
        """The attempt is over. Every call but the first does nothing."""
        ...


class Dispatcher(Protocol):
    """Gives out leases. One for the whole process."""

    async def place(self, need: Need, ticket: Ticket) -> Lease:
        """Wait for a place. Cancelling the wait gives it up.

        Raises :class:`NoRouteError` where no deployment serves the need, and
        :class:`OverloadedError` or :class:`RateLimitedError`, saying when to come back, where none
        can take it before the ticket's deadline.
        """
        ...

    def place_now(self, need: Need, ticket: Ticket) -> Lease | None:
        """A place that is free this instant at a healthy deployment, ahead of nobody who waits;
        None if there is none."""
        ...

    def learned(self, deployment: Deployment, limits: Limits) -> None:
        """A provider said something of its limits."""
        ...


class DirectLease:
    """A place nobody counts."""

    __slots__ = ("deployment",)

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    def release(self, outcome: Outcome) -> None:
        """Nothing is held."""


class DirectDispatcher:
    """The best deployment now, whatever runs there."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def place(self, need: Need, ticket: Ticket) -> Lease:
        """See :meth:`Dispatcher.place`."""
        best = choose(need, self._directory.offers(need))
        if best is None:
            raise NoRouteError("no node that serves this model can be reached")
        return DirectLease(best)

    def place_now(self, need: Need, ticket: Ticket) -> Lease | None:
        """See :meth:`Dispatcher.place_now`."""
        for one in order(need, self._directory.offers(need)):
            if one.ready and one.admission is Admission.FREE and one.place not in need.resting:
                return DirectLease(one)
        return None

    def learned(self, deployment: Deployment, limits: Limits) -> None:
        """Limits are not counted here."""
