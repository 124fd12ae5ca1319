"""The route: which deployment an attempt goes to, given what is known of the nodes.

A model is asked for by name, and served by another only where the routing policy names it as a
candidate. Once text of an answer has reached the app, its model stays. Where it can be continued
exactly, that takes the same weights and the same ``numerics`` too: they alone produce the very
tokens that the first would have produced (design §6). Else whoever goes on after a given text may.
"""

import math
from collections.abc import Iterable
from typing import Final

import msgspec

from trunkline.crypto.keys import VerifierKey
from trunkline.gateway.core.breaker import Admission
from trunkline.gateway.core.deadline import UNKNOWN, StageLimits
from trunkline.gateway.core.standing import Level
from trunkline.schema.attempt import Kind, Limits

LATENCY_S_DEFAULT: Final = 0.5
"""First-token latency assumed where none has been measured anywhere."""
EWMA_WEIGHT: Final = 0.2

Place = tuple[str, str]
"""A deployment's name: the node's key name, and the model as that node names it."""


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
    prefix: bool = False
    """It goes on after a given text."""
    ready: bool = True
    load: int = 0
    """Attempts running and queued there, by the node's word or our own count if higher."""
    first_token_s: float | None = None
    """EWMA of the time to its first token; None: not measured yet."""
    admission: Admission = Admission.FREE
    half_open: bool = False
    """One probe decides whether it is well again. While it runs, ``admission`` is NO."""
    share: float = 1.0
    """Of the calls that it is fit for, above 0 to 1: it grows after a return."""
    expected: StageLimits = UNKNOWN
    """How long its stages may take, by what it normally does."""
    limits: Limits | None = None
    """Of the account behind it, as its operator states them."""
    level: Level = Level.GOOD
    """What verifiers' verdicts came to."""
    last_resort: bool = False
    """Where it is quarantined: whether it is asked all the same when nobody else is there."""

    @property
    def barred(self) -> bool:
        """It is not asked, whoever else is there."""
        return self.level is Level.QUARANTINED and not self.last_resort

    @property
    def place(self) -> Place:
        """What it is called in a :class:`Need`."""
        return self.node, self.model


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Where a call may be sent to: nodes by key name, operators by name."""

    nodes: frozenset[str] | None = None
    """Only these. None: any."""
    operators: frozenset[str] | None = None
    nodes_denied: frozenset[str] = frozenset()
    operators_denied: frozenset[str] = frozenset()

    def covers(self, node: str, operator: str) -> bool:
        """Whether that node of that operator may be asked."""
        return not self.bars(node, operator)

    def bars(self, node: str, operator: str) -> str:
        """Why that node of that operator may not be asked; empty if it may."""
        if self.nodes is not None and node not in self.nodes:
            return "the routing policy names other nodes"
        if self.operators is not None and operator not in self.operators:
            return "the routing policy names other operators"
        if node in self.nodes_denied:
            return "the routing policy denies this node"
        if operator in self.operators_denied:
            return "the routing policy denies this operator"
        return ""

    def within(self, other: "Reach") -> "Reach":
        """What both allow."""
        return Reach(
            nodes=_both(self.nodes, other.nodes),
            operators=_both(self.operators, other.operators),
            nodes_denied=self.nodes_denied | other.nodes_denied,
            operators_denied=self.operators_denied | other.operators_denied,
        )


EVERYWHERE: Final = Reach()


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A model that may serve the one asked for."""

    model: str
    """As nodes name it."""
    tier: int = 0
    """A higher one is asked only when those below it fail or are unhealthy."""
    turn: int = 0
    """Order within the tier; where it is equal, the least expected wait decides."""
    reach: Reach = EVERYWHERE


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What the next attempt at an answer asks of a deployment."""

    model: str
    """What the app asked for."""
    kind: Kind
    candidates: tuple[Candidate, ...] = ()
    """What may serve it. Empty: the model itself, anywhere."""
    shown: str | None = None
    """The model whose text has reached the app: no other may add to it."""
    exact: bool = False
    """Text has reached the app: ``weights`` and ``numerics`` must match."""
    weights: str | None = None
    numerics: str | None = None
    """Without ``exact``: preferred, since tokens already produced can then be kept."""
    prefix: bool = False
    """With ``exact``: the text that has reached the app may also be gone on with as text."""
    tried: tuple[Place, ...] = ()
    """Where this answer's attempts so far went, one entry per attempt."""
    banned: frozenset[str] = frozenset()
    """Nodes that must not be asked again for this answer."""
    unfit: frozenset[Place] = frozenset()
    """Deployments that can not honour the request."""
    refused: frozenset[str] = frozenset()
    """Models that the request is wrong for, wherever they run."""
    resting: frozenset[Place] = frozenset()
    """Those that asked this answer to stay away for long: even an unhealthy one comes before."""


