"""Evidence: all that convinces an offline reader, in one file, and the check of it in steps.

Pure: no I/O, no clock, no keys of its own. Specified in ``docs/spec/evidence.md``.
"""

from trunkline.evidence.file import (
    EVIDENCE_BYTES_MAX,
    EVIDENCE_TYPE,
    Evidence,
    EvidenceBodies,
    EvidenceKey,
    EvidencePart,
    EvidenceVerdict,
    decode,
    decode_keys,
    encode,
)
from trunkline.evidence.opening import Side, opening
from trunkline.evidence.report import Outcome, Report, Result, State, Step
from trunkline.evidence.verify import verify

__all__ = [
    "EVIDENCE_BYTES_MAX",
    "EVIDENCE_TYPE",
    "Evidence",
    "EvidenceBodies",
    "EvidenceKey",
    "EvidencePart",
    "EvidenceVerdict",
    "Outcome",
    "Report",
    "Result",
    "Side",
    "State",
    "Step",
    "decode",
    "decode_keys",
    "encode",
    "opening",
    "verify",
]
