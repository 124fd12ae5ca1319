"""What pure code may ask of the world: the time and fresh randomness, handed in by the shell.

Decisions take these as arguments, so that a simulation runs the same code under its own clock.
"""

from typing import Protocol


class Clock(Protocol):
    """Two clocks: one to write down, one to measure with."""

    def unix_ms(self) -> int:
        """Wall time, milliseconds since the Unix epoch. May step."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go backwards, from an arbitrary start."""
        ...


class Randomness(Protocol):
    """A source of unpredictable bytes."""

    def token(self, size_bytes: int) -> bytes:
        """``size_bytes`` fresh bytes."""
        ...
