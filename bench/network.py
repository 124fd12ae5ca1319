"""Start a real network of its own for a bench, and look at its processes from outside.

``trunkline up`` in a temporary data folder on ports nobody uses. Everything here is what an
operator could do by hand: the command line, ``status --json``, and ``/proc``.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

READY_S_MAX = 180.0
TRUNKLINE = Path(sys.executable).with_name("trunkline")
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def free_port_base(count: int = 16) -> int:
    """A port with ``count`` free ones after it on loopback."""
    for base in range(21000, 29000, count):
        try:
            for port in range(base, base + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError("no free ports between 21000 and 29000")


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def children(pid: int) -> list[int]:
    """Process ids of all descendants."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def memory_bytes(pid: int) -> int:
    """Proportional set size: shared pages are divided among those who share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no Pss line")


def set_key(path: Path, key: str, value: str) -> None:
    """Give a key of a configuration file, which is there, another value."""
    text = [f"{key} = {value}" if line.startswith(f"{key} = ") else line
            for line in path.read_text().splitlines()]  # fmt: skip
    path.write_text("\n".join(text) + "\n")


class Network:
    """A context manager: a running network."""

    def __init__(
        self,
        *arguments: str,
        data: Path | None = None,
        program: Sequence[str] = (str(TRUNKLINE),),
    ) -> None:
        """``arguments`` of ``up``; ``program``: what is started in the place of ``trunkline``."""
        self._arguments = arguments
        self._program = program
        self._own = data is None
        self.data = data or Path(tempfile.mkdtemp(prefix="trunkline-bench-"))
        self.port_base = free_port_base()
        self.base_url = f"http://127.0.0.1:{self.port_base}/v1"
        self.started_s = 0.0

    def __enter__(self) -> Self:
        begun = time.monotonic()
        self._log = (self.data / "bench-up.log").open("wb")
        self._process = subprocess.Popen(
            [
                *self._program, "up", "--data", str(self.data / "network"),
                "--port-base", str(self.port_base), *self._arguments,
            ],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            asyncio.run(self.ready())
        except BaseException:
            self.stop()
            raise
        self.started_s = time.monotonic() - begun
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        if self._own:
            shutil.rmtree(self.data, ignore_errors=True)

    def status(self) -> dict[str, Any]:
        """What ``trunkline status --json`` prints."""
        done = subprocess.run(
            [str(TRUNKLINE), "status", "--json", "--data", str(self.data / "network")],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        parsed: dict[str, Any] = json.loads(done.stdout)
        return parsed

    def roles(self) -> dict[str, int]:
        """Process id per running role, by the role's name."""
        return {role["name"]: role["pid"] for role in self.status()["roles"] if role["pid"]}

    def node_pids(self) -> dict[str, int]:
        """Process id per running inference node, by its key name."""
        return {
            role["key"]: role["pid"]
            for role in self.status()["roles"]
            if role["role"] == "node" and role["pid"]
        }

    def _said(self) -> str:
        return Path(self._log.name).read_text(errors="replace")[-2000:]

    async def ready(self) -> None:
        """Wait until every role serves."""
        deadline = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"trunkline up ended: {self._said()}")
            try:
                status = await asyncio.to_thread(self.status)
            except (json.JSONDecodeError, subprocess.TimeoutExpired):
                status = {}
            if status.get("ready"):
                return
            await asyncio.sleep(0.1)
        raise RuntimeError("the network did not become ready in time")
