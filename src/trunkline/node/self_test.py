"""The node's self-test: which bits its engine computes, signed, logged and shown to verifiers.

``docs/spec/verdict.md``, "Self-tests". It is run once in the life of a process, in the first quiet
moment after the model was loaded, so that no answer is slower for it. A node whose engine has none,
or whose engine finds that it is not exact, shows none: verifiers then judge it by statistics alone.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, runtime_checkable

from trunkline.base.errors import Error, RequestError, UpstreamError
from trunkline.crypto.digest import sha256
from trunkline.crypto.signer import Signer, sign_note
from trunkline.engine.about import ENGINE, processor
from trunkline.inference.ports import ModelInfo
from trunkline.node.dates import Dates, keep_self_test
from trunkline.node.publish import SELF_TEST_KEY
from trunkline.node.signing import Enqueue
from trunkline.runtime.http import TEXT_TYPE, Call
from trunkline.runtime.logger import Logger
from trunkline.runtime.store import Connection, Database
from trunkline.verdicts import SelfTest

QUIET_POLL_S: Final = 0.5
QUIET_POLLS_MAX: Final = 240
"""Two minutes: a node that is never idle runs it among its answers."""
AGAIN_S: Final = 5.0
"""After a test that failed for the moment."""
RETRY_AFTER_S: Final = 2


@runtime_checkable
class SelfTesting(Protocol):
    """An engine that can say what it computes (``inference.ports.Scorer.self_test``)."""

    async def model(self) -> ModelInfo: ...

    async def self_test(self) -> str: ...


class SelfTests:
    """``GET /v1/self-test``. Belongs to one event loop."""

    def __init__(
        self,
        engine: SelfTesting | None,
        signer: Signer,
        database: Database,
        *,
        dates: Dates,
        logger: Logger,
        busy: Callable[[], bool],
        enqueue: Enqueue | None,
    ) -> None:
        """``engine``: None for a node without one. ``busy``: whether anybody is being answered."""
        self._engine = engine
        self._signer = signer
        self._database = database
        self._dates = dates
        self._logger = logger
        self._busy = busy
        self._enqueue = enqueue
        self._note: bytes | None = None

    async def run(self) -> None:
        """Wait for a quiet moment, test, sign, and queue the statement for the log."""
        while self._engine is not None and self._note is None:
            try:
                await self._quiet()
                self._note = await self._state(self._engine)
            except Error as error:
                self._logger.warning("self_test.failed", error=error.error_code)
                if isinstance(error, UpstreamError) and error.retryable:
                    await asyncio.sleep(AGAIN_S)
                else:
                    self._engine = None

    async def handle(self, call: Call) -> None:
        """The signed statement."""
        if self._note is not None:
            await call.reply(200, self._note, TEXT_TYPE)
        elif self._engine is None:
            raise RequestError("this node has no self-test", code="not_found", status=404)
        else:
            raise UpstreamError(
                "the self-test has not been made yet",
                code="self_test_pending",
                retry_after_s=RETRY_AFTER_S,
            )

    async def _quiet(self) -> None:
        for _ in range(QUIET_POLLS_MAX):
            if not self._busy():
                return
            await asyncio.sleep(QUIET_POLL_S)

    async def _state(self, engine: SelfTesting) -> bytes:
        model = await engine.model()
        statement = SelfTest(
            bits=await engine.self_test(),
            context_tokens=model.context_tokens,
            cpu=processor(),
            engine=ENGINE,
            key=str(self._signer.vkey),
            model=model.name,
            numerics=model.numerics,
            unix_ms=self._dates.next_ms(),
            weights=model.weights_digest,
        )
        note = sign_note(statement.text(), self._signer)
        enqueue = self._enqueue
        if enqueue is not None:
            key = SELF_TEST_KEY + sha256(note).hex()

            def keep(connection: Connection) -> None:
                keep_self_test(connection, statement.unix_ms)
                enqueue(connection, key, note)

            await self._database.write(keep)
        return note
