"""The node's metrics, under OpenTelemetry's GenAI conventions (status Development; as of semantic
conventions 1.41.0), else ``trunkline.node.*``. Listed in ``docs/operate/telemetry.md``.

A model is a label only if it is served here; others are ``other``.
"""

from typing import Final

from trunkline.node.config import EmbeddedEngine, NodeConfig
from trunkline.node.config_providers import (
    AnthropicEngine,
    AzureEngine,
    BedrockEngine,
    GeminiEngine,
    OpenAIEngine,
)
from trunkline.node.core.statement import Outcome
from trunkline.runtime.metrics import OTHER, Metrics
from trunkline.schema.attempt import Kind

DURATION_S: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
FIRST_TOKEN_S: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
PER_TOKEN_S: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
"""All as the conventions have them."""

OWN: Final = "trunkline"
_PRESETS: Final = {
    "deepseek": "deepseek", "groq": "groq", "mistral": "mistral_ai", "openai": "openai",
    "xai": "x_ai",
}  # fmt: skip


def provider_name(config: NodeConfig) -> str:
    """The conventions' name of who runs the model; ``trunkline`` where that is the node itself,
    and ``openai_compatible`` where an upstream only speaks OpenAI's format."""
    match config.engine:
        case EmbeddedEngine():
            return OWN
        case AnthropicEngine():
            return "anthropic"
        case GeminiEngine():
            return "gcp.gemini"
        case AzureEngine():
            return "azure.ai.openai"
        case BedrockEngine():
            return "aws.bedrock"
        case OpenAIEngine(preset=preset):
            return _PRESETS.get(preset or "", "openai_compatible")


class NodeTelemetry:
    """The node's instruments."""

    def __init__(self, metrics: Metrics, provider: str = OWN) -> None:
        self._provider = provider
        ai = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
        self._duration = metrics.histogram(
            "gen_ai.server.request.duration", "s", "Time of an attempt, from arrival to end",
            DURATION_S, *ai, "error.type",
        )  # fmt: skip
        self._first_token = metrics.histogram(
            "gen_ai.server.time_to_first_token", "s",
            "Time to the first token of an attempt that ended well", FIRST_TOKEN_S, *ai,
        )  # fmt: skip
        self._per_token = metrics.histogram(
            "gen_ai.server.time_per_output_token", "s",
            "Time of each token after the first, of an attempt that ended well", PER_TOKEN_S, *ai,
        )  # fmt: skip
        self._tokens = metrics.counter(
            "trunkline.node.tokens", "{token}", "Tokens that receipts state",
            "gen_ai.request.model", "gen_ai.token.type",
        )  # fmt: skip

    def ended(self, kind: Kind | None, model: str | None, error: str, seconds: float) -> None:
        """An attempt is over. ``kind``: None if it could not be read; ``model``: None if it is not
        served here; ``error``: empty if it went well."""
        about = (kind or OTHER, self._provider, model or OTHER)
        self._duration.record(max(seconds, 0.0), *about, error)

    def answered(
        self, kind: Kind, model: str, outcome: Outcome, first_ms: int, rest_ms: int
    ) -> None:
        """It has a receipt. ``first_ms``: to its first token; ``rest_ms``: from there to its
        last. Times of an answer that was kept say nothing of the model."""
        usage = outcome.usage
        self._tokens.add(model, "input", by=usage.prompt)
        self._tokens.add(model, "output", by=usage.completion)
        if outcome.cached is not None:
            return
        about = (kind, self._provider, model)
        self._first_token.record(max(first_ms, 0) / 1000, *about)
        if usage.completion > 1:
            self._per_token.record(max(rest_ms, 0) / 1000 / (usage.completion - 1), *about)


class NodeGauges:
    """What is so now in a node."""

    def __init__(self, metrics: Metrics) -> None:
        self._ready = metrics.gauge("trunkline.node.ready", "1", "Whether attempts are taken")
        self._running = metrics.gauge(
            "trunkline.node.attempts.running", "{attempt}", "Attempts that hold a place"
        )
        self._queued = metrics.gauge(
            "trunkline.node.attempts.queued", "{attempt}", "Attempts that wait for a place"
        )
        self._unlogged = metrics.gauge(
            "trunkline.node.batches.unlogged", "{batch}",
            "Batches of receipts that are signed and not yet with the log",
        )  # fmt: skip

        self._kept = metrics.gauge(
            "trunkline.node.openings.kept", "By", "What is kept to open receipts with"
        )
        self._dropped = metrics.counter(
            "trunkline.node.openings.dropped", "{opening}",
            "Openings deleted before their time because the space was wanted",
        )  # fmt: skip
        self._dropped_before = 0

    def openings(self, kept_bytes: int, dropped: int) -> None:
        """What is kept now, and how many were dropped since the process began."""
        self._kept.set(kept_bytes)
        self._dropped.add(by=dropped - self._dropped_before)
        self._dropped_before = dropped

    def look(self, *, ready: bool, running: int, queued: int, unlogged: int) -> None:
        """Set them."""
        self._ready.set(ready)
        self._running.set(running)
        self._queued.set(queued)
        self._unlogged.set(unlogged)
