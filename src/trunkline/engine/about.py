"""What the engine and the processor call themselves: for people who read a self-test."""

import platform
from pathlib import Path
from typing import Final

from trunkline.engine import llama

ENGINE: Final = f"{llama.WHEEL} {llama.WHEEL_VERSION}"
"""The embedded engine and its version."""

CHARS_MAX: Final = 128
_CPUINFO: Final = Path("/proc/cpuinfo")
_CPUINFO_BYTES_MAX: Final = 64 * 1024


def processor() -> str:
    """The processor's own name, as far as the system tells it; else the architecture's."""
    try:
        with _CPUINFO.open(encoding="utf-8", errors="replace") as lines:
            said = lines.read(_CPUINFO_BYTES_MAX)
    except OSError:
        said = ""
    for line in said.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()[:CHARS_MAX]
    return (platform.processor() or platform.machine())[:CHARS_MAX]
