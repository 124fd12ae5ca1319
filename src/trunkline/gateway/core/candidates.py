"""Which models may serve the one asked for, in which order: the routing policy, applied to a call.

What comes of it is a list of candidates for :mod:`trunkline.gateway.core.route`, which knows the
nodes. By weights the order is drawn from the answer's id, so it needs no memory, agrees between
gateways and can be replayed; over many answers each gets its share. Specified in
``docs/operate/routing.md``.
"""

import math
from collections.abc import Iterator
from hashlib import sha256
from typing import Final

import msgspec

from trunkline.gateway.core.policy import ModelPolicy, RoutingPolicy
from trunkline.gateway.core.price import Tokens, cost_nusd
from trunkline.gateway.core.route import EVERYWHERE, Candidate, Reach

TYPICAL: Final = Tokens(prompt=1_000, completion=500)
"""What a call is compared by where nothing is known of it."""
BYTES_PER_TOKEN: Final = 4
_ITSELF: Final = ModelPolicy()


def candidates(
    policy: RoutingPolicy, model: str, *, answer: str = "", tokens: Tokens = TYPICAL
) -> tuple[Candidate, ...]:
    """What may serve ``model``, best first. Never empty: at the least it is the model itself.

    ``answer``: the answer's id, which the weights are drawn by. ``tokens``: what the call may use,
    by which prices are compared.
    """
    call = _Call(policy=policy, answer=answer, tokens=tokens)
    everywhere = Reach(
        operators=_set(policy.operators.allow), operators_denied=frozenset(policy.operators.deny)
    )
    found: list[Candidate] = []
    for name in (model, *substitutes(policy, model)):
        tier = found[-1].tier + 1 if found else 0
        found += _serving(call, name, everywhere, tier)
    return tuple(found)


def likely(most: Tokens) -> Tokens:
    """What a call may be expected to use, from the most that it can: for comparing prices only."""
    return Tokens(
        prompt=most.prompt // BYTES_PER_TOKEN,
        completion=min(most.completion, TYPICAL.completion),
    )


def substitutes(policy: RoutingPolicy, model: str) -> tuple[str, ...]:
    """What may stand in for ``model`` when nothing of its own can serve, in order."""
    own = policy.models.get(model, _ITSELF).substitutes
    alike = (
        member for members in policy.classes.values() if model in members for member in members
    )
    return tuple(dict.fromkeys(name for name in (*own, *alike) if name != model))


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    policy: RoutingPolicy
    answer: str
    tokens: Tokens


def _serving(call: _Call, name: str, reach: Reach, tier: int) -> Iterator[Candidate]:
    """Candidates from ``tier`` on for one name, without its substitutes."""
    model = call.policy.models.get(name, _ITSELF)
    reach = reach.within(_reach(model))
    if not model.use:
        yield Candidate(model=name, tier=tier, reach=reach)
    elif model.strategy == "order":
        for used in model.use:
            for one in _serving(call, used, reach, tier):
                yield one
                tier = one.tier
            tier += 1
    else:
        # Only names that nodes serve are here: the policy refuses virtual ones among them.
        for used, turn in _turns(call, model).items():
            own = _reach(call.policy.models.get(used, _ITSELF))
            yield Candidate(model=used, tier=tier, turn=turn, reach=reach.within(own))


def _turns(call: _Call, model: ModelPolicy) -> dict[str, int]:
    """Each name's turn; equal ones leave it to the least expected wait."""
    match model.strategy:
        case "weights":
            drawn = {
                used: _draw(call.answer, used, model.weights.get(used, 1)) for used in model.use
            }
        case "cheapest":
            drawn = {used: _cost(call, used) for used in model.use}
        case _:
            drawn = dict.fromkeys(model.use, 0.0)
    places = {value: turn for turn, value in enumerate(sorted(set(drawn.values())))}
    return {used: places[drawn[used]] for used in sorted(model.use, key=drawn.__getitem__)}


def _draw(answer: str, name: str, weight: int) -> float:
    """A time of arrival whose chance to be the first is in proportion to ``weight``."""
    digest = sha256(f"{answer}\n{name}".encode()).digest()
    share = (int.from_bytes(digest[:7], "big") + 1) / (1 << 56)
    return -math.log(share) / weight


def _cost(call: _Call, name: str) -> float:
    """What the call would cost there; without a price it comes last."""
    price = call.policy.prices.get(name)
    return math.inf if price is None else cost_nusd(price, call.tokens)


def _reach(model: ModelPolicy) -> Reach:
    if model.nodes is model.operators is None and not model.nodes_denied + model.operators_denied:
        return EVERYWHERE
    return Reach(
        nodes=_set(model.nodes),
        operators=_set(model.operators),
        nodes_denied=frozenset(model.nodes_denied),
        operators_denied=frozenset(model.operators_denied),
    )


def _set(names: tuple[str, ...] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)
