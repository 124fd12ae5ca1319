"""Cosignatures of checkpoints (C2SP tlog-cosignature), with Ed25519 or with ML-DSA-44.

A cosignature says: at this time, this was the largest consistent tree that the witness had seen of
this log. It is a note signature whose bytes are a 64-bit time and a signature over the time and the
checkpoint: all of its text (Ed25519), or the witness's name, the origin, size and root (ML-DSA-44).
"""

from trunkline.base.errors import SignatureError
from trunkline.crypto.keys import COSIGNING, VerifierKey, cosignature_timestamp
from trunkline.crypto.note import Note


def verify(checkpoint_note: Note, witness_key: VerifierKey) -> int:
    """Unix seconds of ``witness_key``'s latest cosignature of the note. SignatureError if none.

    Every line that claims to be by the witness must verify. 0, which only an ML-DSA-44 witness may
    write, says that the tree is consistent, and not that it was the largest at any time.
    """
    if witness_key.algorithm not in COSIGNING:
        raise SignatureError(f"{witness_key.name} is not a cosigning key")
    lines = checkpoint_note.signatures_by(witness_key)
    return max(cosignature_timestamp(witness_key, line.signature) for line in lines)
