"""Bounds long polls: calls that are held until there is something to say.

Each holds a connection and a task of ours for as long as its caller likes, so there are only so
many at a time, and of one address fewer. It refuses nobody: whoever finds no room is answered at
once with what there is.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

POLLS_MAX: Final = 256
POLLS_PER_ADDRESS_MAX: Final = 32
"""A proxy, and all that run on one machine, are one address."""


class Polls:
    """The polls that one process holds."""

    def __init__(self, *, most: int = POLLS_MAX, per_address: int = POLLS_PER_ADDRESS_MAX) -> None:
        self._most = most
        self._per_address = per_address
        self._held: Counter[str] = Counter()

    @contextmanager
    def room(self, address: str) -> Iterator[bool]:
        """Whether a poll from ``address`` may be held, for as long as the block takes."""
        held = self._held
        if held.total() >= self._most or held[address] >= self._per_address:
            yield False
            return
        held[address] += 1
        try:
            yield True
        finally:
            held[address] -= 1
            if not held[address]:
                del held[address]
