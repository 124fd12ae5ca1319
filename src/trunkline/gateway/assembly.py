"""The gateway's parts: made, put together, started and stopped in their order.

Which part knows which is here and nowhere else. It answers no call: that is ``front``.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trunkline.base.ports import Clock, Randomness
from trunkline.gateway import own_api
from trunkline.gateway.alerts import Alerts
from trunkline.gateway.attached import Attached
from trunkline.gateway.charges import Charges
from trunkline.gateway.config import GatewayConfig
from trunkline.gateway.conversations import Conversations
from trunkline.gateway.core.policy import RoutingPolicy
from trunkline.gateway.core.standing import Level
from trunkline.gateway.directory import Directory
from trunkline.gateway.dispatcher import QueueDispatcher
from trunkline.gateway.evidence import Finalizer, Prover
from trunkline.gateway.explain import Explainer
from trunkline.gateway.gauges import Gauges
from trunkline.gateway.gossip import Gossip
from trunkline.gateway.health import Health
from trunkline.gateway.health_file import Keeper, Memory
from trunkline.gateway.hedger import Hedger
from trunkline.gateway.judge import VerifierJudge
from trunkline.gateway.key_store import KeyStore
from trunkline.gateway.keys import Keys
from trunkline.gateway.keys_api import KeysApi
from trunkline.gateway.models import Models
from trunkline.gateway.replays import Replays
from trunkline.gateway.routing import Routing
from trunkline.gateway.shared import Shared
from trunkline.gateway.shared_limits import SharedLimits
from trunkline.gateway.store import EvidenceStore
from trunkline.gateway.telemetry import Sampling, Telemetry
from trunkline.gateway.verdict_store import VerdictStore
from trunkline.gateway.verification import Verdicts
from trunkline.gateway.webhook import Webhook
from trunkline.remote.transport import Transport
from trunkline.remote.verifier import VerifierCaller
from trunkline.runtime.http import Router
from trunkline.runtime.logger import Logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.otlp_export import Exporter

SETTLE_S: Final = 5.0
"""How long verifiers are not heard while a node has not been asked yet which key it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What one gateway is made of."""

    store: EvidenceStore
    transport: Transport
    routing: Routing
    telemetry: Telemetry
    health: Health
    directory: Directory
    verdicts: Verdicts
    keys: Keys
    charges: Charges
    keeper: Keeper | None
    """None: what is learnt of deployments is forgotten with the process."""
    finalizer: Finalizer
    dispatcher: QueueDispatcher
    shared: Shared
    models: Models
    replays: Replays
    conversations: Conversations
    gossip: Gossip | None

    async def start(self) -> None:
        """Begin to look at the nodes, and to finish what an earlier process left provisional."""
        self.routing.start()
        # Before the nodes are known: nothing goes to what was quarantined before a restart.
        await self.verdicts.start()
        await self.keys.start()
        await self.charges.start()
        if self.keeper is not None:
            await self.keeper.start()
        self.directory.start()
        if self.gossip is not None:
            await self.gossip.start()
        await self.finalizer.start()
        await self.replays.start()
        if self.telemetry.exporter is not None:
            self.telemetry.exporter.start()

    async def stop(self) -> None:
        """Close everything; what is provisional stays in the store."""
        self.dispatcher.stop()
        await self.replays.stop()
        if self.telemetry.exporter is not None:
            await self.telemetry.exporter.stop()
        await self.routing.stop()
        await self.verdicts.stop()
        await self.directory.stop()
        await self.finalizer.stop()
        if self.gossip is not None:
            await self.gossip.stop()
        if self.keeper is not None:
            await self.keeper.stop()
        await self.transport.aclose()
        await self.store.close()
        await self.keys.stop()

    def add_routes(
        self, router: Router, policy: str, prover: Prover, metrics: Metrics, *, logger: Logger
    ) -> None:
        """What the gateway says of itself and of others: its own paths, and the gauges."""
        if self.gossip is not None:
            self.gossip.add_routes(router)
        self.models.add_routes(router)
        KeysApi(self.keys, self.charges).add_routes(router)
        counters, store = self.telemetry.counters, self.store
        Gauges(
            metrics, counters, self.dispatcher, self.directory, self.health, store, self.finalizer
        )
        Alerts(store.verdicts, self.verdicts, metrics).add_routes(router)
        explainer = Explainer(
            self.directory,
            self.health,
            self.routing,
            self.dispatcher.wait_s,
            self.verdicts.standing,
        )
        explainer.add_routes(router)
        own_api.add_routes(
            router,
            own_api.OwnApi(
                store,
                self.finalizer,
                self.directory,
                self.health,
                counters,
                policy,
                self.routing,
                self.gossip,
                keys=self.keys,
                queue=self.dispatcher.load,
                verdicts=self.verdicts,
                attached=Attached(store.verdicts, prover, logger=logger),
            ),
        )


def assemble(
    settings: GatewayConfig,
    store: EvidenceStore,
    prover: Prover,
    transport: Transport,
    *,
    memory: Memory | None,
    routing: Routing,
    key_store: KeyStore | None,
    gossip: Gossip | None,
    shared_limits: SharedLimits | None,
    metrics: Metrics,
    exporter: Exporter | None,
    clock: Clock,
    randomness: Randomness,
    logger: Logger,
) -> Parts:
    """A gateway's parts, none of them started."""

    def policy() -> RoutingPolicy:
        return routing.current

    def level(node: str, model: str) -> Level:
        found = verdicts.standing(node, model)
        return Level.GOOD if found is None else found.level

    def last_resort() -> bool:
        verification = policy().verification
        return verification is not None and verification.last_resort

    sampling = Sampling(share=settings.telemetry.otlp_sample, told=settings.telemetry.pass_trace)
    telemetry = Telemetry(
        metrics, exporter, sampling, clock=clock, randomness=randomness, logger=logger
    )
    health = Health(clock, timeouts=lambda: policy().timeouts)
    directory = Directory(
        settings.nodes,
        transport,
        health,
        poll_s=settings.poll_s,
        clock=clock,
        randomness=randomness,
        logger=logger,
        level=level,
        last_resort=last_resort,
    )
    verdicts = _hearing(
        store.verdicts, directory, policy, transport, prover, clock,
        randomness=randomness, logger=logger,
    )  # fmt: skip
    keys = Keys(settings.keys, key_store, policy, clock=clock, logger=logger)
    charges = Charges(store, policy, clock=clock)
    names = [node.name for node in directory.nodes]
    finalizer = Finalizer(store, prover, charges, clock=clock, logger=logger)
    dispatcher = QueueDispatcher(
        directory.offers,
        names,
        policy,
        clock=clock,
        waiting_max=settings.queue_max,
        waiting_bytes_max=settings.queue_bytes_max,
        shared=shared_limits,
    )
    shared = Shared(
        directory=directory,
        dispatcher=dispatcher,
        health=health,
        hedger=Hedger(dispatcher, health),
        vault=finalizer,
        judge=VerifierJudge(verdicts, logger=logger),
        clock=clock,
        logger=logger,
    )
    return Parts(
        store=store,
        transport=transport,
        routing=routing,
        telemetry=telemetry,
        health=health,
        directory=directory,
        verdicts=verdicts,
        keys=keys,
        charges=charges,
        keeper=Keeper(memory, health, names, logger=logger) if memory else None,
        finalizer=finalizer,
        dispatcher=dispatcher,
        shared=shared,
        models=Models(directory, routing, keys),
        replays=_replays(settings, store, clock, logger),
        conversations=Conversations(store, keys),
        gossip=gossip,
    )


def _hearing(
    store: VerdictStore,
    directory: Directory,
    policy: Callable[[], RoutingPolicy],
    transport: Transport,
    prover: Prover,
    clock: Clock,
    *,
    randomness: Randomness,
    logger: Logger,
) -> Verdicts:
    """What hears the verifiers."""
    webhook = Webhook(
        store.database, transport, policy, clock=clock, randomness=randomness, logger=logger
    )
    return Verdicts(
        store,
        webhook,
        directory.keys,
        frozenset(node.name for node in directory.nodes),
        policy,
        lambda url: VerifierCaller(transport, url),
        prover,
        settled=lambda: directory.settled(SETTLE_S, asyncio.Event()),
        clock=clock,
        logger=logger,
    )


def _replays(
    settings: GatewayConfig, store: EvidenceStore, clock: Clock, logger: Logger
) -> Replays:
    return Replays(
        store.claims,
        keep_s=settings.replays_keep_s,
        bytes_max=settings.replays_bytes_max,
        linger_s=settings.replays_linger_s,
        clock=clock,
        logger=logger,
    )
