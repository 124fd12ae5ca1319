"""Runs the project's checks in order and stops at the first that fails. pytest comes last.

Usage: ``check.py all|fmt|lint|types|arch|unit|e2e``.
"""

# ruff: noqa: T201, S603 -- a script: it prints, and starts programs named in it

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

RUFF = [[str(BIN / "ruff"), "check", "."], [str(BIN / "ruff"), "format", "--check", "."]]
MYPY = [[str(BIN / "mypy")]]
ARCH = [[str(BIN / "lint-imports")]]
PYTEST = [sys.executable, "-m", "pytest"]
# Two workers: the tests share the machine with the networks that some of them start.
QUICK = [[*PYTEST, "-n", "2", "--dist", "loadfile", "--ignore=tests/e2e"]]
SLOW = [[*PYTEST, "tests/e2e"]]

CHECKS: dict[str, list[list[str]]] = {
    "fmt": [[str(BIN / "ruff"), "format", "."], [str(BIN / "ruff"), "check", "--fix", "."]],
    "lint": RUFF,
    "types": MYPY,
    "arch": ARCH,
    "unit": QUICK,
    "e2e": SLOW,
    "all": [*RUFF, *MYPY, *ARCH, [*PYTEST, "-n", "2", "--dist", "loadgroup"]],
}


def main() -> int:
    """The exit code of the first check that failed, or 0."""
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        print(f"usage: check.py {'|'.join(CHECKS)}", file=sys.stderr)
        return 2
    begun = time.monotonic()
    for command in CHECKS[sys.argv[1]]:
        name = " ".join([Path(command[0]).name, *command[1:]])
        print(f"── {time.monotonic() - begun:.0f} s: {name}", flush=True)
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        if code:
            print(f"── failed: {name} (exit {code})", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
