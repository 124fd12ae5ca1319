"""What a deployment normally does: how long each part of its answers takes, as quantiles.

A histogram over buckets whose bounds grow by a constant factor gives every quantile within a known
relative error in bounded memory (DDSketch: Masson, Rim and Lee, VLDB 2019). The past is forgotten
by count: once enough has been seen, all that came before weighs half. It reads no clock, and the
same samples in the same order give the same quantiles.

Times that grow with the prompt are kept by the size of the request. Where a size was not seen often
enough, a larger one answers for it: it takes no less long.
"""

import math
from collections.abc import Iterable
from enum import Enum
from typing import Final

import msgspec

ERROR_SHARE: Final = 0.05
"""A quantile is within this share of the exact one (between the bounds below)."""
SECONDS_MIN: Final = 1e-4
SECONDS_MAX: Final = 24 * 3600.0
MEMORY: Final = 512
"""Samples after which the older half of what is known begins to fade."""
SAMPLES_MIN: Final = 20
"""Fewer say nothing yet."""
SIZES_BYTES: Final = (4_096, 16_384, 65_536, 262_144)
"""Upper bounds of the classes of request sizes; the last class has none."""
SIZES: Final = len(SIZES_BYTES) + 1

_GROWTH: Final = (1 + ERROR_SHARE) / (1 - ERROR_SHARE)
_LOG_GROWTH: Final = math.log(_GROWTH)
_BUCKET_MAX: Final = math.ceil(math.log(SECONDS_MAX / SECONDS_MIN) / _LOG_GROWTH)
_NEGLIGIBLE: Final = 0.1
"""A bucket that weighs less is dropped."""


class Measure(Enum):
    """What is timed."""

    HEAD = "head"
    """From the request sent to the response's headers; connecting included where it was needed."""
    ACCEPT = "accept"
    """From the start to ``accepted``."""
    READ = "read"
    """From ``accepted`` to the first token."""
    FIRST_TOKEN = "first_token"  # noqa: S105 - a time
    """From the start to the first token."""
    GAP = "gap"
    """The longest silence of one answer once its tokens flow: what a limit has to let pass."""
    WHOLE = "whole"
    """From ``accepted`` to a whole answer of a node that says nothing in between."""


SIZED: Final = frozenset({Measure.ACCEPT, Measure.READ, Measure.FIRST_TOKEN, Measure.WHOLE})
"""Measures that are kept by the size of the request."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """What one attempt took, seconds; None: it did not get so far."""

    size: int = 0
    """Class of the request's size, from :func:`size_class`."""
    accept_s: float | None = None
    read_s: float | None = None
    first_token_s: float | None = None
    gap_s: float | None = None
    whole_s: float | None = None

    def taken(self) -> tuple[tuple[Measure, float], ...]:
        """What is known."""
        named = (
            (Measure.ACCEPT, self.accept_s),
            (Measure.READ, self.read_s),
            (Measure.FIRST_TOKEN, self.first_token_s),
            (Measure.GAP, self.gap_s),
            (Measure.WHOLE, self.whole_s),
        )
        return tuple((measure, seconds) for measure, seconds in named if seconds is not None)


def size_class(request_bytes: int) -> int:
    """The class of a request's size, 0 to ``SIZES - 1``."""
    return sum(request_bytes > bound for bound in SIZES_BYTES)


