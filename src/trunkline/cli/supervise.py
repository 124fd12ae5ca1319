"""Keeps the roles of one network running as child processes.

Each role is a process group of its own: Ctrl-C in the terminal reaches only the supervisor, and
what a role started ends with it. One that ends is started again with back-off; one that does not
answer for long is ended. Stopping goes against the flow of an answer: the gateway first, the
witness last. Refuses to go on restarting a role whose configuration is wrong when all begins.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from trunkline.base.errors import ConfigError, Error
from trunkline.cli.exits import UNABLE
from trunkline.cli.folder import Folder, RoleEntry, RunFile, RunningRole
from trunkline.cli.role import PARENT_VARIABLE
from trunkline.remote.http1 import HttpTransport

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_S_MAX: Final = 10.0
STABLE_AFTER_S: Final = 4.0
"""A role that ran so long is not failing to start: it starts again without delay."""
FIRST_STARTS_MAX: Final = 4
"""A role that was never ready and ended so often is given up; a wrong configuration, at once."""
STOP_S_MAX: Final = 15.0
"""A role that has not ended so long after SIGTERM is killed."""
PROVIDER_S_MAX: Final = 8.0
PROBE_S: Final = 0.1
PROBE_SLOW_S: Final = 2.0
PROBE_TIMEOUT_S: Final = 5.0
SILENT_S_MAX: Final = 60.0
"""A role that was ready and gave no sign for so long is ended, and started again."""
HEALTH_BYTES_MAX: Final = 64 * 1024
DIAGNOSTICS_BYTES_MAX: Final = 16 * 1024 * 1024
REASON_TAIL_BYTES: Final = 4096

State = Literal["starting", "ready", "waiting", "stopped"]
"""``waiting``: it ended, and will be started again after a pause."""

STOP_ORDER: Final = ("gateway", "verifier", "node", "log", "witness")
ANSWERING: Final = ("gateway", "node", "log", "witness")
"""What it takes to answer, and to have the answer logged: started, and waited for, first."""


class Role:
    """One supervised role."""

    __slots__ = (
        "entry",
        "pid",
        "process",
        "ready_s",
        "restarts",
        "started_ms",
        "state",
        "task",
        "trouble",
    )

    def __init__(self, entry: RoleEntry) -> None:
        self.entry = entry
        self.state: State = "stopped"
        self.process: asyncio.subprocess.Process | None = None
        self.pid: int | None = None
        self.task: asyncio.Task[None] | None = None
        self.restarts = 0
        self.started_ms = 0
        self.ready_s: float | None = None
        """Seconds from its first start until it was ready."""
        self.trouble = ""
        """What it says keeps it from becoming ready: a stable code."""


class Supervisor:
    """All roles of a folder. ``start``, then ``wait_ready``; ``stop`` at the end, always."""

    def __init__(self, folder: Folder, entries: Sequence[RoleEntry]) -> None:
        self._folder = folder
        self.roles = [Role(entry) for entry in entries]
        self._transport = HttpTransport()
        self._stopping = asyncio.Event()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def started(self) -> list[Role]:
        """Those that were asked to run."""
        return [role for role in self.roles if role.task is not None]

    def start(self, kinds: Sequence[str] = STOP_ORDER) -> None:
        """Start the roles of these kinds that are not running yet, all at once."""
        self._folder.logs.mkdir(mode=0o700, exist_ok=True)
        for role in self.roles:
            if role.task is None and role.entry.role in kinds:
                role.state = "starting"
                role.task = asyncio.create_task(self._keep(role), name=f"keep.{role.entry.name}")

    async def wait_ready(self, timeout_s: float) -> list[Role]:
        """Wait until every role that was started is ready. Raises Error naming those that are not.

        A node in front of a provider is waited for no longer than ``PROVIDER_S_MAX``: somebody
        else's trouble does not keep the network from starting. Those late are returned.
        """
        begun = time.monotonic()
        while late := [role for role in self.started if role.state != "ready"]:
            if self._failed.done():
                self._failed.result()
            waited_s = time.monotonic() - begun
            if waited_s > PROVIDER_S_MAX and all(role.entry.is_provider for role in late):
                return late
            broken = [role for role in late if role.trouble and not role.entry.is_provider]
            if waited_s > timeout_s or broken:
                raise Error(
                    f"not ready: {', '.join(map(_describe, broken or late))}; "
                    f"see {self._folder.logs}",
                    code="start_timeout",
                )
            await asyncio.sleep(PROBE_S / 2)
        return []

    async def stop(self) -> None:
        """Stop every role, in order, waiting for each."""
        self._stopping.set()
        for kind in STOP_ORDER:
            stopped = [self._stop(role) for role in self.roles if role.entry.role == kind]
            await asyncio.gather(*stopped)
        await self._transport.aclose()
        if self._failed.done():
            self._failed.exception()

    def kill(self) -> None:
        """Kill every role and what it started, at once."""
        self._stopping.set()
        for role in self.roles:
            if role.pid is not None:
                _signal_group(role.pid, signal.SIGKILL)

    def command(self, role: Role) -> tuple[str, ...]:
        """What is run for a role."""
        config = str(self._folder.config(role.entry))
        return (sys.executable, "-m", "trunkline.cli.role", role.entry.role, config)

    async def _keep(self, role: Role) -> None:
        backoff_s = BACKOFF_FIRST_S
        begun = time.monotonic()
        while not self._stopping.is_set():
            since = time.monotonic()
            code = await self._run_once(role, begun)
            if self._stopping.is_set():
                break
            tries = FIRST_STARTS_MAX if code != UNABLE else 1
            if role.ready_s is None and role.restarts + 1 >= tries:
                self._give_up(role)
                return
            if time.monotonic() - since > STABLE_AFTER_S:
                backoff_s = BACKOFF_FIRST_S
            self._become(role, "waiting")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s):
                    await self._stopping.wait()
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)
            role.restarts += 1
        self._become(role, "stopped")

    async def _run_once(self, role: Role, begun: float) -> int:
        """Start the process and see it to its end; its exit code."""
        path = self._folder.diagnostics(role.entry)
        _rotate(path)
        with path.open("ab") as diagnostics:
            role.process = await asyncio.create_subprocess_exec(
                *self.command(role),
                stdin=asyncio.subprocess.DEVNULL, stdout=diagnostics, stderr=diagnostics,
                start_new_session=True,
                env=os.environ | {PARENT_VARIABLE: str(os.getpid())},
            )  # fmt: skip
        role.pid = role.process.pid
        if self._stopping.is_set():
            # Stopping began while the process was being started, and did not see it.
            role.process.terminate()
        role.started_ms = time.time_ns() // 1_000_000
        self._become(role, "starting")
        probe = asyncio.create_task(self._probe(role, begun, path))
        try:
            code = await role.process.wait()
        finally:
            probe.cancel()
            await asyncio.gather(probe, return_exceptions=True)
            # Whatever it left behind in its group would hold the port or the files.
            _signal_group(role.pid, signal.SIGKILL)
            role.pid = None
        return code

    async def _probe(self, role: Role, begun: float, diagnostics: Path) -> None:
        seen = time.monotonic()
        while True:
            trouble = await self._trouble(role.entry)
            role.trouble = trouble or ""
            if trouble is None:
                seen = time.monotonic()
                if role.state != "ready":
                    role.ready_s = role.ready_s or seen - begun
                    self._become(role, "ready")
            elif (
                role.state == "ready"
                and role.pid is not None
                and time.monotonic() - seen > SILENT_S_MAX
            ):
                _signal_group(role.pid, signal.SIGKILL)
                return
            _rotate(diagnostics)
            await asyncio.sleep(PROBE_SLOW_S if role.state == "ready" else PROBE_S)

    async def _trouble(self, entry: RoleEntry) -> str | None:
        """None: ready. Otherwise what the role says keeps it, empty if it says nothing."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                response = await self._transport.request("GET", entry.url + "/healthz")
                body = await response.read(HEALTH_BYTES_MAX)
        except (Error, TimeoutError):
            return ""
        if response.status == 200:
            return None
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(body, type=_Health).error
        return ""

    async def _stop(self, role: Role) -> None:
        if role.task is None:
            return
        if role.process is not None and role.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                role.process.terminate()
            try:
                async with asyncio.timeout(STOP_S_MAX):
                    await role.process.wait()
            except TimeoutError:
                if role.pid is not None:
                    _signal_group(role.pid, signal.SIGKILL)
                await role.process.wait()
        await asyncio.gather(role.task, return_exceptions=True)
        role.state = "stopped"

    def _give_up(self, role: Role) -> None:
        self._become(role, "stopped")
        if not self._failed.done():
            reason = _reason(self._folder.diagnostics(role.entry))
            self._failed.set_exception(ConfigError(f"{role.entry.name} can not run: {reason}"))

    def _become(self, role: Role, state: State) -> None:
        role.state = state
        records = tuple(
            RunningRole(
                name=each.entry.name,
                pid=each.pid,
                state=each.state,
                restarts=each.restarts,
                started_ms=each.started_ms,
            )
            for each in self.roles
        )
        self._folder.write_running(RunFile(pid=os.getpid(), roles=records))


class _Health(msgspec.Struct):
    error: str = ""


def _describe(role: Role) -> str:
    return f"{role.entry.name} ({role.trouble})" if role.trouble else role.entry.name


class _Failure(msgspec.Struct):
    event: str
    reason: str


def _reason(diagnostics: Path) -> str:
    """The last reason that a role gave for not running."""
    try:
        with diagnostics.open("rb") as file:
            file.seek(max(0, diagnostics.stat().st_size - REASON_TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        lines = []
    for line in reversed(lines):
        with contextlib.suppress(msgspec.MsgspecError):
            return msgspec.json.decode(line, type=_Failure).reason
    return f"see {diagnostics}"


def _signal_group(pid: int, number: signal.Signals) -> None:
    # Not there any more, or all of it ended: that is what was wanted.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _rotate(path: Path) -> None:
    """Keep at most one full diagnostics file beside the current one.

    Copied and emptied rather than renamed: the role appends through the descriptor it has.
    """
    try:
        if path.stat().st_size > DIAGNOSTICS_BYTES_MAX:
            shutil.copyfile(path, path.with_suffix(".1.jsonl"))
            os.truncate(path, 0)
    except OSError:
        # Without the file there is nothing to bound; a full disk is met by the role itself.
        return
