"""Signing with Ed25519. Importable only by rooms that hold keys (import-linter enforces it).

The private key is never in a repr, an error or a log line; :meth:`Signer.skey` is the one way out,
for writing a key file.
"""

from re import compile as regex
from typing import Self

from nacl.signing import SigningKey

from trunkline.base.errors import MalformedError
from trunkline.crypto import note
from trunkline.crypto.encoding import UINT63_MAX, decode_base64, encode_base64
from trunkline.crypto.keys import (
    COSIGNATURE_ED25519,
    ED25519,
    VerifierKey,
    cosigned_message,
)

SEED_BYTES = 32
SKEY_BYTES_MAX = 512
_SKEY = regex(r"PRIVATE\+KEY\+([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")


class Signer:
    """A named Ed25519 key that can sign notes, and checkpoints as a witness."""

    __slots__ = ("_key", "cosigner_vkey", "vkey")

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise MalformedError("an Ed25519 seed is 32 bytes")
        self._key = SigningKey(seed)
        public = bytes(self._key.verify_key)
        self.vkey = VerifierKey.create(name=name, algorithm=ED25519, public=public)
        self.cosigner_vkey = VerifierKey.create(
            name=name, algorithm=COSIGNATURE_ED25519, public=public
        )

    def __repr__(self) -> str:
        return f"Signer({self.vkey.name!r})"

    @classmethod
    def generate(cls, name: str, seed32: bytes) -> Self:
        """A key from 32 fresh random bytes. MalformedError for a bad name or length."""
        return cls(name, seed32)

    @classmethod
    def parse(cls, skey: str) -> Self:
        """Read ``PRIVATE+KEY+<name>+<hex id>+<base64(0x01 || seed)>``; MalformedError."""
        match = _SKEY.fullmatch(skey) if len(skey) <= SKEY_BYTES_MAX else None
        if match is None:
            raise MalformedError("not a C2SP private key (PRIVATE+KEY+…)")
        material = decode_base64(match[3])
        if not material or material[0] != ED25519:
            raise MalformedError("the private key is not an Ed25519 key")
        signer = cls(match[1], material[1:])
        if signer.vkey.key_id != int(match[2], 16):
            raise MalformedError("the private key's id is not that of its name and key")
        return signer

    @property
    def name(self) -> str:
        return self.vkey.name

    def skey(self) -> str:
        """The private key's text, for a key file with mode 0600."""
        material = encode_base64(bytes((ED25519,)) + bytes(self._key))
        return f"PRIVATE+KEY+{self.vkey.name}+{self.vkey.key_id:08x}+{material}"

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of ``message``."""
        return self._key.sign(message).signature

    def signature(self, text: bytes) -> note.NoteSignature:
        """This key's signature line for a note's text."""
        return note.NoteSignature(
            name=self.vkey.name, key_id=self.vkey.key_id, signature=self.sign(text)
        )

    def cosignature(self, text: bytes, timestamp_s: int) -> note.NoteSignature:
        """A cosignature/v1 line for a checkpoint's note text, at Unix time ``timestamp_s``."""
        if not 0 < timestamp_s <= UINT63_MAX:
            raise MalformedError("a cosignature's timestamp is positive and below 2^63")
        signed = self.sign(cosigned_message(text, timestamp_s))
        return note.NoteSignature(
            name=self.cosigner_vkey.name,
            key_id=self.cosigner_vkey.key_id,
            signature=timestamp_s.to_bytes(8, "big") + signed,
        )


def sign_note(text: bytes, signer: Signer) -> bytes:
    """The note of ``text`` with one signature. MalformedError for a text no note can hold."""
    return note.format(text, (signer.signature(text),))