class Quantiles:
    """Quantiles of a stream of times, in at most a few hundred buckets."""

    __slots__ = ("_weights", "weight")

    def __init__(self) -> None:
        self._weights: dict[int, float] = {}
        self.weight = 0.0
        """Samples that still count."""

    def add(self, seconds: float) -> None:
        """One more sample."""
        bucket = _bucket(seconds)
        self._weights[bucket] = self._weights.get(bucket, 0.0) + 1.0
        self.weight += 1.0
        if self.weight >= 2 * MEMORY:
            self.fade(0.5)

    def quantile(self, share: float) -> float | None:
        """The time that ``share`` of the samples do not exceed, seconds; None if there is none."""
        above = self.weight * (1 - share)
        found = None
        for bucket in sorted(self._weights, reverse=True):
            found = bucket
            above -= self._weights[bucket]
            if above < 0:
                break
        return None if found is None else _middle_s(found)

    def merge(self, other: "Quantiles") -> None:
        """Take over all that another has seen."""
        for bucket, weight in other._weights.items():
            self._weights[bucket] = self._weights.get(bucket, 0.0) + weight
            self.weight += weight

    def fade(self, share: float) -> None:
        """Let everything so far weigh ``share`` (0 to 1) of what it did."""
        faded = {bucket: weight * share for bucket, weight in self._weights.items()}
        self._weights = {b: weight for b, weight in faded.items() if weight >= _NEGLIGIBLE}
        self.weight = sum(self._weights.values())

    def dump(self) -> tuple[tuple[int, float], ...]:
        """Buckets and their weights, for :meth:`of`."""
        return tuple((bucket, round(w, 3)) for bucket, w in sorted(self._weights.items()))

    @classmethod
    def of(cls, dumped: Iterable[tuple[int, float]]) -> "Quantiles":
        """Read :meth:`dump`; what no dump could hold is left out."""
        found = cls()
        for bucket, weight in dumped:
            if 0 <= bucket <= _BUCKET_MAX and _NEGLIGIBLE <= weight <= 2 * MEMORY:
                found._weights[bucket] = weight
        found.weight = sum(found._weights.values())
        if found.weight > 2 * MEMORY:
            found.fade(2 * MEMORY / found.weight)
        return found


class Normal:
    """One deployment's usual times."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[Measure, int], Quantiles] = {}

    def add(self, measure: Measure, seconds: float, size: int = 0) -> None:
        """One more sample, of a request of this class of size."""
        self._of(measure, size if measure in SIZED else 0).add(seconds)

    def quantile(self, measure: Measure, share: float, size: int = 0) -> float | None:
        """The quantile in seconds; None where fewer than :data:`SAMPLES_MIN` samples speak."""
        classes = range(size, SIZES) if measure in SIZED else range(1)
        for each in classes:
            kept = self._kept.get((measure, each))
            if kept is not None and kept.weight >= SAMPLES_MIN:
                return kept.quantile(share)
        return None

    def merge(self, other: "Normal") -> None:
        """Take over all that another has seen."""
        for (measure, size), kept in other._kept.items():
            self._of(measure, size).merge(kept)

    def fade(self, share: float) -> None:
        """Let everything so far weigh ``share`` of what it did."""
        for kept in self._kept.values():
            kept.fade(share)

    def dump(self) -> tuple[tuple[str, int, tuple[tuple[int, float], ...]], ...]:
        """Measure, size and buckets of all that is known, for :meth:`of`."""
        return tuple(
            (measure.value, size, kept.dump())
            for (measure, size), kept in self._kept.items()
            if kept.weight
        )

    @classmethod
    def of(cls, dumped: Iterable[tuple[str, int, Iterable[tuple[int, float]]]]) -> "Normal":
        """Read :meth:`dump`; what is not known here is left out."""
        found = cls()
        names = {measure.value: measure for measure in Measure}
        for name, size, buckets in dumped:
            if name in names and 0 <= size < SIZES:
                found._kept[names[name], size] = Quantiles.of(buckets)
        return found

    def _of(self, measure: Measure, size: int) -> Quantiles:
        found = self._kept.get((measure, size))
        if found is None:
            found = self._kept[measure, size] = Quantiles()
        return found


def _bucket(seconds: float) -> int:
    """Number of the bucket: bucket ``b`` holds what is above ``growth**(b-1)`` times the least."""
    if not seconds > SECONDS_MIN:
        return 0
    return math.ceil(math.log(min(seconds, SECONDS_MAX) / SECONDS_MIN) / _LOG_GROWTH)


def _middle_s(bucket: int) -> float:
    """The time whose relative distance to both bounds of the bucket is the same, seconds."""
    return SECONDS_MIN if bucket == 0 else SECONDS_MIN * 2 * _GROWTH**bucket / (_GROWTH + 1)
