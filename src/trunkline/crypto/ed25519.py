"""Ed25519 (RFC 8032), in the one reading of it that every part of Trunkline has.

Libraries agree about signatures that honest signers make, and differ about others: points of small
order, spellings that are not canonical, what lies beyond the prime-order group. Whoever can make a
signature that one reader takes and another does not can tell the two apart stories. So what they
differ about is refused here before the library is asked, by ``docs/spec/ed25519.md``; what is left
is libsodium's. Checks one signature: keys and names are ``keys.py``, signing is ``signer.py``.
"""

from typing import Final

from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

PUBLIC_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64

_FIELD: Final = 2**255 - 19
_GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_Y_MASK: Final = 2**255 - 1
_ORDER_8_Y: Final = 2707385501144840649318225287225658788936804267575313519463743609750303402022
_SMALL_ORDER_Y: Final = frozenset((0, 1, _FIELD - 1, _ORDER_8_Y, _FIELD - _ORDER_8_Y))
"""The y coordinates of the eight points whose order divides 8: each of them is one's, or two's."""


def is_valid(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the key made the signature. False too for a key or signature of another length, or
    one that readers may differ about."""
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    if int.from_bytes(signature[32:], "little") >= _GROUP_ORDER:
        return False
    if not (_is_proper(public) and _is_proper(signature[:32])):
        return False
    try:
        crypto_sign_open(signature + message, public)
    except CryptoError:
        return False
    return True


def _is_proper(point: bytes) -> bool:
    """Whether a point is spelled canonically, and of none of the small orders."""
    y = int.from_bytes(point, "little") & _Y_MASK
    return y < _FIELD and y not in _SMALL_ORDER_Y
