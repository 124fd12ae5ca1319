"""Continuous batching with one aim above throughput: each sequence gets the same logit bits
whatever it shares the machine with.

The rules that make it so, found by measuring (docs/adr/0003-embedded-engine-numerics.md):

1. *Never one row.* Matrix products over one row run another kernel than over two or more, and
   round otherwise. So each micro-batch has at least two rows, and at least two of them (or none)
   keep their logits, since the output layer only sees those.
2. *Never 64 rows.* See ``llama.ATTENTION_ROWS_MAX``.
3. *Neighbours only.* The library splits a micro-batch whose sequences are not consecutive, or
   have unequal lengths; a split could leave one row. So a micro-batch is either a piece of one
   sequence, or one row for each sequence of an unbroken range.

A sequence inside such a range with nothing to do gets a *filler* row behind its cache, which is
forgotten at once. To need few of them, jobs are put beside each other: where a cache that is of use
lies elsewhere, it changes places.

What several prompts begin with is computed once. Before each of its pieces a job looks whether
another sequence, at work or idle, has come further along the same tokens, and copies that: the same
bits. Whose cache may be taken over is said by ``Sharing``; what nobody may take is forgotten when
its job ends, however that ends.

The caller alternates between one micro-batch of single rows (sequences that generate) and one piece
of one prompt: a long prompt delays the others by one piece at a time, not by its length. A piece
costs something of itself, so one that delays nobody is larger, and a prompt falls into equal ones:
a small one at its end would cost the most for a token.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trunkline.base.errors import Error, OverloadedError, require
from trunkline.inference.ports import NOT_SHARED, Sharing, Token, TokenScore

ROWS_MIN = 2
FILLER_TOKEN = 0

COPIED_TOKENS_MIN = 8
"""A copy that saves fewer is not worth making: one of a long sequence takes as long as two or three
rows."""
SWAPPED_TOKENS_MAX = 4096
"""Of two sequences together that change places: tens of milliseconds, and 100 MB meanwhile."""

Event = Token | TokenScore | bytes
"""What a job makes of one position's logits: a token, a score, or a digest of their bits."""

Moves = list[tuple[int, Sequence[Event] | Error]]
"""Per job that moved: its id, and its new events or the error that ended it."""


class Job(Protocol):
    """What runs in a slot: ``sequence.Running`` generates, ``scoring.Scoring`` scores,
    ``self_test.Probe`` digests."""

    id: int
    tokens: list[int]
    """All that must be in the cache; may grow with ``take``."""

    @property
    def reusable(self) -> int:
        """Most tokens whose cache may be taken over: those whose logits are not needed."""
        ...

    @property
    def ended(self) -> bool: ...

    def wants_logits(self, position: int) -> bool:
        """Whether the logits after the token at ``position`` of ``tokens`` are needed."""
        ...

    def take(self, position: int, logits: NDArray[np.float32]) -> Sequence[Event]: ...

    @property
    def sharing(self) -> Sharing: ...

    def close(self) -> None: ...


class Memory(Protocol):
    """What batching needs of ``llama.Context``: a fake in tests."""

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[int],
        outputs: Sequence[bool],
    ) -> None: ...

    def logits(self, index: int) -> NDArray[np.float32]: ...

    def forget(self, sequence: int, from_position: int) -> None: ...

    def copy(self, source: int, target: int) -> None: ...

    def swap(self, one: int, other: int) -> None: ...


class _Slot:
    """One sequence of the context: the tokens its cache holds, and the job that runs in it."""

    def __init__(self) -> None:
        self.cached: list[int] = []
        self.running: Job | None = None
        self.sharing = NOT_SHARED
        """Of the job that runs, or ran last."""
        self.asked = 0
        """How many of ``cached`` its prompt begins with, or began."""
        self.left = 0
        """When it was last left, as a number that grows; 0: never."""

    @property
    def pending(self) -> int:
        return len(self.running.tokens) - len(self.cached) if self.running else 0


