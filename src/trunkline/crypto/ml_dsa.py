"""ML-DSA-44 (FIPS 204), the pure kind with an empty context, by the ``cryptography`` package.

Checks one signature. Keys and their names are ``keys.py``; signing is ``signer.py``.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

PUBLIC_BYTES = 1312
SIGNATURE_BYTES = 2420


def is_valid(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the key made the signature. False too for a key or signature of another length."""
    try:
        MLDSA44PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
