"""``trunkline log fsck``: the log verified from its first entry, offline."""

from pathlib import Path

import msgspec
import typer

from trunkline.cli.exits import DONE, NO
from trunkline.cli.terminal import console
from trunkline.log.config import read
from trunkline.log.files import Folder
from trunkline.log.fsck import fsck
from trunkline.log.opening import open_tiles


class FsckJson(msgspec.Struct, frozen=True, kw_only=True):
    """``trunkline log fsck --json``."""

    sound: bool
    origin: str
    entries: int
    files: int
    leftovers: int
    problems: tuple[str, ...]


def command(folder: Path, *, as_program: bool) -> int:
    """Check, print, and return DONE if the log is sound, else NO. The tiles are where ``log.toml``
    in the folder says, if there is one."""
    config = folder / "log.toml"
    tiles = open_tiles(config, read(config)) if config.exists() else Folder(folder)
    try:
        report = fsck(folder, tiles)
    finally:
        tiles.close()
    if as_program:
        record = FsckJson(
            sound=report.sound,
            origin=report.origin,
            entries=report.size,
            files=report.files,
            leftovers=report.leftovers,
            problems=tuple(report.problems),
        )
        typer.echo(msgspec.json.encode(record).decode())
        return DONE if report.sound else NO
    for problem in report.problems:
        console().print(f"✗ {problem}", style="red", markup=False)
    mark = "✓ sound" if report.sound else "✗ NOT sound"
    console().print(
        f"{mark}: {report.origin}, {report.size} entries, {report.files} tiles and bundles, "
        f"{report.leftovers} left over from interrupted rounds",
        markup=False,
    )
    return DONE if report.sound else NO
