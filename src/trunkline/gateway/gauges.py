"""What is so now in a gateway, as metrics: set when somebody looks, so that nothing keeps them."""

from trunkline.gateway.directory import Directory
from trunkline.gateway.dispatcher import QueueDispatcher
from trunkline.gateway.evidence import Finalizer
from trunkline.gateway.health import Health
from trunkline.gateway.status import Counters
from trunkline.gateway.store import EvidenceStore
from trunkline.runtime.metrics import Labels, Metrics


class Gauges:
    """The gateway's gauges. :meth:`look` sets them."""

    def __init__(
        self,
        metrics: Metrics,
        counters: Counters,
        dispatcher: QueueDispatcher,
        directory: Directory,
        health: Health,
        store: EvidenceStore,
        finalizer: Finalizer,
    ) -> None:
        self._counters = counters
        self._dispatcher = dispatcher
        self._directory = directory
        self._health = health
        self._store = store
        self._finalizer = finalizer
        self._running = metrics.gauge(
            "trunkline.gateway.answers.running", "{answer}", "Answers in progress, waiting included"
        )
        self._waiting = metrics.gauge(
            "trunkline.gateway.queue.waiting", "{call}", "Calls that wait for a place at a node"
        )
        self._ready = metrics.gauge(
            "trunkline.gateway.node.ready", "1",
            "Whether a node can be reached and takes attempts", "trunkline.node",
        )  # fmt: skip
        self._share = metrics.gauge(
            "trunkline.gateway.deployment.share", "1",
            "Share of its calls that a model at a node is given: 0 while it is not asked",
            "trunkline.node", "gen_ai.request.model",
        )  # fmt: skip
        self._evidence = metrics.gauge(
            "trunkline.gateway.evidence", "{answer}", "Stored answers by state", "state"
        )
        self._log = metrics.gauge(
            "trunkline.gateway.log.reachable", "1", "Whether the log answered when last asked"
        )
        metrics.refresh.append(self.look)

    async def look(self) -> None:
        """Set them to what is so now."""
        counts = await self._store.counts()
        self._evidence.replace(
            {("provisional",): counts.provisional, ("final",): counts.final},
        )
        self._running.set(self._counters.running)
        self._waiting.set(self._dispatcher.waiting)
        self._log.set(self._finalizer.log_reachable)
        ready: dict[Labels, float] = {}
        shares: dict[Labels, float] = {}
        for node in self._directory.nodes:
            name, info = node.name, node.info
            ready[(name,)] = node.reachable and info is not None and info.ready
            for model in () if info is None else info.models:
                known = self._health.of(name, model.name, exact=model.numerics is not None)
                shares[(name, model.name)] = 0.0 if known.left_s > 0 else known.share
        self._ready.replace(ready)
        self._share.replace(shares)
