"""Verdicts: what a verifier found of one receipt, and of its subject so far.

Specified in ``docs/spec/verdict.md``. A verdict has two answers. ``result`` is about this receipt:
its checks, and in the exact regime its own tokens. ``standing`` is about all evidence so far on the
subject (a node's model in one configuration), which is where statistics count. Whoever has the
bundle that it names can compute every number again (``trunkline.audit.recompute``).

Only ``pass`` is a pass. Nothing here decides what follows from a verdict. It names a receipt by its
leaf alone: everybody reads verdicts, and an answer's id is what opens its evidence to a caller.
"""

from typing import Annotated, ClassVar, Literal, TypeAlias

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.verdicts.record import (
    Count,
    Decimal,
    Digest,
    Hex32,
    Key,
    Name,
    OptionalDigest,
    OptionalHex32,
    Record,
    Text,
    check_signer_key,
)

VERDICT_TYPE = "trunkline.verdict/v1"
CHECKS_MAX = 64

Result: TypeAlias = Literal["pass", "fail", "inconclusive", "not_applicable"]
Kind: TypeAlias = Literal["replay", "accounting", "opening", "embedding"]
Regime: TypeAlias = Literal["exact", "noisy", "none"]
Standing: TypeAlias = Literal["good", "failed", "open"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One check of a receipt."""

    detail: Text
    """What was found, for people. Never of a prompt or an answer."""
    name: Name
    result: Result


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """Why this receipt: the draw that it was among."""

    by: Key
    """The verifier that drew it."""
    draw: Digest
    """Of the draw's signed note."""
    entry: Count
    """The log's entry that holds the receipt's batch."""
    index: Count
    """The receipt's index in the batch."""


class StandingEvidence(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All evidence so far on the subject, this receipt's included."""

    detector: Decimal
    """Level of the detector of a change (``trunkline.sequential.detector``)."""
    failed_at: Count = 0
    """The sample with which the test failed, from 1; absent: it has not."""
    samples: Count
    tokens: Count
    """Tokens that the samples were made from."""
    wealth: Decimal
    """Of the test of the mean; the test has failed once it is 1/``alpha``."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What standing belongs to: a node's model, as it is served."""

    configuration: Text
    """What else honest noise depends on, as the calibration divides it."""
    key: Key
    """The node's."""
    model: Name
    node: Name
    numerics: Text
    operator: Name
    weights: OptionalDigest


class Verdict(Record, frozen=True, kw_only=True):
    """A verifier's verdict on one receipt."""

    TYPE: ClassVar[str] = VERDICT_TYPE
    NOTE_BYTES_MAX: ClassVar[int] = 32 * 1024

    alpha: Decimal
    """Chance, at most, that an honest subject is ever failed by its evidence."""
    bundle: Digest
    """Of the file from which the numbers can be computed again."""
    calibration: OptionalDigest
    """Of the artefact that scores were held against (``trunkline.verdicts.calibration``)."""
    checks: Annotated[tuple[Check, ...], msgspec.Meta(max_length=CHECKS_MAX)]
    drawn: Drawn | msgspec.UnsetType = msgspec.UNSET
    """Absent: the audit was asked for."""
    evidence: StandingEvidence
    key: Key
    """The verifier's."""
    kind: Kind
    operator: Name
    """The verifier's."""
    previous: OptionalHex32
    """SHA-256 of this verifier's signed verdict before on this subject; empty for its first."""
    receipt: Hex32
    """The receipt's leaf hash."""
    regime: Regime
    result: Result
    """Of this receipt alone."""
    salt: Hex32
    """32 random bytes: a commitment to this verdict tells nothing of it."""
    standing: Standing
    """Of the subject."""
    subject: Subject
    type: Literal["trunkline.verdict/v1"] = "trunkline.verdict/v1"
    unix_ms: Count

    def check(self) -> None:
        super().check()
        check_signer_key(self.subject.key)
        if not isinstance(self.drawn, msgspec.UnsetType):
            check_signer_key(self.drawn.by)
        if self.result == "pass" and any(check.result == "fail" for check in self.checks):
            raise MalformedError("a verdict passes what one of its checks failed")
