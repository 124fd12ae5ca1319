"""Commitments: a verifier is bound to its verdict before it can know another's.

Specified in ``docs/spec/verdict.md``. The digest is that of the verdict's signed note, which holds
a random salt: it tells nothing of the result, and nobody else can open it. Logged before the
verdict is shown to anyone.
"""

from typing import ClassVar, Literal

from trunkline.crypto.digest import digest
from trunkline.verdicts.record import Count, Digest, Hex32, Key, Record

COMMITMENT_TYPE = "trunkline.verdict-commitment/v1"


class Commitment(Record, frozen=True, kw_only=True):
    """A verifier has its verdict about a receipt, and can not change it any more."""

    TYPE: ClassVar[str] = COMMITMENT_TYPE
    NOTE_BYTES_MAX: ClassVar[int] = 8 * 1024

    digest: Digest
    """Of the verdict's signed note."""
    key: Key
    receipt: Hex32
    """The receipt's leaf hash."""
    type: Literal["trunkline.verdict-commitment/v1"] = "trunkline.verdict-commitment/v1"
    unix_ms: Count

    def binds(self, verdict_note: bytes) -> bool:
        """Whether this is the commitment to these bytes."""
        return digest(verdict_note) == self.digest
