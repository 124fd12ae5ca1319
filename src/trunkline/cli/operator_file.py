"""An operator's two files: its own key, a secret, and the public one that readers pin.

The public file holds the operator's key and everything it stated, in the format of pinned keys
(``docs/spec/receipt.md``, "Keys"). It refuses to write over a key, and to state a key that is none.
"""

import os
from pathlib import Path

import msgspec

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.crypto.signer import Signer, sign_note
from trunkline.evidence import EvidenceKey, decode_keys
from trunkline.evidence.file import KEYS_BYTES_MAX, STATEMENTS_MAX
from trunkline.receipts.key_statement import KeyStatement, Revocation
from trunkline.runtime.config import read_key


def make(signer: Signer, *, key: Path, public: Path) -> None:
    """Write both. Raises :class:`ConfigError` where there is one already."""
    if public.exists():
        raise ConfigError(f"{public} exists; it is not overwritten")
    name = signer.name
    write_secret(key, signer)
    _write_public(
        public, EvidenceKey(name=name, vkey=str(signer.vkey), role="operator", operator=name)
    )


def read(key: Path, public: Path) -> tuple[Signer, EvidenceKey]:
    """The operator's key, and its own entry in the public file. Raises :class:`ConfigError`."""
    signer = read_key(key, Signer.parse)
    entry = read_public(public)
    if entry.vkey != str(signer.vkey):
        raise ConfigError(f"{public}: is not the public file of the key in {key}")
    return signer, entry


def read_public(public: Path) -> EvidenceKey:
    """The public file's one entry. Raises :class:`ConfigError`."""
    try:
        with public.open("rb") as file:
            entries = decode_keys(file.read(KEYS_BYTES_MAX + 1))
    except MalformedError as error:
        raise ConfigError(f"{public}: {error.message}") from None
    except OSError as error:
        raise ConfigError(f"{public}: cannot be read: {error.strerror}") from None
    match entries:
        case (entry,) if entry.role == "operator":
            return entry
        case _:
            raise ConfigError(f"{public}: is no operator's public file")


def say(statement: KeyStatement | Revocation, *, key: Path, public: Path) -> bytes:
    """Sign a statement and add it to the public file; returns its note."""
    signer, entry = read(key, public)
    try:
        note = sign_note(statement.text(), signer)
    except MalformedError as error:
        raise ConfigError(f"the node's key: {error.message}") from None
    if len(entry.statements) >= STATEMENTS_MAX:
        raise ConfigError(f"{public}: has {STATEMENTS_MAX} statements, and takes no more")
    said = (*entry.statements, note.decode())
    _write_public(public, msgspec.structs.replace(entry, statements=said))
    return note


def write_secret(path: Path, signer: Signer) -> None:
    """Write a key that nobody else may read, durably. Raises :class:`ConfigError` if it exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path} exists; it is not overwritten") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(f"{signer.skey()}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def _write_public(path: Path, entry: EvidenceKey) -> None:
    """Replace the file whole, so that a crash leaves the one or the other."""
    data = msgspec.json.format(msgspec.json.encode([entry]), indent=1) + b"\n"
    new = path.with_name(path.name + ".new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
