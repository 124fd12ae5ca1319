"""The answer's state machine: one answer to one call, over as many attempts as it takes.

    ATTEMPTING ──accepted──► ACCEPTED ──first token──► RELAYING ──receipt verified──► STORING
        ▲  ▲                    │                         │                              │
        │  └──── failed ────────┴──────── failed ─────────┘                           stored
        │                                 │                                              ▼
     (next node)                     nobody left ──► FAILED                            DONE

Promises, each held by a property test: what was relayed is never relayed again; nothing finishes
without a verified receipt that is durable; every answer ends, in DONE or FAILED, and is told so
once. Before anything reached the app a failed attempt starts anew anywhere. After, only a node that
continues exactly may take over, with the seed and all tokens so far; where there is none, the end
is explicit and says how much had been shown. A tool call or JSON document that is broken is one
more failed attempt (``values.py``). Whole (not streamed) answers keep their tokens too, so that a
takeover goes on.

Callers pass monotonic seconds and do what the returned actions say, in order. Events of attempts
that are over are ignored. Specified in ``docs/spec/attempt-protocol.md`` and ADR 0008.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

import msgspec

from trunkline.base.errors import Error, MalformedError, VerificationError, require
from trunkline.gateway.core.actions import (
    Action,
    Cancel,
    Ended,
    Fail,
    Failure,
    Finish,
    Plan,
    Relay,
    Start,
    Store,
)
from trunkline.gateway.core.check import Seen, check_receipt
from trunkline.gateway.core.deadline import Stage, stage_limit_s
from trunkline.gateway.core.ending import final_failure
from trunkline.gateway.core.route import Deployment, Need
from trunkline.gateway.core.transcript import Reception, Tokens, Transcript
from trunkline.gateway.core.values import InvalidAnswerError
from trunkline.schema.attempt import Accepted, PreviousAttempt, SignedReceipt
from trunkline.schema.errors import Produced

BACKOFF_S: Final = 0.1
BACKOFF_S_MAX: Final = 2.0
PREVIOUS_MAX: Final = 64
"""Attempts at one answer, however well they went in between: bounds the receipt."""

MODEL_CHARS_MAX: Final = 256
"""Longest name that a node may give the model it serves: it becomes a header."""

Choose = Callable[[Need], Deployment | None]
Actions = tuple[Action, ...]


class State(Enum):
    ATTEMPTING = "attempting"
    ACCEPTED = "accepted"
    RELAYING = "relaying"
    STORING = "storing"
    DONE = "done"
    FAILED = "failed"


_OVER: Final = frozenset({State.DONE, State.FAILED})
_STAGE: Final = {
    State.ATTEMPTING: Stage.ACCEPT,
    State.ACCEPTED: Stage.FIRST_TOKEN,
    State.RELAYING: Stage.NEXT_EVENT,
    State.STORING: Stage.NEXT_EVENT,
}


class Answer:
    """One answer's machine. Begin with :meth:`begin`; then report events as they come."""

    def __init__(self, plan: Plan, choose: Choose, new_attempt_id: Callable[[], str]) -> None:
        """``choose`` names the best deployment for a need now; both callbacks must not block."""
        self._plan = plan
        self._choose = choose
        self._new_attempt_id = new_attempt_id
        self._transcript = Transcript(plan.choices)
        self._reception: Reception | None = None
        self._start: Start | None = None
        self._first: Accepted | None = None
        """Who began the text that stands: it decides seed, weights and numerics."""
        self._previous: list[PreviousAttempt] = []
        self._banned: set[str] = set()
        self._failures: list[Failure] = []
        self._barren = 0
        """Attempts in a row without a new token."""
        self._tokens_before = 0
        self._stage_began_s = 0.0
        self._attempt_began_s = 0.0
        self._first_token_s: float | None = None
        self._confirmed = True
        """What was shown before is what the running attempt's node replayed."""
        self.state = State.ATTEMPTING
        self.accepted: Accepted | None = None
        """The running attempt's ``accepted``."""

    # What the shell reads.

    @property
    def over(self) -> bool:
        """Nothing more will happen."""
        return self.state in _OVER

    @property
    def relayed(self) -> bool:
        """Something of the answer has reached the app."""
        return self._transcript.relayed

    @property
    def attempts(self) -> int:
        """Attempts begun."""
        return len(self._previous) + (self._start is not None)

    def due_s(self) -> float:
        """When :meth:`timed_out` is to be called unless something is reported before."""
        if self.over:
            return self._plan.deadline_s
        limit_s = stage_limit_s(self._stage(), self._plan.timeouts)
        return min(self._stage_began_s + limit_s, self._plan.deadline_s)

    def _stage(self) -> Stage:
        """What is being waited for. A provider's node reports no progress of a whole answer."""
        accepted = self.accepted
        whole = self._plan.kind == "chat" and not self._plan.stream
        silent = whole and accepted is not None and accepted.numerics is None
        return Stage.WHOLE if silent and self.state is State.ACCEPTED else _STAGE[self.state]

    # What the shell reports.

    def begin(self, now_s: float) -> Actions:
        """Ask for the first attempt."""
        require(self._start is None and not self.over, "an answer begins once")
        return self._next_attempt(now_s)

    def on_accepted(self, number: int, accepted: Accepted, now_s: float) -> Actions:
        """The node took the attempt on."""
        if not self._current(number):
            return ()
        start = self._running()
        problem = _accepted_problem(accepted, start, self._first)
        if self.state is not State.ATTEMPTING:
            problem = "it accepted twice"
        if problem is not None:
            return self._broken(f"the node broke the attempt protocol: {problem}", now_s)
        self.accepted = accepted
        if start.resume is None:
            self._first = accepted
        self._reception = Reception(
            self._plan, self._transcript, start.attempt, exact=accepted.numerics is not None
        )
        # Only what the app has seen needs to be confirmed.
        self._confirmed = not (self._plan.stream and self._transcript.relayed)
        self._enter(State.ACCEPTED, now_s)
        return ()

    def on_replayed(self, number: int, digest: str, now_s: float) -> Actions:
        """The node that takes over says what the tokens so far show. Where the app was shown
        anything else, nobody can vouch for it, and nothing may be added to it."""
        if not self._current(number):
            return ()
        if self._reception is None or self._running().resume is None or not self._plan.stream:
            return self._broken("a replay where none belongs", now_s)
        if self._transcript.relayed and digest != self._transcript.shown:
            ended = self._end_attempt(msgspec.structs.replace(_ALTERED, faultless=True))
            return (*ended, *self._fail(_ALTERED, now_s))
        self._confirmed = True
        return ()

    def on_chunk(
        self, number: int, event: int, tokens: Tokens, data: bytes | None, now_s: float
    ) -> Actions:
        """An unnamed event: ``event`` is its id, ``tokens`` pairs of choice and token id."""
        if not self._current(number):
            return ()
        reception = self._reception
        if reception is None:
            return self._broken("the node sent text before it accepted", now_s)
        if not self._confirmed:
            return self._broken("the node went on without saying from where", now_s)
        try:
            relayed = reception.take(event, tokens, data)
        except MalformedError as error:
            return self._broken(error.message, now_s)
        # A role chunk comes before the prompt is read: it is no sign that tokens flow.
        said = tokens or relayed or (reception.withholding and reception.speaking)
        if said or not self._plan.stream or self.state is State.RELAYING:
            self._flowing(now_s)
        return tuple(Relay(data=part) for part in relayed)

    def on_progress(self, number: int, tokens: Tokens, now_s: float) -> Actions:
        """Tokens of an answer that is sent whole."""
        if not self._current(number):
            return ()
        if self._reception is None or self._plan.stream:
            return self._broken("progress where none belongs", now_s)
        try:
            self._transcript.add_tokens(tokens)
        except MalformedError as error:
            return self._broken(error.message, now_s)
        self._flowing(now_s)
        return ()

    def on_receipt(self, number: int, signed: SignedReceipt, now_s: float) -> Actions:
        """The node's last word: verified here; the answer finishes once it is durable."""
        if not self._current(number):
            return ()
        reception, accepted, start = self._reception, self.accepted, self._running()
        if reception is None or accepted is None:
            return self._broken("a receipt before anything was accepted", now_s)
        if not self._confirmed:
            return self._broken("the node went on without saying from where", now_s)
        try:
            reception.complete()
            verified = check_receipt(signed, self._seen(reception, accepted, start))
        except VerificationError as error:
            return self._attempt_failed(_dishonest(error.message), now_s)
        except InvalidAnswerError as error:
            # The node did its work, and a model may err: nothing against the deployment.
            failure = Failure(
                code=error.error_code, message=error.message, suspect=True, faultless=True
            )
            return self._attempt_failed(failure, now_s)
        except MalformedError as error:
            return self._broken(error.message, now_s)
        self._enter(State.STORING, now_s)
        ended = Ended(
            number=number,
            attempt=start.attempt,
            deployment=start.deployment,
            failure=None,
            first_token_s=self._first_token_s,
        )
        stored = Store(
            attempt=start.attempt,
            deployment=start.deployment,
            accepted=accepted,
            signed=signed,
            verified=verified,
        )
        return (ended, stored)

    def on_stored(self, now_s: float) -> Actions:
        """The part is durable: show the end."""
        if self.over:
            return ()
        require(self.state is State.STORING, "only a verified part can be stored")
        reception = self._reception
        require(reception is not None, "a stored part was received")
        held = reception.release() if reception is not None else []
        self._enter(State.DONE, now_s)
        return (*(Relay(data=part) for part in held), Finish())

    def on_not_stored(self, error: Error, now_s: float) -> Actions:
        """Our own disk refused the evidence: the end stays unsaid, explicitly."""
        if self.over:
            return ()
        return self._fail(
            Failure(code="evidence_not_stored", message=error.message, status=503), now_s
        )

    def on_failed(self, number: int, failure: Failure, now_s: float) -> Actions:
        """The attempt ended without a receipt: refused, cut, stalled, or an error event."""
        if not self._current(number):
            return ()
        return self._attempt_failed(failure, now_s)

    def timed_out(self, now_s: float) -> Actions:
        """:meth:`due_s` has passed. Early calls are ignored."""
        if self.over or now_s < self.due_s():
            return ()
        if now_s >= self._plan.deadline_s:
            ended = self._end_attempt(_late(Stage.TOTAL, faultless=True))
            return (*ended, *self._fail(_late(Stage.TOTAL), now_s))
        if self.state is State.STORING:
            failure = Failure(code="evidence_not_stored", message="storing timed out", status=503)
            return self._fail(failure, now_s)
        return self._attempt_failed(_late(self._stage()), now_s)

    def stop(self, failure: Failure, now_s: float) -> Actions:
        """End it from outside: the client left, or this process is stopping."""
        if self.over:
            return ()
        stopped = Failure(code=failure.code, message=failure.message, faultless=True)
        return (*self._end_attempt(stopped), *self._fail(failure, now_s))

    # Inside.

    def _current(self, number: int) -> bool:
        return (
            not self.over
            and self.state is not State.STORING
            and self._start is not None
            and self._start.number == number
        )

    def _running(self) -> Start:
        if self._start is None:
            raise AssertionError("no attempt is running")
        return self._start

    def _enter(self, state: State, now_s: float) -> None:
        self.state = state
        self._stage_began_s = now_s

    def _flowing(self, now_s: float) -> None:
        """Something of the text arrived."""
        if self.state is State.ACCEPTED:
            self._first_token_s = now_s - self._attempt_began_s
        self._enter(State.RELAYING, now_s)

    def _seen(self, reception: Reception, accepted: Accepted, start: Start) -> Seen:
        return Seen(
            plan=self._plan,
            start=start,
            accepted=accepted,
            stream=reception.digest.close(),
            chunks=reception.digest.chunks,
            tokens=reception.all_tokens(),
            finish=reception.reasons,
        )

    def _broken(self, message: str, now_s: float) -> Actions:
        failure = Failure(code="upstream_bad_response", message=message, suspect=True)
        return self._attempt_failed(failure, now_s)

    def _end_attempt(self, failure: Failure) -> Actions:
        """Close the running attempt, if any, and put it on the record."""
        start = self._start
        if start is None:
            return ()
        taken = self._transcript.token_count - self._tokens_before
        self._barren = 0 if taken else self._barren + 1
        self._previous.append(
            PreviousAttempt(
                attempt=start.attempt,
                node=start.deployment.node,
                error=failure.code,
                tokens=self._taken_over(start),
            )
        )
        ended = Ended(
            number=start.number,
            attempt=start.attempt,
            deployment=start.deployment,
            failure=failure,
            first_token_s=self._first_token_s,
        )
        self._start = None
        self._reception = None
        self.accepted = None
        return (Cancel(number=start.number), ended)

    def _taken_over(self, start: Start) -> tuple[int, ...]:
        """Tokens per choice that this attempt added to what stands; empty for none at all."""
        given = start.resume or ((),) * self._plan.choices
        added = tuple(
            len(tokens) - len(before)
            for tokens, before in zip(self._transcript.tokens, given, strict=True)
        )
        return added if any(added) else ()

    def _attempt_failed(self, failure: Failure, now_s: float) -> Actions:
        start = self._running()
        self._failures.append(failure)
        if failure.dishonest:
            self._banned.add(start.deployment.node)
        ended = self._end_attempt(failure)
        if failure.suspect and not self.relayed:
            # Whoever broke the protocol may have sent wrong tokens too: nobody goes on from them.
            self._start_afresh()
        # A request that a node has already begun to answer can not be at fault itself.
        if not failure.retryable and self._transcript.token_count == 0 and not self.relayed:
            return (*ended, *self._fail(failure, now_s))
        if failure.unfit or not failure.retryable:
            self._banned.add(start.deployment.node)
        return (*ended, *self._next_attempt(now_s))

    def _next_attempt(self, now_s: float) -> Actions:
        if now_s >= self._plan.deadline_s:
            return self._fail(_late(Stage.TOTAL), now_s)
        spent = self._barren >= self._plan.attempts_max or len(self._previous) >= PREVIOUS_MAX
        deployment = None if spent else self._choose(self._need())
        if deployment is None:
            return self._fail(final_failure(self._failures, relayed=self.relayed), now_s)
        delay_s = self._delay_s(deployment)
        if now_s + delay_s >= self._plan.deadline_s:
            return self._fail(final_failure(self._failures, relayed=self.relayed), now_s)
        return (self._begin_attempt(deployment, delay_s, now_s),)

    def _need(self) -> Need:
        first = self._first
        seeded = first is not None and first.seed is not None
        return Need(
            model=self._plan.model,
            kind=self._plan.kind,
            exact=self.relayed,
            weights=None if first is None else first.weights,
            numerics=first.numerics if seeded and first is not None else None,
            tried=tuple(previous.node for previous in self._previous),
            banned=frozenset(self._banned),
            resting=self._resting(),
        )

    def _resting(self) -> frozenset[str]:
        """Nodes that want to be left alone for longer than a back-off would take."""
        last = {
            previous.node: failure.retry_after_s or 0.0
            for previous, failure in zip(self._previous, self._failures, strict=True)
        }
        return frozenset(node for node, wait_s in last.items() if wait_s > BACKOFF_S_MAX)

    def _delay_s(self, deployment: Deployment) -> float:
        """No wait for a node not tried yet; back-off, or its own word, for one that was."""
        told = [
            failure.retry_after_s or 0.0
            for previous, failure in zip(self._previous, self._failures, strict=True)
            if previous.node == deployment.node
        ]
        if not told:
            return 0.0
        return max(min(BACKOFF_S * 2.0 ** (len(told) - 1), BACKOFF_S_MAX), told[-1])

    def _begin_attempt(self, deployment: Deployment, delay_s: float, now_s: float) -> Start:
        first = self._first
        goes_on = (
            self._transcript.token_count > 0
            and first is not None
            and first.numerics is not None
            and first.seed is not None
            and (deployment.numerics, deployment.weights) == (first.numerics, first.weights)
        )
        require(goes_on or not self.relayed, "text that the app has is only ever continued")
        if not goes_on:
            self._start_afresh()
        start = Start(
            number=len(self._previous),
            attempt=self._new_attempt_id(),
            deployment=deployment,
            delay_s=delay_s,
            previous=tuple(self._previous),
            seed=first.seed if goes_on and first is not None else None,
            numerics=first.numerics if goes_on and first is not None else None,
            resume=self._transcript.snapshot() if goes_on else None,
            first_event=self._transcript.resumes_at,
        )
        self._start = start
        self._tokens_before = self._transcript.token_count
        self._first_token_s = None
        self._attempt_began_s = now_s + delay_s
        self._enter(State.ATTEMPTING, now_s + delay_s)
        return start

    def _start_afresh(self) -> None:
        """Nothing of what earlier attempts produced stands."""
        self._transcript = Transcript(self._plan.choices)
        self._first = None
        self._previous = [
            PreviousAttempt(attempt=p.attempt, node=p.node, error=p.error) for p in self._previous
        ]

    def _fail(self, failure: Failure, now_s: float) -> Actions:
        self._enter(State.FAILED, now_s)
        if self.relayed:
            shown = Produced(chunks=self._transcript.chunks, characters=self._transcript.characters)
            failure = msgspec.structs.replace(failure, produced=shown)
        return (Fail(failure=failure),)


