"""Makes ``.venv`` out of the lock files: every package by its hash, none resolved, none built.

Run by ``setup.sh`` with nothing but the standard library. What was installed is remembered in
``.venv``, so that running it again costs nothing until a lock file changes. Refuses a package that
the lock does not name.
"""

# ruff: noqa: T201, S603, S101 -- a script: it prints, and starts programs named in it

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
MEMORY = VENV / ".installed.json"
LOCKS = {
    "runtime": ("requirements/runtime.lock", "requirements/model.lock"),
    "test": ("requirements/test.lock", "requirements/model.lock"),
}
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input")
TAIL_LINES = 15


def main() -> int:
    """Bring the environment up to date; 0 when it is."""
    if len(sys.argv) != 2 or sys.argv[1] not in LOCKS:
        print(f"usage: setup.sh {'|'.join(LOCKS)}", file=sys.stderr)
        return 2
    wanted = sys.argv[1]
    # Two runs at once would install over each other. The lock is on this file: nothing to clean up.
    with Path(__file__).open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            install(wanted)
        except subprocess.CalledProcessError as error:
            print(f"\nsetup: `{' '.join(map(str, error.cmd))}` failed.", file=sys.stderr)
            print("Is the package index reachable? Try again with `make setup`.", file=sys.stderr)
            return 1
    return 0


def install(wanted: str) -> None:
    """Install what is not remembered as installed."""
    begun = time.monotonic()
    memory = remembered()
    locks_digest = digest(*LOCKS[wanted])
    project_digest = digest("pyproject.toml")
    if memory.get(wanted) == locks_digest and memory.get("project") == project_digest:
        return
    if memory.get("root") != str(ROOT):
        say("making .venv")
        # A moved or half-made environment: its scripts point elsewhere. It holds nothing of worth.
        shutil.rmtree(VENV, ignore_errors=True)
        quietly([sys.executable, "-m", "venv", str(VENV)])
        memory = {"root": str(ROOT)}
        remember(memory)
    if memory.get(wanted) != locks_digest:
        install_locked(wanted)
        memory[wanted] = locks_digest
        remember(memory)
    if memory.get("project") != project_digest:
        say("trunkline itself")
        command = [str(PYTHON), *PIP, "install", "--quiet", "--no-deps"]
        quietly([*command, "--no-build-isolation", "--editable", str(ROOT)])
        memory["project"] = project_digest
        remember(memory)
    say(f".venv is ready ({time.monotonic() - begun:.0f} s)", last=True)


def install_locked(wanted: str) -> None:
    """Install a set of lock files, counting packages as they come."""
    names = set()
    command = [str(PYTHON), *PIP, "install", "--no-deps", "--require-hashes"]
    command += ["--progress-bar", "off"]
    for lock in LOCKS[wanted]:
        names |= set(re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / lock).read_text(), re.MULTILINE))
        command += ["--requirement", str(ROOT / lock)]
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    done = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail.append(line.rstrip())
            if line.startswith(("Collecting ", "Requirement already satisfied: ")):
                done += 1
                name = re.split(r"[=<>! ]", line.split(": ")[-1].removeprefix("Collecting "))[0]
                say(f"packages {done} of {len(names)}: {name}")
            elif line.startswith("Installing collected"):
                say(f"installing {len(names)} packages")
    if process.returncode:
        print("\n" + "\n".join(tail), file=sys.stderr)
        raise subprocess.CalledProcessError(process.returncode, command)


def quietly(command: list[str]) -> None:
    """Run a command; show what it said only if it failed."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = (done.stdout + done.stderr).splitlines()[-TAIL_LINES:]
        print("\n" + "\n".join(said), file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)


def remembered() -> dict[str, str]:
    """What this environment is known to hold; empty if it is not usable."""
    try:
        memory = json.loads(MEMORY.read_text())
        return memory if isinstance(memory, dict) and PYTHON.exists() else {}
    except (OSError, ValueError):
        return {}


def remember(memory: dict[str, str]) -> None:
    """Write it down, whole or not at all."""
    temporary = MEMORY.with_suffix(".new")
    temporary.write_text(json.dumps(memory, indent=1))
    temporary.replace(MEMORY)


def digest(*paths: str) -> str:
    """One digest over files of the repository."""
    hasher = hashlib.sha256()
    for path in paths:
        hasher.update((ROOT / path).read_bytes())
    return hasher.hexdigest()


def say(text: str, *, last: bool = False) -> None:
    """One line that is overwritten on a terminal; elsewhere only what ends something."""
    if sys.stderr.isatty():
        columns = shutil.get_terminal_size().columns
        print(f"\r\033[Ksetup: {text}"[: columns + 4], end="\n" if last else "", file=sys.stderr)
        sys.stderr.flush()
    elif last or not text.startswith("packages ") or text.split()[1].endswith("0"):
        print(f"setup: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.umask(0o022)
    sys.exit(main())
