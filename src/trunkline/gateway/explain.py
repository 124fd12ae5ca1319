"""What would happen to a call for a model now, and why: ``GET /trunkline/v1/route``.

Asks the same functions that route calls, so that it can not say anything else than what they do. It
starts nothing, and shows no key, prompt or answer.
"""

from collections.abc import Callable
from typing import Final, Literal, get_args

import msgspec

from trunkline.base.errors import RequestError
from trunkline.gateway.core.breaker import Admission, Fault
from trunkline.gateway.core.candidates import TYPICAL, candidates
from trunkline.gateway.core.policy import ModelPolicy, RoutingPolicy
from trunkline.gateway.core.quota import Cost
from trunkline.gateway.core.route import (
    Candidate,
    Deployment,
    Need,
    as_candidate,
    candidate,
    order,
)
from trunkline.gateway.core.standing import Level, NodeStanding
from trunkline.gateway.directory import Directory
from trunkline.gateway.health import DeploymentHealth, Health
from trunkline.gateway.own_api import local_only
from trunkline.gateway.routing import Routing, RoutingStatus
from trunkline.runtime.http import Call, Router
from trunkline.schema.attempt import Kind

ROUTE_PATH: Final = "/trunkline/v1/route"
NAME_CHARS_MAX: Final = 256
WAIT_S_MAX: Final = 24 * 3600.0
"""No longer wait is told."""
ORDINARY: Final = Cost(input_tokens=TYPICAL.prompt, output_tokens=TYPICAL.completion)

State = Literal[
    "healthy",
    "returning",
    "probing",
    "demoted",
    "resting",
    "not_ready",
    "unreachable",
    "quarantined",
    "excluded",
]
"""``returning``: gets few calls at first. ``probing``: one call will tell. ``resting``: its breaker
is open or it was ejected; a last resort. ``demoted``, ``quarantined``: by verifiers' verdicts.
``excluded``: never asked."""


GETS_CALLS: Final = ("healthy", "returning", "probing")


class StandIn(msgspec.Struct, frozen=True, kw_only=True):
    """One model that may serve."""

    model: str
    tier: int
    """From 0. A higher one is asked only when those below fail or are unhealthy."""
    share: float | None
    """Of the answers, by the weights; None: not by weights."""
    input_usd: str | None
    """Per million tokens; None: no price is known."""
    output_usd: str | None
    deployments: int
    """That serve it now; 0: no node offers it."""


