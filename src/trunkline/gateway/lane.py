"""One attempt's way through the gateway, and what is held for it until it ends.

It refuses to keep bodies without a bound.
"""

from typing import Final

from trunkline.gateway.core.actions import Start
from trunkline.gateway.core.ticket import Outcome
from trunkline.gateway.dispatcher import Lease
from trunkline.remote.limit import Limit

KEPT_BYTES_MAX: Final = 32 * 1024 * 1024
"""Answers longer than this are not kept, even if the caller asked."""


class Lane:
    """One attempt's way, from the search for a place to its end."""

    __slots__ = ("first_token_s", "kept", "kept_bytes", "lease", "limit", "start")

    def __init__(self, *, keeping: bool) -> None:
        self.limit: Limit | None = None
        self.lease: Lease | None = None
        self.start: Start | None = None
        self.first_token_s: float | None = None
        """What its first token took, once it has ended well."""
        self.kept: list[bytes] | None = [] if keeping else None
        """The answer's bodies as the node sent them, if they are to be kept."""
        self.kept_bytes = 0

    def keep(self, data: bytes) -> None:
        """Keep a body, unless there are too many."""
        self.kept_bytes += len(data)
        if self.kept is not None and self.kept_bytes <= KEPT_BYTES_MAX:
            self.kept.append(data)
        else:
            self.kept = None

    def release(self, outcome: Outcome) -> None:
        """Give the place back, if there is one."""
        if self.lease is not None:
            self.lease.release(outcome)
