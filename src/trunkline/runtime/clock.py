"""The real clock and the operating system's randomness, behind the ports of ``base``."""

import os
import time


class SystemClock:
    """:class:`trunkline.base.ports.Clock` by the machine's own clocks."""

    __slots__ = ()

    def unix_ms(self) -> int:
        """Wall time, milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; never goes backwards."""
        return time.monotonic()


class SystemRandomness:
    """:class:`trunkline.base.ports.Randomness` by the kernel's generator."""

    __slots__ = ()

    def token(self, size_bytes: int) -> bytes:
        """``size_bytes`` unpredictable bytes."""
        return os.urandom(size_bytes)
