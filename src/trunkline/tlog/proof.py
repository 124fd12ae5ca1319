"""Proofs that an entry is in a log (C2SP tlog-proof v1): one text, checked without asking anybody.

``extra`` is carried and never trusted: nothing in the format authenticates it.
"""

from dataclasses import dataclass

from trunkline.base.errors import MalformedError
from trunkline.crypto import merkle
from trunkline.crypto.encoding import (
    decode_base64,
    decode_decimal,
    decode_hash,
    encode_base64,
)
from trunkline.tlog.policy import Accepted, Policy

PROOF_BYTES_MAX = 2 * 1024 * 1024
_HEADER = b"c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """An inclusion proof with the checkpoint that it leads to."""

    index: int
    """The entry's index in the log."""
    path: tuple[bytes, ...]
    """RFC 6962 audit path, from the leaf's sibling to the root's child."""
    checkpoint_note: bytes
    """The checkpoint's signed note, verbatim."""
    extra: bytes | None = None


def parse(data: bytes) -> Proof:
    """Read a proof; MalformedError. The checkpoint in it is not parsed yet."""
    if len(data) > PROOF_BYTES_MAX:
        raise MalformedError("proof too long")
    head, gap, checkpoint_note = data.partition(b"\n\n")
    if not gap:
        raise MalformedError("a proof has an empty line before its checkpoint")
    lines = head.split(b"\n", merkle.PROOF_HASHES_MAX + 3)
    if lines.pop(0) != _HEADER:
        raise MalformedError("not a c2sp.org/tlog-proof@v1")
    extra = None
    if lines and lines[0].startswith(b"extra "):
        extra = decode_base64(lines.pop(0)[len(b"extra ") :])
    if not lines or not lines[0].startswith(b"index "):
        raise MalformedError("a proof has an index line")
    index = decode_decimal(lines.pop(0)[len(b"index ") :])
    if len(lines) > merkle.PROOF_HASHES_MAX:
        raise MalformedError("the audit path is too long")
    path = tuple(decode_hash(line) for line in lines)
    return Proof(index=index, path=path, checkpoint_note=checkpoint_note, extra=extra)


def format(proof: Proof) -> bytes:  # noqa: A001 - the trade's word
    """Write a proof."""
    lines = [_HEADER.decode()]
    if proof.extra is not None:
        lines.append("extra " + encode_base64(proof.extra))
    lines.append(f"index {proof.index}")
    lines.extend(encode_base64(item) for item in proof.path)
    return "\n".join(lines).encode() + b"\n\n" + proof.checkpoint_note


def verify(proof: Proof, leaf_hash: bytes, policy: Policy) -> Accepted:
    """Check that a log and witnesses of ``policy`` vouch for ``leaf_hash`` at ``proof.index``.

    In the specification's order: log signature, cosignatures, inclusion. Raises MalformedError,
    SignatureError, QuorumError or InclusionError.
    """
    accepted = policy.accepts(proof.checkpoint_note)
    checkpoint = accepted.checkpoint
    merkle.verify_inclusion(leaf_hash, proof.index, checkpoint.size, proof.path, checkpoint.root)
    return accepted
