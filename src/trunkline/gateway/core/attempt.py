"""The answer's state machine: one answer to one call, over as many attempts as it takes.

    SEEKING ──placed──► ATTEMPTING ──accepted──► ACCEPTED ──first token──► RELAYING
       ▲ │                  │                       │                      │     │
       │ └─unplaced─►FAILED └─────────── failed ────┴──────────────────────┘  verified
       └───────────────────────────────────┘                                     ▼
                                           DONE ◄──stored── STORING ◄──passed── (JUDGING)

An answer that is verified before it is shown is held back whole, and judged in between: what fails
there is one more failed attempt.

Promises, each held by a property test: what was relayed is never relayed again; nothing finishes
without a verified receipt that is durable; every answer ends, in DONE or FAILED, and is told so
once. Before anything reached the app a failed attempt starts anew anywhere. After, only a node that
continues exactly may take over, with the seed and all tokens so far, or one that goes on after the
text with the same model; where there is none, the end is explicit and says how much had been shown.
A tool call or JSON document that is broken is one more failed attempt (``values.py``). Whole (not
streamed) answers keep their tokens too, so that a takeover goes on.

While nothing of an answer has arrived, a second attempt may run beside one that is slow (a hedge).
The first whose text arrives goes on alone; the other is closed at once, and nothing of it was kept.

Callers pass monotonic seconds and do what the returned actions say, in order. Events of attempts
that are over are ignored. Specified in ``docs/spec/attempt-protocol.md``, ADR 0008 and 0013.
"""

from collections.abc import Callable
from enum import Enum
from typing import Final

import msgspec

from trunkline.base.errors import Error, MalformedError, VerificationError, require
from trunkline.gateway.core import ending
from trunkline.gateway.core.actions import (
    Action,
    Cancel,
    Chain,
    Fail,
    Failure,
    Finish,
    Judge,
    Judgement,
    Plan,
    Relay,
    Seek,
    Start,
    Store,
    stable_code,
)
from trunkline.gateway.core.check import accepted_problem, check_receipt
from trunkline.gateway.core.continuation import Continuation
from trunkline.gateway.core.deadline import Stage
from trunkline.gateway.core.route import Deployment, Need
from trunkline.gateway.core.running import Phase, Running
from trunkline.gateway.core.seam import SeamError
from trunkline.gateway.core.transcript import Reception, Tokens
from trunkline.gateway.core.values import InvalidAnswerError
from trunkline.schema.attempt import Accepted, PreviousAttempt, SignedReceipt
from trunkline.schema.errors import Produced

HEDGED: Final = "hedged"
"""In a hedge's receipt, of the attempt beside which it began: that one still ran, silently."""

Actions = tuple[Action, ...]


class State(Enum):
    RUNNING = "running"
    """An attempt runs, or a place for one is sought."""
    JUDGING = "judging"
    """The answer is whole, and held for the verifiers."""
    STORING = "storing"
    DONE = "done"
    FAILED = "failed"


_OVER: Final = frozenset({State.DONE, State.FAILED})


