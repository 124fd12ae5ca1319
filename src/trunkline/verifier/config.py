"""The verifier's configuration: one TOML file, read into frozen structs, unknown keys refused.

Relative paths start at the file's own folder. Secrets are files, never values.
"""

from pathlib import Path
from typing import Final, Literal

import msgspec

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.crypto.keys import ED25519, VerifierKey
from trunkline.engine.settings import ModelSettings, check_server
from trunkline.runtime.config import check_party, load, parse_vkey, resolve, toml_value
from trunkline.runtime.metrics import MetricsConfig, render_config
from trunkline.tlog.policy import Policy

NODES_MAX: Final = 1024
PEERS_MAX: Final = 64
MODELS_MAX: Final = 16
CANDIDATES_MAX: Final = 1_000_000
PPM: Final = 1_000_000


class AuditedNode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A node whose receipts are drawn."""

    url: str
    """Where it opens them, ``http://host:port``."""
    vkey: str
    """Its key."""
    operator: str
    """Who answers for it."""


class PeerVerifier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another verifier, whose draws are audited here too."""

    url: str
    """Where it is asked, ``http://host:port``."""
    vkey: str
    """Its key."""
    operator: str
    """Who answers for it: opinions are asked of different ones first."""


class CheckedWeights(ModelSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that answers can be replayed with. Loaded with the first audit that needs it."""

    compute: Literal["llama.cpp", "pytorch", "vllm"] = "llama.cpp"
    """``pytorch``: a second opinion by another's kernels, from ``trunkline[torch]``. ``vllm``: a
    vLLM server that holds the file's weights. Neither is ever in the exact regime."""
    server: str | None = None
    """Address of the vLLM server, ``http://host:port``."""
    candidates: int = 1000
    """Likeliest tokens that the vLLM server is asked for at each position: its ``--max-logprobs``
    or fewer. What they leave open is no evidence."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.compute == "vllm") != (self.server is not None):
            raise ValueError('server is the address of compute = "vllm": give both')
        if self.server is not None:
            check_server(self.server)
        if not 1 <= self.candidates <= CANDIDATES_MAX:
            raise ValueError(f"candidates must be between 1 and {CANDIDATES_MAX}")


class VerifierConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a verifier reads at its start."""

    name: str
    """The verifier's name, and the name of its key: ``theta.example/verifier``."""
    operator: str
    """The accountable party's domain."""
    listen: str = "127.0.0.1:8485"
    """Address, ``host:port``."""
    data: str = "."
    """Folder of what it followed, its audits and its verdicts. Several processes may share it."""
    key_file: str = "key"
    """File with the verifier's private key (C2SP ``PRIVATE+KEY+…``), mode 600."""
    policy_file: str = "../policy"
    """C2SP tlog-policy: which log, and whose cosignatures make a checkpoint count."""
    log_url: str
    """The log's address: its entries are read there, and statements go there."""
    rate_ppm: int = 50_000
    """Receipts drawn of a million, of those that say they may be audited."""
    opinions: int = 2
    """Verifiers that check each drawn receipt, the one that drew it included."""
    reveal_after_s: float = 20.0
    """How long a verdict is kept back for another verifier to commit to its own first."""
    poll_s: float = 1.0
    """Time between two looks at the log."""
    opening_s: float = 60.0
    """A node that serves and has not opened a receipt by then withholds it."""
    unreachable_s: float = 3600.0
    """A node that does not answer at all is asked for so long. Then the audit is inconclusive; or
    the receipt is withheld, if the log shows that the node signed for others meanwhile."""
    lease_s: float = 30.0
    """What a process had begun when it died is taken up again after so long."""
    audits_at_once: int = 2
    """Audits in progress in one process. Scoring itself is one after another in each engine."""
    asked_max: int = 8
    """Audits that callers asked for and that wait; further ones are told at once that none came."""
    niceness: int = 10
    """Added to the engines' processes: answers come first on a machine that does both."""
    idle_s: float = 300.0
    """An engine that had nothing to check for so long is stopped, and its memory freed."""
    probe_per_minute: float = 0.02
    """Own questions to each node, which also are what other verifiers are tried with; fifty times
    as many to one that has failed, so that it can win its standing back. 0: none."""
    plant_share: float = 0.5
    """Of these, how many are plants, where there are other verifiers to be tried
    (``docs/spec/verdict.md``, "Plants")."""
    cache: str = "cache"
    """Folder for weights derived from model files; roles on one machine may share it."""
    models: tuple[CheckedWeights, ...] = (CheckedWeights(),)
    """What can be replayed. Receipts of other weights get ``inconclusive``."""
    embeddings: bool = True
    """Check embeddings too, by the embedded embedder (its process starts with the first such
    audit). Without: ``inconclusive``."""
    calibrations: str | None = None
    """Folder with calibrations of the operator's own (``*.json``), beside the shipped ones."""
    nodes: tuple[AuditedNode, ...] = ()
    """Whose receipts are drawn."""
    verifiers: tuple[PeerVerifier, ...] = ()
    """The others."""
    telemetry: MetricsConfig = MetricsConfig()
    """Metrics (``docs/operate/telemetry.md``)."""
    shutdown_grace_s: float = 5.0
    """What running calls get to finish in when the verifier stops."""
    crash_points: bool = False
    """For tests alone: let the environment variable TRUNKLINE_CRASH_AT kill the process."""

    def __post_init__(self) -> None:
        check_party(self.name, self.operator)
        if not 0 <= self.rate_ppm <= PPM:
            raise ValueError("rate_ppm must be between 0 and 1000000")
        if not 1 <= self.opinions <= PEERS_MAX:
            raise ValueError(f"opinions must be between 1 and {PEERS_MAX}")
        for name, value in (
            ("poll_s", self.poll_s),
            ("opening_s", self.opening_s),
            ("unreachable_s", self.unreachable_s),
            ("idle_s", self.idle_s),
            ("lease_s", self.lease_s),
        ):
            if not 0.05 <= value <= 86_400:
                raise ValueError(f"{name} must be between 0.05 and 86400")
        if not 0 <= self.reveal_after_s <= 3600:
            raise ValueError("reveal_after_s must be between 0 and 3600")
        if not 0 <= self.probe_per_minute <= 600:
            raise ValueError("probe_per_minute must be between 0 and 600")
        if not 0 <= self.plant_share <= 1:
            raise ValueError("plant_share must be between 0 and 1")
        if not 1 <= self.audits_at_once <= 64 or not 0 <= self.asked_max <= 1024:
            raise ValueError("audits_at_once is 1 to 64, asked_max 0 to 1024")
        if not 0 <= self.niceness <= 19:
            raise ValueError("niceness must be between 0 and 19")
        if len(self.nodes) > NODES_MAX or len(self.verifiers) > PEERS_MAX:
            raise ValueError(f"at most {NODES_MAX} nodes and {PEERS_MAX} verifiers")
        if len(self.models) > MODELS_MAX:
            raise ValueError(f"at most {MODELS_MAX} models")
        if self.shutdown_grace_s < 0:
            raise ValueError("shutdown_grace_s can not be negative")


def read(path: Path) -> VerifierConfig:
    """Read a configuration file. Raises :class:`ConfigError` naming the file and the key."""
    return load(path, VerifierConfig)


def read_policy(base: Path, config: VerifierConfig) -> Policy:
    """The policy that checkpoints are held against. Raises :class:`ConfigError`."""
    path = resolve(base, config.policy_file)
    try:
        policy = Policy.parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except MalformedError as error:
        raise ConfigError(f"{path}: {error.message}") from None
    if len(policy.logs) != 1:
        raise ConfigError(f"{path}: a verifier follows one log; it names {len(policy.logs)}")
    return policy


def parse_key(vkey: str, field: str) -> VerifierKey:
    """A statement's key in a configuration. Raises :class:`ConfigError`."""
    key = parse_vkey(vkey, field)
    if key.algorithm != ED25519:
        raise ConfigError(f"key {field}: {key.name} is not a plain Ed25519 key")
    return key


def render(config: VerifierConfig) -> str:
    """The configuration as a commented TOML file."""
    folder = config.calibrations
    lines = [
        "# Trunkline verifier. Reference: docs/operate/verifiers.md",
        "",
        "# The verifier's name (and its key's), and the domain of who answers for it.",
        f"name = {toml_value(config.name)}",
        f"operator = {toml_value(config.operator)}",
        f"listen = {toml_value(config.listen)}",
        "# Folder of its store, and the private key's file (mode 600); relative to this file's.",
        f"data = {toml_value(config.data)}",
        f"key_file = {toml_value(config.key_file)}",
        "# Which log, and whose cosignatures make its checkpoints count.",
        f"policy_file = {toml_value(config.policy_file)}",
        f"log_url = {toml_value(config.log_url)}",
        "# Receipts drawn of a million, and how many verifiers check each.",
        f"rate_ppm = {config.rate_ppm}",
        f"opinions = {config.opinions}",
        "# Seconds that a verdict is kept back for another verifier to commit to its own.",
        f"reveal_after_s = {config.reveal_after_s}",
        "# Seconds between two looks at the log.",
        f"poll_s = {config.poll_s}",
        "# Seconds after which a node that serves withholds; and one that is gone, is given up.",
        f"opening_s = {config.opening_s}",
        f"unreachable_s = {config.unreachable_s}",
        "# Seconds after which an audit that a dead process had begun is taken up again.",
        f"lease_s = {config.lease_s}",
        "# Audits at once; those that callers may have waiting; how far behind answers they stand.",
        f"audits_at_once = {config.audits_at_once}",
        f"asked_max = {config.asked_max}",
        f"niceness = {config.niceness}",
        "# Seconds without work after which an engine is stopped, and its memory freed.",
        f"idle_s = {config.idle_s}",
        "# Own questions a minute to each node.",
        f"probe_per_minute = {config.probe_per_minute}",
        "# Of these, how many try the other verifiers unknown to them.",
        f"plant_share = {config.plant_share}",
        "# Folder for weights derived from model files; roles on one machine may share it.",
        f"cache = {toml_value(config.cache)}",
        "# Check embeddings too.",
        f"embeddings = {toml_value(config.embeddings)}",
        *([] if folder is None else [f"calibrations = {toml_value(folder)}"]),
        f"shutdown_grace_s = {config.shutdown_grace_s}",
        "# For tests alone.",
        f"crash_points = {toml_value(config.crash_points)}",
        "",
        *render_config(config.telemetry),
        "",
    ]
    for model in config.models:
        lines += _model(model)
    for heading, entries in (("nodes", config.nodes), ("verifiers", config.verifiers)):
        for entry in entries:
            lines += [
                f"[[{heading}]]",
                f"url = {toml_value(entry.url)}",
                f"vkey = {toml_value(entry.vkey)}",
                f"operator = {toml_value(entry.operator)}",
                "",
            ]
    return "\n".join(lines)


def _model(model: CheckedWeights) -> list[str]:
    path = model.model_path
    return [
        "# A model that answers can be replayed with.",
        "[[models]]",
        "# A GGUF file. Without: the installed model package.",
        '# model_path = "model.gguf"' if path is None else f"model_path = {toml_value(path)}",
        *([] if model.model is None else [f"model = {toml_value(model.model)}"]),
        f"weights = {toml_value(model.weights)}",
        f"compute = {toml_value(model.compute)}",
        *([] if model.server is None else [f"server = {toml_value(model.server)}"]),
        *([] if model.server is None else [f"candidates = {model.candidates}"]),
        f"context_tokens = {model.context_tokens}",
        f"threads = {model.threads}",
        "",
    ]
