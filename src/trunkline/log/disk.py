"""The system calls through which the log changes its folder: one port, so that tests can fail each.

Every call blocks, and either has happened when it returns or raises OSError; after an error it may
have happened or not, or half, and whoever calls must be right in each case. Decides nothing.
"""

import os
from pathlib import Path


class Disk:
    """The real one."""

    def write(self, path: Path, data: bytes) -> None:
        """Write a file that nobody reads yet, and make its bytes durable."""
        with path.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its name, atomically, in place of whatever has it."""
        source.replace(target)

    def make_folder(self, path: Path) -> None:
        """Make one folder."""
        path.mkdir()

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def delete(self, path: Path) -> None:
        """Delete a file; one that is gone already is fine."""
        path.unlink(missing_ok=True)

    def delete_folder(self, path: Path) -> None:
        """Delete an empty folder."""
        path.rmdir()
