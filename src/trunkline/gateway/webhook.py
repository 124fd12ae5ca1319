"""Tells an address of the user's about alerts: ``POST`` of the alert's JSON, until it is taken.

An alert is put in the queue by the transaction that stores it, so that a crash forgets none; it may
then be told twice, under the same number. It refers to signed verdicts by their digests and holds
nothing of an answer. What the address refuses for good is set aside; the queue is bounded.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from trunkline.base.errors import Error
from trunkline.base.ports import Clock, Randomness
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.verdict_store import WEBHOOK
from trunkline.remote.plain import refusal
from trunkline.remote.transport import Transport
from trunkline.runtime.logger import Logger
from trunkline.runtime.outbox import Outbox, OutboxPolicy
from trunkline.runtime.store import Connection, Database

TIMEOUT_S: Final = 10.0
HEADERS: Final = (("content-type", "application/json"),)


class Webhook:
    """The queue and its delivery. ``start`` it, ``stop`` it."""

    def __init__(
        self,
        database: Database,
        transport: Transport,
        policy: Callable[[], RoutingPolicy],
        *,
        clock: Clock,
        randomness: Randomness,
        logger: Logger,
    ) -> None:
        self._transport = transport
        self._policy = policy
        self._logger = logger
        self._outbox = Outbox[None](
            database,
            WEBHOOK,
            self._deliver,
            clock=clock,
            randomness=randomness,
            logger=logger,
            policy=OutboxPolicy(concurrency=1, delivery_timeout_s=2 * TIMEOUT_S),
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Deliver from now on, what an earlier process left too."""
        self._task = asyncio.create_task(self._run(), name="webhook")

    async def stop(self) -> None:
        """Stop; what was not taken stays in the queue."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def enqueue(self, connection: Connection, key: str, payload: bytes) -> bool:
        """As :meth:`Outbox.enqueue`."""
        return self._outbox.enqueue(connection, key, payload)

    async def _run(self) -> None:
        while True:
            try:
                await self._outbox.run()
            except Error as error:
                self._logger.crashed("webhook.failed", error)
            await asyncio.sleep(TIMEOUT_S)

    async def _deliver(self, _: str, payload: bytes) -> None:
        verification = self._policy().verification
        if verification is None or verification.webhook is None:
            # Nobody wants to be told any more.
            return
        async with await self._transport.request(
            "POST",
            verification.webhook,
            headers=HEADERS,
            body=payload,
            connect_timeout_s=TIMEOUT_S,
            head_timeout_s=TIMEOUT_S,
            idle_timeout_s=TIMEOUT_S,
        ) as response:
            if not 200 <= response.status < 300:
                raise await refusal(response)
