"""The node's configuration: one TOML file, read into frozen structs, unknown keys refused.

Relative paths start at the file's own folder. Secrets are files, never values.
"""

from pathlib import Path
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError
from trunkline.crypto.keys import ED25519, VerifierKey
from trunkline.engine.settings import ModelSettings, check_server
from trunkline.node import config_providers
from trunkline.node.config_providers import ProviderEngine
from trunkline.runtime.config import check_party, load, parse_vkey, toml_value
from trunkline.runtime.metrics import MetricsConfig, render_config
from trunkline.schema.attempt import Kind

PLACES_MAX: Final = 10_000
VERIFIERS_MAX: Final = 64
PLANTS_PER_DAY_MAX: Final = 10_000


class LogTarget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The transparency log that the node submits its batches to."""

    url: str
    """Its submission prefix, ``http://host:port``."""
    vkey: str
    """Its key (C2SP vkey); the key's name is the log's origin."""


class EmbeddedEngine(
    ModelSettings,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="embedded",
):
    """The engine in the node's own child process."""

    cache: str = "cache"
    """Folder for weights derived from the model; nodes on one machine may share it."""
    sequences: int = 8
    """Answers generated at once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        most = self.sequences_max()
        if not 1 <= self.sequences <= most:
            raise ValueError(f"sequences must be between 1 and {most}")

    @staticmethod
    def sequences_max() -> int:
        return 64


class VllmEngine(EmbeddedEngine, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="vllm"):
    """A vLLM server with the project's logits processor, on a GPU or elsewhere
    (``docs/operate/node.md``). ``model_path`` is the same model's file: its tokeniser, its template
    and the digest that receipts name. ``threads`` has no meaning here."""

    server: str
    """Address of the server, ``http://host:port``. Nobody else should reach it."""
    sequences: int = 64
    """Answers asked for at once; the server's ``--max-num-seqs``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_server(self.server)

    @staticmethod
    def sequences_max() -> int:
        return 1024


class CacheConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[cache]``: answers kept in memory for those who ask the very same again."""

    keep_s: float = 3600.0
    """For how long after it was made an answer is given again."""
    bytes_max: int = 64 * 1024 * 1024
    """Memory for them, about; those used longest ago go first. One takes at most a quarter."""
    kinds: tuple[Kind, ...] = ("chat", "embeddings")
    """Of which calls."""

    def __post_init__(self) -> None:
        if not 0 < self.keep_s <= 30 * 86_400:
            raise ValueError("cache.keep_s must be above 0 and at most 30 days")
        if not 2**16 <= self.bytes_max <= 2**40:
            raise ValueError("cache.bytes_max must be between 65536 and 2^40")


class AuditVerifier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A verifier that the node opens receipts to."""

    vkey: str
    """Its key (C2SP vkey)."""


class AuditsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[audits]``: what is kept for verifiers, and who they are (``docs/spec/audit.md``)."""

    verifiers: tuple[AuditVerifier, ...]
    """Who may ask; each may ask for what itself or another of them has drawn."""
    keep_s: float = 3600.0
    """For how long what opens a receipt is kept; then it is overwritten."""
    bytes_max: int = 256 * 1024 * 1024
    """Disk for it. Beyond, the oldest goes first, and the node can not be audited on it."""
    rate_max: float = 0.1
    """Largest share of the receipts that one verifier may draw."""
    demands_per_s: float = 10.0
    """Demands that one verifier may make, as many again at once."""
    plants_per_day: int = 0
    """Wrong answers, to itself alone, that one verifier may have in 24 hours to try the others with
    (``docs/spec/verdict.md``, "Plants"); ``trunkline init`` writes 24. 0: none. All verifiers that
    audit the node have to know of plants, or what they find is held against it."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.verifiers) <= VERIFIERS_MAX:
            raise ValueError(f"audits.verifiers must name between 1 and {VERIFIERS_MAX}")
        if not 1 <= self.keep_s <= 30 * 86_400:
            raise ValueError("audits.keep_s must be between 1 and 30 days")
        if not 2**16 <= self.bytes_max <= 2**40:
            raise ValueError("audits.bytes_max must be between 65536 and 2^40")
        if not 0 <= self.rate_max <= 1:
            raise ValueError("audits.rate_max must be between 0 and 1")
        if not 0 < self.demands_per_s <= 1000:
            raise ValueError("audits.demands_per_s must be above 0 and at most 1000")
        if not 0 <= self.plants_per_day <= PLANTS_PER_DAY_MAX:
            raise ValueError(f"audits.plants_per_day must be between 0 and {PLANTS_PER_DAY_MAX}")


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a node reads at its start."""

    name: str
    """The node's name, and the name of its key: ``alpha.example/node``."""
    operator: str
    """The accountable party's domain."""
    listen: str = "127.0.0.1:8481"
    """Address, ``host:port``. Whoever reaches it can use the node."""
    data: str = "."
    """Folder of the receipts."""
    key_file: str = "key"
    """File with the node's private key (C2SP ``PRIVATE+KEY+…``), mode 600."""
    operator_file: str | None = None
    """The operator's public file (``docs/operate/operator-keys.md``): what it says of this node's
    keys is shown to whoever asks. Read again when it changes. None: nothing is shown."""
    log: LogTarget | None = None
    """Absent: receipts are signed and kept, and no log hears of them."""
    engine: EmbeddedEngine | VllmEngine | ProviderEngine = EmbeddedEngine()
    """What answers."""
    embeddings: bool = True
    """Serve embeddings by the embedded model (its process starts with the first call)."""
    queue_max: int = 64
    """Attempts that may wait for a place; further ones are told to come back (503)."""
    cache: CacheConfig | None = None
    """Absent: no answer is given twice."""
    audits: AuditsConfig | None = None
    """Absent: nothing is kept for verifiers, and nothing opened to them. Takes a ``log``."""
    telemetry: MetricsConfig = MetricsConfig()
    """Metrics (``docs/operate/telemetry.md``)."""
    shutdown_grace_s: float = 10.0
    """What running attempts get to finish in when the node stops."""
    crash_points: bool = False
    """For tests alone: let the environment variable TRUNKLINE_CRASH_AT kill the process."""

    def __post_init__(self) -> None:
        check_party(self.name, self.operator)
        if not 0 <= self.queue_max <= PLACES_MAX:
            raise ValueError(f"queue_max must be between 0 and {PLACES_MAX}")
        if self.audits is not None and self.log is None:
            raise ValueError("audits take a log: what may be opened is drawn from its entries")
        if self.shutdown_grace_s < 0:
            raise ValueError("shutdown_grace_s can not be negative")