class Batcher:
    """Runs jobs over a context of ``slots`` sequences. Not thread-safe.

    ``slots`` is at least two (rule 1). ``piece_tokens`` bounds a piece of a prompt, and
    ``lone_piece_tokens`` (0: that too) one that no sequence waits for that generates. Each sequence
    of the context must hold one token more than a job may use, for the filler.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        slots: int,
        piece_tokens: int,
        queue_jobs_max: int,
        lone_piece_tokens: int = 0,
    ) -> None:
        require(slots >= ROWS_MIN, "an engine has at least two sequences")
        require(piece_tokens >= ROWS_MIN, "a piece has at least two tokens")
        self._memory = memory
        self._slots = [_Slot() for _ in range(slots)]
        self._piece_tokens = piece_tokens
        self._lone_piece_tokens = max(piece_tokens, lone_piece_tokens)
        self._queue_jobs_max = queue_jobs_max
        self._waiting: deque[Job] = deque()
        self._turn = 0
        self._jobs_left = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to advance."""
        return bool(self._waiting) or any(slot.running for slot in self._slots)

    def add(self, running: Job) -> None:
        """Queue a job. Raises ``OverloadedError`` when too many wait."""
        if len(self._waiting) >= self._queue_jobs_max:
            raise OverloadedError("the engine's queue is full", code="engine_queue_full")
        self._waiting.append(running)

    def cancel(self, job_id: int) -> None:
        """Drop a job, waiting or running. Unknown ids are fine: it may just have finished."""
        for waiting in self._waiting:
            if waiting.id == job_id:
                self._waiting.remove(waiting)
                waiting.close()
                return
        for index, slot in enumerate(self._slots):
            if slot.running and slot.running.id == job_id:
                self._release(index)
                return

    def advance_answers(self) -> Moves:
        """One micro-batch of single rows: every job that generates gets on by a token.

        Returns, per job that moved, its new events, or the error that ended it.
        """
        self._admit()
        singles = [i for i, slot in enumerate(self._slots) if slot.pending == 1]
        return list(self._single_rows(singles)) if singles else []

    def advance_prompt(self) -> Moves:
        """One piece of one prompt. Returns as ``advance_answers`` does."""
        self._admit()
        longer = [i for i, slot in enumerate(self._slots) if slot.pending > 1]
        if not longer:
            return []
        # In turn, so that a short prompt does not wait for a long one to end.
        chosen = min(longer, key=lambda i: (i - self._turn) % len(self._slots))
        self._turn = chosen + 1
        return list(self._piece(chosen))

    def _admit(self) -> None:
        while self._waiting:
            idle = [i for i, slot in enumerate(self._slots) if slot.running is None]
            if not idle:
                return
            running = self._waiting.popleft()
            index = self._chosen(idle, running)
            slot = self._slots[index]
            kept = self._common(slot, running)
            # Before it is put anywhere: what is forgotten need not be moved.
            self._memory.forget(index, kept)
            del slot.cached[kept:]
            index = self._placed(index, idle)
            slot.running, slot.sharing, slot.asked = running, running.sharing, running.reusable
            self._catch_up(index)

    def _chosen(self, idle: Sequence[int], running: Job) -> int:
        """Whose cache the job takes the place of: of one that it goes on from, as the next turn of
        a conversation does, else of the one that has lain idle the longest."""

        def order(index: int) -> tuple[int, int, int]:
            slot = self._slots[index]
            common = self._common(slot, running)
            return common if common >= max(slot.asked, 1) else 0, -slot.left, -index

        return max(idle, key=order)

    def _placed(self, index: int, idle: Sequence[int]) -> int:
        """Where that cache is put: beside those that are at work, so that few fillers are needed.
        ``index``, or that of another idle sequence, with which it has changed places."""
        busy = [i for i, slot in enumerate(self._slots) if slot.running is not None]
        if not busy:
            return index

        def reach(at: int) -> int:
            return max(*busy, at) - min(*busy, at)

        nearest = min(idle, key=reach)
        one, other = self._slots[index], self._slots[nearest]
        if (
            reach(nearest) == reach(index)
            or len(one.cached) + len(other.cached) > SWAPPED_TOKENS_MAX
        ):
            return index
        if one.cached or other.cached:
            self._memory.swap(index, nearest)
        self._slots[index], self._slots[nearest] = other, one
        return nearest

    def _catch_up(self, index: int) -> None:
        """Copy what another sequence has computed of this one's tokens, if that is much more."""
        slot = self._slots[index]
        running = slot.running
        if running is None or running.reusable - len(slot.cached) < COPIED_TOKENS_MIN:
            return
        others = [i for i in range(len(self._slots)) if i != index]
        common = {i: self._common(self._slots[i], running) for i in others}
        best = max(others, key=lambda i: common[i])
        if common[best] - len(slot.cached) < COPIED_TOKENS_MIN:
            return
        self._memory.copy(best, index)
        self._memory.forget(index, common[best])
        slot.cached = self._slots[best].cached[: common[best]]

    def _common(self, slot: _Slot, running: Job) -> int:
        """How many tokens of the slot's cache the job can take over, and may."""
        limit = min(len(slot.cached), running.reusable)
        mine, its = running.sharing, slot.sharing
        if not mine.scope or mine.scope != its.scope:
            limit = min(limit, mine.lead, its.lead)
        pairs = zip(slot.cached[:limit], running.tokens[:limit], strict=True)
        return next((at for at, (one, other) in enumerate(pairs) if one != other), limit)

    def _single_rows(self, singles: list[int]) -> Iterator[tuple[int, Sequence[Event] | Error]]:
        first, last = singles[0], singles[-1]
        if first == last:
            first, last = (first, last + 1) if last + 1 < len(self._slots) else (first - 1, last)
        indices = range(first, last + 1)
        tokens, positions, fillers = [], [], []
        for index in indices:
            slot = self._slots[index]
            if slot.running and slot.pending:
                # A prompt inside the range gets on by one token, which beats a filler.
                tokens.append(slot.running.tokens[len(slot.cached)])
            else:
                tokens.append(FILLER_TOKEN)
                fillers.append(index)
            positions.append(len(slot.cached))
        # The output layer is a fifth of a row's work; it too must see two rows or none.
        spared = fillers if len(tokens) - len(fillers) >= ROWS_MIN else []
        outputs = [index not in spared for index in indices]
        self._memory.decode(tokens, positions, list(indices), outputs)
        for index in fillers:
            self._memory.forget(index, len(self._slots[index].cached))
        for row, index in enumerate(indices):
            if index not in fillers:
                self._slots[index].cached.append(tokens[row])
                yield from self._advance(index, {len(self._slots[index].cached) - 1: row})

    def _piece(self, index: int) -> Iterator[tuple[int, Sequence[Event] | Error]]:
        self._catch_up(index)
        slot = self._slots[index]
        running = slot.running
        if running is None or slot.pending < ROWS_MIN:
            # What was copied left one row, which goes with the single ones.
            return
        start = len(slot.cached)
        waited_for = any(other.pending == 1 for other in self._slots)
        most = self._piece_tokens if waited_for else self._lone_piece_tokens
        pieces = -(-slot.pending // most)
        piece = running.tokens[start : start + -(-slot.pending // pieces)]
        outputs = [running.wants_logits(start + at) for at in range(len(piece))]
        if sum(outputs) == 1:
            outputs[0 if not outputs[0] else 1] = True
        positions = list(range(start, start + len(piece)))
        self._memory.decode(piece, positions, [index] * len(piece), outputs)
        slot.cached += piece
        rows = {start + at: at for at in range(len(piece)) if outputs[at]}
        yield from self._advance(index, rows)

    def _advance(
        self, index: int, rows: dict[int, int]
    ) -> Iterator[tuple[int, Sequence[Event] | Error]]:
        """Hand a job the logits of its ``rows`` (position to row), and release it if it ended."""
        slot = self._slots[index]
        running = slot.running
        if running is None:
            return
        try:
            events: list[Event] = []
            for position, row in rows.items():
                if running.wants_logits(position):
                    events += running.take(position, self._memory.logits(row))
        except Error as error:
            self._release(index)
            yield running.id, error
            return
        if running.ended:
            self._release(index)
        if events:
            yield running.id, events

    def _release(self, index: int) -> None:
        slot = self._slots[index]
        if slot.running is None:
            return
        slot.running.close()
        slot.running = None
        self._jobs_left += 1
        slot.left = self._jobs_left
        if not slot.sharing.scope and len(slot.cached) > slot.sharing.lead:
            self._memory.forget(index, slot.sharing.lead)
            del slot.cached[slot.sharing.lead :]
