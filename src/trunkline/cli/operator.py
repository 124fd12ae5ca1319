"""``trunkline operator``: an operator's own key, and what it says of its nodes' keys.

The key stays with the operator, off its nodes. What it signs goes into a public file, which readers
pin (``trunkline verify --keys``), and, where one is named, into a log. Specified in
``docs/spec/receipt.md``, "Keys". It refuses to write over a key, and to state a key that is none.
"""

import asyncio
import os
from pathlib import Path
from typing import Final

import msgspec
import typer

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.cli.create import new_key, trusted
from trunkline.cli.exits import DONE
from trunkline.crypto.signer import Signer, sign_note
from trunkline.evidence import EvidenceKey, decode_keys
from trunkline.evidence.file import KEYS_BYTES_MAX, STATEMENTS_MAX
from trunkline.receipts.key_statement import KeyStatement, Revocation
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.config import read_secret

DAY_S: Final = 86_400
LOG_TIMEOUT_S: Final = 15.0


def create(name: str, *, key: Path, public: Path) -> int:
    """Make an operator's key, and the public file that readers pin."""
    try:
        signer = new_key(name)
    except MalformedError:
        raise ConfigError(f"{name}: is not a key name: no spaces, no plus sign") from None
    entry = trusted(signer.vkey, "operator", name)
    if public.exists():
        raise ConfigError(f"{public} exists; it is not overwritten")
    _write_new(key, f"{signer.skey()}\n".encode())
    _write_public(public, entry)
    typer.echo(f"{key}: keep it off the nodes, and a copy of it safe")
    typer.echo(f"{public}: give it to whoever verifies")
    return DONE


def state(vkey: str, *, key: Path, public: Path, days: int, log: str | None) -> int:
    """Say that a node's key counts, from now on for so many days."""
    signer, entry = _read(key, public)
    now_s = SystemClock().unix_ms() // 1000
    statement = KeyStatement(
        operator=signer.name, key=vkey, from_s=now_s, to_s=now_s + days * DAY_S
    )
    return _say(statement, signer, entry, public, log)


def revoke(vkey: str, *, key: Path, public: Path, log: str | None) -> int:
    """Say that what a node's key signed counts only where it was logged before now."""
    signer, entry = _read(key, public)
    statement = Revocation(operator=signer.name, key=vkey, from_s=SystemClock().unix_ms() // 1000)
    return _say(statement, signer, entry, public, log)


def _say(
    statement: KeyStatement | Revocation,
    signer: Signer,
    entry: EvidenceKey,
    public: Path,
    log: str | None,
) -> int:
    try:
        note = sign_note(statement.text(), signer)
    except MalformedError as error:
        raise ConfigError(f"the node's key: {error.message}") from None
    if len(entry.statements) >= STATEMENTS_MAX:
        raise ConfigError(f"{public}: has {STATEMENTS_MAX} statements, and takes no more")
    said = (*entry.statements, note.decode())
    # A crash before the log has it: the file says it already, and saying it again changes nothing.
    _write_public(public, msgspec.structs.replace(entry, statements=said))
    typer.echo(note.decode(), nl=False)
    if log is not None:
        typer.echo(f"entry {asyncio.run(_add(log, note))} of {log}", err=True)
    return DONE


async def _add(url: str, note: bytes) -> int:
    transport = HttpTransport()
    try:
        async with asyncio.timeout(LOG_TIMEOUT_S):
            return await LogCaller(transport, url).add(note)
    except TimeoutError:
        raise ConfigError(f"{url}: did not take the statement in time; it is in the file") from None
    finally:
        await transport.aclose()


def _read(key: Path, public: Path) -> tuple[Signer, EvidenceKey]:
    """The operator's key, and its own entry in the public file."""
    try:
        signer = Signer.parse(read_secret(key))
        with public.open("rb") as file:
            entries = decode_keys(file.read(KEYS_BYTES_MAX + 1))
    except MalformedError as error:
        raise ConfigError(f"{key}, {public}: {error.message}") from None
    except OSError as error:
        raise ConfigError(f"{public}: cannot be read: {error.strerror}") from None
    match entries:
        case (entry,) if entry.role == "operator" and entry.vkey == str(signer.vkey):
            return signer, entry
        case _:
            raise ConfigError(f"{public}: is not the public file of the key in {key}")


def _write_new(path: Path, data: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path} exists; it is not overwritten") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
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
