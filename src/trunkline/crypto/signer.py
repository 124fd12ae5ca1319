"""Signing: with Ed25519 everything, with ML-DSA-44 the cosignatures of a witness.

Importable only by rooms that hold keys (import-linter enforces it).

The private key is never in a repr, an error or a log line; :meth:`Signer.skey` is the one way out,
for writing a key file.
"""

from re import compile as regex
from typing import Protocol, Self

from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from nacl.signing import SigningKey

from trunkline.base.errors import MalformedError
from trunkline.crypto import cosigned, note
from trunkline.crypto.encoding import UINT63_MAX, decode_base64, encode_base64
from trunkline.crypto.keys import (
    COSIGNATURE_ED25519,
    COSIGNATURE_ML_DSA_44,
    ED25519,
    VerifierKey,
)

SEED_BYTES = 32
SKEY_BYTES_MAX = 512
_SKEY = regex(r"PRIVATE\+KEY\+([^+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")


class Cosigner(Protocol):
    """A witness's key, of either kind."""

    cosigner_vkey: VerifierKey

    @property
    def name(self) -> str: ...

    def skey(self) -> str: ...

    def cosignature(self, text: bytes, timestamp_s: int) -> note.NoteSignature:
        """A cosignature line for a checkpoint's note text. MalformedError: it can not have one."""
        ...


class Signer:
    """A named Ed25519 key that can sign notes, and checkpoints as a witness."""

    __slots__ = ("_key", "cosigner_vkey", "vkey")

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise MalformedError("a seed is 32 bytes")
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
        name, key_id, algorithm, seed = _parse_skey(skey)
        if algorithm != ED25519:
            raise MalformedError("the private key is not an Ed25519 key")
        signer = cls(name, seed)
        if signer.vkey.key_id != key_id:
            raise MalformedError("the private key's id is not that of its name and key")
        return signer

    @property
    def name(self) -> str:
        return self.vkey.name

    def skey(self) -> str:
        """The private key's text, for a key file with mode 0600."""
        return _format_skey(self.vkey, bytes(self._key))

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
        _check_timestamp(timestamp_s)
        signed = self.sign(cosigned.ed25519_message(text, timestamp_s))
        return _cosignature(self.cosigner_vkey, timestamp_s, signed)


class MlDsaCosigner:
    """A named ML-DSA-44 key that cosigns checkpoints as a witness, and signs nothing else."""

    __slots__ = ("_key", "_seed", "cosigner_vkey")

    def __init__(self, name: str, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise MalformedError("a seed is 32 bytes")
        self._seed = seed
        self._key = MLDSA44PrivateKey.from_seed_bytes(seed)
        self.cosigner_vkey = VerifierKey.create(
            name=name,
            algorithm=COSIGNATURE_ML_DSA_44,
            public=self._key.public_key().public_bytes_raw(),
        )

    def __repr__(self) -> str:
        return f"MlDsaCosigner({self.cosigner_vkey.name!r})"

    @property
    def name(self) -> str:
        return self.cosigner_vkey.name

    def skey(self) -> str:
        """The private key's text, for a key file with mode 0600."""
        return _format_skey(self.cosigner_vkey, self._seed)

    def cosignature(self, text: bytes, timestamp_s: int) -> note.NoteSignature:
        """A ``subtree/v1`` line for a checkpoint's note text, at Unix time ``timestamp_s``."""
        _check_timestamp(timestamp_s)
        signed = self._key.sign(cosigned.ml_dsa_44_message(self.name, text, timestamp_s))
        return _cosignature(self.cosigner_vkey, timestamp_s, signed)


def parse_cosigner(skey: str) -> Cosigner:
    """Read a witness's private key: ``0x01 || seed`` or ``0x06 || seed``; MalformedError."""
    name, key_id, algorithm, seed = _parse_skey(skey)
    if algorithm != COSIGNATURE_ML_DSA_44:
        return Signer.parse(skey)
    cosigner = MlDsaCosigner(name, seed)
    if cosigner.cosigner_vkey.key_id != key_id:
        raise MalformedError("the private key's id is not that of its name and key")
    return cosigner


def _parse_skey(skey: str) -> tuple[str, int, int, bytes]:
    """Name, key id, algorithm and seed."""
    match = _SKEY.fullmatch(skey) if len(skey) <= SKEY_BYTES_MAX else None
    if match is None:
        raise MalformedError("not a C2SP private key (PRIVATE+KEY+…)")
    material = decode_base64(match[3])
    if not material:
        raise MalformedError("a private key names its algorithm")
    return match[1], int(match[2], 16), material[0], material[1:]


def _format_skey(key: VerifierKey, seed: bytes) -> str:
    material = encode_base64(bytes((key.algorithm,)) + seed)
    return f"PRIVATE+KEY+{key.name}+{key.key_id:08x}+{material}"


def _check_timestamp(timestamp_s: int) -> None:
    if not 0 < timestamp_s <= UINT63_MAX:
        raise MalformedError("a cosignature's timestamp is positive and below 2^63")


def _cosignature(key: VerifierKey, timestamp_s: int, signed: bytes) -> note.NoteSignature:
    return note.NoteSignature(
        name=key.name, key_id=key.key_id, signature=timestamp_s.to_bytes(8, "big") + signed
    )


def sign_note(text: bytes, signer: Signer) -> bytes:
    """The note of ``text`` with one signature. MalformedError for a text no note can hold."""
    return note.format(text, (signer.signature(text),))
