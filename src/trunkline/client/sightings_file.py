"""What an app saw of its logs, kept between its runs and shared by its processes: one small file.

The notes are signed by the logs, so the file is no secret and nothing in it is believed unread. It
is replaced whole, under a lock: a crash before the rename leaves what was there, after it the new.
It refuses to write over something that is no such file.
"""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from trunkline.base.errors import ConfigError, CorruptStateError

FILE_BYTES_MAX: Final = 1024 * 1024
NOTES_MAX: Final = 256
LOCK_S: Final = 5.0
"""Longest wait for another process, which holds the file for as long as a write takes."""
LOCK_POLL_S: Final = 0.01

Notes = Annotated[tuple[str, ...], msgspec.Meta(max_length=NOTES_MAX)]


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    type: Literal["trunkline.sightings/v1"] = "trunkline.sightings/v1"
    checkpoints: Notes


_DECODER: Final = msgspec.json.Decoder(_Kept)


class SightingsFile:
    """The file; its folder is made if it is not there. Every call blocks."""

    def __init__(self, path: Path) -> None:
        self._path = path.expanduser().absolute()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it against other processes. Raises :class:`ConfigError` where that can not be."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = self._path.with_name(self._path.name + ".lock")
            lock = os.open(name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from None
        try:
            self._wait(lock)
            yield
        finally:
            # The kernel lets go of it too, when the process dies.
            os.close(lock)

    def read(self) -> tuple[bytes, ...]:
        """The notes in it; none if there is no file yet. Raises :class:`ConfigError`, and
        :class:`CorruptStateError` for a file that is none of ours."""
        try:
            with self._path.open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise self._unusable(error) from None
        try:
            if len(data) > FILE_BYTES_MAX:
                raise ValueError
            return tuple(note.encode() for note in _DECODER.decode(data).checkpoints)
        except (ValueError, RecursionError):
            raise CorruptStateError(f"{self._path}: is no file of sightings") from None

    def write(self, notes: Sequence[bytes]) -> None:
        """Replace what is in it, durably. Raises :class:`ConfigError`."""
        kept = _Kept(checkpoints=tuple(note.decode() for note in notes))
        new = self._path.with_name(self._path.name + ".new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(kept) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unusable(error) from None

    def _wait(self, lock: int) -> None:
        due_s = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= due_s:
                    raise ConfigError(f"{self._path}: another process holds it") from None
                time.sleep(LOCK_POLL_S)
            else:
                return

    def _unusable(self, error: OSError) -> ConfigError:
        return ConfigError(f"{self._path}: can not be used: {error.strerror}")