def models(need: Need) -> frozenset[str]:
    """Names of the models that may serve, as nodes name them."""
    return frozenset(candidate.model for candidate in need.candidates) or frozenset({need.model})


def candidate(deployment: Deployment, need: Need) -> Candidate | None:
    """As what the deployment may take the attempt; None: not at all."""
    return None if deployment.barred else as_candidate(deployment, need)


def as_candidate(deployment: Deployment, need: Need) -> Candidate | None:
    """The same, whatever verifiers found of it."""
    if deployment.kind != need.kind or deployment.node in need.banned:
        return None
    if deployment.place in need.unfit or deployment.model in need.refused:
        return None
    if need.shown is not None and deployment.model != need.shown:
        return None
    if need.exact and not (continues(deployment, need) or goes_on(deployment, need)):
        return None
    for one in need.candidates or (Candidate(model=need.model),):
        if one.model == deployment.model and one.reach.covers(deployment.node, deployment.operator):
            return one
    return None


def continues(deployment: Deployment, need: Need) -> bool:
    """Whether the deployment would produce the very same tokens. Unknown numerics never match."""
    return (
        need.numerics is not None
        and deployment.numerics == need.numerics
        and deployment.weights == need.weights
    )


def goes_on(deployment: Deployment, need: Need) -> bool:
    """Whether the deployment would go on after the text shown, as the same model: with weights that
    are known on neither side or the same on both."""
    return need.prefix and deployment.prefix and deployment.weights == need.weights


def order(need: Need, deployments: Iterable[Deployment]) -> tuple[Deployment, ...]:
    """The deployments that may take the attempt, best first.

    Healthy before unhealthy, untried before tried, then by the candidates' tiers, in a tier what
    verifiers have found nothing against before what is demoted, then by turns, then
    (if tokens could be kept) those that continue exactly, then the least expected wait: load times
    first-token latency, over the share of calls that the deployment is fit for. What is unhealthy
    stays at the end instead of being left out: a last resort beats giving up. One that may be well
    again is probed by a call that has tried nobody yet and has somebody sound to turn to; others
    leave it.
    """
    fitting = [
        (deployment, found)
        for deployment in deployments
        if (found := candidate(deployment, need)) is not None
    ]
    measured = [d.first_token_s for d, _ in fitting if d.first_token_s is not None]
    typical_s = math.fsum(measured) / len(measured) if measured else LATENCY_S_DEFAULT

    sound = any(d.admission is Admission.FREE and d.ready for d, _ in fitting)
    fresh = not need.tried and not need.exact and need.shown is None

    def rank(
        fit: tuple[Deployment, Candidate],
    ) -> tuple[bool, int, int, int, Level, int, bool, bool, float, Place]:
        deployment, served = fit
        latency_s = deployment.first_token_s
        wait_s = (deployment.load + 1) * (typical_s if latency_s is None else latency_s)
        probe = deployment.admission is Admission.PROBE
        unfit = 1 if probe and sound and not fresh else 0
        if deployment.admission is Admission.NO or not deployment.ready:
            unfit = 2
        return (
            deployment.place in need.resting,
            unfit,
            need.tried.count(deployment.place),
            served.tier,
            deployment.level,
            served.turn,
            not (probe and sound),
            not continues(deployment, need),
            wait_s / deployment.share,
            deployment.place,
        )

    return tuple(deployment for deployment, _ in sorted(fitting, key=rank))


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def smoothed(before_s: float | None, measured_s: float) -> float:
    """The EWMA of a latency after one more measurement, seconds."""
    if before_s is None:
        return measured_s
    return before_s + EWMA_WEIGHT * (measured_s - before_s)
