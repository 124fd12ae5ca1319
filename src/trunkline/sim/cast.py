"""Who plays in a run, drawn from its seed: models, nodes, provider accounts, tenants, the policy.

Three casts: nodes that run the model themselves and continue each other exactly, nodes that front a
provider whose answers go on by their text or not at all, and both. What may serve which name is
written down here a second time, for the judges, without the product's code.
"""

from collections.abc import Mapping
from random import Random
from typing import Final

import msgspec

from trunkline.base.money import MicroUsd
from trunkline.gateway.core.policy import Hedging, KeyPolicy, ModelPolicy, Price, RoutingPolicy
from trunkline.node.config_providers import OpenAIEngine
from trunkline.node.core.prefix import PrefixName
from trunkline.remote.exchange import ProviderTimeouts
from trunkline.sim.app import Kind, Menu

KEYED: Final = "keyed"
SPOKEN: Final = "spoken"
ANY: Final = "any"
VECTORS: Final = "vectors"
GOLD: Final = "gold"
SILVER: Final = "silver"
BATCH: Final = "batch"
SILVER_PER_MINUTE: Final = 2

WEIGHTS: Final = {"alpha": "w1", "beta": "w1", "gamma": "w2"}
"""Two nodes that continue each other, and one of the same model's name with other weights."""
FRONTS: Final[Mapping[str, tuple[PrefixName, ...]]] = {
    "delta": ("vllm",), "epsilon": ("vllm", "mistral"), "zeta": ("none", "mistral"),
}  # fmt: skip
"""Nodes before a provider, and the ways of going on after a text that each may have."""
PRICES: Final = {KEYED: (1, 2), SPOKEN: (3, 4), VECTORS: (1, 0)}
"""USD per million tokens, in and out."""
TIMEOUTS: Final = ProviderTimeouts(connect_s=1.0, stream_head_s=3.0, whole_head_s=5.0, idle_s=2.0)


def upstream_of(node: str) -> str:
    """Host of the account that a node fronts."""
    return f"up-{node}"


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """Who plays."""

    embedded: tuple[str, ...]
    fronts: Mapping[str, PrefixName]
    policy: RoutingPolicy
    menu: Menu
    allowed: Mapping[str, frozenset[str]]
    """Models that may serve each name, as the policy has it."""

    @classmethod
    def draw(cls, random: Random) -> "Cast":
        kind = random.choice(("embedded", "fronts", "both"))
        embedded = {"embedded": tuple(WEIGHTS), "fronts": (), "both": ("alpha", "beta")}[kind]
        names = {"embedded": (), "fronts": tuple(FRONTS), "both": ("delta", "epsilon")}[kind]
        fronts = {name: random.choice(FRONTS[name]) for name in names}
        real = ((KEYED,) if embedded else ()) + ((SPOKEN,) if fronts else ())
        substitutes = len(real) == 2 and random.random() < 0.5
        allowed = {name: frozenset({name}) for name in (*real, VECTORS)} | {ANY: frozenset(real)}
        if substitutes:
            allowed[SPOKEN] = frozenset(real)
        models: list[tuple[str, Kind]] = []
        if embedded:
            models.append((KEYED, "keyed"))
        if fronts:
            models += [(SPOKEN, "any" if substitutes else "spoken"), (VECTORS, "vectors")]
        if len(real) == 2:
            models.append((ANY, "any"))
        return cls(
            embedded=embedded,
            fronts=fronts,
            policy=_policy(random, real, substitutes=substitutes),
            menu=Menu(models=tuple(models), keys=(GOLD, SILVER, SILVER, BATCH)),
            allowed=allowed,
        )

    def engine(self, node: str) -> OpenAIEngine:
        """How a node before a provider is configured."""
        return OpenAIEngine(
            base_url=f"http://{upstream_of(node)}/v1",
            models=(SPOKEN,),
            embedding_models=(VECTORS,),
            prefix=self.fronts[node],
            timeouts=TIMEOUTS,
        )


def _policy(random: Random, real: tuple[str, ...], *, substitutes: bool) -> RoutingPolicy:
    turned = real if random.random() < 0.5 else real[::-1]
    models = {ANY: ModelPolicy(use=turned, strategy=random.choice(("order", "least-latency")))}
    if substitutes:
        models[SPOKEN] = ModelPolicy(substitutes=(KEYED,))
    return RoutingPolicy(
        models=models,
        prices={
            name: Price(input=MicroUsd(cost_in * 1_000_000), output=MicroUsd(cost_out * 1_000_000))
            for name, (cost_in, cost_out) in PRICES.items()
        },
        hedging=Hedging(share=0.1, after="0.05s"),
        keys={
            GOLD: KeyPolicy(weight=3),
            SILVER: KeyPolicy(
                requests_per_minute=SILVER_PER_MINUTE,
                budget_usd=MicroUsd(random.choice((250, 40_000, 1_000_000))),
                budget_period=random.choice(("day", "total")),
            ),
            BATCH: KeyPolicy(priority="batch"),
        },
    )
