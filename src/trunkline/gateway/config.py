"""The gateway's configuration: one TOML file, read into frozen structs, unknown keys refused.

It holds no secret: nodes are pinned by their public keys, and apps' virtual keys are known by their
hashes alone, in a store of their own. It refuses to let callers from other machines in unasked.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.core.pins import Pin
from trunkline.gateway.keys import KeyUse
from trunkline.runtime.config import load, toml_value
from trunkline.runtime.metrics import render_config
from trunkline.runtime.otlp_export import TelemetryConfig
from trunkline.runtime.server import is_loopback
from trunkline.tlog.policy import Policy

PEERS_MAX = 64


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node that calls may be sent to."""

    url: str
    """Where it listens, ``http://host:port``."""
    vkey: str = ""
    """Its verifier key (C2SP vkey). A node that shows another key is not used, unless its operator
    states that one. Empty: any key counts that its operator states."""
    operator_vkey: str = ""
    """Its operator's key (``docs/operate/operator-keys.md``). Empty: no statement counts."""
    name: str = ""
    """The node's name, and that of its key. Needed only where there is no ``vkey``."""

    @property
    def pin(self) -> Pin:
        """What counts as this node. Raises :class:`ConfigError`."""
        return Pin.of(
            url=self.url, vkey=self.vkey, operator_vkey=self.operator_vkey, name=self.name
        )


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a gateway reads at its start. Paths start at the file's own folder."""

    listen: str = "127.0.0.1:8480"
    """Address for apps, ``host:port``. Beyond loopback ``keys`` must be required."""
    keys: KeyUse = "off"
    """Whether callers need a virtual key (``docs/operate/keys.md``): ``off``, ``optional`` or
    ``required``. Off: whatever they send as a key is neither looked at nor kept."""
    anonymous_beyond_loopback: bool = False
    """Let callers from other machines in without a key. Only where something else keeps strangers
    out."""
    data: str = "."
    """Folder of the evidence store. ``trunkline init`` creates it."""
    policy_file: str
    """Which log and which witnesses make an answer final (C2SP tlog-policy)."""
    log_url: str
    """Where that log is reached."""
    peers: tuple[str, ...] = ()
    """Other gateways, by base URL, to compare the log's checkpoints with (``docs/operate/log.md``).
    They need not be trusted."""
    gossip_s: float = 60.0
    """Between two rounds of comparing with peers and with the policy's witnesses. 0: only when
    asked."""
    nodes: tuple[NodeConfig, ...]
    """Nodes to route to. Two or more operators, or losing one is losing the answer."""
    routing_file: str | None = None
    """What may serve which model, and at what price (``docs/operate/routing.md``). None: every
    model is served by itself, on any node. Read again when it changes."""
    timeouts: Timeouts = Timeouts()
    """How long each stage of an answer may take."""
    attempts_max: int = 6
    """Attempts in a row without a new token before an answer is given up."""
    keep_bodies: bool = False
    """Store requests and answers beside their evidence, on this disk. Apps can ask per call."""
    poll_s: float = 2.0
    """Between two looks at a node's state."""
    body_bytes_max: int = 24 * 1024 * 1024
    """Largest request body."""
    bodies_bytes_max: int = 512 * 1024 * 1024
    """What the bodies of all calls in progress may take in memory; further ones are shed unread."""
    answers_running_max: int = 1024
    """Answers in progress at nodes; further calls are told to come back."""
    queue_max: int = 4096
    """Calls that may wait for a node; beyond, whoever fills the queue is told to come back."""
    queue_bytes_max: int = 256 * 1024 * 1024
    """What the bodies of waiting calls may take in memory."""
    limits_file: str | None = None
    """Where the gateways of one machine that use the same nodes keep limits together
    (``docs/operate/limits.md``): the same file for all. It may be lost. None: this one is alone."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """Metrics, and what is sent to OpenTelemetry (``docs/operate/telemetry.md``)."""
    replays_keep_s: float = 86_400.0
    """How long an answer is kept on disk for whoever repeats a request with its
    ``Idempotency-Key``."""
    replays_bytes_max: int = 256 * 1024 * 1024
    """What such answers may take; beyond, the oldest go."""
    replays_linger_s: float = 10.0
    """How long such an answer is worked on for a caller that is gone and may come back."""
    shutdown_grace_s: float = 10.0
    """What running answers get to finish in when the gateway stops."""

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ValueError("at least one node is needed")
        if len({(node.vkey, node.name) for node in self.nodes}) != len(self.nodes):
            raise ValueError("a node is listed twice")
        open_door = self.keys != "required" and not self.anonymous_beyond_loopback
        if open_door and not is_loopback(self.listen):
            raise ValueError(
                f'listen = "{self.listen}" lets other machines in, and nobody asks who they are: '
                'set keys = "required", or anonymous_beyond_loopback = true if that is meant'
            )
        if len(self.peers) > PEERS_MAX or not 0 <= self.gossip_s <= 86_400:
            raise ValueError(f"at most {PEERS_MAX} peers, and gossip_s between 0 and 86400")
        if not 0.05 <= self.poll_s <= 3600:
            raise ValueError("poll_s must be between 0.05 and 3600")
        bounds = (self.attempts_max, self.body_bytes_max, self.answers_running_max)
        if min(*bounds, self.queue_max, self.queue_bytes_max, self.replays_bytes_max) < 1:
            raise ValueError("a bound must be above 0")
        if self.bodies_bytes_max < self.body_bytes_max:
            raise ValueError("bodies_bytes_max can not be less than body_bytes_max")
        if self.replays_keep_s < 1:
            raise ValueError("replays_keep_s must be at least 1")
        if min(self.shutdown_grace_s, self.replays_linger_s) < 0:
            raise ValueError("a grace can not be negative")


def read(path: Path) -> GatewayConfig:
    """Read a configuration file. Raises :class:`ConfigError` naming the file and the key."""
    return load(path, GatewayConfig)


def read_policy(path: Path) -> str:
    """The policy file's text, shown to parse. Raises :class:`ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
        Policy.parse(text)
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"{path}: not readable; `trunkline init` writes it") from None
    except MalformedError as error:
        raise ConfigError(f"{path}: {error.message}") from None
    return text


