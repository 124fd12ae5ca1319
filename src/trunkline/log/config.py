"""The log's configuration: one TOML file, read into frozen structs, unknown keys refused."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.crypto.keys import COSIGNING, ED25519, VerifierKey
from trunkline.log.core.cosigning import Quorum
from trunkline.runtime.config import load, parse_vkey, toml_value
from trunkline.runtime.metrics import MetricsConfig, render_config
from trunkline.tlog.policy import Policy

WITNESSES_MAX = 32
_TILES = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9._~/-]{1,512})?")


class ObjectStoreConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The S3-compatible service that ``tiles`` names a bucket of."""

    endpoint: str
    """Its URL, without the bucket: ``https://s3.eu-central-1.amazonaws.com``."""
    region: str = "us-east-1"
    """As it is signed; stores without regions take any."""
    path_style: bool = False
    """Whether the bucket is in the URL's path, as most stores but AWS want it."""
    key_file: str | None = None
    """File with ``ACCESS_KEY_ID:SECRET_ACCESS_KEY``, and ``:SESSION_TOKEN`` if there is one, mode
    600."""
    key_env: str | None = None
    """Or the environment variable that holds the same."""
    timeout_s: float = 10.0
    """For each phase of a request. Requests that fail for now are tried again for 25 s in all."""

    def __post_init__(self) -> None:
        if (self.key_file is None) == (self.key_env is None):
            raise ValueError("give key_file or key_env, one of them")
        if not 0 < self.timeout_s <= 60:
            raise ValueError("timeout_s must be above 0 and at most 60")


class WitnessConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One witness that is asked for cosignatures."""

    url: str
    """Its submission prefix, ``http://host:port``."""
    vkey: str
    """Its cosigning key (C2SP vkey of type 0x04 or 0x06)."""


ENTRY_TYPES: Final = (
    "trunkline.batch/v1",
    "trunkline.key/v1",
    "trunkline.revocation/v1",
    "trunkline.nonces/v1",
    "trunkline.draw/v1",
    "trunkline.verdict-commitment/v1",
    "trunkline.verdict/v1",
    "trunkline.self-test/v1",
    "trunkline.terms/v1",
    "trunkline.calibration/v1",
    "trunkline.plant-opening/v1",
)
"""All of Trunkline's."""
FORMER_ENTRY_TYPES: Final = (
    frozenset(ENTRY_TYPES) - {"trunkline.terms/v1", "trunkline.plant-opening/v1"},
    frozenset(ENTRY_TYPES) - {"trunkline.plant-opening/v1"},
)
"""What all of them were before: a file that was made then says so still, and means all of them."""


class LogConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a log reads at its start. Paths start at the file's own folder."""

    listen: str = "127.0.0.1:8483"
    """Address, ``host:port``."""
    data: str = "."
    """Folder of the tiles, the published checkpoint and the lock database."""
    tiles: str | None = None
    """``s3://BUCKET/PREFIX``: tiles and published checkpoint are there, not in ``data``."""
    object_store: ObjectStoreConfig | None = None
    """Where that bucket is."""
    origin: str
    """The log's identity: first line of its checkpoints, and the name of its key."""
    key_file: str = "key"
    """File with the log's private key (C2SP ``PRIVATE+KEY+…``), mode 600."""
    witnesses: tuple[WitnessConfig, ...] = ()
    """Asked to cosign every checkpoint that is published."""
    quorum: int | None = None
    """Cosignatures that a published checkpoint waits for. Default: those of all witnesses."""
    policy_file: str | None = None
    """C2SP tlog-policy whose quorum a published checkpoint waits for, instead of ``quorum``. Its
    witnesses are among ``witnesses``, known by their keys."""
    quorum_window_s: float = 10.0
    """How long a checkpoint waits for them before newer ones are published without."""
    entry_types: tuple[str, ...] = ENTRY_TYPES
    """First lines of the notes that are taken as entries. A list of all that there were in an
    earlier version is one of all that there are."""
    submitters: tuple[str, ...] = ()
    """If any are listed: vkeys of which one must have signed an entry."""
    checkpoint_interval_ms: int = 200
    """Shortest time between two sequencing rounds. Entries that arrive meanwhile share one."""
    pending_entries_max: int = 4096
    """Entries waiting to be sequenced; further ones are told to come back (503)."""
    pending_bytes_max: int = 32 * 1024 * 1024
    """The same, in bytes."""
    telemetry: MetricsConfig = MetricsConfig()
    """Metrics (``docs/operate/telemetry.md``)."""
    shutdown_grace_s: float = 10.0
    """What running calls get to finish in when the log stops."""
    minimum_index: int = 0
    """Entries below it are no longer published: tiles and bundles that span only those are refused.
    Nothing is deleted, so it may be lowered again. Never above the published size."""
    crash_points: bool = False
    """For tests alone: let the environment variable TRUNKLINE_CRASH_AT kill the process."""

    @property
    def types_taken(self) -> tuple[str, ...]:
        """``entry_types``, or all of them where those were all once."""
        return ENTRY_TYPES if set(self.entry_types) in FORMER_ENTRY_TYPES else self.entry_types

    def __post_init__(self) -> None:
        if (self.tiles is None) != (self.object_store is None):
            raise ValueError("tiles and object_store are given together")
        if self.tiles is not None and _TILES.fullmatch(self.tiles) is None:
            raise ValueError("tiles must be s3://BUCKET or s3://BUCKET/PREFIX")
        if len(self.witnesses) > WITNESSES_MAX:
            raise ValueError(f"at most {WITNESSES_MAX} witnesses")
        if self.policy_file is not None and self.quorum is not None:
            raise ValueError("quorum and policy_file are two answers to one question: drop one")
        if not 0 <= self.quorum_size <= len(self.witnesses):
            raise ValueError("quorum must be between 0 and the number of witnesses")
        if not self.entry_types or any(not kind or "\n" in kind for kind in self.entry_types):
            raise ValueError("entry_types must name at least one type")
        if not 0 <= self.checkpoint_interval_ms <= 60_000:
            raise ValueError("checkpoint_interval_ms must be between 0 and 60000")
        if not 0 <= self.quorum_window_s <= 3600:
            raise ValueError("quorum_window_s must be between 0 and 3600")
        if min(self.pending_entries_max, self.pending_bytes_max) < 1:
            raise ValueError("a bound must be above 0")
        if self.minimum_index < 0:
            raise ValueError("minimum_index can not be negative")
        if self.shutdown_grace_s < 0:
            raise ValueError("shutdown_grace_s can not be negative")

    @property
    def bucket(self) -> tuple[str, str]:
        """Bucket and prefix out of ``tiles``, which must be given."""
        bucket, _, prefix = (self.tiles or "").removeprefix("s3://").partition("/")
        return bucket, prefix.strip("/")

    @property
    def quorum_size(self) -> int:
        """Cosignatures that are waited for."""
        return len(self.witnesses) if self.quorum is None else self.quorum


def read(path: Path) -> LogConfig:
    """Read a configuration file. Raises :class:`ConfigError` naming the file and the key."""
    return load(path, LogConfig)


def witness_keys(config: LogConfig) -> tuple[VerifierKey, ...]:
    """The witnesses' keys, in order. Raises :class:`ConfigError`."""
    keys = tuple(_key(witness.vkey, COSIGNING, "witnesses.vkey") for witness in config.witnesses)
    # One name may have several keys, as while a witness changes its own: a line says whose it is
    # by name and id.
    public = {key.public for key in keys}
    if len(public) != len(keys) or len({(key.name, key.key_id) for key in keys}) != len(keys):
        raise ConfigError("key witnesses: a witness is listed twice")
    return keys


