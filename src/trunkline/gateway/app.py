"""Starting a gateway: from its configuration file to a served :class:`Gateway`.

The only module of the room that touches the real clock, the real network and the file system's
layout. It refuses to start over a missing store: ``trunkline init`` creates one.
"""

import asyncio
import os
import signal
from pathlib import Path
from typing import Final

from trunkline.base.errors import ConfigError, MalformedError
from trunkline.gateway import config
from trunkline.gateway.config import GatewayConfig
from trunkline.gateway.front import Gateway
from trunkline.gateway.gossip import Gossip, logs_of, proofs
from trunkline.gateway.health_file import FileMemory
from trunkline.gateway.key_store import KeyStore
from trunkline.gateway.prover import LogProver
from trunkline.gateway.routing import Routing
from trunkline.gateway.shared_limits import SharedFile
from trunkline.gateway.sightings import Shelf, Sightings
from trunkline.gateway.store import EvidenceStore, create_store
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.transport import Transport
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.config import resolve
from trunkline.runtime.logger import Logger, get_logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.otlp_export import Exporter, export_target
from trunkline.runtime.server import run_server
from trunkline.tlog.policy import Policy

__all__ = ["Gateway", "build", "create_store", "run"]

SERVICE: Final = "trunkline-gateway"
SPARE_CONNECTIONS: Final = 64
"""To one node, for what is asked beside the answers: hedges, state."""


def build(settings: GatewayConfig, config_path: Path, logger: Logger) -> Gateway:
    """Wire a gateway from its configuration. Raises :class:`ConfigError` naming what to mend."""
    clock, randomness = SystemClock(), SystemRandomness()
    # What runs is bounded by the queue alone: all of it may run at one node.
    most = settings.answers_running_max + SPARE_CONNECTIONS
    transport = HttpTransport(max_connections_per_origin=most)
    file = settings.routing_file
    routing = Routing(
        None if file is None else resolve(config_path, file), clock=clock, logger=logger
    )
    policy = config.read_policy(resolve(config_path, settings.policy_file))
    data = resolve(config_path, settings.data)
    shared = settings.limits_file
    metrics = Metrics()
    sightings, gossip = _gossip(settings, policy, data, transport, metrics, logger)
    prover = LogProver(transport, settings.log_url, policy, clock=clock, sightings=sightings)
    target = export_target(settings.telemetry, config_path, SERVICE, os.environ)
    exporter = None
    if target is not None:
        exporter = Exporter(
            transport,
            target,
            metrics,
            interval_s=settings.telemetry.otlp_interval_s,
            clock=clock,
            randomness=randomness,
            logger=logger,
        )
    return Gateway(
        settings,
        EvidenceStore.open(data),
        prover,
        transport,
        policy=policy,
        memory=FileMemory(data),
        routing=routing,
        gossip=gossip,
        key_store=None if settings.keys == "off" else KeyStore.open(data),
        shared_limits=None
        if shared is None
        else SharedFile(
            resolve(config_path, shared), clock=clock, randomness=randomness, logger=logger
        ),
        metrics=metrics,
        exporter=exporter,
        clock=clock,
        randomness=randomness,
        logger=logger,
    )


def _gossip(
    settings: GatewayConfig,
    text: str,
    data: Path,
    transport: Transport,
    metrics: Metrics,
    logger: Logger,
) -> tuple[Sightings, Gossip]:
    contradicted = metrics.gauge(
        "trunkline.gateway.logs.contradicted",
        "{log}",
        "Logs of the policy that signed two trees that contradict each other",
    )
    policy = Policy.parse(text)
    try:
        logs = logs_of(policy, transport, settings.log_url)
        sightings = Sightings(
            Shelf(data), proofs(logs), logger=logger, on_split_view=contradicted.set
        )
        gossip = Gossip(
            sightings,
            logs,
            policy,
            settings.peers,
            transport,
            every_s=settings.gossip_s,
            logger=logger,
        )
    except MalformedError as error:
        raise ConfigError(f"log_url, peers or policy_file: {error.message}") from None
    return sightings, gossip


def run(config_path: Path) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the routing policy anew. Raises
    :class:`ConfigError`."""
    settings = config.read(config_path)
    logger = get_logger("gateway")
    gateway = build(settings, config_path, logger)

    def on_ready(_: str) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, gateway.reload)

    run_server(
        gateway,
        settings.listen,
        logger=logger,
        on_ready=on_ready,
        shutdown_grace_s=settings.shutdown_grace_s,
    )
