"""How long each stage of an answer may take, and what its end is called when it took longer.

Seconds on the shell's monotonic clock. Every stage ends inside the answer's own deadline, which is
the caller's ``trunkline-deadline-ms`` or the configured total, whichever comes first.

The configured bounds are the longest that anybody is waited for. Of a deployment that is known, a
multiple of its high quantile is expected instead (:func:`learnt`), so that a fast one's stall is
noticed in a second or two. Three things keep honest slowness from being taken for a stall: floors
that no limit goes below; more time while more is running there than usual; and patience, which
doubles each time that a stage took too long and shrinks only as answers arrive without needing it
(as RFC 6298 backs a retransmission timer off): what was given up on was never measured.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

import msgspec

from trunkline.base.errors import RequestError
from trunkline.gateway.core.normal import SIZES, Measure, Normal, Timings
from trunkline.gateway.core.policy import TimeoutPolicy

DEADLINE_MS_MAX: Final = 24 * 3600 * 1000
QUANTILE: Final = 0.99
BORROWED: Final = 2.0
"""How much longer a deployment may take that is judged by what others of its model normally do."""
PATIENCE_SOON_MAX: Final = 4.0
PATIENCE_MAX: Final = 64.0

CONNECT_FLOOR_S: Final = 1.5
"""A lost first packet is sent again after one second (RFC 6298, section 2)."""
HEAD_FLOOR_S: Final = 2.5
"""A node that is busy shows a sign of life each second (attempt protocol)."""
ACCEPT_FLOOR_S: Final = 1.5
READ_FLOOR_S: Final = 1.5
GAP_FLOOR_S: Final = 1.0
GAP_DEAR_FLOOR_S: Final = 3.0
"""Where nobody can go on with exactly the same text, leaving too early costs more."""
WHOLE_FLOOR_S: Final = 5.0


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
    away_s: float = 20.0
    """Where nobody is there at all, how long somebody is waited for: what restarts is back before.
    0: no longer than ``attempts_max`` attempts take."""
    total_s: float = 600.0
    """A whole answer, every attempt included."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not 0 <= value <= DEADLINE_MS_MAX / 1000 or (value == 0 and name != "away_s"):
                raise ValueError(f"{name} must be above 0 and at most a day")


class Stage(Enum):
    """What is being waited for. The value is the failure's stable code when it took too long."""

    ACCEPT = "upstream_accept_timeout"
    FIRST_TOKEN = "upstream_first_token_timeout"  # noqa: S105 - a failure's code
    WHOLE = "upstream_answer_timeout"
    NEXT_EVENT = "upstream_stalled"
    TOTAL = "deadline_exceeded"


class StageLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What is expected of one deployment now, seconds; None: only the configured bound holds."""

    connect_s: float | None = None
    head_s: float | None = None
    accept_s: tuple[float | None, ...] = (None,) * SIZES
    """By the class of the request's size, as the next ones."""
    read_s: tuple[float | None, ...] = (None,) * SIZES
    whole_s: tuple[float | None, ...] = (None,) * SIZES
    gap_s: float | None = None
    crowd: float = 1.0
    """How many times more runs there now than usual: each stage but the first may take longer."""


UNKNOWN: Final = StageLimits()
"""Of a deployment nothing is expected yet."""


def stage_limit_s(
    stage: Stage, timeouts: Timeouts, limits: StageLimits = UNKNOWN, size: int = 0
) -> float:
    """Longest wait of a stage, seconds, for a request of the class of sizes ``size``."""
    match stage:
        case Stage.ACCEPT:
            return _shorter(timeouts.first_event_s, limits.accept_s[size], limits.crowd)
        case Stage.FIRST_TOKEN:
            return _shorter(timeouts.first_token_s, limits.read_s[size], limits.crowd)
        case Stage.WHOLE:
            return _shorter(timeouts.whole_s, limits.whole_s[size], limits.crowd)
        case Stage.NEXT_EVENT:
            return _shorter(timeouts.idle_s, limits.gap_s, limits.crowd)
        case Stage.TOTAL:
            return timeouts.total_s


def connect_limit_s(timeouts: Timeouts, limits: StageLimits) -> float:
    """Longest wait for a connection, seconds."""
    return _shorter(timeouts.connect_s, limits.connect_s)


def head_limit_s(timeouts: Timeouts, limits: StageLimits) -> float:
    """Longest wait for the response's headers, seconds."""
    return _shorter(timeouts.head_s, limits.head_s)


