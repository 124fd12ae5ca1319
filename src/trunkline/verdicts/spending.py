"""What nodes did with their nonces, by nothing but what the log has of them.

A seed has a nonce of its node in it, to which the node was bound before. One that is bound to many
more nonces than it signs receipts can try several for a request that it has seen, and keep the
answer that it likes best: that is the only choice it has, and the log counts it. Whoever gives up
answers that somebody cancelled uses nonces for them too, so that only a multiple means something.
It refuses to say of any one answer that its nonce was chosen.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from trunkline.base.errors import Error
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts import NONCES_TYPE, open_nonces
from trunkline.receipts.batch import BATCH_TYPE, open_batch
from trunkline.verdicts.self_test import SELF_TEST_TYPE, SelfTest
from trunkline.verdicts.terms import TERMS_TYPE, Terms

AHEAD: Final = 3_072
"""Nonces that an honest node has committed to ahead of need: three sets of them."""
AGAIN: Final = 128
"""Those that a new process gives up; each signs a self-test."""
TIMES: Final = 2
"""Nonces for a receipt, from which on it is told."""


class Spending(msgspec.Struct, frozen=True, kw_only=True):
    """One node's, from the log's first entry to its last."""

    node: str
    """Its key's name."""
    receipts: int
    nonces: int
    """That it is bound to."""
    self_tests: int
    terms: int
    """How often it stated what may be audited of it."""
    finding: str
    """Empty: nothing."""


def examine_nodes(entries: Sequence[bytes], nodes: Iterable[VerifierKey]) -> tuple[Spending, ...]:
    """Each node's, in the order given. Entries that none of them signed count for nobody."""
    keys = {key.name: key for key in nodes}
    counts = {name: dict.fromkeys(_COUNTED, 0) for name in keys}
    for entry in entries:
        kind = entry.partition(b"\n")[0].decode("utf-8", "replace")
        if kind not in _COUNTED:
            continue
        for name, key in keys.items():
            counts[name][kind] += _count(kind, entry, key)
    return tuple(_spent(name, counted) for name, counted in counts.items())


_COUNTED: Final = (BATCH_TYPE, NONCES_TYPE, SELF_TEST_TYPE, TERMS_TYPE)


def _count(kind: str, entry: bytes, key: VerifierKey) -> int:
    """What an entry counts for a node; nothing, if it has not signed it."""
    try:
        if kind == BATCH_TYPE:
            return open_batch(entry, key).count
        if kind == NONCES_TYPE:
            return open_nonces(entry, key).count
        opened = SelfTest.open_note if kind == SELF_TEST_TYPE else Terms.open_note
        opened(entry, key)
    except Error:
        return 0
    return 1


def _spent(name: str, counted: dict[str, int]) -> Spending:
    receipts, nonces = counted[BATCH_TYPE], counted[NONCES_TYPE]
    spare = nonces - AHEAD - AGAIN * counted[SELF_TEST_TYPE]
    finding = ""
    if spare > TIMES * receipts:
        finding = f"bound to {nonces} nonces for {receipts} receipts: it can choose among them"
    return Spending(
        node=name,
        receipts=receipts,
        nonces=nonces,
        self_tests=counted[SELF_TEST_TYPE],
        terms=counted[TERMS_TYPE],
        finding=finding,
    )
