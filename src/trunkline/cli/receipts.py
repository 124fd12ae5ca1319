"""``trunkline receipts``: list the newest answers, show one's receipts, open one side of it to
somebody, forget what was said. Exporting is ``export``, proving ``prove``."""

import asyncio
import os
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from trunkline.base.errors import ConfigError
from trunkline.cli import api
from trunkline.cli.exits import DONE
from trunkline.cli.folder import Folder
from trunkline.cli.terminal import console, harmless
from trunkline.crypto import note
from trunkline.evidence import EvidencePart, Side, decode, encode, opening
from trunkline.gateway.store import AnswerRow, Wanted
from trunkline.receipts import decode as decode_receipt
from trunkline.receipts import receipt_leaf
from trunkline.tlog import proof
from trunkline.tlog.checkpoint import Checkpoint

COLUMNS: Final = ("answer", "when", "model", "node", "attempts", "state")


def ls(folder: Folder, wanted: Wanted, *, limit: int, as_program: bool) -> int:
    """The newest answers that are ``wanted``, newest first."""
    rows = asyncio.run(api.newest(_base_url(folder), limit, wanted))
    if as_program:
        typer.echo(msgspec.json.encode(rows).decode())
        return DONE
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in COLUMNS:
        table.add_column(name, header_style="dim", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    console().print(table if rows else Text("no such answers", style="dim"))
    if rows:
        final = sum(row.state == "final" for row in rows)
        said = f"{final} final: proved to be in the log; {len(rows) - final} provisional: not yet"
        console().print(Text(said, style="dim"))
    return DONE


def show(folder: Folder, answer: str, *, as_program: bool) -> int:
    """What each receipt of an answer says."""
    evidence = decode(asyncio.run(api.evidence(_base_url(folder), answer)))
    for part in evidence.parts:
        raw = part.signed.receipt
        if as_program:
            typer.echo(raw)
            continue
        receipt = decode_receipt(raw.encode())
        fields = msgspec.json.format(msgspec.json.encode(receipt), indent=2)
        typer.echo(harmless(fields.decode()))
        typer.echo(f"leaf {receipt_leaf(raw.encode()).hex()}, {_place(part)}")
    return DONE


def open_(folder: Folder, answer: str, *, only: Side | None, to: Path | None, wait_s: int) -> int:
    """Write evidence that shows ``only`` one side of what was said."""
    data = asyncio.run(api.evidence(_base_url(folder), answer, wait_s=wait_s))
    shown = opening(decode(data), only)
    data = encode(shown)
    if to is None:
        sys.stdout.buffer.write(data + b"\n")
    else:
        write_new(to, data)
        typer.echo(f"{to}: verify it with `trunkline verify {to}`", err=True)
    if any(part.bodies is None for part in shown.parts):
        typer.echo("the bodies were not kept: whoever has them can check them with this", err=True)
    return DONE


def forget(folder: Folder, answer: str) -> int:
    """Delete what was said, and what would open the receipts."""
    asyncio.run(api.forget(_base_url(folder), answer))
    typer.echo(f"{answer}: forgotten here; receipts, log and evidence given away stay as they are")
    return DONE


def write_new(to: Path, data: bytes) -> None:
    """Write a file that is not there yet, whole or not at all. Raises :class:`ConfigError`."""
    try:
        # It may hold what was said: for the eyes of who asked for it.
        descriptor, new = tempfile.mkstemp(prefix=".", suffix=".new", dir=to.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _name(Path(new), to)
        finally:
            Path(new).unlink(missing_ok=True)
    except FileExistsError:
        raise ConfigError(f"{to} exists; it is not overwritten") from None
    except OSError as error:
        raise ConfigError(f"{to}: cannot be written: {error.strerror}") from None


def _name(new: Path, to: Path) -> None:
    """Give a file its name, which no other has. Raises :class:`OSError`."""
    try:
        to.hardlink_to(new)
    except FileExistsError:
        raise
    except OSError:
        # A file system without links.
        if os.path.lexists(to):
            raise FileExistsError from None
        new.rename(to)


def _place(part: EvidencePart) -> str:
    """Where the log has it, by the proof in the file: ``prove`` and ``verify`` check that."""
    if part.proof is None:
        return "provisional: signed, and not proved to be in the log yet"
    found = proof.parse(part.proof.encode())
    tree = Checkpoint.parse(note.parse(found.checkpoint_note).text)
    where = f"entry {found.index} of {harmless(tree.origin)}, in its tree of {tree.size}"
    return f"final: {where}; receipt {part.signed.index} of the batch there"


def _cells(row: AnswerRow) -> tuple[str | Text, ...]:
    when = datetime.fromtimestamp(row.created_ms / 1000, tz=UTC).astimezone()
    state = Text(row.state, style="green" if row.state == "final" else "yellow")
    return (
        row.answer, f"{when:%Y-%m-%d %H:%M:%S}", Text(row.model), Text(row.node),
        str(row.attempts), state,
    )  # fmt: skip


def _base_url(folder: Folder) -> str:
    return folder.network().one("gateway").url
