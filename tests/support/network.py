"""A real network and the commands, as processes: what a person at a terminal would start."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from trunkline.cli.folder import Folder, RoleEntry

TRUNKLINE = Path(sys.executable).with_name("trunkline")
READY_S_MAX = 180.0
STOP_S_MAX = 90.0
PORTS_FIRST, PORTS_LAST, PORTS_STEP = 20_000, 30_000, 16


def free_port_base() -> int:
    """A port with fifteen free ones after it. Workers of one run look in different places."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    offset = (os.getpid() * 7 + int(worker) * 1600) % (PORTS_LAST - PORTS_FIRST)
    count = (PORTS_LAST - PORTS_FIRST) // PORTS_STEP
    for number in range(count):
        base = PORTS_FIRST + (offset // PORTS_STEP + number) % count * PORTS_STEP
        if all(map(_is_free, range(base, base + PORTS_STEP))):
            return base
    raise RuntimeError("no free ports on loopback")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed with ``--json``."""
        return msgspec.json.decode(self.out)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningNetwork:
    """A real ``trunkline up`` of this test session."""

    data: Path
    base_url: str
    process: "subprocess.Popen[bytes]"

    def command(self, *arguments: str, stdin: str = "", timeout_s: float = 240.0) -> Done:
        """Run ``trunkline ARGUMENTS --data …`` against it."""
        return command(*arguments, "--data", str(self.data), stdin=stdin, timeout_s=timeout_s)

    def status(self) -> Any:
        """``trunkline status --json``."""
        return self.command("status", "--json").json()

    def pid(self, role: str) -> int:
        """The process id of a role."""
        found = [each["pid"] for each in self.status()["roles"] if each["name"] == role]
        assert len(found) == 1
        assert isinstance(found[0], int)
        return found[0]

    def wait_ready(self) -> Any:
        """Wait until every role serves; the status that said so."""
        return wait_ready(self.data, self.process)


def command(
    *arguments: str,
    stdin: str = "",
    timeout_s: float = 240.0,
    env: dict[str, str] | None = None,
) -> Done:
    """Run ``trunkline ARGUMENTS`` to its end."""
    done = subprocess.run(
        [str(TRUNKLINE), *arguments],
        input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False,
        env=os.environ | {"COLUMNS": "100"} | (env or {}),
    )  # fmt: skip
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


def wait_ready(data: Path, process: "subprocess.Popen[bytes]") -> Any:
    """Poll ``status`` until it says ready: real processes, so there is nothing to be told by. What
    it said then."""
    deadline = time.monotonic() + READY_S_MAX
    while time.monotonic() < deadline:
        assert process.poll() is None, f"trunkline up ended with {process.returncode}"
        done = command("status", "--json", "--data", str(data))
        if done.code == 0 and (status := done.json())["ready"]:
            return status
    raise AssertionError(f"not ready after {READY_S_MAX} s; see {data / 'logs'}")


def make(data: Path, cache: Path, changed: Callable[[RoleEntry, str], str]) -> Folder:
    """A new network's folder, with each role's configuration as ``changed`` makes it."""
    done = command("init", "--data", str(data), env={"TRUNKLINE_CACHE": str(cache)})
    assert done.code == 0, done.err
    folder = Folder(data)
    for entry in folder.network().roles:
        path = folder.config(entry)
        path.write_text(changed(entry, path.read_text()))
    return folder


@contextmanager
def running(
    data: Path, cache: Path, *arguments: str, program: Sequence[str] = (str(TRUNKLINE),)
) -> Iterator[RunningNetwork]:
    """``trunkline up`` on the folder ``data``, ready; stopped at the end. ``program``: what is
    started in the place of ``trunkline``."""
    base = free_port_base()
    data.parent.mkdir(parents=True, exist_ok=True)
    with (data.parent / "up.log").open("wb") as output:
        process = subprocess.Popen(
            [*program, "up", "--data", str(data), "--port-base", str(base), *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env=os.environ | {"TRUNKLINE_CACHE": str(cache)},
        )  # fmt: skip
    started = RunningNetwork(data=data, base_url=f"http://127.0.0.1:{base}", process=process)
    try:
        started.wait_ready()
        yield started
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
