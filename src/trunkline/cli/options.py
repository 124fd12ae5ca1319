"""What the commands' groups have in common: how they are shown, and the options that several take.

Only the parser is imported here, as in ``main``.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from trunkline.cli.folder import Folder

APP_ID: Final = re.compile(r"(?:chatcmpl-|msg_|resp_)([a-z2-7]{24})")
"""What apps call an answer, by the format that they speak: the same letters after other words."""
SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 96}

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Data folder of the network. Default: $TRUNKLINE_DATA, else ~/.local/share/trunkline.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Wait = Annotated[
    int, typer.Option(metavar="SECONDS", min=0, max=60, help="Wait so long for it to be final.")
]


def answer_id(what: str) -> str:
    """The id of an answer, ``ans_…``, that an app knows as ``what``; anything else as it is."""
    match = APP_ID.fullmatch(what)
    return what if match is None else "ans_" + match[1]


def group() -> typer.Typer:
    """A group of commands: its help is what it says without one."""
    return typer.Typer(no_args_is_help=True, rich_markup_mode=None, context_settings=SETTINGS)


def folder_of(data: Path | None) -> "Folder":
    """The data folder that ``--data`` names."""
    from trunkline.cli.folder import Folder

    return Folder(data)
