"""What the node's operator says of its keys, shown to whoever asks (``GET /v1/info``).

Read from the operator's public file, again whenever that changes, so that a statement is renewed
without a restart. It judges nothing: the notes are signed, and readers pin whom they believe.
"""

import asyncio
from pathlib import Path
from typing import Final

from trunkline.base.errors import Error
from trunkline.crypto import note
from trunkline.evidence.file import KEYS_BYTES_MAX, decode_keys
from trunkline.receipts.key_statement import parse_statement
from trunkline.runtime.logger import Logger

SHOWN_MAX: Final = 64
"""Of more, the newest."""


class Statements:
    """The notes about one node's keys. A file that can not be read leaves what was read before."""

    def __init__(self, path: Path | None, node: str, *, logger: Logger) -> None:
        """``path``: of the public file; None: there is nothing to say. ``node``: its name."""
        self._path = path
        self._node = node
        self._logger = logger
        self._seen: tuple[int, int] | None = None
        self._notes: tuple[str, ...] = ()

    async def read(self) -> tuple[str, ...]:
        """The notes as they stand in the file now."""
        if self._path is not None:
            await asyncio.to_thread(self._look, self._path)
        return self._notes

    def _look(self, path: Path) -> None:
        try:
            status = path.stat()
            seen = status.st_mtime_ns, status.st_size
            if seen == self._seen:
                return
            self._seen = seen
            with path.open("rb") as file:
                entries = decode_keys(file.read(KEYS_BYTES_MAX + 1))
        except (OSError, Error) as error:
            code = error.error_code if isinstance(error, Error) else "unreadable"
            self._logger.warning("statements.unreadable", error=code)
            return
        said = [text for entry in entries if entry.role == "operator" for text in entry.statements]
        self._notes = tuple(text for text in said if self._is_about(text))[-SHOWN_MAX:]

    def _is_about(self, text: str) -> bool:
        try:
            statement = parse_statement(note.parse(text.encode()).text)
        except (Error, UnicodeEncodeError):
            return False
        return statement.key.startswith(f"{self._node}+")
