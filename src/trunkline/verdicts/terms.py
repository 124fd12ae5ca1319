"""Terms: what a node says it lets verifiers audit, before it answers anything under them.

Specified in ``docs/spec/verdict.md``, "Terms". A node signs and logs them; they hold for its
batches that the log has after them, until its next. So everybody agrees which refusal a node had
announced, and which is withholding. They are no promise to be honest, and it is no lie to have
none: a node without terms that suffice is simply not verified.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from trunkline.verdicts.draw import RATE_PPM_MAX
from trunkline.verdicts.record import Count, Key, Name, Record

TERMS_TYPE = "trunkline.terms/v1"
VERIFIERS_MAX: Final = 64
RATE_PPM_MIN: Final = 1_000
"""Of a node that is verified at all: one receipt of a thousand."""
KEEP_S_MIN: Final = 300
"""The same: what a draw, its place in the log and some tries take."""
DEMANDS_PER_MIN_MIN: Final = 6
"""The same."""


class Terms(Record, frozen=True, kw_only=True):
    """What one node lets verifiers audit."""

    TYPE: ClassVar[str] = TERMS_TYPE
    NOTE_BYTES_MAX: ClassVar[int] = 32 * 1024

    chains: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    """It knows of chains: what is drawn of it is drawn by them, where there is one."""
    counts: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    """Its batches say how many of their receipts may be audited. Of one that does not, all may."""
    demands_per_min: Count
    """Demands that it answers to each verifier."""
    keep_s: Count
    """Seconds for which it can open a receipt."""
    key: Key
    operator: Name
    rate_ppm: Annotated[int, msgspec.Meta(ge=0, le=RATE_PPM_MAX)]
    """Receipts of a million that each verifier may draw. Of a draw at a higher rate, it opens those
    that this rate had drawn too."""
    rules: Count | msgspec.UnsetType = msgspec.UNSET
    """By which it makes answers (``trunkline.inference.rules``). Absent: 1."""
    type: Literal["trunkline.terms/v1"] = "trunkline.terms/v1"
    unix_ms: Count
    verifiers: Annotated[tuple[Key, ...], msgspec.Meta(max_length=VERIFIERS_MAX)]
    """Vkeys of those that may ask; each also for what another of them has drawn."""
    whole: Literal[True] | msgspec.UnsetType = msgspec.UNSET
    """It keeps what opens answers given again and log-probabilities that were sent, too."""

    @property
    def answer_rules(self) -> int:
        return 1 if isinstance(self.rules, msgspec.UnsetType) else self.rules

    @property
    def opens_whole(self) -> bool:
        return self.whole is True


def too_small(terms: Terms | None, verifiers: Sequence[str]) -> str:
    """Why ``terms`` do not let ``verifiers`` (vkeys) verify the node; empty: they do.

    None: the node has stated none.
    """
    if terms is None:
        return "the node has stated no terms"
    if not set(verifiers) <= set(terms.verifiers):
        return "the node's terms do not name this verifier"
    if terms.rate_ppm < RATE_PPM_MIN:
        return f"the node's terms let {terms.rate_ppm} receipts of a million be drawn"
    if terms.keep_s < KEEP_S_MIN:
        return f"by the node's terms it keeps what opens a receipt for {terms.keep_s} s"
    if terms.demands_per_min < DEMANDS_PER_MIN_MIN:
        return f"the node's terms allow {terms.demands_per_min} demands a minute"
    return ""


def in_force(stated: Sequence[Terms], now_ms: int) -> tuple[Terms, ...]:
    """Which of a node's terms it still has to keep to, of all that it ``stated``, oldest first: the
    newest, and each before it until its ``keep_s`` after the next was stated."""
    held = [
        before
        for before, after in pairwise(stated)
        if now_ms < after.unix_ms + before.keep_s * 1000
    ]
    return (*held, *stated[-1:])
