"""Verifier keys: C2SP signed-note vkeys, and what each kind of key verifies.

Two algorithms: 0x01, plain Ed25519 over the note's text; 0x04, timestamped Ed25519 cosignatures of
checkpoints (C2SP tlog-cosignature). Ed25519 is libsodium's, which refuses small-order keys and
non-canonical values, so one signature means the same to every part of Trunkline.
"""

from dataclasses import dataclass
from re import compile as regex
from typing import Self

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto.digest import sha256
from trunkline.crypto.encoding import UINT63_MAX, decode_base64, encode_base64

ED25519 = 0x01
COSIGNATURE_ED25519 = 0x04

NAME_BYTES_MAX = 255
VKEY_BYTES_MAX = 512
_PUBLIC_BYTES = 32
_SIGNATURE_BYTES = 64
_TIMESTAMP_BYTES = 8
_KEY_ID = regex(r"[0-9a-f]{8}")


def is_key_name(name: str) -> bool:
    """Whether ``name`` may name a key: UTF-8, not empty, no Unicode space, plus or control."""
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return False
    if not 0 < len(encoded) <= NAME_BYTES_MAX:
        return False
    return not any(c == "+" or c.isspace() or c < " " for c in name)


def key_id(name: str, algorithm: int, public: bytes) -> int:
    """First four bytes of SHA-256(name || LF || algorithm || public key), as C2SP recommends."""
    hashed = sha256(name.encode() + b"\n" + bytes((algorithm,)) + public)
    return int.from_bytes(hashed[:4], "big")


def cosigned_message(text: bytes, timestamp_s: int) -> bytes:
    """What a cosignature/v1 signs: two header lines, then the checkpoint's whole note text."""
    return b"cosignature/v1\ntime %d\n" % timestamp_s + text


def cosignature_timestamp(signature: bytes) -> int:
    """The Unix seconds inside a cosignature (not yet verified); MalformedError for a bad shape."""
    if len(signature) != _TIMESTAMP_BYTES + _SIGNATURE_BYTES:
        raise MalformedError("a cosignature is 72 bytes")
    timestamp_s = int.from_bytes(signature[:_TIMESTAMP_BYTES], "big")
    if timestamp_s > UINT63_MAX:
        raise MalformedError("cosignature timestamp too large")
    return timestamp_s


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A public key with its name, as configured: the only thing that makes a signature count."""

    name: str
    key_id: int
    """32 bits. With the name, it says which key a signature line claims to be by."""
    algorithm: int
    public: bytes
    """32 bytes."""

    @classmethod
    def create(cls, *, name: str, algorithm: int, public: bytes) -> Self:
        """Build a key and compute its id. MalformedError for a bad name, algorithm or length."""
        if not is_key_name(name):
            raise MalformedError("not a key name")
        if algorithm not in (ED25519, COSIGNATURE_ED25519):
            raise MalformedError(f"unknown signature algorithm 0x{algorithm:02x}")
        if len(public) != _PUBLIC_BYTES:
            raise MalformedError("an Ed25519 public key is 32 bytes")
        return cls(
            name=name, key_id=key_id(name, algorithm, public), algorithm=algorithm, public=public
        )

    @classmethod
    def parse(cls, vkey: str) -> Self:
        """Read ``<name>+<hex id>+<base64(algorithm || public)>``; MalformedError."""
        if len(vkey) > VKEY_BYTES_MAX:
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

    def __str__(self) -> str:
        material = bytes((self.algorithm,)) + self.public
        return f"{self.name}+{self.key_id:08x}+{encode_base64(material)}"

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check ``signature`` (without its key id) over a note's text. SignatureError.

        For a cosignature key, ``signature`` starts with its timestamp, which is verified with it.
        """
        if self.algorithm == COSIGNATURE_ED25519:
            try:
                message = cosigned_message(message, cosignature_timestamp(signature))
            except MalformedError as error:
                raise SignatureError(f"{self.name}: {error.message}") from error
            signature = signature[_TIMESTAMP_BYTES:]
        if len(signature) != _SIGNATURE_BYTES:
            raise SignatureError(f"{self.name}: an Ed25519 signature is 64 bytes")
        try:
            VerifyKey(self.public).verify(message, signature)
        except CryptoError as error:
            raise SignatureError(f"{self.name}: the signature does not verify") from error