def render(config: GatewayConfig) -> str:
    """The configuration as a commented TOML file, every value written out."""
    lines = [
        "# Trunkline gateway. Reference: docs/operate/gateway.md",
        "",
        '# Address for apps. Beyond loopback `keys` must be "required".',
        f"listen = {toml_value(config.listen)}",
        "# Whether callers need a virtual key, made by `trunkline keys create`: off, optional, "
        "required.",
        f"keys = {toml_value(config.keys)}",
        "# Let callers from other machines in without one.",
        f"anonymous_beyond_loopback = {toml_value(config.anonymous_beyond_loopback)}",
        "# Folder of the evidence store; a relative path starts at this file's folder.",
        f"data = {toml_value(config.data)}",
        "# Which log and which witnesses make an answer final (C2SP tlog-policy).",
        f"policy_file = {toml_value(config.policy_file)}",
        f"log_url = {toml_value(config.log_url)}",
        "# Other gateways to compare the log's checkpoints with, and how often, seconds.",
        f"peers = {toml_value(config.peers)}",
        f"gossip_s = {config.gossip_s}",
        "# What may serve which model, and at what price; read again when it changes.",
        '# routing_file = "routing.toml"'
        if config.routing_file is None
        else f"routing_file = {toml_value(config.routing_file)}",
        "# Attempts in a row without a new token before an answer is given up.",
        f"attempts_max = {config.attempts_max}",
        "# Store requests and answers beside their evidence, on this disk.",
        f"keep_bodies = {toml_value(config.keep_bodies)}",
        "# Seconds between two looks at a node's state.",
        f"poll_s = {config.poll_s}",
        f"body_bytes_max = {config.body_bytes_max}",
        "# What the bodies of all calls in progress may take in memory.",
        f"bodies_bytes_max = {config.bodies_bytes_max}",
        "# Answers in progress; further calls are told to come back.",
        f"answers_running_max = {config.answers_running_max}",
        "# Calls that may wait for a node, and what their bodies may take in memory.",
        f"queue_max = {config.queue_max}",
        f"queue_bytes_max = {config.queue_bytes_max}",
        "# One file for all gateways of this machine that use the same nodes.",
        '# limits_file = "../limits.db"'
        if config.limits_file is None
        else f"limits_file = {toml_value(config.limits_file)}",
        "# How long answers to requests with an Idempotency-Key are kept, seconds and bytes.",
        f"replays_keep_s = {config.replays_keep_s}",
        f"replays_bytes_max = {config.replays_bytes_max}",
        "# Seconds that such an answer goes on for a caller that is gone.",
        f"replays_linger_s = {config.replays_linger_s}",
        "# Seconds that running answers get to finish in when the gateway stops.",
        f"shutdown_grace_s = {config.shutdown_grace_s}",
        "",
        *_timeouts(config.timeouts),
        *_telemetry(config.telemetry),
        *_nodes(config.nodes),
    ]
    return "\n".join(lines)


