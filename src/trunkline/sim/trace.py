"""What happened, in order, as one digest: the same seed must give the same.

Also the simulated processes' diagnostics: their lines become events here, and a line that reports
a failure outside the error tree (``internal_error``) is a bug, whatever the app saw.
"""

import asyncio
from collections import deque
from hashlib import sha256
from typing import Final, cast

from structlog.typing import FilteringBoundLogger

from trunkline.runtime.logger import Logger
from trunkline.sim.process import Process

KEPT: Final = 400
"""Newest events kept as text, for whoever looks into a failing seed."""


class Trace:
    """Everything that happened so far."""

    def __init__(self) -> None:
        self._hash = sha256()
        self.events = 0
        self.newest: deque[str] = deque(maxlen=KEPT)
        self.bugs: list[str] = []

    def note(self, who: str, event: str, **fields: object) -> None:
        """One thing that happened now."""
        now_s = asyncio.get_running_loop().time()
        said = " ".join(f"{name}={fields[name]}" for name in sorted(fields))
        line = f"{now_s:.6f} {who} {event} {said}"
        self._hash.update(line.encode() + b"\n")
        self.events += 1
        self.newest.append(line)
        if fields.get("error") == "internal_error" or fields.get("error") == "corrupt_state":
            self.bugs.append(line)

    @property
    def digest(self) -> str:
        """Of all events so far, hexadecimal."""
        return self._hash.hexdigest()

    def logger(self, who: str) -> Logger:
        """A logger whose lines become events."""
        return Logger(cast(FilteringBoundLogger, _Lines(self, who, {})))


class _Lines:
    """The part of a structlog logger that :class:`Logger` uses."""

    def __init__(self, trace: Trace, who: str, bound: dict[str, object]) -> None:
        self._trace = trace
        self._who = who
        self._bound = bound

    def bind(self, **fields: object) -> "_Lines":
        return _Lines(self._trace, self._who, self._bound | fields)

    def _line(self, event: str, **fields: object) -> None:
        process = Process.current()
        if process is not None and not process.alive:
            # The last words of a killed process: a real one would have had none.
            return
        self._trace.note(self._who, event, **self._bound | fields)

    debug = info = warning = error = _line
