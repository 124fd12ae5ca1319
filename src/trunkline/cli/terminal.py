"""The terminal: one console per stream, and text from outside made harmless before it is shown."""

import os
import shutil
import sys
from functools import cache
from pathlib import Path

from rich.console import Console

WIDTH_UNLIMITED = 1000

_CONTROLS = [*range(0x20), *range(0x7F, 0xA0)]
_DIRECTIONS = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_VISIBLE = {
    code: ascii(chr(code))[1:-1] for code in (*_CONTROLS, *_DIRECTIONS) if chr(code) not in "\n\t"
}
"""Characters that move the cursor, change colours or turn the direction of text."""


@cache
def console() -> Console:
    """What people read, on standard output."""
    return _console(stderr=False)


@cache
def errors() -> Console:
    """Progress and complaints, on standard error."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        # Into a file or a pipe: nothing is folded to the width of a screen that is not there.
        made.width = WIDTH_UNLIMITED
    return made


def harmless(text: str) -> str:
    """A model's text without what could steer a terminal: control characters become visible."""
    return text.translate(_VISIBLE)


def stream(text: str) -> None:
    """Print a piece of an answer as it comes."""
    sys.stdout.write(harmless(text))
    sys.stdout.flush()


def program() -> str:
    """How this program is called from here: ``trunkline``, or the path to it."""
    called = Path(sys.argv[0])
    found = shutil.which("trunkline")
    if called.name != "trunkline" or (found and Path(found).resolve() == called.resolve()):
        return "trunkline"
    return os.path.relpath(called) if called.is_relative_to(Path.cwd()) else str(called)