def _accepted_problem(accepted: Accepted, start: Start, first: Accepted | None) -> str | None:
    """What is wrong with an ``accepted``, if anything."""
    if accepted.attempt != start.attempt:
        return "another attempt's id"
    if accepted.node != start.deployment.node:
        return "another node's name"
    if accepted.operator != start.deployment.operator:
        return "another operator's name"
    if not 0 < len(accepted.model) <= MODEL_CHARS_MAX:
        return "a model's name of absurd length"
    if start.resume is None:
        return None
    if first is None or accepted.seed != start.seed:
        return "another seed than the answer's"
    if (accepted.numerics, accepted.weights) != (first.numerics, first.weights):
        return "other weights or numerics than the answer's"
    return None


_ALTERED: Final = Failure(
    code="answer_altered",
    message="what was sent is not what the answer's tokens say; the answer ends here",
    status=502,
)
"""A node lied about its text, or something changed it on the way to this gateway."""


def _dishonest(message: str) -> Failure:
    return Failure(code="bad_receipt", message=message, dishonest=True, suspect=True)


def _late(stage: Stage, *, faultless: bool = False) -> Failure:
    whole = stage is Stage.TOTAL
    message = "the answer's deadline has passed" if whole else "the node was silent for too long"
    return Failure(code=stage.value, message=message, status=504, faultless=faultless)