def learnt(
    own: Normal,
    others: Normal,
    policy: TimeoutPolicy,
    *,
    patience: Mapping[Measure, float],
    exact: bool,
) -> StageLimits:
    """What may be expected of a deployment.

    ``others``: what deployments of the same model normally do together, for what is not known of
    this one. ``patience``: factors from 1 up. ``exact``: its text can be continued exactly
    elsewhere.
    """
    if not policy.adapt:
        return UNKNOWN

    def limit_s(measure: Measure, floor_s: float, size: int = 0) -> float | None:
        usual_s, borrowed = own.quantile(measure, QUANTILE, size), 1.0
        if usual_s is None:
            usual_s, borrowed = others.quantile(measure, QUANTILE, size), BORROWED
        if usual_s is None:
            return None
        expected_s = max(policy.margin * borrowed * usual_s, floor_s, policy.floor_s)
        return expected_s * patience.get(measure, 1.0)

    def by_size(measure: Measure, floor_s: float) -> tuple[float | None, ...]:
        return tuple(limit_s(measure, floor_s, size) for size in range(SIZES))

    return StageLimits(
        # A fresh connection is part of the time to the head, so that bounds it.
        connect_s=limit_s(Measure.HEAD, CONNECT_FLOOR_S),
        head_s=limit_s(Measure.HEAD, HEAD_FLOOR_S),
        accept_s=by_size(Measure.ACCEPT, ACCEPT_FLOOR_S),
        read_s=by_size(Measure.READ, READ_FLOOR_S),
        whole_s=by_size(Measure.WHOLE, WHOLE_FLOOR_S),
        gap_s=limit_s(Measure.GAP, GAP_FLOOR_S if exact else GAP_DEAR_FLOOR_S),
    )


def waited_for(code: str) -> Measure | None:
    """What took too long, by the code of the failure; None if that is not what went wrong."""
    return _WAITED_FOR.get(code)


def more_patience(before: float, *, probing: bool) -> float:
    """The factor after one more wait that was given up. Beyond a few in a row it grows slowly:
    each is somebody's probe."""
    if probing or before >= PATIENCE_SOON_MAX:
        return min(before * 1.25, PATIENCE_MAX)
    return before * 2


_WAITED_FOR: Final = {
    "upstream_connect_timeout": Measure.HEAD,
    "upstream_head_timeout": Measure.HEAD,
    Stage.ACCEPT.value: Measure.ACCEPT,
    Stage.FIRST_TOKEN.value: Measure.READ,
    Stage.WHOLE.value: Measure.WHOLE,
    Stage.NEXT_EVENT.value: Measure.GAP,
}


def _shorter(bound_s: float, expected_s: float | None, crowd: float = 1.0) -> float:
    return bound_s if expected_s is None else min(bound_s, expected_s * max(crowd, 1.0))


class Stopwatch:
    """Times one attempt's stages. What the gateway itself spent is nobody's silence."""

    __slots__ = ("_accepted_s", "_began_s", "_gap_s", "_read_s", "_size", "_stage_s", "_whole_s")

    def __init__(self, began_s: float, size: int) -> None:
        """``began_s``: when the attempt begins; ``size``: class of its request's size."""
        self._began_s = self._stage_s = began_s
        self._size = size
        self._accepted_s: float | None = None
        self._read_s: float | None = None
        self._gap_s: float | None = None
        self._whole_s: float | None = None

    @property
    def waiting_since_s(self) -> float:
        """When the wait for the next event began."""
        return self._stage_s

    def accepted(self, now_s: float) -> None:
        """The node took the attempt on."""
        self._accepted_s = self._stage_s = now_s

    def token(self, now_s: float) -> None:
        """Something of the text arrived."""
        if self._read_s is None:
            self._read_s = now_s
        else:
            self._gap_s = max(self._gap_s or 0.0, now_s - self._stage_s)
        self._stage_s = now_s

    def whole(self, now_s: float) -> None:
        """An answer arrived of which nothing had been heard since it was accepted."""
        self._whole_s = self._stage_s = now_s

    def next(self, now_s: float) -> None:
        """Something else is waited for from now on."""
        self._stage_s = now_s

    def excuse(self, spent_s: float) -> None:
        """For so long something else was waited for, and not the node: the app, our disk, or a
        turn of this process, which had stood still."""
        spent_s = max(spent_s, 0.0)
        self._stage_s += spent_s
        if self._read_s is None:
            self._began_s += spent_s
            if self._accepted_s is not None:
                self._accepted_s += spent_s

    def read(self) -> Timings:
        """What was measured."""
        accepted_s = self._accepted_s
        return Timings(
            size=self._size,
            accept_s=_since(self._began_s, accepted_s),
            read_s=None if accepted_s is None else _since(accepted_s, self._read_s),
            first_token_s=_since(self._began_s, self._read_s),
            gap_s=self._gap_s,
            whole_s=None if accepted_s is None else _since(accepted_s, self._whole_s),
        )


def _since(began_s: float, ended_s: float | None) -> float | None:
    return None if ended_s is None else ended_s - began_s


def total_s(header: str | None, timeouts: Timeouts) -> float:
    """Time for the whole answer, seconds: the caller's header (milliseconds) inside our own bound.

    Raises :class:`RequestError` for a header that is no whole number of milliseconds above zero.
    """
    if header is None:
        return timeouts.total_s
    text = header.strip()
    if not (text.isascii() and text.isdigit()) or not text.strip("0"):
        raise RequestError(
            "trunkline-deadline-ms: a whole number of milliseconds above 0 is expected",
            code="invalid_deadline",
            param="trunkline-deadline-ms",
        )
    # Longer than any number that matters here: it wants all the time there is.
    return timeouts.total_s if len(text) > 15 else min(int(text) / 1000, timeouts.total_s)
