"""``GET /trunkline/v1/alerts``: what verdicts came to here and who says so. The same as metrics.

For callers on this machine alone: it names nodes and verifiers. It shows no verdict's content
beyond that, and nothing of an answer.
"""

import msgspec

from trunkline.gateway.own_api import local_only, number
from trunkline.gateway.status import StandingRow, rows
from trunkline.gateway.verdict_store import ALERTS_KEPT_MAX, Alert, VerdictStore
from trunkline.gateway.verification import Verdicts, VerifierStatus
from trunkline.runtime.http import Call, Router
from trunkline.runtime.metrics import Metrics

ALERTS_PATH = "/trunkline/v1/alerts"
LIMIT_DEFAULT = 50


class AlertList(msgspec.Struct, frozen=True, kw_only=True):
    """``GET /trunkline/v1/alerts?limit=N``: the newest alerts first."""

    alerts: tuple[Alert, ...]
    standings: tuple[StandingRow, ...]
    verifiers: tuple[VerifierStatus, ...]


class Alerts:
    """The path, and the gauges."""

    def __init__(self, store: VerdictStore, verdicts: Verdicts, metrics: Metrics) -> None:
        self._store = store
        self._verdicts = verdicts
        self._standing = metrics.gauge(
            "trunkline.gateway.deployment.standing", "1",
            "What verdicts came to for a model at a node: 1 demoted, 2 quarantined; absent: good",
            "trunkline.node", "gen_ai.request.model",
        )  # fmt: skip
        self._reachable = metrics.gauge(
            "trunkline.gateway.verifier.reachable", "1",
            "Whether a verifier answered when last asked", "trunkline.verifier",
        )  # fmt: skip
        self._heard = metrics.gauge(
            "trunkline.gateway.verifier.heard", "{verdict}",
            "Number of a verifier's newest verdict that was heard", "trunkline.verifier",
        )  # fmt: skip
        metrics.refresh.append(self.look)

    def add_routes(self, router: Router) -> None:
        """Register the path."""
        router.add("GET", ALERTS_PATH, local_only(self._reply))

    async def look(self) -> None:
        """Set the gauges to what is so now."""
        standings = self._verdicts.standings().items()
        self._standing.replace({place: float(found.level) for place, found in standings})
        verifiers = self._verdicts.status()
        self._reachable.replace({(one.name,): float(one.reachable) for one in verifiers})
        self._heard.replace({(one.name,): float(one.heard) for one in verifiers})

    async def _reply(self, call: Call) -> None:
        limit = number(call, "limit", LIMIT_DEFAULT, ALERTS_KEPT_MAX)
        found = await self._store.alerts(limit)
        listed = AlertList(
            alerts=tuple(found), standings=rows(self._verdicts), verifiers=self._verdicts.status()
        )
        await call.reply_json(200, listed)
