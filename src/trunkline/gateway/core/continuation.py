"""What stands of an answer so far, and how the next attempt goes on from it.

An attempt goes on exactly, with the seed and all tokens so far, or after the text, or it starts
afresh; the last only while the app was shown nothing. Which attempts run, and when, is
``attempt``'s to decide. Specified in ``docs/spec/attempt-protocol.md``, ADR 0008 and 0013.
"""

from trunkline.base.errors import require
from trunkline.gateway.core.actions import Plan, Start
from trunkline.gateway.core.history import History
from trunkline.gateway.core.route import Deployment, Need
from trunkline.gateway.core.transcript import Transcript
from trunkline.schema.attempt import Accepted, Prefix, PreviousAttempt


class Continuation:
    """One answer's text and the attempts at it until now."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._model: str | None = None
        """The model that began the text, as its node names it."""
        self.transcript = Transcript(plan.choices)
        self.history = History()
        self.first: Accepted | None = None
        """Who began the text that stands: it decides seed, weights and numerics."""
        self.spoiled = False
        """What the app was shown may be wrong: nobody goes on after it."""

    @property
    def relayed(self) -> bool:
        """Something of the answer has reached the app."""
        return self.transcript.relayed

    def begun_by(self, accepted: Accepted | None, model: str) -> None:
        """The text that stands begins with this attempt's."""
        self.first, self._model = accepted, model

    def added_by(self, start: Start) -> tuple[int, ...]:
        """Tokens per choice that this attempt added to what stands."""
        given = start.resume or ((),) * self._plan.choices
        return tuple(
            len(tokens) - len(before)
            for tokens, before in zip(self.transcript.tokens, given, strict=True)
        )

    def others(self) -> bool:
        """Whether the routing policy names a model that has not refused the request yet."""
        return any(one.model not in self.history.refused for one in self._plan.candidates)

    def need(self) -> Need:
        """What the next attempt needs of a deployment."""
        first = self.first
        seeded = first is not None and first.seed is not None
        return Need(
            model=self._plan.model,
            kind=self._plan.kind,
            candidates=self._plan.candidates,
            shown=self._model if self.relayed else None,
            exact=self.relayed,
            prefix=self._prefix() is not None,
            weights=None if first is None else first.weights,
            numerics=first.numerics if seeded and first is not None else None,
            tried=self.history.tried,
            banned=frozenset(self.history.banned),
            unfit=frozenset(self.history.unfit),
            refused=frozenset(self.history.refused),
            resting=self.history.resting(),
        )

    def start(self, number: int, attempt: str, deployment: Deployment, delay_s: float) -> Start:
        """The attempt at ``deployment`` that goes on from what stands, or starts afresh."""
        first = self.first
        goes_on = (
            self.transcript.token_count > 0
            and first is not None
            and first.numerics is not None
            and first.seed is not None
            and (deployment.numerics, deployment.weights) == (first.numerics, first.weights)
            and deployment.model == self._model
        )
        prefix = None if goes_on else self._prefix()
        continued = goes_on or prefix is not None
        require(continued or not self.relayed, "text that the app has is only ever continued")
        if not continued:
            self.start_afresh()
        return Start(
            number=number,
            attempt=attempt,
            deployment=deployment,
            delay_s=delay_s,
            previous=self.history.told(text=prefix is not None),
            origin=first if goes_on else None,
            resume=self.transcript.snapshot() if goes_on else None,
            prefix=prefix,
            first_event=self.transcript.resumes_at if prefix is None else prefix.events,
        )

    def start_beside(
        self, number: int, attempt: str, deployment: Deployment, beside: PreviousAttempt
    ) -> Start:
        """An attempt from the beginning, beside one that still runs and has shown nothing."""
        return Start(
            number=number,
            attempt=attempt,
            deployment=deployment,
            previous=(*self.history.told(text=False), beside),
            first_event=self.transcript.resumes_at,
        )

    def start_afresh(self) -> None:
        """Nothing of what earlier attempts produced stands."""
        self.transcript = Transcript(self._plan.choices)
        self.first = None
        self.history.disown_tokens()

    def _prefix(self) -> Prefix | None:
        """The text to go on after; None where nothing was shown, or nobody can go on after it."""
        if not self.relayed or self.spoiled or not self._plan.stream:
            return None
        return self.transcript.prefix()