class Considered(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment, in the order in which it would be asked."""

    place: int | None
    """From 1; None: it is never asked."""
    node: str
    operator: str
    model: str
    tier: int | None
    state: State
    reason: str
    """Why it is in this state, for a person; empty where there is nothing to say."""
    available_in_ms: int
    """Until it may be asked again in the ordinary way; 0: now."""
    wait_ms: int | None
    """Until limits let one more call of ordinary size start; 0: now; None: as many run as may."""
    running: int
    """Attempts running and queued there."""
    first_token_ms: int | None
    """Measured lately; None: not yet."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /trunkline/v1/route?model=NAME[&key=NAME][&kind=chat|embeddings]``."""

    model: str
    kind: Kind
    virtual: bool
    strategy: str
    key: str
    allowed: bool
    """Whether that key may ask for the model; true where none is named."""
    outcome: str
    """In one line: what would happen."""
    candidates: tuple[StandIn, ...]
    deployments: tuple[Considered, ...]
    unheard: tuple[str, ...]
    """Nodes that have never answered: what they serve is not known."""
    policy: RoutingStatus


class Explainer:
    """Explains routes."""

    def __init__(
        self,
        directory: Directory,
        health: Health,
        routing: Routing,
        wait_s: Callable[[Deployment, Cost], float | None],
        standing: Callable[[str, str], NodeStanding | None] = lambda _node, _model: None,
    ) -> None:
        """``wait_s``: how long limits make a call wait there; None: all places are taken.
        ``standing``: what verdicts came to for a model at a node."""
        self._wait_s = wait_s
        self._standing = standing
        self._directory = directory
        self._health = health
        self._routing = routing

    def add_routes(self, router: Router) -> None:
        """Register the path."""
        router.add("GET", ROUTE_PATH, local_only(self._reply))

    async def _reply(self, call: Call) -> None:
        model, key = call.query.get("model", ""), call.query.get("key", "")
        if not 0 < len(model) <= NAME_CHARS_MAX:
            raise RequestError("model: a model's name is expected", code="bad_query", param="model")
        kind = call.query.get("kind", "")
        if kind not in ("", *get_args(Kind)):
            raise RequestError(
                "kind: chat or embeddings is expected", code="bad_query", param="kind"
            )
        await call.reply_json(200, self.explain(model, key, _kind(kind)))

    def explain(self, model: str, key: str = "", kind: Kind | None = None) -> Explanation:
        """The route of a call for ``model`` by the holder of ``key`` now. ``kind`` None: chat,
        unless it is served for embeddings only."""
        policy = self._routing.current
        standing_in = candidates(policy, model)
        need = Need(model=model, kind=kind or "chat", candidates=standing_in)
        offers = self._directory.offers(need)
        if kind is None and not offers:
            other = msgspec.structs.replace(need, kind="embeddings")
            found = self._directory.offers(other)
            need, offers = (other, found) if found else (need, offers)
        own = policy.models.get(model, ModelPolicy())
        considered = self._considered(need, offers)
        allowed = not key or policy.allows(key, model)
        return Explanation(
            model=model,
            kind=need.kind,
            virtual=bool(own.use),
            strategy=own.strategy if own.use else "order",
            key=key,
            allowed=allowed,
            outcome=_outcome(considered, allowed=allowed),
            candidates=tuple(_stand_in(one, need, own, policy, offers) for one in standing_in),
            deployments=considered,
            unheard=tuple(node.name for node in self._directory.nodes if node.info is None),
            policy=self._routing.status(),
        )

    def _considered(self, need: Need, offers: list[Deployment]) -> tuple[Considered, ...]:
        asked = order(need, offers)
        never = sorted((one.model, one.node) for one in offers if candidate(one, need) is None)
        excluded = {(one.model, one.node): one for one in offers}
        return (
            *(self._asked(place, one, need) for place, one in enumerate(asked, start=1)),
            *(self._never(excluded[each], need) for each in never),
        )

    def _wait_ms(self, one: Deployment) -> int | None:
        wait_s = self._wait_s(one, ORDINARY)
        return None if wait_s is None else round(min(wait_s, WAIT_S_MAX) * 1000)

    def _asked(self, place: int, one: Deployment, need: Need) -> Considered:
        known = self._health.of(one.node, one.model)
        reachable = any(node.reachable for node in self._directory.nodes if node.name == one.node)
        state, reason = _state(one, known, reachable=reachable)
        standing = self._standing(one.node, one.model)
        if standing is not None and (one.level is Level.QUARANTINED or state in GETS_CALLS):
            state, reason = _judged(standing)
        found = candidate(one, need)
        return Considered(
            place=place,
            node=one.node,
            operator=one.operator,
            model=one.model,
            tier=None if found is None else found.tier,
            state=state,
            reason=reason,
            available_in_ms=round(known.left_s * 1000) if state == "resting" else 0,
            wait_ms=self._wait_ms(one),
            running=one.load,
            first_token_ms=_ms(one.first_token_s),
        )

    def _never(self, one: Deployment, need: Need) -> Considered:
        barred = [each.reach for each in need.candidates if each.model == one.model]
        state: State = "excluded"
        reason = barred[0].bars(one.node, one.operator) if barred else ""
        standing = self._standing(one.node, one.model)
        if standing is not None and as_candidate(one, need) is not None:
            state, reason = _judged(standing)
        return Considered(
            place=None,
            node=one.node,
            operator=one.operator,
            model=one.model,
            tier=None,
            state=state,
            reason=reason,
            available_in_ms=0,
            wait_ms=self._wait_ms(one),
            running=one.load,
            first_token_ms=_ms(one.first_token_s),
        )


def _judged(standing: NodeStanding) -> tuple[State, str]:
    by = f"{standing.why}, by {', '.join(standing.by)}"
    if standing.level is Level.QUARANTINED:
        return "quarantined", by
    return "demoted", f"{by}; after all others of its tier"


def _state(one: Deployment, known: DeploymentHealth, *, reachable: bool) -> tuple[State, str]:
    last = f"; last failure: {known.error}" if known.error else ""
    if one.admission is Admission.NO:
        return "resting", _why_resting(known) + last
    if not reachable:
        return "unreachable", "it does not answer; a last resort"
    if not one.ready:
        return "not_ready", "it says that it can not take calls now; a last resort"
    if one.admission is Admission.PROBE:
        return "probing", f"one call will tell whether it is well again{last}"
    if known.share < 1:
        return "returning", f"gets {known.share:.0%} of its calls until it has shown itself{last}"
    return "healthy", last.removeprefix("; ")


def _why_resting(known: DeploymentHealth) -> str:
    match known.fault:
        case Fault.REFUSED:
            return "it could not be reached"
        case Fault.MODEL:
            return "its provider does not have this model"
        case Fault.AUTH:
            return "its provider refuses the credentials"
        case Fault.OUTLIER:
            return "it does worse than others that serve the same model"
        case _:
            return f"failures in a row: {known.failures}"


def _outcome(considered: tuple[Considered, ...], *, allowed: bool) -> str:
    if not allowed:
        return "refused: this key may not ask for this model"
    if not considered:
        return "refused: no node serves it"
    first = considered[0]
    if first.place is None and any(row.state == "quarantined" for row in considered):
        return "refused: what serves it failed verification and is quarantined"
    if first.place is None:
        return "refused: every deployment is excluded by the routing policy"
    usable = [row for row in considered if row.state in (*GETS_CALLS, "demoted")]
    if not usable:
        return f"asks {first.model} at {first.node} as a last resort: nothing healthy is left"
    # Whoever can start now goes first; a higher tier is turned to only after a while.
    level = [row for row in usable if _level(row) == _level(usable[0])]
    best = next((row for row in level if row.wait_ms == 0), None)
    if best is None:
        return f"waits for {level[0].model} at {level[0].node}, or whatever may start first"
    return f"asks {best.model} at {best.node}"


def _level(row: Considered) -> tuple[int | None, bool]:
    return row.tier, row.state == "demoted"


def _stand_in(
    one: Candidate, need: Need, own: ModelPolicy, policy: RoutingPolicy, offers: list[Deployment]
) -> StandIn:
    price = policy.prices.get(one.model)
    weighed = own.strategy == "weights" and one.model in own.use
    total = sum(own.weights.get(name, 1) for name in own.use)
    return StandIn(
        model=one.model,
        tier=one.tier,
        share=own.weights.get(one.model, 1) / total if weighed else None,
        input_usd=None if price is None else price.input.text(),
        output_usd=None if price is None else price.output.text(),
        deployments=sum(candidate(each, need) == one for each in offers),
    )


def _kind(text: str) -> Kind | None:
    match text:
        case "chat" | "embeddings":
            return text
        case _:
            return None


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