def policy_quorum(text: str | bytes, keys: Sequence[VerifierKey]) -> Quorum:
    """The quorum of a policy, over the keys (vkeys) of ``witnesses``.

    ConfigError for what is no policy, or if all of ``witnesses`` together do not satisfy it.
    """
    try:
        policy = Policy.parse(text)
    except MalformedError as error:
        raise ConfigError(f"key policy_file: {error.message}") from None
    names = {str(key): one.name for key in keys for one in policy.witnesses if one.key == key}
    if not policy.is_quorum(set(names.values())):
        raise ConfigError("key policy_file: its quorum can not come from the listed witnesses")
    return lambda found: policy.is_quorum({names[one] for one in found if one in names})


def submitter_keys(config: LogConfig) -> tuple[VerifierKey, ...]:
    """The submitters' keys. Raises :class:`ConfigError`."""
    return tuple(_key(vkey, (ED25519,), "submitters") for vkey in config.submitters)


def _key(vkey: str, algorithms: tuple[int, ...], field: str) -> VerifierKey:
    key = parse_vkey(vkey, field)
    if key.algorithm not in algorithms:
        names = " or ".join(f"0x{one:02x}" for one in algorithms)
        raise ConfigError(f"key {field}: {key.name} is not a key of type {names}")
    return key


def render(config: LogConfig) -> str:
    """The configuration as a commented TOML file, every value written out."""
    lines = [
        "# Trunkline log. Reference: docs/operate/log.md",
        "",
        f"listen = {toml_value(config.listen)}",
        "# Folder of the tiles, the checkpoint and the lock database; relative to this file's.",
        f"data = {toml_value(config.data)}",
        *_tiles(config),
        "# The log's identity: first line of its checkpoints, and the name of its key.",
        f"origin = {toml_value(config.origin)}",
        f"key_file = {toml_value(config.key_file)}",
        "# Cosignatures that a published checkpoint waits for, and for how long (seconds).",
        _quorum(config),
        f"quorum_window_s = {config.quorum_window_s}",
        "# First lines of the notes that are taken as entries.",
        f"entry_types = {toml_value(config.entry_types)}",
        "# If any are listed: vkeys of which one must have signed an entry.",
        f"submitters = {toml_value(config.submitters)}",
        "# Shortest time between two sequencing rounds, milliseconds.",
        f"checkpoint_interval_ms = {config.checkpoint_interval_ms}",
        "# Entries and bytes waiting to be sequenced; beyond them, callers are told to come back.",
        f"pending_entries_max = {config.pending_entries_max}",
        f"pending_bytes_max = {config.pending_bytes_max}",
        "# Seconds that running calls get to finish in when the log stops.",
        f"shutdown_grace_s = {config.shutdown_grace_s}",
        "# Entries below it are no longer published (docs/operate/log.md).",
        f"minimum_index = {config.minimum_index}",
        "# For tests alone.",
        f"crash_points = {toml_value(config.crash_points)}",
        "",
        *render_config(config.telemetry),
        "",
        *_object_store(config),
    ]
    for witness in config.witnesses:
        lines += [
            "[[witnesses]]",
            f"url = {toml_value(witness.url)}",
            f"vkey = {toml_value(witness.vkey)}",
            "",
        ]
    return "\n".join(lines)


def _object_store(config: LogConfig) -> list[str]:
    store = config.object_store
    if store is None:
        return []
    key = ("key_file", store.key_file) if store.key_env is None else ("key_env", store.key_env)
    return [
        "# The S3-compatible service that `tiles` names a bucket of.",
        "[object_store]",
        f"endpoint = {toml_value(store.endpoint)}",
        f"region = {toml_value(store.region)}",
        f"path_style = {toml_value(store.path_style)}",
        f"{key[0]} = {toml_value(key[1] or '')}",
        f"timeout_s = {store.timeout_s}",
        "",
    ]


def _tiles(config: LogConfig) -> list[str]:
    if config.tiles is None:
        return []
    return [
        "# Bucket of the tiles and the published checkpoint.",
        f"tiles = {toml_value(config.tiles)}",
    ]


def _quorum(config: LogConfig) -> str:
    if config.policy_file is not None:
        return f"policy_file = {toml_value(config.policy_file)}"
    return f"quorum = {config.quorum_size}"
