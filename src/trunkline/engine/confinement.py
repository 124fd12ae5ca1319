"""What a child process does before anything else: it ties its life to its parent's, bounds what a
fault in it can do, and hears what it is to load.

It opens no port and logs no prompt. Loads nothing native, so that both kinds of child begin alike.
"""

import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from trunkline.engine.frames import EmbedderSetup, EngineSetup, FrameSocket

NOTHING_ASKED: Final = 0
"""Exit status of a child whose parent was gone before it said what to load."""
NOT_UNDERSTOOD: Final = 2
"""Exit status of a child whose first frame is for another kind."""

_PR_SET_PDEATHSIG = 1
_OPEN_FILES_MAX = 64
_OOM_SCORE = "500"

SetupT = TypeVar("SetupT", EngineSetup, EmbedderSetup)


def begin(
    arguments: list[str], decoder: "msgspec.msgpack.Decoder[object]", kind: type[SetupT]
) -> tuple[FrameSocket, SetupT, list[bytes]] | int:
    """Confine this process, and wait for its first frame on the descriptor it was started with.

    Returns the channel, the setup, and the frames that came with it; or the status to exit with.
    """
    channel = FrameSocket(socket.socket(fileno=int(arguments[0])))
    confine()
    first = channel.receive(block=True)
    if not first:
        return NOTHING_ASKED
    setup = decoder.decode(first[0])
    if not isinstance(setup, kind):
        return NOT_UNDERSTOOD
    return channel, setup, first[1:]


def confine() -> None:
    """Tie this process's life to its parent's, and bound what a fault in it can do."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Ctrl-C reaches the whole foreground group; stopping in order is the parent's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A core dump would hold prompts.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(_OPEN_FILES_MAX, hard), hard))
    # When memory runs out, the process that can be restarted should go first.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def silence_native_output() -> None:
    """Drop what native code prints from here on: its parser prints a faulty grammar in full.

    Python's own tracebacks still reach the parent's standard error; they quote code, not values.
    """
    sys.stderr.flush()
    descriptor = sys.stderr.fileno()
    ours = os.dup(descriptor)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), descriptor)
    sys.stderr = os.fdopen(ours, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
