"""The embedder that embeddings are checked with: started when needed, stopped when idle.

One child process (``trunkline.engine.embeddings``), of the packaged model. A verifier whose nodes
serve no embeddings never starts it; one without the package, or configured to have none, leaves
such receipts ``inconclusive``.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from trunkline.audit import embedding
from trunkline.audit.embedding import Remade
from trunkline.base.errors import ConfigError
from trunkline.base.ports import Clock
from trunkline.inference.ports import Embedder
from trunkline.receipts import Receipt
from trunkline.runtime.logger import Logger
from trunkline.schema.audit import OpenedContent

IDLE_POLL_S_MAX: Final = 5.0
EmbedderMaker = Callable[[], Embedder]


class Embedders:
    """One verifier process's embedder. Belongs to one event loop."""

    def __init__(
        self, make: EmbedderMaker | None, *, clock: Clock, idle_s: float, logger: Logger
    ) -> None:
        """``make``: makes one that starts with its first call; None: there is none."""
        self._make = make
        self._clock = clock
        self._idle_s = idle_s
        self._logger = logger
        self._running: Embedder | None = None
        self._users = 0
        self._idle_since_s = 0.0

    async def remake(self, receipt: Receipt, content: OpenedContent) -> Remade | None:
        """The vectors of an opened receipt once more; None: there is no embedder here.

        Raises ``UpstreamError`` and ``OverloadedError``: the audit is to be tried again.
        """
        if self._make is None:
            return None
        if self._running is None:
            self._running = self._make()
        self._users += 1
        try:
            return await embedding.measure(receipt, content, self._running)
        except ConfigError as error:
            # It will not start tomorrow either: what needs it stays open, all else goes on.
            self._logger.error("embedder.missing", error=error.error_code)
            self._make = None
            return None
        finally:
            self._users -= 1
            self._idle_since_s = self._clock.monotonic_s()

    async def tend(self) -> None:
        """Stop it when it is idle, until cancelled."""
        while True:
            await asyncio.sleep(min(self._idle_s, IDLE_POLL_S_MAX))
            idle_s = self._clock.monotonic_s() - self._idle_since_s
            if self._running is not None and not self._users and idle_s >= self._idle_s:
                await self.close()

    async def close(self) -> None:
        """Stop it; the next audit starts another."""
        running, self._running = self._running, None
        if running is not None:
            await running.close()
