"""The evidence file: an answer's receipts, their proofs, and what a stranger needs to check them.

Specified in ``docs/spec/evidence.md``. Reading a file proves nothing; ``verify.py`` does that. It
refuses what is larger than its bounds, and ignores members of later versions.
"""

from typing import Annotated, Literal, TypeAlias

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.evidence.text import decode_text
from trunkline.receipts.receipt import Hex32
from trunkline.schema.attempt import SignedReceipt

EVIDENCE_TYPE = "trunkline.evidence/v1"
EVIDENCE_BYTES_MAX = 64 * 1024 * 1024
KEYS_BYTES_MAX = 1024 * 1024
PARTS_MAX = 64
KEYS_MAX = 1024
SALTS_MAX = 32
STATEMENTS_MAX = 256
VERDICTS_MAX = 64

Role: TypeAlias = Literal["node", "log", "witness", "operator", "verifier"]


class EvidenceBodies(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked and answered in one part, where somebody asked for it to be kept; of an
    opening, that alone which is shown."""

    request: bytes | None = None
    """The request as the node was given it. Base64 in the file."""
    client_request: bytes | None = None
    """The request as the app sent it. Base64 in the file."""
    chunks: tuple[str, ...] | None = None
    """``data`` of each unnamed event that this part's attempt sent, in order."""


class EvidencePart(msgspec.Struct, frozen=True, kw_only=True):
    """One signed receipt of the answer."""

    signed: SignedReceipt
    proof: str | None = None
    """C2SP tlog-proof of the batch's note; ``None`` while the receipt is provisional."""
    bodies: EvidenceBodies | None = None
    salts: Annotated[dict[str, Hex32], msgspec.Meta(max_length=SALTS_MAX)] = {}
    """What opens the receipt's salted digests: hex by item (``trunkline.receipts.hiding``)."""


class EvidenceKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who holds a key, as the writer of this record believes."""

    name: str
    vkey: str
    role: Role
    operator: str
    statements: Annotated[tuple[str, ...], msgspec.Meta(max_length=STATEMENTS_MAX)] = ()
    """Of an operator's key: signed notes that say when its nodes' keys count, and which no more
    (``trunkline.receipts.key_statement``)."""


class EvidenceVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a verifier said of one of the receipts (``trunkline.verdicts.verdict``)."""

    verdict: str
    """The verdict's signed note."""
    proof: str | None = None
    """C2SP tlog-proof of that note; ``None``: not shown to be in a log."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence file v1. An answer has one part, or one for each attempt that signed a receipt."""

    type: Literal["trunkline.evidence/v1"] = "trunkline.evidence/v1"
    answer: str
    parts: Annotated[tuple[EvidencePart, ...], msgspec.Meta(min_length=1, max_length=PARTS_MAX)]
    keys: Annotated[tuple[EvidenceKey, ...], msgspec.Meta(max_length=KEYS_MAX)] = ()
    policy: str | None = None
    """C2SP tlog-policy that the writer checked the proofs under. The reader's own comes first."""
    verdicts: (
        Annotated[tuple[EvidenceVerdict, ...], msgspec.Meta(max_length=VERDICTS_MAX)]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    """Absent: nobody has audited the answer, or nobody says so."""


class _Typed(msgspec.Struct, frozen=True):
    type: str


_DECODER = msgspec.json.Decoder(Evidence)
_TYPE_DECODER = msgspec.json.Decoder(_Typed)
_KEYS_DECODER = msgspec.json.Decoder(
    Annotated[tuple[EvidenceKey, ...], msgspec.Meta(max_length=KEYS_MAX)]
)


def encode(evidence: Evidence) -> bytes:
    """The file's bytes. Raises :class:`MalformedError` for what :func:`decode` would refuse."""
    try:
        data = msgspec.json.encode(evidence)
    except (ValueError, OverflowError) as error:
        raise MalformedError("evidence holds text that is not Unicode") from error
    decode(data)
    return data


def decode(data: bytes) -> Evidence:
    """Read an evidence file. Raises :class:`MalformedError`; nothing in it is verified yet."""
    what = "evidence of version 1"
    evidence = decode_text(_DECODER, data, EVIDENCE_BYTES_MAX, what)
    try:
        # The record takes an absent type for its own: a file has to say what it is.
        _TYPE_DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise MalformedError(f"not {what}") from error
    return evidence


def decode_keys(data: bytes) -> tuple[EvidenceKey, ...]:
    """Read a file of pinned keys: a JSON array of key entries. Raises :class:`MalformedError`."""
    return decode_text(_KEYS_DECODER, data, KEYS_BYTES_MAX, "a list of keys")