def _timeouts(timeouts: Timeouts) -> list[str]:
    said = {
        "connect_s": "to open a connection to a node",
        "head_s": "from the request sent to the node's response headers",
        "first_event_s": "from an attempt's start to the node's `accepted`, its queue included",
        "first_token_s": "from `accepted` to the first token",
        "whole_s": "from `accepted` to a provider's whole (not streamed) answer",
        "idle_s": "between two events once tokens flow",
        "away_s": "where nobody is there at all: until somebody is back, 0 for not at all",
        "total_s": "a whole answer, every attempt included",
    }
    lines = ["# Bounds of the stages of an answer, seconds.", "[timeouts]"]
    for name, comment in said.items():
        lines += [f"# {comment}", f"{name} = {getattr(timeouts, name)}"]
    return [*lines, ""]


def _telemetry(telemetry: TelemetryConfig) -> list[str]:
    endpoint, headers = telemetry.otlp_endpoint, telemetry.otlp_headers_file
    return [
        *render_config(telemetry),
        "# An OpenTelemetry receiver (OTLP/HTTP with JSON); nothing is sent without one.",
        '# otlp_endpoint = "http://127.0.0.1:4318"'
        if endpoint is None
        else f"otlp_endpoint = {toml_value(endpoint)}",
        "# Secret file of `name: value` lines that it asks for, mode 600.",
        '# otlp_headers_file = "otlp_headers"'
        if headers is None
        else f"otlp_headers_file = {toml_value(headers)}",
        "# Seconds between two exports of the metrics.",
        f"otlp_interval_s = {telemetry.otlp_interval_s}",
        "# Share of the answers that are traced, where the app does not say.",
        f"otlp_sample = {telemetry.otlp_sample}",
        "# Take what is not given here from the environment's OTEL_* variables.",
        f"otel_environment = {toml_value(telemetry.otel_environment)}",
        "# Tell nodes the trace.",
        f"pass_trace = {toml_value(telemetry.pass_trace)}",
        "",
    ]


def _nodes(nodes: Sequence[NodeConfig]) -> list[str]:
    lines: list[str] = []
    for node in nodes:
        pins = (("vkey", node.vkey), ("operator_vkey", node.operator_vkey), ("name", node.name))
        given = [f"{name} = {toml_value(value)}" for name, value in pins if value]
        lines += ["[[nodes]]", f"url = {toml_value(node.url)}", *given, ""]
    return lines
