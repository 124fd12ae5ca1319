"""What this gateway has learnt of its deployments by using them: breakers, latency, load.

Kept in memory only: it is cheap to learn again, and stale health is worse than none.
"""

import msgspec

from trunkline.base.ports import Clock
from trunkline.gateway.core.actions import Failure
from trunkline.gateway.core.breaker import Admission, Breaker, BreakerPolicy, State
from trunkline.gateway.core.route import Deployment, smoothed


class _Known:
    """One deployment's record."""

    __slots__ = ("breaker", "first_token_s", "running")

    def __init__(self, policy: BreakerPolicy) -> None:
        self.breaker = Breaker(policy)
        self.first_token_s: float | None = None
        self.running = 0


class DeploymentHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot, for routing and for the status page."""

    state: State
    admission: Admission
    running: int
    first_token_s: float | None


class Health:
    """Learns from attempts. Keyed by (node, model), so that one bad model benches no other."""

    def __init__(self, clock: Clock, policy: BreakerPolicy | None = None) -> None:
        self._clock = clock
        self._policy = policy or BreakerPolicy()
        self._known: dict[tuple[str, str], _Known] = {}

    def of(self, node: str, model: str) -> DeploymentHealth:
        """What is known of a deployment now."""
        known = self._get(node, model)
        admission = known.breaker.admission(self._clock.monotonic_s())
        return DeploymentHealth(
            state=known.breaker.state,
            admission=admission,
            running=known.running,
            first_token_s=known.first_token_s,
        )

    def started(self, deployment: Deployment) -> None:
        """An attempt begins."""
        known = self._get(deployment.node, deployment.model)
        known.running += 1
        known.breaker.started(self._clock.monotonic_s())

    def ended(
        self, deployment: Deployment, failure: Failure | None, first_token_s: float | None
    ) -> None:
        """An attempt that had started is over."""
        known = self._get(deployment.node, deployment.model)
        known.running = max(known.running - 1, 0)
        if first_token_s is not None:
            known.first_token_s = smoothed(known.first_token_s, first_token_s)
        if failure is None:
            known.breaker.succeeded()
        elif failure.faultless:
            known.breaker.abandoned()
        else:
            self._failed(deployment, failure)

    def heard_of(self, node: str) -> None:
        """A node that could not be reached answers again: let probes through at once."""
        for (name, _), known in self._known.items():
            if name == node:
                known.breaker.cooled()

    def _failed(self, deployment: Deployment, failure: Failure) -> None:
        now_s = self._clock.monotonic_s()
        for (node, model), known in self._known.items():
            same = model == deployment.model
            # A refused connection is the whole node's, not one model's.
            if node == deployment.node and (same or failure.refused):
                known.breaker.failed(now_s, refused=failure.refused)

    def _get(self, node: str, model: str) -> _Known:
        found = self._known.get((node, model))
        if found is None:
            found = self._known[node, model] = _Known(self._policy)
        return found
