"""What goes wrong with a fake node's attempt, and when."""

import asyncio
from dataclasses import dataclass, replace
from enum import Enum, auto


class Fault(Enum):
    """What goes wrong. Where it says k, ``Script.after`` events of the attempt are sent before."""

    NONE = auto()
    BUSY = auto()
    """429 with a retry time."""
    UNAVAILABLE = auto()
    """503 with a node's error body."""
    HTML = auto()
    """502 with a proxy's page."""
    REJECT = auto()
    """400, not retryable: the request itself is at fault."""
    UNFIT = auto()
    """400, retryable: this node can not honour the request, another may."""
    HANG_HEAD = auto()
    HANG_ACCEPT = auto()
    """Headers, then silence."""
    ERROR_RETRYABLE = auto()
    """An error event after k events."""
    ERROR_FINAL = auto()
    """A not retryable error event after k events."""
    CUT = auto()
    """The connection dies after k events and ``Script.bytes`` of the next."""
    CLEAN_END = auto()
    """The response ends properly after k events, without receipt."""
    STALL = auto()
    """Silence after k events, until the gateway leaves."""
    GARBAGE = auto()
    """After k events, one that is no JSON."""
    DOUBLE = auto()
    """After k events, the last one again."""
    ALIEN_ERROR = auto()
    """After k events, an error object where a chunk belongs."""
    NO_RECEIPT = auto()
    """Everything but the receipt."""
    NO_FINISH = auto()
    """A stream without its finish chunk, and an honest receipt over it."""
    ODD_FINISH = auto()
    """A finish reason that nobody has heard of, in text and receipt alike."""
    BAD_SIGNATURE = auto()
    WRONG_STREAM = auto()
    """The receipt binds another text than was sent."""
    WRONG_REQUEST = auto()
    WRONG_NODE = auto()
    WRONG_ATTEMPT = auto()
    WRONG_SEED = auto()
    """Accepts with a seed of its own, resumed or not."""
    WRONG_NUMERICS = auto()
    UNASKED_CACHE = auto()
    """Accepts with an answer that was kept, unasked."""
    HIDDEN_CACHE = auto()
    """Only the receipt says that the answer was kept."""
    WRONG_AUDIT = auto()
    """The receipt says the contrary of what it was asked to say of audits."""
    MISCOUNTED = auto()
    """The batch says of audits the contrary of its receipt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One attempt's fate."""

    fault: Fault = Fault.NONE
    after: int = 0
    """Events after ``accepted``, those named ``progress`` included."""
    bytes: int = 0
    hold: asyncio.Event | None = None
    """Wait for this after ``after`` events, then go on."""


@dataclass(frozen=True, slots=True)
class Pause:
    until: asyncio.Event | None


@dataclass(frozen=True, slots=True)
class Cut:
    rest: bytes
    bytes: int


def with_hold(script: Script, hold: asyncio.Event) -> Script:
    """The same script, waiting for ``hold`` after its events."""
    return replace(script, hold=hold)
