"""Writes the documentation that is generated: ``docs/cli.md`` from the program's own help.

Usage: ``docs.py`` writes it; ``docs.py --check`` exits 1 if what is there is not what would be
written. A test does the same.
"""

# ruff: noqa: T201, S603 -- a script: it prints, and starts the program that it describes

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "cli.md"
COLUMNS = "96"
COMMANDS = (
    (), ("up",), ("init",), ("chat",), ("verify",), ("status",),
    ("receipts",), ("receipts", "ls"), ("receipts", "show"), ("receipts", "export"),
    ("keys",), ("keys", "create"), ("keys", "ls"), ("keys", "revoke"), ("keys", "rotate"),
    ("route",), ("route", "explain"),
    ("drill",), ("drill", "kill-node"), ("log",), ("log", "fsck"),
    ("gateway",), ("node",), ("witness",),
)  # fmt: skip
HEAD = """\
# The command line

Written by `make docs` from the program itself; a test compares the two.
"""


def render() -> str:
    """The whole file."""
    return HEAD + "".join(section(command) for command in COMMANDS)


def section(command: tuple[str, ...]) -> str:
    """One command's help."""
    done = subprocess.run(
        [sys.executable, "-m", "trunkline.cli", *command, "--help"],
        capture_output=True, text=True, check=True, timeout=60,
        env=os.environ | {"COLUMNS": COLUMNS, "NO_COLOR": "1", "TERM": "dumb"},
    )  # fmt: skip
    name = " ".join(("trunkline", *command))
    said = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    usage = said.replace("python -m trunkline.cli", "trunkline")
    return f"\n## `{name}`\n\n```\n{usage.strip()}\n```\n"


def main() -> int:
    """Write or compare."""
    text = render()
    if "--check" in sys.argv[1:]:
        same = TARGET.exists() and TARGET.read_text() == text
        print("docs/cli.md is up to date" if same else "docs/cli.md differs: run `make docs`")
        return 0 if same else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
