"""A breaker per deployment: stop asking what is known to fail, and ask again with care.

The state machine is the table below; everything else is counting. It reads no clock: ``now_s`` is
monotonic seconds from the shell. An open breaker is advice: the route may still use the deployment
when nothing better is left. What comes back starts slowly, as in Envoy's slow start: its share of
the calls grows over a window, since what broke under load may break again under all of it.
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


class Fault(Enum):
    """What kind of failure opened a breaker: it decides how soon to ask again."""

    ORDINARY = "failed"
    REFUSED = "refused"
    """No connection could be made at all."""
    SILENT = "silent"
    """It was waited for in vain: each further wait would cost another caller as much."""
    MODEL = "model_missing"
    """The provider does not have this model: asking again soon is of no use."""
    AUTH = "auth"
    """The provider refuses the credentials: somebody has to mend that."""
    OUTLIER = "outlier"
    """It does noticeably worse than others that serve the same model."""


class BreakerPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When to open and for how long."""

    failures: int = 3
    """Failures in a row that open it. A refused connection opens it at once."""
    cooldown_s: float = 1.0
    cooldown_s_max: float = 30.0
    """Each opening without a success between doubles the cool-down up to this."""
    silent_s: float = 5.0
    """First cool-down after a silence, and the least one: by then a poll has shown whether it is
    the whole node that hangs."""
    lasting_s: float = 30.0
    """First cool-down after a fault that does not pass by itself, and the least one."""
    lasting_s_max: float = 600.0
    slow_start_s: float = 30.0
    """What came back gets its full share of calls after so long."""
    share_min: float = 0.1
    probe_s_max: float = 120.0
    """A probe not heard of for so long is forgotten, and another may start."""


class Admission(Enum):
    """What a breaker says of one more call."""

    FREE = "free"
    PROBE = "probe"
    NO = "no"


_LASTING: Final = frozenset({Fault.MODEL, Fault.AUTH})
_PASSING: Final = frozenset({Fault.ORDINARY, Fault.REFUSED, Fault.SILENT})
"""Faults that may be over when the node answers again."""


class BreakerState(msgspec.Struct, frozen=True, kw_only=True):
    """A breaker as it is written down: durations, since a monotonic clock ends with its process."""

    state: State
    failures: int
    cooldown_s: float
    left_s: float
    """Of the cool-down."""
    returned_s: float | None
    """How long ago it closed after having been open; None: so long that it does not matter."""
    fault: Fault | None


