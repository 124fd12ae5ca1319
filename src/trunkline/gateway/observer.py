"""What a relay tells of an answer while it carries it: when what happened, never what was said.

One observer for one answer. Its methods return at once, never fail, and decide nothing.
"""

from typing import Protocol

from trunkline.gateway.core.actions import Ended, Start, Store


class Observer(Protocol):
    """Told by :class:`trunkline.gateway.relay.Pump`."""

    def waited(self, seconds: float) -> None:
        """So long the search for a place took, with or without one."""
        ...

    def hedged(self) -> None:
        """The next attempt begins beside one that is slow."""
        ...

    def attempt_began(self, start: Start) -> None: ...

    def attempt_ended(self, ended: Ended) -> None:
        """Also when it was outrun, or the app left."""
        ...

    def traceparent(self, number: int) -> str | None:
        """What the node of this attempt is told of the trace."""
        ...

    def stored(self, part: Store) -> None:
        """The answer's evidence is durable."""
        ...
