"""A verifier's draws, one after the other: whether it left entries out, or drew some a second time.

Specified in ``docs/spec/verdict.md``. A verifier that audits only what it likes has two ways: not
to draw from some entries, and to draw again from the same ones under a checkpoint that suits it
better. Both show in the draws that it logged. It refuses to judge the draws that were never logged:
nobody but the verifier has seen those.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

import msgspec

from trunkline.verdicts.draw import Draw

FaultKind: TypeAlias = Literal["skipped", "again", "backwards"]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Two draws of one verifier that do not follow each other."""

    kind: FaultKind
    """``skipped``: no draw has the entries in between. ``again``: entries are drawn from twice.
    ``backwards``: under a smaller tree than the draw before."""
    earlier: int
    """Where the first of the two stands among those given."""
    start: int
    """The entries that it is about, from ``start`` to before ``end``."""
    end: int


def check_sequence(draws: Sequence[Draw]) -> tuple[Fault, ...]:
    """What is wrong with all the draws that one verifier made from one log, in the log's order.

    None: every entry from the first draw's start to the last one's end was drawn from exactly once.
    Raises ``ValueError`` for draws of several verifiers or logs.
    """
    if len({(draw.key, draw.tree().origin) for draw in draws}) > 1:
        raise ValueError("these draws are of several verifiers, or from several logs")
    return tuple(
        fault
        for index, (before, after) in enumerate(pairwise(draws))
        for fault in _between(index, before, after)
    )


def _between(index: int, before: Draw, after: Draw) -> Iterator[Fault]:
    if after.from_ > before.to:
        yield Fault(kind="skipped", earlier=index, start=before.to, end=after.from_)
    if after.from_ < before.to:
        end = min(before.to, after.to)
        yield Fault(kind="again", earlier=index, start=after.from_, end=end)
    sizes = before.tree().size, after.tree().size
    if sizes[1] < sizes[0]:
        yield Fault(kind="backwards", earlier=index, start=sizes[1], end=sizes[0])
