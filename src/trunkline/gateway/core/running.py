"""One attempt while it runs: how far it is, and how long it may stay there."""

from enum import Enum
from typing import Final

from trunkline.gateway.core.actions import Ended, Failure, Plan, Start
from trunkline.gateway.core.check import Seen
from trunkline.gateway.core.deadline import UNKNOWN, Stage, Stopwatch, stage_limit_s
from trunkline.gateway.core.normal import Timings
from trunkline.gateway.core.transcript import Reception
from trunkline.schema.attempt import Accepted


class Phase(Enum):
    ATTEMPTING = "attempting"
    ACCEPTED = "accepted"
    RELAYING = "relaying"
    JUDGING = "judging"
    STORING = "storing"


_STAGE: Final = {
    Phase.ATTEMPTING: Stage.ACCEPT,
    Phase.ACCEPTED: Stage.FIRST_TOKEN,
    Phase.RELAYING: Stage.NEXT_EVENT,
    Phase.JUDGING: Stage.NEXT_EVENT,
    Phase.STORING: Stage.NEXT_EVENT,
}


class Running:
    """A running attempt. Times are monotonic seconds."""

    __slots__ = (
        "_plan", "accepted", "confirmed", "phase", "reception", "start", "tokens_before", "watch",
    )  # fmt: skip

    def __init__(self, plan: Plan, start: Start, began_s: float, tokens_before: int) -> None:
        """``tokens_before``: tokens of the answer that stood when it began."""
        self._plan = plan
        self.start = start
        self.watch = Stopwatch(began_s, plan.size)
        self.tokens_before = tokens_before
        self.phase = Phase.ATTEMPTING
        self.accepted: Accepted | None = None
        self.reception: Reception | None = None
        """None until it was accepted."""
        self.confirmed = True
        """What was shown before is what this attempt's node replayed."""

    def enter(self, phase: Phase, now_s: float) -> None:
        """It got on."""
        match phase:
            case Phase.ACCEPTED:
                self.watch.accepted(now_s)
            case Phase.RELAYING if self.stage is Stage.WHOLE:
                self.watch.whole(now_s)
            case Phase.RELAYING:
                self.watch.token(now_s)
            case Phase.JUDGING | Phase.STORING | Phase.ATTEMPTING:
                self.watch.next(now_s)
        self.phase = phase

    @property
    def stage(self) -> Stage:
        """What is being waited for. A provider's node reports no progress of a whole answer."""
        accepted = self.accepted
        whole = self._plan.kind == "chat" and not self._plan.stream
        silent = whole and accepted is not None and accepted.numerics is None
        return Stage.WHOLE if silent and self.phase is Phase.ACCEPTED else _STAGE[self.phase]

    def due_s(self) -> float:
        """When it will have taken too long."""
        if self.phase is Phase.JUDGING:
            # Verifiers have a time of their own: no node is waited for.
            return self._plan.deadline_s
        # What is waited for while a part is stored is our own disk, whoever served it.
        storing = self.phase is Phase.STORING
        expected = UNKNOWN if storing else self.start.deployment.expected
        plan = self._plan
        limit_s = stage_limit_s(self.stage, plan.timeouts, expected, plan.size)
        return self.watch.waiting_since_s + limit_s

    @property
    def shown(self) -> int:
        """Characters of text that the app was shown of it."""
        return 0 if self.reception is None else self.reception.shown

    def seen(self, reception: Reception, accepted: Accepted) -> Seen:
        """What its receipt must agree with."""
        return Seen(
            plan=self._plan,
            start=self.start,
            accepted=accepted,
            stream=reception.digest.close(),
            chunks=reception.digest.chunks,
            tokens=reception.all_tokens(),
            finish=reception.reasons,
        )

    def ended(self, failure: Failure | None) -> Ended:
        """The report of its end."""
        cached = self.accepted is not None and self.accepted.cached
        return Ended(
            number=self.start.number,
            attempt=self.start.attempt,
            deployment=self.start.deployment,
            failure=failure,
            # What a node had kept says nothing of how long it takes to make an answer.
            timings=Timings() if cached else self.watch.read(),
        )
