"""Verifier keys: C2SP signed-note vkeys, and what each kind of key verifies.

Three algorithms: 0x01, plain Ed25519 over the note's text; 0x04 and 0x06, timestamped cosignatures
of checkpoints (C2SP tlog-cosignature) with Ed25519 and with ML-DSA-44. Which Ed25519 signatures are
good is ``ed25519.py``.
"""

from dataclasses import dataclass
from functools import lru_cache
from re import compile as regex
from typing import Self

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto import cosigned, ed25519, ml_dsa
from trunkline.crypto.digest import sha256
from trunkline.crypto.encoding import decode_base64, encode_base64

ED25519 = 0x01
COSIGNATURE_ED25519 = 0x04
COSIGNATURE_ML_DSA_44 = 0x06

COSIGNING = (COSIGNATURE_ED25519, COSIGNATURE_ML_DSA_44)
"""What a witness cosigns with."""
CHECKPOINT_SIGNING = (ED25519, COSIGNATURE_ML_DSA_44)
"""What a log signs its checkpoints with."""

NAME_BYTES_MAX = 255
VKEY_CHARS_MAX = 2048
VKEYS_KEPT = 256
_PUBLIC_BYTES = {
    ED25519: ed25519.PUBLIC_BYTES,
    COSIGNATURE_ED25519: ed25519.PUBLIC_BYTES,
    COSIGNATURE_ML_DSA_44: ml_dsa.PUBLIC_BYTES,
}
_KEY_ID = regex(r"[0-9a-f]{8}")
_NOT_IN_A_NAME = regex(r"[+\s\x00-\x1f]")


def is_key_name(name: str, *, bytes_max: int = NAME_BYTES_MAX) -> bool:
    """Whether ``name`` may name a key: UTF-8, not empty, no Unicode space, plus or control.

    The text sets no bound on names: ours is for keys that count, and no reason to refuse a note
    for a signature that is to be ignored.
    """
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(encoded) <= bytes_max and _NOT_IN_A_NAME.search(name) is None


def key_id(name: str, algorithm: int, public: bytes) -> int:
    """First four bytes of SHA-256(name || LF || algorithm || public key), as C2SP recommends."""
    hashed = sha256(name.encode() + b"\n" + bytes((algorithm,)) + public)
    return int.from_bytes(hashed[:4], "big")


def cosignature_timestamp(key: "VerifierKey", signature: bytes) -> int:
    """The Unix seconds inside a cosignature by ``key`` (not yet verified); MalformedError."""
    kind = ml_dsa if key.algorithm == COSIGNATURE_ML_DSA_44 else ed25519
    return cosigned.timestamp(signature, kind.SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A public key with its name, as configured: the only thing that makes a signature count."""

    name: str
    key_id: int
    """32 bits. With the name, it says which key a signature line claims to be by."""
    algorithm: int
    public: bytes
    """32 bytes; 1312 of an ML-DSA-44 key."""

    @classmethod
    def create(cls, *, name: str, algorithm: int, public: bytes) -> Self:
        """Build a key and compute its id. MalformedError for a bad name, algorithm or length."""
        if not is_key_name(name):
            raise MalformedError("not a key name")
        public_bytes = _PUBLIC_BYTES.get(algorithm)
        if public_bytes is None:
            raise MalformedError(f"unknown signature algorithm 0x{algorithm:02x}")
        if len(public) != public_bytes:
            raise MalformedError(f"a public key of type 0x{algorithm:02x} is {public_bytes} bytes")
        return cls(
            name=name, key_id=key_id(name, algorithm, public), algorithm=algorithm, public=public
        )

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read ``<name>+<hex id>+<base64(algorithm || public)>``; MalformedError."""
        if len(vkey) > VKEY_CHARS_MAX:
            raise MalformedError("vkey too long")
        # Names hold no plus, but base64 does: the first two plus signs are the separators.
        parts = vkey.split("+", 2)
        if len(parts) != 3 or _KEY_ID.fullmatch(parts[1]) is None:
            raise MalformedError("a vkey is <name>+<hex key id>+<base64 key>")
        material = decode_base64(parts[2])
        if not material:
            raise MalformedError("a vkey names its algorithm")
        key = cls.create(name=parts[0], algorithm=material[0], public=material[1:])
        if key.key_id != int(parts[1], 16):
            raise MalformedError("the vkey's id is not that of its name and key")
        return key

    def __hash__(self) -> int:
        # Asked for with every receipt; keys that are equal have equal ids.
        return self.key_id

    def __str__(self) -> str:
        return _vkey(self)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check ``signature`` (without its key id) over a note's text. SignatureError.

        For a cosignature key, ``signature`` starts with its timestamp, which is verified with it.
        """
        if self.algorithm == ED25519:
            valid = self._is_ed25519(message, signature)
        else:
            valid = self._is_cosignature(message, signature)
        if not valid:
            raise SignatureError(f"{self.name}: the signature does not verify")

    def _is_cosignature(self, text: bytes, stamped: bytes) -> bool:
        try:
            timestamp_s = cosignature_timestamp(self, stamped)
            signature = stamped[cosigned.TIMESTAMP_BYTES :]
            if self.algorithm == COSIGNATURE_ED25519:
                return self._is_ed25519(cosigned.ed25519_message(text, timestamp_s), signature)
            message = cosigned.ml_dsa_44_message(self.name, text, timestamp_s)
        except MalformedError as error:
            raise SignatureError(f"{self.name}: {error.message}") from error
        return ml_dsa.is_valid(self.public, message, signature)

    def _is_ed25519(self, message: bytes, signature: bytes) -> bool:
        if len(signature) != ed25519.SIGNATURE_BYTES:
            raise SignatureError(f"{self.name}: an Ed25519 signature is 64 bytes")
        return ed25519.is_valid(self.public, message, signature)


@lru_cache(maxsize=VKEYS_KEPT)
def _vkey(key: VerifierKey) -> str:
    """Asked for with every receipt, of the same few keys."""
    material = bytes((key.algorithm,)) + key.public
    return f"{key.name}+{key.key_id:08x}+{encode_base64(material)}"
