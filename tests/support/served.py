"""A server of a test's own handlers, and clients of it that speak as raw as they like."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trunkline.base.errors import Error
from trunkline.runtime.http import Call, Handler, Receive, Router, Scope, Send, http_status


class App:
    """Routes to the handlers of a test; notes its life."""

    def __init__(self, **handlers: Handler) -> None:
        self.life: list[str] = []
        self.router = Router(self.error)
        for name, handler in handlers.items():
            self.router.add("POST", f"/{name}", handler)
            self.router.add("GET", f"/{name}", handler)

    async def error(self, call: Call, error: Error) -> None:
        await call.reply_json(http_status(error), {"code": error.error_code})

    async def startup(self) -> None:
        self.life.append("startup")

    async def shutdown(self) -> None:
        self.life.append("shutdown")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.router.dispatch(Call(scope, receive, send))


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()


async def ended(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the server closes; a reset counts as closing."""
    data = b""
    try:
        async with asyncio.timeout(10):
            while piece := await reader.read(65536):
                data += piece
    except ConnectionError:
        pass
    return data
