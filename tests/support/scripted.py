"""A service whose answers a test scripts: one function of the request, hosted like a real one."""

from collections.abc import Awaitable, Callable

from trunkline.runtime.http import Call, Receive, Scope, Send


class Scripted:
    """Answers every call with ``handle``."""

    def __init__(self, handle: Callable[[Call], Awaitable[None]]) -> None:
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._handle(Call(scope, receive, send))

    async def startup(self) -> None:
        """Nothing to prepare."""

    async def shutdown(self) -> None:
        """Nothing to let go of."""