class Breaker:
    """One deployment's breaker. Call ``admission`` freely, ``started`` when an attempt begins."""

    __slots__ = (
        "_cooldown_s", "_opened_s", "_policy", "_probe_s", "_returned_s",
        "failures", "fault", "state",
    )  # fmt: skip

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._cooldown_s = policy.cooldown_s
        self._opened_s = 0.0
        self._probe_s: float | None = None
        self._returned_s: float | None = None
        self.state = State.CLOSED
        self.failures = 0
        """In a row."""
        self.fault: Fault | None = None
        """Of the last failure; None after a success."""

    def admission(self, now_s: float) -> Admission:
        """Whether a call may go here now."""
        if self.state is State.OPEN and self.left_s(now_s) <= 0:
            self.cooled()
        if self.state is State.CLOSED:
            return Admission.FREE
        if self.state is State.HALF_OPEN and not self._probing(now_s):
            return Admission.PROBE
        return Admission.NO

    def left_s(self, now_s: float) -> float:
        """What is left of the cool-down, seconds; 0 unless open."""
        if self.state is not State.OPEN:
            return 0.0
        return max(self._opened_s + self._cooldown_s - now_s, 0.0)

    def share(self, now_s: float) -> float:
        """The share of calls that it is fit for, above 0 to 1: it grows after a return."""
        if self._returned_s is None:
            return 1.0
        grown = (now_s - self._returned_s) / self._policy.slow_start_s
        if grown >= 1:
            self._returned_s = None
        return min(max(grown, self._policy.share_min), 1.0)

    def started(self, now_s: float) -> None:
        """An attempt begins here: in half-open state it is the probe."""
        if self.state is State.HALF_OPEN:
            self._probe_s = now_s

    def succeeded(self, now_s: float) -> None:
        """An attempt went well: close, and forget what was. An outlier stays away for its time:
        that one answer came is no news of it."""
        if self.state is State.OPEN and self.fault is Fault.OUTLIER:
            return
        if self.state is State.HALF_OPEN:
            self._returned_s = now_s
        self.failures = 0
        self.fault = None
        self._cooldown_s = self._policy.cooldown_s
        self._move(Signal.SUCCEEDED)

    def failed(self, now_s: float, fault: Fault = Fault.ORDINARY) -> None:
        """An attempt failed. All but ordinary faults open it at once."""
        policy = self._policy
        self.failures += 1
        if self.state is not State.OPEN:
            self.fault = fault
        tripped = fault is not Fault.ORDINARY or self.failures >= policy.failures
        before = self.state
        self._move(Signal.TRIPPED if tripped else Signal.FAILED)
        if self.state is not State.OPEN or before is State.OPEN:
            return
        self._opened_s = now_s
        if before is State.HALF_OPEN:
            self._cooldown_s *= 2
        least_s, most_s = policy.cooldown_s, policy.cooldown_s_max
        if fault is Fault.SILENT:
            least_s = policy.silent_s
        if fault in _LASTING:
            least_s, most_s = policy.lasting_s, policy.lasting_s_max
        self._cooldown_s = min(max(self._cooldown_s, least_s), most_s)

    def eject(self, now_s: float, for_s: float) -> None:
        """Stay away for ``for_s`` seconds: it does worse than its peers."""
        self.fault = Fault.OUTLIER
        self._move(Signal.TRIPPED)
        self._opened_s, self._cooldown_s = now_s, for_s

    def abandoned(self) -> None:
        """An attempt ended without saying anything of the deployment (the client left)."""
        self._probe_s = None

    def cooled(self) -> None:
        """It has rested: a probe may go."""
        self._move(Signal.COOLED)

    def heard_of(self) -> None:
        """The node answers a poll again after it could not be reached. That says nothing of a
        fault behind it."""
        if self.fault in _PASSING:
            self.cooled()

    def dump(self, now_s: float) -> BreakerState:
        """For :meth:`of`."""
        return BreakerState(
            state=self.state,
            failures=self.failures,
            cooldown_s=self._cooldown_s,
            left_s=self.left_s(now_s),
            returned_s=None if self._returned_s is None else max(now_s - self._returned_s, 0.0),
            fault=self.fault,
        )

    @classmethod
    def of(
        cls, policy: BreakerPolicy, kept: BreakerState, now_s: float, age_s: float, rest_s: float
    ) -> "Breaker":
        """A breaker as it was ``age_s`` ago. One that was not closed stays open for ``rest_s`` more
        at least: the first call of a new process is no probe."""
        made = cls(policy)
        made.failures = min(max(kept.failures, 0), policy.failures)
        made.fault = kept.fault
        made._cooldown_s = min(max(kept.cooldown_s, policy.cooldown_s), policy.lasting_s_max)
        if kept.returned_s is not None and kept.returned_s >= 0:
            made._returned_s = now_s - kept.returned_s - age_s
        if kept.state is not State.CLOSED:
            made.state = State.OPEN
            left_s = max(min(kept.left_s - age_s, made._cooldown_s), rest_s)
            made._opened_s = now_s + left_s - made._cooldown_s
        return made

    def _probing(self, now_s: float) -> bool:
        return self._probe_s is not None and now_s - self._probe_s < self._policy.probe_s_max

    def _move(self, signal: Signal) -> None:
        before, self.state = self.state, TRANSITIONS[self.state, signal]
        if signal is not Signal.COOLED or before is State.OPEN:
            self._probe_s = None
