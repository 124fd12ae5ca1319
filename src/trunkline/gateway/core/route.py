"""The route: which deployment an attempt goes to, given what is known of the nodes.

A model is asked for by name and never replaced by another. Once text of an answer has reached the
app, only a node with the same model, the same weights and the same ``numerics`` may take over: it
alone produces the very tokens that the first would have produced (design §6, exact continuation).
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from trunkline.crypto.keys import VerifierKey
from trunkline.gateway.core.breaker import Admission
from trunkline.schema.attempt import Kind

LATENCY_S_DEFAULT: Final = 0.5
"""First-token latency assumed where none has been measured anywhere."""
EWMA_WEIGHT: Final = 0.2


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """One routable (node, model), with what is known of it at the moment of choosing."""

    node: str
    """The node's key name."""
    operator: str
    url: str
    key: VerifierKey
    """The pinned key that the node's receipts must be signed by."""
    model: str
    kind: Kind
    weights: str | None = None
    numerics: str | None = None
    ready: bool = True
    load: int = 0
    """Attempts running and queued there, by the node's word or our own count if higher."""
    first_token_s: float | None = None
    """EWMA of the time to its first token; None: not measured yet."""
    admission: Admission = Admission.FREE


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What the next attempt at an answer asks of a deployment."""

    model: str
    kind: Kind
    exact: bool = False
    """Text has reached the app: ``weights`` and ``numerics`` must match."""
    weights: str | None = None
    numerics: str | None = None
    """Without ``exact``: preferred, since tokens already produced can then be kept."""
    tried: tuple[str, ...] = ()
    """Nodes of this answer's attempts so far, one entry per attempt."""
    banned: frozenset[str] = frozenset()
    """Nodes that must not be asked again for this answer."""
    resting: frozenset[str] = frozenset()
    """Nodes that asked this answer to stay away for long: even an unhealthy one comes before."""


def serves(deployment: Deployment, need: Need) -> bool:
    """Whether the deployment may take the attempt at all."""
    if (deployment.model, deployment.kind) != (need.model, need.kind):
        return False
    if deployment.node in need.banned:
        return False
    return not need.exact or continues(deployment, need)


def continues(deployment: Deployment, need: Need) -> bool:
    """Whether the deployment would produce the very same tokens. Unknown numerics never match."""
    return (
        need.numerics is not None
        and deployment.numerics == need.numerics
        and deployment.weights == need.weights
    )


def order(need: Need, deployments: Iterable[Deployment]) -> tuple[Deployment, ...]:
    """The deployments that may take the attempt, best first.

    Healthy before unhealthy, untried before tried, then (if tokens could be kept) those that
    continue exactly, then the least expected wait: load times first-token latency. What is
    unhealthy stays at the end instead of being left out: a last resort beats giving up.
    """
    fitting = [deployment for deployment in deployments if serves(deployment, need)]
    measured = [d.first_token_s for d in fitting if d.first_token_s is not None]
    typical_s = sum(measured) / len(measured) if measured else LATENCY_S_DEFAULT

    def rank(deployment: Deployment) -> tuple[bool, bool, int, bool, float, str]:
        latency_s = deployment.first_token_s
        wait_s = (deployment.load + 1) * (typical_s if latency_s is None else latency_s)
        unfit = deployment.admission is Admission.NO or not deployment.ready
        return (
            deployment.node in need.resting,
            unfit,
            need.tried.count(deployment.node),
            not continues(deployment, need),
            wait_s,
            deployment.node,
        )

    return tuple(sorted(fitting, key=rank))


def choose(need: Need, deployments: Iterable[Deployment]) -> Deployment | None:
    """The best deployment for the attempt; None if there is none."""
    ordered = order(need, deployments)
    return ordered[0] if ordered else None


def smoothed(before_s: float | None, measured_s: float) -> float:
    """The EWMA of a latency after one more measurement, seconds."""
    if before_s is None:
        return measured_s
    return before_s + EWMA_WEIGHT * (measured_s - before_s)
