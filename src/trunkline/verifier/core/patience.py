"""How long a verifier asks a node for an opening, and what it concludes when it stops.

A node that serves and does not open withholds. One that can not be reached is given much longer,
and then nothing is concluded: being away is no fault. Both need several tries, so that a verifier
that was away itself holds nothing against anybody.
"""

from dataclasses import dataclass
from typing import Final, Literal

from trunkline.audit.judge import WITHHELD
from trunkline.audit.repeated import is_repeated
from trunkline.receipts import Receipt
from trunkline.schema.audit import Opening

TRIES_MIN: Final = 3
CLOCK_MS_MAX: Final = 240_000
"""What two clocks may differ by before neither is believed."""
BACKOFF_FIRST_MS: Final = 1_000
BACKOFF_MS_MAX: Final = 30_000

SILENT: Final = "unreachable"
"""The node did not answer at all."""
REFUSED: Final = "refused"
"""It answered, and it was no opening: an error, or something else than was asked for."""
CONCLUSIVE: Final = frozenset({"not_audited", "not_kept", "expired"})
"""Reasons that waiting changes nothing about; the receipt says whether they may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """A verifier's deadlines."""

    opening_ms: int
    unreachable_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """Ask again at ``due_ms``."""

    due_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Over:
    """No more asking: it is judged for this reason."""

    reason: Literal["withheld", "unreachable", "excused"]
    """``excused``: it refuses, and may be right to."""


def after_failure(
    reason: str,
    *,
    asked_ms: int,
    attempts: int,
    now_ms: int,
    patience: Patience,
    excused: bool = False,
    refused_before: str = "",
    signing: bool = False,
) -> Again | Over:
    """What follows from a try that brought nothing conclusive.

    ``reason``: the node's, or :data:`SILENT` or :data:`REFUSED`. ``asked_ms``: when it was asked
    first. ``attempts``: tries before this one. ``excused``: see :func:`excuse`.
    ``refused_before``: the reason of the try before, if there was one. ``signing``: the log has
    batches that the node has signed since it ought to have opened. Who works for others is not
    away: a cheat would else only have to leave some demands unanswered.
    """
    silent = reason == SILENT
    if refused_before == SILENT and not silent:
        # It was away and is back, so its first word is not its last.
        return Again(due_ms=now_ms + BACKOFF_MS_MAX)
    deadline_ms = asked_ms + (patience.unreachable_ms if silent else patience.opening_ms)
    if now_ms >= deadline_ms and attempts + 1 >= TRIES_MIN:
        if silent:
            return Over(reason="withheld" if signing else "unreachable")
        return Over(reason="excused" if excused else "withheld")
    pause_ms = min(BACKOFF_FIRST_MS << min(attempts, 16), BACKOFF_MS_MAX)
    # The last try is made when the deadline has come, not long after it.
    until_ms = max(deadline_ms - now_ms, BACKOFF_FIRST_MS)
    return Again(due_ms=now_ms + min(pause_ms, until_ms))


EXCUSABLE: Final = frozenset({"demand_stale", "draw_conflict"})


def excuse(code: str, *, asked_ms: int, cosigned_ms: int, drawn_otherwise: bool) -> str:
    """Why a node may be right to refuse a demand with ``code``; empty: it may not.

    A verifier can have made a mistake in two ways that its demand does not show. ``cosigned_ms``:
    the newest time that a witness put under the draw's checkpoint: if this verifier's own clock was
    far from that at ``asked_ms``, it may be its clock that is wrong. ``drawn_otherwise``: the log
    has another draw by the key of this one's drawer from the same entry.
    """
    if code == "demand_stale" and abs(asked_ms - cosigned_ms) > CLOCK_MS_MAX:
        return "by the node's clock the demand is not fresh, and no witness says whose is wrong"
    if code == "draw_conflict" and drawn_otherwise:
        return "the same key drew from the same entries before, in another way"
    return ""


def why_closed(
    receipt: Receipt, reason: str, now_ms: int, *, keep_s: int, whole: bool = True
) -> str:
    """What a node's reason for opening nothing comes to, given the receipt that it is about, and
    the ``keep_s`` of its terms and whether they say that it keeps the ``whole``.

    Not to keep what could be opened is to withhold it: the node had said that it would. So is to
    say that it has expired before that time was over; later it may be true. The node's own times
    make no answer older than its gateway says that it is.
    """
    kept = whole or not is_repeated(receipt)
    openable = receipt.policy.audit and bool(receipt.model.weights) and kept
    ended_ms = max(receipt.times.ended_ms, receipt.created_s * 1000)
    recent = now_ms - ended_ms < keep_s * 1000 - CLOCK_MS_MAX
    if openable and (reason == "not_kept" or (reason == "expired" and recent)):
        return WITHHELD
    return reason


def is_owed(position: int, audited: int | None, *, counts: bool) -> bool:
    """Whether a node signed before the draw that the receipt at ``position`` of its batch may be
    audited, so that it can not call it private now.

    ``audited``: how many the batch says may be; None: it does not say. ``counts``: by the node's
    terms its batches do, and one that does not is read as if it counted all.
    """
    return counts if audited is None else position < audited


def is_conclusive(opening: Opening) -> bool:
    """Whether there is something to judge: content, or a reason that time does not change."""
    if opening.content is not None:
        return opening.signed is not None
    return opening.reason in CONCLUSIVE and (opening.signed is not None or bool(opening.leaf))
