"""``trunkline operator``: an operator's own key, and what it says of its nodes' keys.

The key stays with the operator, off its nodes. What it signs goes into a public file, which readers
pin (``trunkline verify --keys``), and, where one is named, into a log. Specified in
``docs/spec/receipt.md``, "Keys".
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Final

import typer

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.cli import operator_file, operators
from trunkline.cli.create import new_key, read_keys, trusted, write_keys
from trunkline.cli.exits import DONE
from trunkline.cli.folder import Folder, RoleEntry
from trunkline.crypto.signer import Signer
from trunkline.node import config as node_config
from trunkline.receipts.key_statement import KeyStatement, Revocation
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.log import LogCaller
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.config import read_key

DAY_S: Final = 86_400
LOG_TIMEOUT_S: Final = 15.0


def create(name: str, *, key: Path, public: Path) -> int:
    """Make an operator's key, and the public file that readers pin."""
    try:
        signer = new_key(name)
    except MalformedError:
        raise ConfigError(f"{name}: is not a key name: no spaces, no plus sign") from None
    operator_file.make(signer, key=key, public=public)
    typer.echo(f"{key}: keep it off the nodes, and a copy of it safe")
    typer.echo(f"{public}: give it to whoever verifies")
    return DONE


def state(vkey: str, *, key: Path, public: Path, days: int, log: str | None) -> int:
    """Say that a node's key counts, from now on for so many days."""
    signer, _ = operator_file.read(key, public)
    now_s = SystemClock().unix_ms() // 1000
    statement = KeyStatement(
        operator=signer.name, key=vkey, from_s=now_s, to_s=now_s + days * DAY_S
    )
    return _say(statement, key, public, log)


def revoke(vkey: str, *, key: Path, public: Path, log: str | None) -> int:
    """Say that what a node's key signed counts only where it was logged before now."""
    signer, _ = operator_file.read(key, public)
    statement = Revocation(operator=signer.name, key=vkey, from_s=SystemClock().unix_ms() // 1000)
    return _say(statement, key, public, log)


def _say(statement: KeyStatement | Revocation, key: Path, public: Path, log: str | None) -> int:
    # A crash before the log has it: the file says it already, and saying it again changes nothing.
    note = operator_file.say(statement, key=key, public=public)
    typer.echo(note.decode(), nl=False)
    if log is not None:
        typer.echo(f"entry {asyncio.run(_add(log, note))} of {log}", err=True)
    return DONE


def rotate(name: str, *, data: Path | None, days: int) -> int:
    """Give a node of the network a new key, stated before it is used, and restart what reads it."""
    folder = Folder(data)
    entries = {entry.name: entry for entry in folder.network().roles}
    entry = entries.get(name)
    if entry is None or entry.role != "node":
        nodes = ", ".join(each.name for each in entries.values() if each.role == "node")
        raise ConfigError(f"{name}: is no node of this network; there are {nodes}")
    key_path = folder.config(entry).parent / node_config.read(folder.config(entry)).key_file
    old, new = read_key(key_path, Signer.parse), new_key(entry.key)
    # A crash after any of these steps leaves a network that runs: the old key counts as before
    # until the node has the new one, and by then everybody was told of that.
    operators.state(folder, entry, new, days)
    kept = [each for each in read_keys(folder) if each.name not in (entry.key, entry.operator)]
    known = (trusted(new.vkey, "node", entry.operator), operators.stated(folder, entry))
    write_keys(folder, (*kept, *known))
    changed = [entry, *_told_verifiers(folder, str(old.vkey), str(new.vkey))]
    fresh = key_path.with_name(f"{key_path.name}.new")
    fresh.unlink(missing_ok=True)
    operator_file.write_secret(fresh, new)
    fresh.replace(key_path)
    typer.echo(f"{name}: {new.vkey}")
    for each in changed:
        typer.echo(_restart(folder, each), err=True)
    typer.echo(
        "the old key counts until its last day; once its receipts are final, revoke it:\n  "
        + operators.revoking(folder, entry, str(old.vkey)),
        err=True,
    )
    return DONE


def _told_verifiers(folder: Folder, old: str, new: str) -> list[RoleEntry]:
    """Put the new key into the configuration of those that pin the node's key itself."""
    told = []
    for entry in folder.network().roles:
        path = folder.config(entry)
        if entry.role == "verifier" and old in (text := path.read_text(encoding="utf-8")):
            fresh = path.with_suffix(".new")
            fresh.write_text(text.replace(old, new), encoding="utf-8")
            fresh.replace(path)
            told.append(entry)
    return told


def _restart(folder: Folder, entry: RoleEntry) -> str:
    """Stop the role in order, so that `trunkline up` starts it anew; what was done, in words."""
    running = folder.running()
    for role in () if running is None else running.roles:
        if role.name == entry.name and role.pid is not None:
            os.kill(role.pid, signal.SIGTERM)
            return f"{entry.name}: is restarted, once its running answers have ended"
    return f"{entry.name}: is not running; restart it, wherever it runs"


async def _add(url: str, note: bytes) -> int:
    transport = HttpTransport()
    try:
        async with asyncio.timeout(LOG_TIMEOUT_S):
            return await LogCaller(transport, url).add(note)
    except TimeoutError:
        raise ConfigError(f"{url}: did not take the statement in time; it is in the file") from None
    finally:
        await transport.aclose()
