"""What nodes did with their nonces, and whether they say what may be audited, by nothing but what
the log has of them.

A seed has a nonce of its node in it, to which the node was bound before. One that is bound to many
more nonces than it signs receipts can try several for a request that it has seen, and keep the
answer that it likes best: that is the only choice it has, and the log counts it. Whoever gives up
answers that somebody cancelled uses nonces for them too, so that only a multiple means something.
And one whose batches do not count what may be audited could call private whatever is drawn; one
that dates batches back picks which of its statements they are read by.
It refuses to say of any one answer that its nonce was chosen.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from trunkline.base.errors import Error
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts import NONCES_TYPE, Batch, open_nonces
from trunkline.receipts.batch import BATCH_TYPE, open_batch
from trunkline.verdicts.self_test import SELF_TEST_TYPE, SelfTest
from trunkline.verdicts.terms import TERMS_TYPE, Terms

AHEAD: Final = 3_072
"""Nonces that an honest node has committed to ahead of need: three sets of them."""
AGAIN: Final = 128
"""Those that a new process gives up; each signs a self-test."""
TIMES: Final = 2
"""Nonces for a receipt, from which on it is told."""
SET_BACK_MS: Final = 5_000
"""Nodes of before dated batches by their clocks, which are set back by so much while they run."""


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """One node's, from the log's first entry to its last."""

    node: str
    """Its key's name."""
    receipts: int
    uncounted: int
    """Of them, in batches that do not say how many may be audited."""
    nonces: int
    """That it is bound to."""
    self_tests: int
    terms: int
    """How often it stated what may be audited of it."""
    finding: str
    """Empty: nothing."""


def examine_nodes(entries: Sequence[bytes], nodes: Iterable[VerifierKey]) -> tuple[Spending, ...]:
    """Each node's, in the order given. Entries that none of them signed count for nobody."""
    accounts = {key.name: _Account(key) for key in nodes}
    for entry in entries:
        kind = entry.partition(b"\n")[0].decode("utf-8", "replace")
        if kind not in _COUNTED:
            continue
        for account in accounts.values():
            try:
                account.take(kind, entry)
            except Error:
                # It has not signed that.
                continue
    return tuple(account.spent() for account in accounts.values())


_COUNTED: Final = (BATCH_TYPE, NONCES_TYPE, SELF_TEST_TYPE, TERMS_TYPE)


@dataclass(slots=True)
class _Account:
    """What one node has signed so far."""

    key: VerifierKey
    receipts: int = 0
    uncounted: int = 0
    broken: int = 0
    """Of those, while its terms said that its batches count."""
    nonces: int = 0
    self_tests: int = 0
    dated: dict[bytes, int] = field(default_factory=dict)
    """Batches' dates, by their roots."""
    follow: list[tuple[bytes, int]] = field(default_factory=list)
    """Of each batch, the root of the one before it, and its own date."""
    terms: list[tuple[int, bool]] = field(default_factory=list)
    """By date: whether they say that its batches count."""

    def take(self, kind: str, entry: bytes) -> None:
        """Raises :class:`Error` for what the node has not signed."""
        if kind == BATCH_TYPE:
            self._take_batch(open_batch(entry, self.key))
        elif kind == NONCES_TYPE:
            self.nonces += open_nonces(entry, self.key).count
        elif kind == SELF_TEST_TYPE:
            SelfTest.open_note(entry, self.key)
            self.self_tests += 1
        else:
            stated = Terms.open_note(entry, self.key)
            insort(self.terms, (stated.unix_ms, stated.counts is True))

    def _take_batch(self, batch: Batch) -> None:
        self.receipts += batch.count
        self.dated[batch.root] = batch.unix_ms
        if batch.previous is not None:
            self.follow.append((batch.previous, batch.unix_ms))
        if batch.audited is not None:
            return
        self.uncounted += batch.count
        # Those that hold for it are the last that are dated no later.
        held = bisect_right(self.terms, (batch.unix_ms, True))
        if held and self.terms[held - 1][1]:
            self.broken += batch.count

    def spent(self) -> Spending:
        spare = self.nonces - AHEAD - AGAIN * self.self_tests
        found: list[str] = []
        if spare > TIMES * self.receipts:
            found.append(
                f"bound to {self.nonces} nonces for {self.receipts} receipts: "
                "it can choose among them"
            )
        if self.broken:
            found.append(
                f"{self.broken} receipts in batches that do not say what may be audited, though "
                "its terms say that they do"
            )
        if backdated := self._backdated():
            found.append(
                f"{backdated} batches are dated before the batch that they follow: it can choose "
                "which of its statements hold for them"
            )
        return Spending(
            node=self.key.name,
            receipts=self.receipts,
            uncounted=self.uncounted,
            nonces=self.nonces,
            self_tests=self.self_tests,
            terms=len(self.terms),
            finding="; ".join(found),
        )

    def _backdated(self) -> int:
        """How many batches go back in time. Each names the one before it, wherever the log has the
        two, and dates never go back (``docs/spec/verdict.md``, "Terms")."""
        return sum(
            self.dated.get(previous, 0) > unix_ms + SET_BACK_MS for previous, unix_ms in self.follow
        )
