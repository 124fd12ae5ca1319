"""Cosignatures of checkpoints (C2SP tlog-cosignature), the Ed25519 kind, ``cosignature/v1``.

A cosignature says: at this time, this was the largest consistent tree that the witness had seen of
this log. It is a note signature whose bytes are a 64-bit time and an Ed25519 signature over the
time and the checkpoint's text.
"""

from trunkline.base.errors import SignatureError
from trunkline.crypto.keys import (
    COSIGNATURE_ED25519,
    VerifierKey,
    cosignature_timestamp,
    cosigned_message,
)
from trunkline.crypto.note import Note

__all__ = ["cosigned_message", "verify"]


def verify(checkpoint_note: Note, witness_key: VerifierKey) -> int:
    """Unix seconds of ``witness_key``'s latest cosignature of the note. SignatureError if none.

    Every line that claims to be by the witness must verify.
    """
    if witness_key.algorithm != COSIGNATURE_ED25519:
        raise SignatureError(f"{witness_key.name} is not a cosigning key")
    lines = checkpoint_note.signatures_by(witness_key)
    return max(cosignature_timestamp(line.signature) for line in lines)