class Answer:
    """One answer's machine. Begin with :meth:`begin`; then report events as they come."""

    def __init__(self, plan: Plan, new_attempt_id: Callable[[], str]) -> None:
        """``new_attempt_id`` must not block."""
        self._plan = plan
        self._new_attempt_id = new_attempt_id
        self._stands = Continuation(plan)
        self._history = self._stands.history
        self._sought: int | None = None
        """Number of the attempt that has no place yet."""
        self._numbers = 0
        self._hedged = False
        """A second attempt was asked for beside a slow one: at most once."""
        self._running: dict[int, Running] = {}
        self._whole: Store | None = None
        """What is stored once it is judged."""
        self.chain: Chain | None = None
        """Whose text is relayed; None: nobody's yet."""
        self.attempts = 0
        """Attempts begun."""
        self.judged: Judgement | None = None
        """What verifiers said of the answer that is shown; None: nothing, or nothing yet."""
        self.state = State.RUNNING

    # What the shell reads.

    @property
    def over(self) -> bool:
        """Nothing more will happen."""
        return self.state in _OVER

    @property
    def relayed(self) -> bool:
        """Something of the answer has reached the app."""
        return self._stands.relayed

    @property
    def possible_double_work(self) -> bool:
        """Some attempt was sent, and whether its node or provider did the work is not known."""
        return self._plan.again or any(
            failure.code in ending.UNKNOWN_CODES for failure in self._history.failures
        )

    @property
    def accepted(self) -> Accepted | None:
        """The ``accepted`` of the attempt that runs, or that gave the answer."""
        found = [running.accepted for running in self._running.values()]
        return found[0] if found else None

    def runs(self, number: int) -> bool:
        """Whether events of this attempt still count."""
        return self.state is State.RUNNING and number in self._running

    def due_s(self, number: int) -> float:
        """When :meth:`timed_out` is to be called unless something is reported before."""
        running = self._running.get(number)
        if running is None or self.over:
            return self._plan.deadline_s
        return min(running.due_s(), self._plan.deadline_s)

    # What the shell reports.

    def excuse(self, number: int, spent_s: float) -> None:
        """For ``spent_s`` of the wait since its last event the attempt's node is not to blame: the
        app or our disk was waited for, or this process stood still."""
        running = self._running.get(number)
        if running is not None:
            running.watch.excuse(spent_s)

    def begin(self, now_s: float) -> Actions:
        """Ask for the first attempt."""
        require(self._numbers == 0 and not self.over, "an answer begins once")
        return self._next_attempt(now_s)

    def on_placed(self, number: int, deployment: Deployment, now_s: float) -> Actions:
        """There is a place for the attempt that was sought."""
        if self.over or number != self._sought:
            return ()
        self._sought = None
        if self._running:
            return (self._begin_beside(number, deployment, now_s),)
        delay_s = self._history.delay_s(deployment.place, now_s)
        if now_s + delay_s >= self._plan.deadline_s:
            return self._nobody(now_s)
        return (self._begin_attempt(number, deployment, delay_s, now_s),)

    def on_unplaced(self, number: int, failure: Failure | None, now_s: float) -> Actions:
        """There is none. ``failure``: why nobody can take it in time; None: nobody serves it."""
        if self.over or number != self._sought:
            return ()
        self._sought = None
        return () if self._running else self._nobody(now_s, failure)

    def on_slow(self, number: int, now_s: float) -> Actions:
        """This attempt has shown nothing for longer than it should: ask for one beside it."""
        running = self._current(number)
        if running is None or self._hedged or running.phase is Phase.RELAYING:
            return ()
        if self.relayed or self._stands.transcript.token_count or now_s >= self._plan.deadline_s:
            return ()
        self._hedged = True
        need, slow = self._stands.need(), running.start.deployment
        beside = msgspec.structs.replace(
            need,
            # What stands in for this model is for its failure, not for its slowness.
            candidates=tuple(one for one in need.candidates if one.model == slow.model),
            tried=(*need.tried, slow.place),
            banned=need.banned | {slow.node},
        )
        return (self._seek(beside),)

    def on_accepted(self, number: int, accepted: Accepted, now_s: float) -> Actions:
        """The node took the attempt on."""
        running = self._current(number)
        if running is None:
            return ()
        start = running.start
        if accepted.key not in ("", str(start.deployment.key)):
            return self._attempt_failed(running, ending.KEY_CHANGED, now_s)
        problem = accepted_problem(accepted, start, self._stands.first, cache=self._plan.cache)
        if running.phase is not Phase.ATTEMPTING:
            problem = "it accepted twice"
        if problem is not None:
            return self._broken(running, f"the node broke the attempt protocol: {problem}", now_s)
        running.accepted = accepted
        running.reception = Reception(
            self._plan,
            self._stands.transcript,
            start.attempt,
            exact=accepted.numerics is not None and start.prefix is None,
            prefix=start.prefix,
        )
        # Only what the app has seen needs to be confirmed, and text that is given needs not be.
        shown = self._plan.stream and self._stands.transcript.relayed
        running.confirmed = not shown or start.prefix is not None
        running.enter(Phase.ACCEPTED, now_s)
        return ()

    def on_replayed(self, number: int, digest: str, now_s: float) -> Actions:
        """The node that takes over says what the tokens so far show. Where the app was shown
        anything else, nobody can vouch for it, and nothing may be added to it."""
        running = self._current(number)
        if running is None:
            return ()
        if running.reception is None or running.start.resume is None or not self._plan.stream:
            return self._broken(running, "a replay where none belongs", now_s)
        if self._stands.transcript.relayed and digest != self._stands.transcript.shown:
            ended = self._end_attempt(
                running, msgspec.structs.replace(ending.ALTERED, faultless=True)
            )
            return (*ended, *self._fail(ending.ALTERED))
        running.confirmed = True
        return ()

    def on_chunk(
        self,
        number: int,
        event: int,
        tokens: Tokens,
        data: bytes | None,
        now_s: float,
        *,
        used: tuple[int, int] | None = None,
    ) -> Actions:
        """An unnamed event: ``event`` is its id, ``tokens`` pairs of choice and token id, ``used``
        the tokens of prompt and answer so far."""
        running = self._current(number)
        if running is None:
            return ()
        reception = running.reception
        if reception is None:
            return self._broken(running, "the node sent text before it accepted", now_s)
        if not running.confirmed:
            return self._broken(running, "the node went on without saying from where", now_s)
        try:
            relayed = reception.take(event, tokens, data, used)
        except SeamError as error:
            failure = Failure(code=error.error_code, message=error.message)
            return self._attempt_failed(running, failure, now_s)
        except MalformedError as error:
            return self._broken(running, error.message, now_s)
        # A role chunk comes before the prompt is read: it is no sign that tokens flow.
        said = bool(tokens or relayed or (reception.holding and reception.speaking))
        flows = reception.further if running.phase is Phase.RELAYING else said
        lost = self._flowing(running, now_s) if flows or not self._plan.stream else ()
        return (*lost, *(Relay(data=part) for part in relayed))

    def on_progress(self, number: int, tokens: Tokens, now_s: float) -> Actions:
        """Tokens of an answer that is sent whole."""
        running = self._current(number)
        if running is None:
            return ()
        if running.reception is None or self._plan.stream:
            return self._broken(running, "progress where none belongs", now_s)
        try:
            self._stands.transcript.add_tokens(tokens)
        except MalformedError as error:
            return self._broken(running, error.message, now_s)
        return self._flowing(running, now_s)

    def on_receipt(self, number: int, signed: SignedReceipt, now_s: float) -> Actions:
        """The node's last word: verified here; the answer finishes once it is durable."""
        running = self._current(number)
        if running is None:
            return ()
        reception, accepted, start = running.reception, running.accepted, running.start
        if reception is None or accepted is None:
            return self._broken(running, "a receipt before anything was accepted", now_s)
        if not running.confirmed:
            return self._broken(running, "the node went on without saying from where", now_s)
        try:
            reception.complete()
            verified = check_receipt(signed, running.seen(reception, accepted))
        except VerificationError as error:
            return self._attempt_failed(running, ending.dishonest(error.message), now_s)
        except InvalidAnswerError as error:
            # The node did its work, and a model may err: nothing against the deployment.
            failure = Failure(
                code=error.error_code, message=error.message, suspect=True, faultless=True
            )
            return self._attempt_failed(running, failure, now_s)
        except MalformedError as error:
            return self._broken(running, error.message, now_s)
        self.chain = reception.chain
        lost = self._outrun(running, now_s)
        whole = Store(
            number=number,
            attempt=start.attempt,
            deployment=start.deployment,
            accepted=accepted,
            signed=signed,
            verified=verified,
            text_bytes=reception.text_bytes,
        )
        if self._plan.before is None:
            return (*lost, *self._settle(running, whole, now_s))
        running.enter(Phase.JUDGING, now_s)
        self.state, self._whole = State.JUDGING, whole
        judge = Judge(
            part=whole,
            tokens=() if self._plan.kind == "embeddings" else reception.all_tokens(),
            vectors=reception.vectors(),
            before=self._plan.before,
        )
        return (*lost, judge)

    def on_judged(self, number: int, judgement: Judgement, now_s: float) -> Actions:
        """What verifiers made of the answer, or that they have not said in time."""
        running, whole, before = self._running.get(number), self._whole, self._plan.before
        if self.state is not State.JUDGING or running is None or whole is None or before is None:
            return ()
        if judgement == "fail":
            self.state = State.RUNNING
            return self._attempt_failed(running, ending.NOT_VERIFIED, now_s)
        if judgement == "inconclusive" and not before.release:
            return (running.ended(None), *self._fail(ending.NOT_JUDGED))
        self.judged = judgement
        return self._settle(running, whole, now_s)

    def _settle(self, running: Running, whole: Store, now_s: float) -> Actions:
        """The answer is whole: what is left is to store it and to show its end."""
        running.enter(Phase.STORING, now_s)
        self.state = State.STORING
        return (running.ended(None), whole)

    def rest(self) -> list[bytes]:
        """Of a verified part that is being stored: the data that ``on_stored`` will relay."""
        require(self.state is State.STORING, "the rest is known once the part is verified")
        (running,) = self._running.values()
        return [] if running.reception is None else running.reception.held()

    def on_stored(self) -> Actions:
        """The part is durable: show the end."""
        if self.over:
            return ()
        require(self.state is State.STORING, "only a verified part can be stored")
        (running,) = self._running.values()
        reception = running.reception
        require(reception is not None, "a stored part was received")
        held = reception.release() if reception is not None else []
        self.state = State.DONE
        return (*(Relay(data=part) for part in held), Finish())

    def on_not_stored(self, error: Error) -> Actions:
        """Our own disk refused the evidence: the end stays unsaid, explicitly."""
        if self.over:
            return ()
        # What the disk said names places of this machine: it is for the log alone.
        message = f"the answer's evidence could not be stored ({stable_code(error.error_code)})"
        return self._fail(Failure(code="evidence_not_stored", message=message, status=503))

    def on_failed(self, number: int, failure: Failure, now_s: float) -> Actions:
        """The attempt ended without a receipt: refused, cut, stalled, or an error event."""
        running = self._current(number)
        if running is None:
            return ()
        return self._attempt_failed(running, failure, now_s)

    def timed_out(self, number: int, now_s: float) -> Actions:
        """:meth:`due_s` of this attempt has passed. Early calls are ignored."""
        if self.over or now_s < self.due_s(number):
            return ()
        if now_s >= self._plan.deadline_s:
            return (*self._end_all(ending.late(Stage.TOTAL, faultless=True)), *self._too_late())
        if self.state is State.STORING:
            return self._fail(
                Failure(code="evidence_not_stored", message="storing timed out", status=503)
            )
        running = self._running[number]
        return self._attempt_failed(running, ending.late(running.stage), now_s)

    def stop(self, failure: Failure) -> Actions:
        """End it from outside: the client left, or this process is stopping."""
        if self.over:
            return ()
        stopped = Failure(code=failure.code, message=failure.message, faultless=True)
        return (*self._end_all(stopped), *self._fail(failure))

    # Inside.

    def _current(self, number: int) -> Running | None:
        return self._running.get(number) if self.state is State.RUNNING else None

    def _flowing(self, running: Running, now_s: float) -> Actions:
        """Something of the text arrived: from now on this attempt is the only one."""
        start = running.start
        if running.reception is not None:
            self.chain = running.reception.chain
        if running.phase is Phase.ACCEPTED and start.resume is None and start.prefix is None:
            self._stands.begun_by(running.accepted, start.deployment.model)
        running.enter(Phase.RELAYING, now_s)
        return self._outrun(running, now_s)

    def _outrun(self, winner: Running, now_s: float) -> Actions:
        """Close the attempt that runs beside the winner, if there is one."""
        lost: list[Action] = []
        for running in [other for other in self._running.values() if other is not winner]:
            if running.start.number < winner.start.number:
                # It would have taken at least so long. Were that not counted, what is normal would
                # soon know nothing of the slow ones.
                running.enter(Phase.RELAYING, now_s)
            lost += self._close(
                running, ending.past(running.start, ending.HEDGE_LOST.code), ending.HEDGE_LOST
            )
        return tuple(lost)

    def _broken(self, running: Running, message: str, now_s: float) -> Actions:
        failure = Failure(code="upstream_bad_response", message=message, suspect=True)
        return self._attempt_failed(running, failure, now_s)

    def _end_all(self, failure: Failure) -> Actions:
        """Close everything that runs."""
        ended: list[Action] = []
        for running in list(self._running.values()):
            if running.phase is Phase.STORING:
                # Its end was reported with its receipt.
                ended.append(Cancel(number=running.start.number))
            else:
                ended += self._end_attempt(running, failure)
        return tuple(ended)

    def _end_attempt(self, running: Running, failure: Failure) -> Actions:
        """Close an attempt, and put it on the record."""
        added = self._stands.added_by(running.start)
        past = msgspec.structs.replace(
            ending.past(running.start, failure.code),
            tokens=added if any(added) else (),
            characters=running.shown,
        )
        barren = self._stands.transcript.token_count == running.tokens_before and not running.shown
        return self._close(running, past, failure, barren=barren)

    def _close(
        self, running: Running, past: PreviousAttempt, failure: Failure, *, barren: bool = False
    ) -> Actions:
        start = running.start
        self._history.add(past, start.deployment.model, failure, barren=barren)
        del self._running[start.number]
        return (Cancel(number=start.number), running.ended(failure))

    def _attempt_failed(self, running: Running, failure: Failure, now_s: float) -> Actions:
        deployment = running.start.deployment
        if failure.dishonest:
            self._history.banned.add(deployment.node)
        if running.shown and (failure.damaging or (failure.suspect and not failure.faultless)):
            self._stands.spoiled = True
        ended = self._end_attempt(running, failure)
        if failure.unfit or not failure.retryable:
            self._history.unfit.add(deployment.place)
        if self._running:
            # The one beside it goes on, and says by itself what it makes of the request.
            return ended
        if failure.suspect and not self.relayed:
            # Whoever broke the protocol may have sent wrong tokens too: nobody goes on from them.
            self._stands.start_afresh()
        # A request that a node has already begun to answer can not be at fault itself.
        if not failure.retryable and self._stands.transcript.token_count == 0 and not self.relayed:
            self._history.refuse(deployment.model)
            if not self._stands.others():
                return (*ended, *self._fail(self._history.refusal))
        return (*ended, *self._next_attempt(now_s))

    def _next_attempt(self, now_s: float) -> Actions:
        plan = self._plan
        spent = self._history.spent(plan.attempts_max, plan.timeouts.away_s, now_s)
        if spent or now_s >= plan.deadline_s:
            return self._nobody(now_s)
        return (self._seek(self._stands.need()),)

    def _seek(self, need: Need) -> Seek:
        self._sought = self._numbers
        self._numbers += 1
        return Seek(number=self._sought, need=need)

    def _nobody(self, now_s: float, failure: Failure | None = None) -> Actions:
        """Nobody can go on. ``failure``: what is in the way of one more attempt."""
        if now_s >= self._plan.deadline_s:
            return self._too_late()
        failures = self._history.failures
        if failure is not None and not failures:
            return self._fail(failure)
        also = () if failure is None else (failure,)
        return self._fail(ending.final_failure((*failures, *also), relayed=self.relayed))

    def _too_late(self) -> Actions:
        return self._fail(ending.late(Stage.TOTAL))

    def _begin_attempt(
        self, number: int, deployment: Deployment, delay_s: float, now_s: float
    ) -> Start:
        start = self._stands.start(number, self._new_attempt_id(), deployment, delay_s)
        return self._run(start, now_s)

    def _begin_beside(self, number: int, deployment: Deployment, now_s: float) -> Start:
        """A second attempt, from the beginning as the first one."""
        (slow,) = self._running.values()
        require(deployment.node != slow.start.deployment.node, "a hedge is at another node")
        beside = ending.past(slow.start, HEDGED)
        start = self._stands.start_beside(number, self._new_attempt_id(), deployment, beside)
        return self._run(start, now_s)

    def _run(self, start: Start, now_s: float) -> Start:
        self._running[start.number] = Running(
            self._plan, start, now_s + start.delay_s, self._stands.transcript.token_count
        )
        self.attempts += 1
        return start

    def _fail(self, failure: Failure) -> Actions:
        self.state = State.FAILED
        if self.relayed:
            shown = Produced(
                chunks=self._stands.transcript.chunks, characters=self._stands.transcript.characters
            )
            failure = msgspec.structs.replace(failure, produced=shown)
        return (Fail(failure=failure),)
