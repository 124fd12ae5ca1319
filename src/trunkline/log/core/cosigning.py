"""Which checkpoint is published, and which one witnesses are asked for.

One checkpoint at a time is the *candidate*: every witness is asked for that one, so that their
cosignatures meet on the same tree, and it stays until a quorum has cosigned it. Only then, or when
witnesses stay away for the whole window, does a newer one take its place. So a reader who waits for
a cosigned checkpoint sees one even while the log grows all the time; and a reader who needs none
sees new entries even while no witness answers.

What is published never shrinks.
"""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from trunkline.base.errors import require

Quorum = Callable[[AbstractSet[str]], bool]
"""Whether cosignatures by these witnesses' keys (vkeys) are enough. More are never fewer."""


def at_least(count: int) -> Quorum:
    """Any ``count`` of the keys are enough."""
    return lambda witnesses: len(witnesses) >= count


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A checkpoint signed by the log, and by the witnesses that have cosigned it."""

    size: int
    note: bytes
    """The signed note with the log's signature alone."""
    lines: dict[str, bytes] = field(default_factory=dict)
    """Cosignature lines by the witness's key (vkey): a name alone may belong to several."""

    def published(self) -> bytes:
        """The note with every cosignature."""
        return self.note + b"".join(self.lines.values())


class Cosigning:
    """The state machine. Times are monotonic seconds, handed in."""

    __slots__ = ("_candidate", "_newest", "_published", "_published_at_s", "_quorum", "_window_s")

    def __init__(
        self, *, quorum: Quorum, window_s: float, published: Signed, newest: Signed, now_s: float
    ) -> None:
        """``published``: what readers see now; ``newest``: the last one sequenced.

        ``quorum``: which cosignatures a checkpoint needs. ``window_s``: how long the candidate may
        take before a newer checkpoint is published without them.
        """
        require(published.size <= newest.size, "published beyond the sequenced size")
        self._quorum = quorum
        self._window_s = window_s
        self._published = published
        self._newest = newest
        self._candidate = published if published.size == newest.size else newest
        # After a start, readers may have waited for long: publish without further delay.
        self._published_at_s = now_s - window_s

    @property
    def published(self) -> Signed:
        return self._published

    @property
    def newest_size(self) -> int:
        return self._newest.size

    @property
    def has_quorum(self) -> bool:
        """Whether what is published has the quorum."""
        return self._quorum(self._published.lines.keys())

    def wanted(self, witness: str) -> Signed | None:
        """The checkpoint that this witness should be asked for now, if any."""
        return None if witness in self._candidate.lines else self._candidate

    def offer(self, signed: Signed, now_s: float) -> Signed | None:
        """A newer checkpoint was sequenced. Returns what to publish, if anything."""
        require(signed.size >= self._newest.size, "the log shrank")
        self._newest = signed
        return self.tick(now_s)

    def cosigned(self, witness: str, size: int, line: bytes, now_s: float) -> Signed | None:
        """``witness`` cosigned the checkpoint of ``size``; ``line`` is verified.

        Returns what to publish, if anything. A cosignature of a past candidate is dropped.
        """
        if size == self._candidate.size:
            lines = {**self._candidate.lines, witness: line}
            self._candidate = replace(self._candidate, lines=lines)
        return self.tick(now_s)

    def witness_is_at(self, size: int) -> bool:
        """A witness has cosigned ``size`` already. False: this log has never been so large.

        Where that is beyond the candidate (a restart came between), the newest takes its place.
        """
        if self._candidate.size < size <= self._newest.size:
            self._candidate = self._newest
        return size <= self._newest.size

    def tick(self, now_s: float) -> Signed | None:
        """Time has passed. Returns what to publish, if anything."""
        publish = self._improvement()
        if self._candidate_has_quorum() and self._newest.size > self._candidate.size:
            self._candidate = self._newest
            publish = self._improvement() or publish
        overdue_s = self.overdue_at_s()
        if publish is None and overdue_s is not None and now_s >= overdue_s:
            self._candidate = publish = self._newest
        if publish is not None:
            self._published = publish
            self._published_at_s = now_s
        return publish

    def overdue_at_s(self) -> float | None:
        """When the newest checkpoint is to be published without a quorum; None: it is out."""
        if self._newest.size <= self._published.size:
            return None
        return self._published_at_s + self._window_s

    def _candidate_has_quorum(self) -> bool:
        return self._quorum(self._candidate.lines.keys())

    def _improvement(self) -> Signed | None:
        """The candidate, if it has the quorum and says more than what is published."""
        candidate, published = self._candidate, self._published
        more = candidate.size > published.size or (
            candidate.size == published.size and len(candidate.lines) > len(published.lines)
        )
        return candidate if more and self._candidate_has_quorum() else None
