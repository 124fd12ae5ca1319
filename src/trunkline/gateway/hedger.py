"""When a second attempt may run beside a slow one, and where: the process's part of hedging.

The routing policy allows it (``[hedging]``), :mod:`core.hedge` counts it, what the deployment
normally does says when. A hedge takes only what is free this instant: it never waits, and goes
ahead of nobody who does.
"""

from trunkline.gateway.core.actions import Plan
from trunkline.gateway.core.hedge import HedgeBudget
from trunkline.gateway.core.route import Deployment, Need
from trunkline.gateway.core.ticket import Ticket
from trunkline.gateway.dispatcher import Dispatcher, Lease
from trunkline.gateway.health import Health


class Hedger:
    """One for the whole process."""

    def __init__(self, dispatcher: Dispatcher, health: Health) -> None:
        self._dispatcher = dispatcher
        self._health = health
        self._budget = HedgeBudget()

    def began(self, plan: Plan) -> None:
        """An answer begins."""
        if plan.hedging is not None:
            self._budget.began(plan.hedging.share)

    def after_s(self, plan: Plan, deployment: Deployment) -> float | None:
        """How long an attempt there may show nothing before it is hedged, seconds; None where it is
        not: no policy, or too little known of the deployment."""
        hedging = plan.hedging
        if hedging is None:
            return None
        if hedging.after_s is not None:
            return hedging.after_s
        # A provider's node says nothing of a whole answer until it is there.
        whole = plan.kind == "chat" and not plan.stream and deployment.numerics is None
        return self._health.normal_s(deployment, hedging.quantile, plan.size, whole=whole)

    def place(self, need: Need, ticket: Ticket) -> Lease | None:
        """A place for the second attempt, paid for; None if none is free, or nothing is saved."""
        if not self._budget.enough:
            return None
        lease = self._dispatcher.place_now(need, ticket)
        if lease is not None:
            self._budget.spend()
        return lease
