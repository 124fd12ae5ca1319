"""What the gateway learnt of its deployments, on disk: so that a restart need not learn it again.

One small JSON file in the data folder, replaced whole by an atomic rename every few seconds and
when the gateway stops. A crash leaves the last whole file, or a ``.new`` beside it that the next
write replaces; it costs at most what was learnt since. Nothing here is precious: a file that is
missing, foreign, damaged or of another version is an empty memory, and said so. It holds names of
nodes and models, counts and times, and no content.
"""

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

import msgspec

from trunkline.gateway.health import Health, Snapshot
from trunkline.runtime.logger import Logger

FILE: Final = "health.json"
BYTES_MAX: Final = 8 * 1024 * 1024
EVERY_S: Final = 5.0

_DECODER: Final = msgspec.json.Decoder(Snapshot)


class Memory(Protocol):
    """Where the bytes are kept. Both calls block."""

    def read(self) -> bytes:
        """What was written last; empty if nothing was. Raises OSError."""
        ...

    def write(self, data: bytes) -> None:
        """Replace it, wholly or not at all. Raises OSError."""
        ...


class FileMemory:
    """A file in the data folder."""

    def __init__(self, data: Path) -> None:
        self._path = data / FILE
        self._new = data / f"{FILE}.new"

    def read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(BYTES_MAX + 1)
        except FileNotFoundError:
            return b""

    def write(self, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(self._new, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # A crash before this line leaves the old file; after it, the new one. The folder is not
        # fsync'd: which of the two survives a power failure does not matter.
        self._new.replace(self._path)


def decode(data: bytes) -> Snapshot | None:
    """The snapshot; None for bytes that are none."""
    if len(data) > BYTES_MAX:
        return None
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


class Keeper:
    """Reads the memory at the start, and writes it now and then and at the end."""

    def __init__(
        self, memory: Memory, health: Health, nodes: Iterable[str], *, logger: Logger
    ) -> None:
        """``nodes``: key names of the configured nodes; what is kept of others is dropped."""
        self._memory = memory
        self._health = health
        self._nodes = frozenset(nodes)
        self._logger = logger
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._written = 0
        self._failing = False

    async def start(self) -> None:
        """Take over what is known, and keep it from now on."""
        await self._restore()
        self._task = asyncio.create_task(self._keep(), name="health.keep")

    async def stop(self) -> None:
        """Write once more. The writer is told, not cancelled: it may be in the middle of it."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _restore(self) -> None:
        try:
            data = await asyncio.to_thread(self._memory.read)
        except OSError as error:
            self._logger.warning("health.unreadable", error=type(error).__name__)
            return
        if not data:
            return
        snapshot = decode(data)
        if snapshot is None:
            self._logger.warning("health.unreadable", error="not a snapshot of this version")
            return
        self._health.restore(snapshot, self._nodes)

    async def _keep(self) -> None:
        stopping = False
        while not stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(EVERY_S):
                    stopping = await self._stopping.wait()
            if self._health.learnt != self._written:
                await self._write()

    async def _write(self) -> None:
        learnt = self._health.learnt
        data = msgspec.json.encode(self._health.snapshot())
        try:
            await asyncio.to_thread(self._memory.write, data)
        except OSError as error:
            if not self._failing:
                self._logger.warning("health.not_kept", error=type(error).__name__)
            self._failing = True
        else:
            self._failing, self._written = False, learnt
