"""The data folder of one network: where everything lies, what its roles are, who is using it.

Layout: ``network.toml`` (roles and addresses), ``policy`` (whom to trust, C2SP tlog-policy),
``keys.json`` (public keys by role), ``operators/`` (the keys of the nodes' operators, and what they
state), a folder per role with its configuration, key and state, ``logs/`` (diagnostics), ``run/``
(process ids while it runs), ``cache/`` (derived model files).
Refuses to guess: a folder without ``network.toml`` is not a network.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from trunkline.base.errors import ConfigError

DATA_VARIABLE: Final = "TRUNKLINE_DATA"
CACHE_VARIABLE: Final = "TRUNKLINE_CACHE"
LOCK_PATIENCE_S: Final = 0.5
ROLES_MAX: Final = 64
RUN_FILE_BYTES_MAX: Final = 1024 * 1024

RoleKind = Literal["gateway", "node", "log", "witness", "verifier"]


class RoleEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One role of the network."""

    name: str
    """Unique here; also the name of its folder: ``gateway``, ``node-alpha``."""
    role: RoleKind
    listen: str
    """``host:port``, as in the role's own configuration."""
    key: str = ""
    """Name of the key that it signs with; empty for the gateway, which signs nothing."""
    operator: str = ""
    embedded: bool = False
    """Runs the embedded model."""

    @property
    def url(self) -> str:
        return f"http://{self.listen}"

    @property
    def is_provider(self) -> bool:
        """Whether it is a node in front of somebody else's service."""
        return self.role == "node" and not self.embedded


class NetworkFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``network.toml``."""

    version: Literal[1] = 1
    id: str
    """Random name of this network; its log's origin holds it."""
    cache: str = "cache"
    """Folder of derived model files; a relative path starts at the data folder."""
    roles: tuple[RoleEntry, ...]

    def one(self, role: RoleKind) -> RoleEntry:
        """The first entry of a role; ConfigError if there is none."""
        for entry in self.roles:
            if entry.role == role:
                return entry
        raise ConfigError(f"network.toml: no {role} is listed; `trunkline init` makes a whole one")


class RunningRole(msgspec.Struct, frozen=True, kw_only=True):
    """One role's process as its supervisor knows it."""

    name: str
    pid: int | None
    state: str
    restarts: int
    started_ms: int


class RunFile(msgspec.Struct, frozen=True, kw_only=True):
    """``run/up.json``: written by ``trunkline up`` while it runs."""

    pid: int
    roles: tuple[RunningRole, ...]


def default_data() -> Path:
    """``$TRUNKLINE_DATA``, else ``trunkline`` in the user's data home."""
    named = os.environ.get(DATA_VARIABLE)
    if named:
        return Path(named).expanduser().absolute()
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser().absolute() / "trunkline"


class Folder:
    """Paths and records of one data folder."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = default_data() if path is None else path.expanduser().absolute()
        self.network_file = self.path / "network.toml"
        self.policy_file = self.path / "policy"
        self.keys_file = self.path / "keys.json"
        self.logs = self.path / "logs"
        self.run = self.path / "run"

    @property
    def exists(self) -> bool:
        """Whether a network was created here."""
        return self.network_file.is_file()

    def config(self, entry: RoleEntry) -> Path:
        """The role's configuration file."""
        return self.path / entry.name / f"{entry.role}.toml"

    def diagnostics(self, entry: RoleEntry) -> Path:
        """Where the role's diagnostics go."""
        return self.logs / f"{entry.name}.jsonl"

    def network(self) -> NetworkFile:
        """Read ``network.toml``; ConfigError saying what to do."""
        from trunkline.runtime.config import load

        if not self.exists:
            raise ConfigError(
                f"no network in {self.path}; create one with `trunkline init`, "
                "or name another folder with --data"
            )
        network = load(self.network_file, NetworkFile)
        if len(network.roles) > ROLES_MAX:
            raise ConfigError(f"{self.network_file}: more than {ROLES_MAX} roles")
        return network

    def cache(self, network: NetworkFile) -> Path:
        """Folder of derived model files."""
        return self.path / network.cache

    def running(self) -> RunFile | None:
        """What ``trunkline up`` wrote down, if one is running here now."""
        if not self.is_locked():
            return None
        try:
            with (self.run / "up.json").open("rb") as file:
                return msgspec.json.decode(file.read(RUN_FILE_BYTES_MAX), type=RunFile)
        except (OSError, msgspec.MsgspecError):
            return None

    def write_running(self, record: RunFile) -> None:
        """Replace the record, whole or not at all."""
        temporary = self.run / "up.json.new"
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(self.run / "up.json")

    def is_locked(self) -> bool:
        """Whether a ``trunkline up`` holds this folder."""
        try:
            descriptor = os.open(self.run / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EACCES)
        finally:
            os.close(descriptor)
        return False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder: one ``up`` at a time. ConfigError if another has it.

        The kernel lets go when the process ends, however it ends. Children do not inherit it.
        """
        self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not _acquire(descriptor):
                raise ConfigError(
                    f"a network is running in {self.path} already; see `trunkline status`. "
                    "Use it, stop it, or start another with --data and --port-base",
                    code="already_running",
                )
            yield
            (self.run / "up.json").unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def _acquire(descriptor: int) -> bool:
    # Somebody asking `is_locked` holds a shared lock for an instant: worth a few tries.
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def render_network(network: NetworkFile) -> str:
    """``network.toml`` with comments."""
    from trunkline.runtime.config import toml_value

    lines = [
        "# One Trunkline network on this machine. `trunkline up` starts what is listed here.",
        "# Each role has a folder with its own configuration and key beside this file.",
        "",
        f"version = {network.version}",
        "# Random name of this network; its log's origin holds it.",
        f"id = {toml_value(network.id)}",
        "# Where derived model files are kept; a relative path starts here.",
        f"cache = {toml_value(network.cache)}",
        "",
    ]
    for entry in network.roles:
        lines += ["[[roles]]", f"name = {toml_value(entry.name)}"]
        lines += [f"role = {toml_value(entry.role)}", f"listen = {toml_value(entry.listen)}"]
        lines += [f"key = {toml_value(entry.key)}"] if entry.key else []
        lines += [f"operator = {toml_value(entry.operator)}"] if entry.operator else []
        lines += ["embedded = true"] if entry.embedded else []
        lines.append("")
    return "\n".join(lines)
