"""``trunkline receipts export``: evidence files of one answer or many, to be verified anywhere.

In a folder each answer has one name for ever, ``<id>.evidence.json``, and only what is final gets
it: so exporting again takes up what is new, and changes nothing that is there.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from trunkline.base.errors import ConfigError, Error
from trunkline.cli import api
from trunkline.cli.exits import DONE, UNABLE
from trunkline.cli.folder import Folder
from trunkline.cli.receipts import write_new
from trunkline.evidence import Evidence, decode
from trunkline.gateway.store import Wanted

SUFFIX: Final = ".evidence.json"


def command(
    folder: Folder,
    answers: Sequence[str],
    wanted: Wanted,
    *,
    limit: int,
    to: Path | None,
    into: Path | None,
    wait_s: int,
) -> int:
    """Write one answer's evidence ``to`` a file or standard output, or that of all ``into`` a
    folder; returns the exit code. Waits ``wait_s`` in all for what is not final."""
    url = folder.network().one("gateway").url
    if to is not None and into is not None:
        raise ConfigError("--to is for one answer's file, --folder for many: say one of them")
    if answers and wanted != Wanted():
        raise ConfigError("say which answers by their ids or by the options, not both")
    if into is None:
        if len(answers) != 1:
            raise ConfigError("say one answer's id, or --folder for several")
        return _one(url, answers[0], to, wait_s)
    try:
        into.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{into}: no folder can be made there: {error.strerror}; name another with --folder"
        ) from None
    names = answers or [row.answer for row in asyncio.run(api.newest(url, limit, wanted))]
    code = _many(url, names, into, wait_s)
    if not answers and len(names) == limit:
        typer.echo(
            f"looked at the newest {limit} alone: --limit and --until reach further back", err=True
        )
    return code


def _one(url: str, answer: str, to: Path | None, wait_s: int) -> int:
    data = asyncio.run(api.evidence(url, answer, wait_s=wait_s))
    if to is None:
        sys.stdout.buffer.write(data + b"\n")
    else:
        write_new(to, data)
        typer.echo(f"{to}: verify it with `trunkline verify {to}`", err=True)
    if not _is_final(decode(data)):
        typer.echo(
            f"{answer} is provisional: signed, and not proved to be in the log yet. "
            "Export it again later to have the proof",
            err=True,
        )
    return DONE


def _many(url: str, answers: Sequence[str], into: Path, wait_s: int) -> int:
    due_s = time.monotonic() + wait_s
    written, there = 0, 0
    left_out: list[tuple[str, str]] = []
    for answer in dict.fromkeys(answers):
        path = into / f"{answer}{SUFFIX}"
        if path.exists():
            there += 1
            continue
        try:
            left_s = max(0, int(due_s - time.monotonic()))
            data = asyncio.run(api.evidence(url, answer, wait_s=left_s))
        except api.NotFoundError:
            left_out.append((answer, "the gateway has no such answer"))
        except api.NotRunningError:
            raise
        except Error as error:
            # One that can not be had must not keep the others here.
            left_out.append((answer, error.message))
        else:
            if _is_final(decode(data)):
                write_new(path, data)
                written += 1
            else:
                why = "not proved to be in the log yet; export again later"
                left_out.append((answer, why))
    typer.echo(f"{into}: {written} written, {there} there already")
    for answer, why in left_out:
        typer.echo(f"left out: {answer}: {why}", err=True)
    return UNABLE if left_out else DONE


def _is_final(evidence: Evidence) -> bool:
    return all(part.proof is not None for part in evidence.parts)
