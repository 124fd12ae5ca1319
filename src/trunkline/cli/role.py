"""One role as a process: ``trunkline <role> --config FILE``, and what ``trunkline up`` starts.

Small on purpose: it imports the room it was asked for and nothing else.
"""

import ctypes
import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Final, NoReturn

from trunkline.base.errors import Error
from trunkline.cli.exits import DONE, INTERRUPTED, NO, UNABLE
from trunkline.runtime.logger import configure

ROOMS: Final = {
    "gateway": "trunkline.gateway.app",
    "node": "trunkline.node.app",
    "log": "trunkline.log.app",
    "witness": "trunkline.witness.app",
    "verifier": "trunkline.verifier.app",
}
PARENT_VARIABLE: Final = "TRUNKLINE_PARENT"
"""Process id of the supervisor; the role ends with it, even if it is killed."""

_PR_SET_PDEATHSIG: Final = 1


def run(role: str, config: Path) -> None:
    """Serve until SIGTERM or SIGINT. Raises Error: a wrong configuration, a taken port."""
    follow_parent()
    configure()
    module = importlib.import_module(ROOMS[role])
    module.run(config)


def follow_parent() -> None:
    """Ask the kernel to stop this process when its supervisor is gone."""
    parent = os.environ.pop(PARENT_VARIABLE, "")
    if not parent.isdigit():
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # The supervisor may have died before the line above: then nobody would send it.
    if os.getppid() != int(parent):
        os.kill(os.getpid(), signal.SIGTERM)


def report(role: str, error: Error) -> None:
    """Say why the role can not run: a line for a person, or for who reads the diagnostics."""
    if sys.stderr.isatty():
        sys.stderr.write(f"trunkline {role}: {error.message}\n")
        return
    import msgspec

    line = {"event": "role.failed", "error": error.error_code, "reason": error.message}
    sys.stderr.write(msgspec.json.encode({"level": "error", "room": role} | line).decode() + "\n")


def main() -> NoReturn:
    """``python -m trunkline.cli.role ROLE CONFIG``: as ``trunkline ROLE``, without the parser."""
    role, config = sys.argv[1], Path(sys.argv[2])
    try:
        run(role, config)
    except Error as error:
        report(role, error)
        sys.exit(UNABLE if error.error_code != "corrupt_state" else NO)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(DONE)


if __name__ == "__main__":
    main()
