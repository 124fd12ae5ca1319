"""The witness's configuration: one TOML file, read into frozen structs, unknown keys refused."""

from pathlib import Path
from typing import Final, Literal

import msgspec

from trunkline.base.errors import ConfigError
from trunkline.crypto.keys import (
    CHECKPOINT_SIGNING,
    COSIGNATURE_ED25519,
    COSIGNATURE_ML_DSA_44,
    VerifierKey,
)
from trunkline.runtime.config import load, parse_vkey, toml_value
from trunkline.runtime.metrics import MetricsConfig, render_config

LOGS_MAX = 1000

Algorithm = Literal["ed25519", "ml-dsa-44"]
ALGORITHMS: Final[dict[Algorithm, int]] = {
    "ed25519": COSIGNATURE_ED25519,
    "ml-dsa-44": COSIGNATURE_ML_DSA_44,
}
"""What a witness may cosign with, and the type of its verifier key."""


class WitnessedLog(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key of one log that is witnessed. A log with two keys is listed twice."""

    vkey: str
    """The log's verifier key (C2SP vkey)."""
    origin: str | None = None
    """First line of its checkpoints. Default: the key's name."""


class WitnessConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a witness reads at its start. Paths start at the file's own folder."""

    listen: str = "127.0.0.1:8484"
    """Address, ``host:port``."""
    data: str = "."
    """Folder of the store of what was cosigned. Never restore it from an old copy: the witness
    would contradict itself."""
    name: str
    """The witness's name: that of its key."""
    key_file: str = "key"
    """File with the witness's private key (C2SP ``PRIVATE+KEY+…``), mode 600. Used for nothing
    else: an Ed25519 cosignature does not name its witness."""
    algorithm: Algorithm = "ed25519"
    """What it cosigns with; the key in ``key_file`` must be of this kind. ``ml-dsa-44`` holds
    against quantum computers too; its cosignatures are 2.4 kB."""
    logs: tuple[WitnessedLog, ...] = ()
    """Logs whose checkpoints are cosigned."""
    telemetry: MetricsConfig = MetricsConfig()
    """Metrics (``docs/operate/telemetry.md``)."""
    shutdown_grace_s: float = 5.0
    """What running calls get to finish in when the witness stops."""

    def __post_init__(self) -> None:
        if len(self.logs) > LOGS_MAX:
            raise ValueError(f"at most {LOGS_MAX} logs")
        if self.shutdown_grace_s < 0:
            raise ValueError("shutdown_grace_s can not be negative")


def read(path: Path) -> WitnessConfig:
    """Read a configuration file. Raises :class:`ConfigError` naming the file and the key."""
    return load(path, WitnessConfig)


def known_logs(config: WitnessConfig) -> dict[str, tuple[VerifierKey, ...]]:
    """The trusted keys by origin. Raises :class:`ConfigError`."""
    found: dict[str, tuple[VerifierKey, ...]] = {}
    for log in config.logs:
        key = parse_vkey(log.vkey, "logs.vkey")
        if key.algorithm not in CHECKPOINT_SIGNING:
            raise ConfigError(f"key logs.vkey: {key.name} is not a key that signs checkpoints")
        origin = log.origin or key.name
        if key in found.get(origin, ()):
            raise ConfigError(f"key logs.vkey: {key.name} is listed twice for one origin")
        found[origin] = (*found.get(origin, ()), key)
    return found


def render(config: WitnessConfig) -> str:
    """The configuration as a commented TOML file, every value written out."""
    lines = [
        "# Trunkline witness. Reference: docs/operate/witness.md",
        "",
        f"listen = {toml_value(config.listen)}",
        "# Folder of the store. Never restore it from an old copy: the witness would contradict",
        "# itself.",
        f"data = {toml_value(config.data)}",
        f"name = {toml_value(config.name)}",
        f"key_file = {toml_value(config.key_file)}",
        "# What the key is: ed25519 or ml-dsa-44.",
        f"algorithm = {toml_value(config.algorithm)}",
        "# Seconds that running calls get to finish in when the witness stops.",
        f"shutdown_grace_s = {config.shutdown_grace_s}",
        "",
        *render_config(config.telemetry),
        "",
    ]
    for log in config.logs:
        lines += ["[[logs]]", f"vkey = {toml_value(log.vkey)}"]
        if log.origin is not None:
            lines.append(f"origin = {toml_value(log.origin)}")
        lines.append("")
    return "\n".join(lines)
