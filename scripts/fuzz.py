"""Fuzzes the parsers: installs atheris from its own lock file, and runs ``tests/fuzz/run.py``.

Nothing else needs atheris, and it is there for fewer systems than the rest, so it is no part of
what ``make test`` installs.
"""

# ruff: noqa: S603 -- a script: it starts programs named in it

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "fuzz.lock"
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet")


def main() -> int:
    """The fuzzer's exit code, or pip's."""
    install = [sys.executable, *PIP, "--no-deps", "--require-hashes", "--requirement", str(LOCK)]
    if code := subprocess.run(install, cwd=ROOT, check=False).returncode:
        return code
    run = [sys.executable, "-m", "tests.fuzz.run", *sys.argv[1:]]
    return subprocess.run(run, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
