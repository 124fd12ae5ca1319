"""Named crash points: where tests kill a process, to show that it comes back whole.

A point does nothing unless the configuration has ``crash_points = true`` and the environment
variable names it; production never sets the first.
"""

import os
import signal
from collections.abc import Callable
from typing import Final

CRASH_VARIABLE: Final = "TRUNKLINE_CRASH_AT"

CrashHook = Callable[[str], None]
"""Called at each point with its name."""


def no_crash(_point: str) -> None:
    """The hook of production."""


def crash_hook(*, enabled: bool) -> CrashHook:
    """The hook that the environment asks for, where the configuration allows one."""
    wanted = os.environ.get(CRASH_VARIABLE) if enabled else None
    if not wanted:
        return no_crash

    def reach(point: str) -> None:
        if point == wanted:
            # Not an exception: nothing may be cleaned up on the way out.
            os.kill(os.getpid(), signal.SIGKILL)

    return reach
