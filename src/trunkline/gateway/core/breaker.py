"""A breaker per deployment: stop asking what is known to fail, and ask again with care.

The state machine is the table below; everything else is counting. It reads no clock: ``now_s`` is
monotonic seconds from the shell. An open breaker is advice: the route may still use the deployment
when nothing better is left.
"""

from enum import Enum
from typing import Final

import msgspec


class State(Enum):
    CLOSED = "closed"
    """Calls go through."""
    OPEN = "open"
    """Calls stay away until the cool-down has passed."""
    HALF_OPEN = "half_open"
    """One probe decides."""


class Signal(Enum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """A failure that does not yet trip."""
    TRIPPED = "tripped"
    """A failure that settles it: refused outright, or one too many in a row."""
    COOLED = "cooled"
    """The cool-down has passed, or the node was heard of again."""


TRANSITIONS: Final[dict[tuple[State, Signal], State]] = {
    (State.CLOSED, Signal.SUCCEEDED): State.CLOSED,
    (State.CLOSED, Signal.FAILED): State.CLOSED,
    (State.CLOSED, Signal.TRIPPED): State.OPEN,
    (State.CLOSED, Signal.COOLED): State.CLOSED,
    # An attempt that began before the breaker opened may still succeed: that is news enough.
    (State.OPEN, Signal.SUCCEEDED): State.CLOSED,
    (State.OPEN, Signal.FAILED): State.OPEN,
    (State.OPEN, Signal.TRIPPED): State.OPEN,
    (State.OPEN, Signal.COOLED): State.HALF_OPEN,
    (State.HALF_OPEN, Signal.SUCCEEDED): State.CLOSED,
    (State.HALF_OPEN, Signal.FAILED): State.OPEN,
    (State.HALF_OPEN, Signal.TRIPPED): State.OPEN,
    (State.HALF_OPEN, Signal.COOLED): State.HALF_OPEN,
}


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When to open and for how long."""

    failures: int = 3
    """Failures in a row that open it. A refused connection opens it at once."""
    cooldown_s: float = 1.0
    cooldown_s_max: float = 30.0
    """Each opening without a success between doubles the cool-down up to this."""
    probe_s_max: float = 120.0
    """A probe not heard of for so long is forgotten, and another may start."""


class Admission(Enum):
    """What a breaker says of one more call."""

    FREE = "free"
    PROBE = "probe"
    NO = "no"


class Breaker:
    """One deployment's breaker. Call ``admission`` freely, ``started`` when an attempt begins."""

    __slots__ = ("_cooldown_s", "_failures", "_opened_s", "_policy", "_probe_s", "state")

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._cooldown_s = policy.cooldown_s
        self._opened_s = 0.0
        self._probe_s: float | None = None
        self.state = State.CLOSED

    def admission(self, now_s: float) -> Admission:
        """Whether a call may go here now."""
        if self.state is State.OPEN and now_s - self._opened_s >= self._cooldown_s:
            self.cooled()
        if self.state is State.CLOSED:
            return Admission.FREE
        if self.state is State.HALF_OPEN and not self._probing(now_s):
            return Admission.PROBE
        return Admission.NO

    def started(self, now_s: float) -> None:
        """An attempt begins here: in half-open state it is the probe."""
        if self.state is State.HALF_OPEN:
            self._probe_s = now_s

    def succeeded(self) -> None:
        """An attempt went well: close, and forget what was."""
        self._failures = 0
        self._cooldown_s = self._policy.cooldown_s
        self._move(Signal.SUCCEEDED)

    def failed(self, now_s: float, *, refused: bool = False) -> None:
        """An attempt failed; ``refused``: no connection could be made at all."""
        self._failures += 1
        tripped = refused or self._failures >= self._policy.failures
        before = self.state
        self._move(Signal.TRIPPED if tripped else Signal.FAILED)
        if self.state is State.OPEN and before is not State.OPEN:
            self._opened_s = now_s
            if before is State.HALF_OPEN:
                self._cooldown_s = min(self._cooldown_s * 2, self._policy.cooldown_s_max)

    def abandoned(self) -> None:
        """An attempt ended without saying anything of the deployment (the client left)."""
        self._probe_s = None

    def cooled(self) -> None:
        """The node answered elsewhere (a poll), or time has passed: a probe may go."""
        self._move(Signal.COOLED)

    def _probing(self, now_s: float) -> bool:
        return self._probe_s is not None and now_s - self._probe_s < self._policy.probe_s_max

    def _move(self, signal: Signal) -> None:
        before, self.state = self.state, TRANSITIONS[self.state, signal]
        if signal is not Signal.COOLED or before is State.OPEN:
            self._probe_s = None
