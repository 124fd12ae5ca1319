"""What the gateway says of itself: counters since its start, and its nodes as it sees them."""

import msgspec

from trunkline.gateway.core.breaker import Fault, State
from trunkline.gateway.core.load import QueueLoad
from trunkline.gateway.directory import Directory, Node
from trunkline.gateway.health import Health
from trunkline.gateway.routing import RoutingStatus
from trunkline.gateway.sightings import LogSighting
from trunkline.gateway.store import Counts
from trunkline.gateway.verification import Verdicts, VerifierStatus
from trunkline.schema.attempt import Kind


class Counters:
    """Plain counts since the process started. One loop, so no locks."""

    __slots__ = ("client_gone", "failed", "running", "succeeded", "survived", "taken")

    def __init__(self) -> None:
        self.taken = 0
        self.running = 0
        self.succeeded = 0
        self.survived = 0
        """Of those: answers that were whole although an attempt had failed."""
        self.failed = 0
        self.client_gone = 0


class AnswerCounts(msgspec.Struct, frozen=True, kw_only=True):
    taken: int
    running: int
    succeeded: int
    survived: int
    failed: int
    client_gone: int


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: Kind
    weights: str | None
    numerics: str | None
    breaker: State
    fault: Fault | None
    """Why its breaker is not closed, or what failed last."""
    error: str
    """Stable code of that failure; empty: none since its last success."""
    failures: int
    """In a row."""
    resting_ms: int
    """Until it may be asked again; 0: now."""
    share_percent: int
    """Of the calls that it is fit for: below 100 for a while after it has come back."""
    running: int
    first_token_ms: int | None
    """Running mean."""
    gap_limit_ms: int | None
    """Silence in its streams after which it is left, as learnt; None: as configured."""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    node: str
    operator: str | None
    url: str
    reachable: bool
    ready: bool
    error: str
    running: int
    queued: int
    models: tuple[ModelStatus, ...]


class StandingRow(msgspec.Struct, frozen=True, kw_only=True):
    """A model at a node that verdicts stand against."""

    node: str
    model: str
    standing: str
    """``demoted`` or ``quarantined``."""
    why: str
    by: tuple[str, ...]
    """Key names of the verifiers that say so."""
    verdicts: tuple[str, ...]
    """SHA-256 (hex) of their signed verdicts."""
    said_ms: int
    """When the newest of them was signed."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /trunkline/v1/status``."""

    answers: AnswerCounts
    evidence: Counts
    log_reachable: bool
    logs: tuple[LogSighting, ...]
    """The logs of the policy, and whether they are still trusted."""
    routing: RoutingStatus
    queue: QueueLoad
    nodes: tuple[NodeStatus, ...]
    keys_problem: str = ""
    """Why what is known of the virtual keys may be wrong; empty: it is not."""
    verifiers: tuple[VerifierStatus, ...] = ()
    """Whose verdicts count here."""
    standings: tuple[StandingRow, ...] = ()
    """What they came to, where anything stands against a node."""


def rows(verdicts: Verdicts) -> tuple[StandingRow, ...]:
    """Everything that stands now, by node and model."""
    return tuple(
        StandingRow(
            node=node,
            model=model,
            standing=found.level.word,
            why=found.why,
            by=found.by,
            verdicts=found.verdicts,
            said_ms=found.said_ms,
        )
        for (node, model), found in sorted(verdicts.standings().items())
    )


def snapshot(
    counters: Counters,
    evidence: Counts,
    directory: Directory,
    health: Health,
    *,
    log_reachable: bool,
    routing: RoutingStatus,
    queue: QueueLoad,
    verdicts: Verdicts,
    keys_problem: str,
    logs: tuple[LogSighting, ...] = (),
) -> Status:
    """The status now."""
    return Status(
        answers=AnswerCounts(
            taken=counters.taken,
            running=counters.running,
            succeeded=counters.succeeded,
            survived=counters.survived,
            failed=counters.failed,
            client_gone=counters.client_gone,
        ),
        evidence=evidence,
        log_reachable=log_reachable,
        logs=logs,
        routing=routing,
        queue=queue,
        nodes=tuple(_node(node, health) for node in directory.nodes),
        keys_problem=keys_problem,
        verifiers=verdicts.status(),
        standings=rows(verdicts),
    )


def _node(node: Node, health: Health) -> NodeStatus:
    info = node.info
    return NodeStatus(
        node=node.name,
        operator=None if info is None else info.operator,
        url=node.url,
        reachable=node.reachable,
        ready=info is not None and info.ready and node.reachable,
        error=node.error,
        running=0 if info is None else info.running,
        queued=0 if info is None else info.queued,
        models=() if info is None else tuple(
            _model(node.name, served.name, served.kind, served.weights, served.numerics, health)
            for served in info.models
        ),
    )  # fmt: skip


def _model(
    node: str, name: str, kind: Kind, weights: str | None, numerics: str | None, health: Health
) -> ModelStatus:
    known = health.of(node, name, exact=numerics is not None)
    first_s, gap_s = known.first_token_s, known.limits.gap_s
    return ModelStatus(
        name=name,
        kind=kind,
        weights=weights,
        numerics=numerics,
        breaker=known.state,
        fault=known.fault,
        error=known.error,
        failures=known.failures,
        resting_ms=round(known.left_s * 1000),
        share_percent=max(round(known.share * 100), 1),
        running=known.running,
        first_token_ms=None if first_s is None else round(first_s * 1000),
        gap_limit_ms=None if gap_s is None else round(gap_s * 1000),
    )