def read(path: Path) -> NodeConfig:
    """Read a configuration file. Raises :class:`ConfigError` naming the file and the key."""
    return load(path, NodeConfig)


def log_key(target: LogTarget) -> VerifierKey:
    """The log's key. Raises :class:`ConfigError`."""
    return parse_vkey(target.vkey, "log.vkey")


def verifier_keys(audits: AuditsConfig) -> tuple[VerifierKey, ...]:
    """The verifiers' keys. Raises :class:`ConfigError`."""
    field = "audits.verifiers.vkey"
    keys = tuple(parse_vkey(verifier.vkey, field) for verifier in audits.verifiers)
    if any(key.algorithm != ED25519 for key in keys):
        raise ConfigError(f"key {field}: a verifier signs with a plain Ed25519 key")
    return keys


def render(config: NodeConfig) -> str:
    """The configuration as a commented TOML file."""
    lines = [
        "# Trunkline node. Reference: docs/operate/node.md",
        "",
        "# The node's name (and its key's), and the domain of who answers for it.",
        f"name = {toml_value(config.name)}",
        f"operator = {toml_value(config.operator)}",
        "# Whoever reaches this address can use the node.",
        f"listen = {toml_value(config.listen)}",
        "# Folder of the receipts, and the private key's file (mode 600); relative to this file's.",
        f"data = {toml_value(config.data)}",
        f"key_file = {toml_value(config.key_file)}",
        "# What its operator says of its keys, shown to whoever asks; read again when it changes.",
        '# operator_file = "../operators/alpha.json"'
        if config.operator_file is None
        else f"operator_file = {toml_value(config.operator_file)}",
        "# Serve embeddings by the embedded model.",
        f"embeddings = {toml_value(config.embeddings)}",
        "# Attempts that may wait for a place; further ones are told to come back.",
        f"queue_max = {config.queue_max}",
        "# Seconds that running attempts get to finish in when the node stops.",
        f"shutdown_grace_s = {config.shutdown_grace_s}",
        "",
        *render_config(config.telemetry),
        "",
    ]
    if config.log is not None:
        lines += [
            "# The transparency log that gets the node's batches.",
            "[log]",
            f"url = {toml_value(config.log.url)}",
            f"vkey = {toml_value(config.log.vkey)}",
            "",
        ]
    if config.cache is not None:
        lines += [
            "# Answers kept in memory for calls that ask for the cache.",
            "[cache]",
            f"keep_s = {config.cache.keep_s}",
            f"bytes_max = {config.cache.bytes_max}",
            f"kinds = {toml_value(config.cache.kinds)}",
            "",
        ]
    if config.audits is not None:
        lines += _audits(config.audits)
    match config.engine:
        case EmbeddedEngine():
            lines += _embedded(config.engine)
        case _:
            lines += config_providers.render(config.engine)
    return "\n".join(lines)


def _audits(audits: AuditsConfig) -> list[str]:
    lines = [
        "# What opens receipts to verifiers: for how long it is kept and in how much space; the",
        "# largest share that a verifier may draw; how often it may ask.",
        "[audits]",
        f"keep_s = {audits.keep_s}",
        f"bytes_max = {audits.bytes_max}",
        f"rate_max = {audits.rate_max}",
        f"demands_per_s = {audits.demands_per_s}",
        "# Wrong answers, to itself alone, that one may have in a day to try the others with.",
        f"plants_per_day = {audits.plants_per_day}",
    ]
    for verifier in audits.verifiers:
        lines += ["[[audits.verifiers]]", f"vkey = {toml_value(verifier.vkey)}"]
    return [*lines, ""]


def _embedded(engine: EmbeddedEngine) -> list[str]:
    path = engine.model_path
    if isinstance(engine, VllmEngine):
        kind = [
            "# A vLLM server that chooses tokens by the project's rule.",
            "[engine]",
            'kind = "vllm"',
            f"server = {toml_value(engine.server)}",
        ]
    else:
        kind = [
            "# The engine in the node's own child process.",
            "[engine]",
            'kind = "embedded"',
        ]
    return [
        *kind,
        "# A GGUF file. Without: the installed model package.",
        '# model_path = "model.gguf"' if path is None else f"model_path = {toml_value(path)}",
        "# The name to serve that file by. Without: its own, less the ending.",
        *([] if engine.model is None else [f"model = {toml_value(engine.model)}"]),
        "# Folder for weights derived from it; nodes on one machine may share it.",
        f"cache = {toml_value(engine.cache)}",
        "# f16: best answers. as_shipped: a lone answer twice as fast.",
        f"weights = {toml_value(engine.weights)}",
        "# Answers at once; longest prompt plus answer in tokens (23 kB each); threads.",
        f"sequences = {engine.sequences}",
        f"context_tokens = {engine.context_tokens}",
        f"threads = {engine.threads}",
        "",
    ]
