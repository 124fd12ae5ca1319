"""What a cosignature signs (C2SP tlog-cosignature): one message for each of its two kinds.

The Ed25519 kind signs the checkpoint's whole text; the ML-DSA-44 kind signs a record of the
cosigner's name, the log's origin, the tree's size and its root, and nothing of any extension line.
Builds messages only: signing is ``signer.py``, verifying is ``keys.py``.
"""

from trunkline.base.errors import MalformedError
from trunkline.crypto.encoding import UINT63_MAX, decode_decimal, decode_hash

TIMESTAMP_BYTES = 8
_SUBTREE_LABEL = b"subtree/v1\n\0"
_NAME_BYTES_MAX = 255


def timestamp(signature: bytes, signature_bytes: int) -> int:
    """The Unix seconds before ``signature_bytes`` of signature; MalformedError for a bad shape.

    Not verified. 0 makes no statement that this was the largest tree seen (ML-DSA-44 only).
    """
    if len(signature) != TIMESTAMP_BYTES + signature_bytes:
        raise MalformedError(f"a cosignature is {TIMESTAMP_BYTES + signature_bytes} bytes")
    timestamp_s = int.from_bytes(signature[:TIMESTAMP_BYTES], "big")
    if timestamp_s > UINT63_MAX:
        raise MalformedError("cosignature timestamp too large")
    return timestamp_s


def ed25519_message(text: bytes, timestamp_s: int) -> bytes:
    """``cosignature/v1``: two header lines, then the checkpoint's whole note text."""
    return b"cosignature/v1\ntime %d\n" % timestamp_s + text


def ml_dsa_44_message(cosigner: str, text: bytes, timestamp_s: int) -> bytes:
    """``subtree/v1`` over the whole tree of the checkpoint in ``text``.

    MalformedError when the text is no checkpoint, or a name has no length byte.
    """
    lines = text.split(b"\n", 3)
    if len(lines) != 4:
        raise MalformedError("a checkpoint has at least three lines")
    origin, size, root = lines[0], decode_decimal(lines[1]), decode_hash(lines[2])
    return b"".join(
        (
            _SUBTREE_LABEL,
            _named(cosigner.encode()),
            timestamp_s.to_bytes(8, "big"),
            _named(origin),
            bytes(8),  # from the first leaf
            size.to_bytes(8, "big"),
            root,
        )
    )


def _named(name: bytes) -> bytes:
    if not 0 < len(name) <= _NAME_BYTES_MAX:
        raise MalformedError(f"a cosigned name has 1 to {_NAME_BYTES_MAX} bytes")
    return bytes((len(name),)) + name
