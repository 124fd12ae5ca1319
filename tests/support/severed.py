"""A line to a node that is cut at a place of the test's choosing, as if the node had died."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.upstream import hung_up


class Severed:
    """Stands before a node and cuts its line, as if the node's process were killed: per script, at
    a place given in the bytes that the node sends. Other calls pass."""

    def __init__(self, marks: dict[str, bytes], cut: set[str]) -> None:
        """``marks``: by script, what the node must have sent before; empty: not even a head.
        ``cut`` collects scripts whose line was cut once, shared by the nodes of one test."""
        self._marks = marks
        self._cut = cut
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def before(self, node_url: str) -> AsyncIterator[str]:
        """Stand before the node for the duration of the block; yields the URL to use instead."""
        port = int(node_url.rpartition(":")[2])

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                await self._line(reader, writer, port)
            finally:
                self._tasks.discard(task)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _line(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        try:
            node_reader, node_writer = await asyncio.open_connection("127.0.0.1", port)
        except BaseException:
            await hung_up(writer)
            raise
        asked = bytearray()

        async def upwards() -> None:
            while data := await reader.read(65536):
                asked.extend(data)
                if self._due(asked, b""):
                    return
                node_writer.write(data)
                await node_writer.drain()

        async def downwards() -> None:
            said = bytearray()
            while data := await node_reader.read(65536):
                said.extend(data)
                writer.write(data)
                await writer.drain()
                if self._due(asked, said):
                    return

        ways = [asyncio.create_task(upwards()), asyncio.create_task(downwards())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            try:
                await asyncio.gather(*ways, return_exceptions=True)
            finally:
                await hung_up(writer, node_writer)

    def _due(self, asked: bytearray, said: bytearray | bytes) -> bool:
        """Whether a line is to be cut now."""
        for script, mark in self._marks.items():
            if script not in self._cut and script.encode() in asked and mark in said:
                self._cut.add(script)
                return True
        return False
