"""One attempt while it runs: how far it is, and how long it may stay there."""

from enum import Enum
from typing import Final

from trunkline.gateway.core.actions import Ended, Failure, Plan, Start
from trunkline.gateway.core.check import Seen
from trunkline.gateway.core.deadline import Stage, stage_limit_s
from trunkline.gateway.core.transcript import Reception
from trunkline.schema.attempt import Accepted


class Phase(Enum):
    ATTEMPTING = "attempting"
    ACCEPTED = "accepted"
    RELAYING = "relaying"
    STORING = "storing"


_STAGE: Final = {
    Phase.ATTEMPTING: Stage.ACCEPT,
    Phase.ACCEPTED: Stage.FIRST_TOKEN,
    Phase.RELAYING: Stage.NEXT_EVENT,
    Phase.STORING: Stage.NEXT_EVENT,
}


class Running:
    """A running attempt. Times are monotonic seconds."""

    __slots__ = (
        "_plan", "accepted", "began_s", "confirmed", "first_token_s", "phase", "phase_began_s",
        "reception", "start", "tokens_before",
    )  # fmt: skip

    def __init__(self, plan: Plan, start: Start, began_s: float, tokens_before: int) -> None:
        """``tokens_before``: tokens of the answer that stood when it began."""
        self._plan = plan
        self.start = start
        self.began_s = began_s
        self.tokens_before = tokens_before
        self.phase = Phase.ATTEMPTING
        self.phase_began_s = began_s
        self.accepted: Accepted | None = None
        self.reception: Reception | None = None
        """None until it was accepted."""
        self.confirmed = True
        """What was shown before is what this attempt's node replayed."""
        self.first_token_s: float | None = None
        """From its beginning to its first token."""

    def enter(self, phase: Phase, now_s: float) -> None:
        """It got on."""
        if self.phase is Phase.ACCEPTED and phase is Phase.RELAYING:
            self.first_token_s = now_s - self.began_s
        self.phase = phase
        self.phase_began_s = now_s

    @property
    def stage(self) -> Stage:
        """What is being waited for. A provider's node reports no progress of a whole answer."""
        accepted = self.accepted
        whole = self._plan.kind == "chat" and not self._plan.stream
        silent = whole and accepted is not None and accepted.numerics is None
        return Stage.WHOLE if silent and self.phase is Phase.ACCEPTED else _STAGE[self.phase]

    def due_s(self) -> float:
        """When it will have taken too long."""
        return self.phase_began_s + stage_limit_s(self.stage, self._plan.timeouts)

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
        return Ended(
            number=self.start.number,
            attempt=self.start.attempt,
            deployment=self.start.deployment,
            failure=failure,
            first_token_s=self.first_token_s,
        )
