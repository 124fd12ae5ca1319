"""Where an answer's seed comes from: hashes, a domain tag each, so that none passes for another.

A seed belongs to an answer, not to a node: a node that takes over inherits it and, with the same
numerics, continues with the tokens that the first would have produced.
"""

import hashlib
import struct

NONCE_BYTES = 32
DIGEST_BYTES = 32

_ANSWER_TAG = b"trunkline/sampling-seed/answer/v1\0"
_CALLER_TAG = b"trunkline/sampling-seed/caller/v1\0"
_CHOICE_TAG = b"trunkline/sampling-seed/choice/v1\0"


def answer_seed(caller_nonce: bytes, node_nonce: bytes, request_digest: bytes) -> bytes:
    """The seed that neither side could choose: SHA-256 over tag, both nonces and the request.

    Each argument is 32 bytes; the node committed to its nonce before it saw the caller's. Raises
    ``ValueError`` for another length.
    """
    for part, size in (
        (caller_nonce, NONCE_BYTES),
        (node_nonce, NONCE_BYTES),
        (request_digest, DIGEST_BYTES),
    ):
        if len(part) != size:
            raise ValueError(f"{size} bytes expected, not {len(part)}")
    return hashlib.sha256(_ANSWER_TAG + caller_nonce + node_nonce + request_digest).digest()


def seed_from_caller(seed: int) -> bytes:
    """The seed for a caller's own ``seed`` parameter, any signed 64-bit number.

    Reproducible by the caller's choice, and so no evidence against a caller who ground it. Raises
    ``ValueError`` outside the range.
    """
    if not -(1 << 63) <= seed < 1 << 63:
        raise ValueError("a caller's seed is a signed 64-bit number")
    return hashlib.sha256(_CALLER_TAG + struct.pack("<q", seed)).digest()


def choice_seed(seed: bytes, index: int) -> bytes:
    """The seed of choice ``index`` (0-based) of an answer with several choices.

    Raises ``ValueError`` for a seed that is not 32 bytes or an index that is not 32 bits.
    """
    if len(seed) != DIGEST_BYTES:
        raise ValueError(f"a seed is {DIGEST_BYTES} bytes, not {len(seed)}")
    if not 0 <= index < 1 << 32:
        raise ValueError("a choice's index is a 32-bit number")
    return hashlib.sha256(_CHOICE_TAG + seed + struct.pack("<I", index)).digest()
