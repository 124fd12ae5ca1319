"""How long each stage of an answer may take, and what its end is called when it took longer.

Seconds on the shell's monotonic clock. Every stage ends inside the answer's own deadline, which is
the caller's ``trunkline-deadline-ms`` or the configured total, whichever comes first.
"""

from enum import Enum
from typing import Final

import msgspec

from trunkline.base.errors import RequestError

DEADLINE_MS_MAX: Final = 24 * 3600 * 1000


class Timeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of the stages of an answer, seconds."""

    connect_s: float = 2.0
    """To open a connection to a node."""
    head_s: float = 10.0
    """From the request sent to the node's response headers."""
    first_event_s: float = 30.0
    """From the start of an attempt to the node's ``accepted``, its queue included."""
    first_token_s: float = 60.0
    """From ``accepted`` to the first token: the prompt is being read."""
    whole_s: float = 300.0
    """From ``accepted`` to a whole (not streamed) answer of a node that can not say how it gets on:
    a provider's."""
    idle_s: float = 10.0
    """Between two events once tokens flow. A node that is silent for longer is left."""
    total_s: float = 600.0
    """A whole answer, every attempt included."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 < getattr(self, name) <= DEADLINE_MS_MAX / 1000:
                raise ValueError(f"{name} must be above 0 and at most a day")


class Stage(Enum):
    """What is being waited for. The value is the failure's stable code when it took too long."""

    ACCEPT = "upstream_accept_timeout"
    FIRST_TOKEN = "upstream_first_token_timeout"  # noqa: S105 - a failure's code
    WHOLE = "upstream_answer_timeout"
    NEXT_EVENT = "upstream_stalled"
    TOTAL = "deadline_exceeded"


def stage_limit_s(stage: Stage, timeouts: Timeouts) -> float:
    """Longest wait of a stage, seconds."""
    match stage:
        case Stage.ACCEPT:
            return timeouts.first_event_s
        case Stage.FIRST_TOKEN:
            return timeouts.first_token_s
        case Stage.WHOLE:
            return timeouts.whole_s
        case Stage.NEXT_EVENT:
            return timeouts.idle_s
        case Stage.TOTAL:
            return timeouts.total_s


def total_s(header: str | None, timeouts: Timeouts) -> float:
    """Time for the whole answer, seconds: the caller's header (milliseconds) inside our own bound.

    Raises :class:`RequestError` for a header that is no whole number of milliseconds above zero.
    """
    if header is None:
        return timeouts.total_s
    text = header.strip()
    if not (text.isascii() and text.isdigit()) or len(text) > 12 or int(text) == 0:
        raise RequestError(
            "trunkline-deadline-ms: a whole number of milliseconds above 0 is expected",
            code="invalid_deadline",
            param="trunkline-deadline-ms",
        )
    return min(int(text) / 1000, timeouts.total_s)
