"""Commit, then reveal: two verifiers say what they found without either knowing of the other's.

Specified in ``docs/spec/verdict.md``. Each logs a commitment to its finished verdict, and shows the
verdict once another is bound too, or has had its time. Places in the log, and not clocks, say who
could have known what: of two verdicts, each is an opinion of its own if it was committed to before
the other was shown.
"""

import msgspec

from trunkline.base.errors import DigestError, SignatureError
from trunkline.crypto.digest import digest
from trunkline.verdicts.commitment import Commitment
from trunkline.verdicts.verdict import Verdict

REVEAL_AFTER_MS = 20_000
"""How long a verdict is kept back for another verifier's commitment."""


class Logged(msgspec.Struct, frozen=True, kw_only=True):
    """One verifier's verdict on a receipt, by its places in the log."""

    committed: int
    """Index of the commitment's entry; of the verdict's, where there was none before it."""
    revealed: int
    """Index of the verdict's entry."""


def may_reveal(
    *,
    committed_ms: int,
    now_ms: int,
    another_committed: bool,
    reveal_after_ms: int = REVEAL_AFTER_MS,
) -> bool:
    """Whether a verdict whose commitment was seen in the log at ``committed_ms`` may be shown.

    ``another_committed``: a commitment of another verifier to a verdict on the same receipt is in
    the log too.
    """
    return another_committed or now_ms - committed_ms >= reveal_after_ms


def commitment_to(verdict: Verdict, verdict_note: bytes) -> Commitment:
    """What binds a verifier to its verdict: always the same for the same verdict."""
    return Commitment(
        digest=digest(verdict_note),
        key=verdict.key,
        receipt=verdict.receipt,
        unix_ms=verdict.unix_ms,
    )


def check_reveal(commitment: Commitment, verdict: Verdict, verdict_note: bytes) -> None:
    """Check that the verdict is the one that was committed to, by the same verifier.

    ``verdict`` is what ``verdict_note`` was opened as. Raises :class:`DigestError` or
    :class:`SignatureError`.
    """
    if commitment.key != verdict.key:
        raise SignatureError("another verifier made this commitment", code="wrong_key")
    if commitment.receipt != verdict.receipt:
        raise DigestError("the commitment is to a verdict on another receipt")
    if not commitment.binds(verdict_note):
        raise DigestError("the verdict is not the one that was committed to")


def may_know(one: Logged, other: Logged) -> bool:
    """Whether whoever gave ``one`` may have known the ``other`` verdict on the same receipt: it was
    bound to its own only after the other was shown."""
    return one.committed > other.revealed
