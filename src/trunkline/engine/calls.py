"""Counts the calls that an engine's client has in progress. It refuses those beyond a limit."""

import contextlib
from collections.abc import Iterator

from trunkline.base.errors import OverloadedError


class Calls:
    """One client's."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running = 0

    @contextlib.contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a call, from before it waits for anything; raises ``OverloadedError``."""
        if self._running >= self._most:
            raise OverloadedError(
                f"{self._most} calls are in progress; that is the engine's limit",
                code="engine_queue_full",
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
