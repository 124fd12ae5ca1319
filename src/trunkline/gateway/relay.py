"""The hot path: carries one answer from nodes to the app, doing what its state machine says.

A thin shell over ``core.attempt``: it starts attempts, hands events in, relays what comes out, and
stores the evidence before the end is shown. It waits for the app (back-pressure) before it reads on
from the node, and every wait on the node has the state machine's deadline. It decides nothing.
"""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Final, assert_never

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    ConnectError,
    Error,
    MalformedError,
    NoRouteError,
    OverloadedError,
    RateLimitedError,
    RequestError,
    StoppingError,
)
from trunkline.gateway.core.actions import (
    Action,
    Cancel,
    Ended,
    Fail,
    Failure,
    Finish,
    Judge,
    Plan,
    Relay,
    Seek,
    Start,
    Store,
)
from trunkline.gateway.core.attempt import Answer
from trunkline.gateway.core.deadline import connect_limit_s, head_limit_s
from trunkline.gateway.core.ending import BUSY_CODES, HEDGE_LOST, KEY_CHANGED, node_failure
from trunkline.gateway.core.ticket import Outcome, Ticket
from trunkline.gateway.dispatcher import QUARANTINED, Lease
from trunkline.gateway.lane import Lane
from trunkline.gateway.observer import Observer
from trunkline.gateway.shared import Shared
from trunkline.gateway.store import Bodies
from trunkline.gateway.writer import Writer
from trunkline.remote.limit import Alarm, Limit
from trunkline.remote.node import (
    AcceptedEvent,
    AttemptEvent,
    AttemptStream,
    ChunkEvent,
    ErrorEvent,
    LimitsEvent,
    NodeRefusedError,
    ProgressEvent,
    ReceiptEvent,
    ReplayedEvent,
)
from trunkline.schema.attempt import Attempt, Limits, Resume

ALIVE_S: Final = 5.0
"""Between two signs of life in a stream that is held for a verdict."""
TELLING_S: Final = 0.1
"""Before its deadline an answer is held no longer: what became of it has to be told."""
CRASH_S: Final = 1.0
"""For an app to take the word that a bug ended its answer."""
DRAIN_S: Final = 1.0
"""To read the end of a node's response after its receipt, so that the connection can be reused."""

CLIENT_GONE: Final = Failure(code="client_gone", message="the client left", status=499)
STOPPING: Final = Failure(
    code=StoppingError.code, message="the gateway is stopping", status=503, retry_after_s=1.0
)


class Pump:
    """Carries one answer. ``run`` returns when the app has been told its end, whichever it is."""

    def __init__(
        self,
        shared: Shared,
        plan: Plan,
        answer: Answer,
        writer: Writer,
        request: bytes,
        *,
        client_request: bytes | None,
        observer: Observer,
    ) -> None:
        """``request``: the bytes for nodes, JSON. ``client_request``: what the app sent, if bodies
        are to be kept."""
        self._shared = shared
        self._plan = plan
        self._answer = answer
        self._writer = writer
        self._request = msgspec.Raw(request)
        self._request_bytes = request
        self._client_request = client_request
        self._observer = observer
        self._lanes: dict[int, Lane] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """Of the lanes that are not done."""
        self._text: list[bytes] = []
        """To be sent to the app before anything else is done."""
        self._hedge_alarm: Alarm | None = None
        self._stopping = False
        self._closing = False
        """The last words to the app are being said, or were."""
        self._told_s = self._now_s()
        self.outcome: Failure | None = None
        """Why there is no answer; None after success."""

    async def run(self) -> None:
        """Carry the answer to its end. Every connection is closed when this returns."""
        self._shared.hedger.began(self._plan)
        try:
            await self._do(self._answer.begin(self._now_s()))
            while self._tasks:
                await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
                for number in [number for number, task in self._tasks.items() if task.done()]:
                    task = self._tasks.pop(number)
                    if not task.cancelled():
                        task.result()
        finally:
            if self._hedge_alarm is not None:
                self._hedge_alarm.stop()
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            self._tasks.clear()

    def abandon(self, failure: Failure) -> None:
        """Nobody can be told any more (the app left, the task was cancelled): put it on record.
        The attempts' connections were closed when ``run`` was cancelled."""
        for action in self._answer.stop(failure):
            if isinstance(action, Ended):
                self._ended(action)
        self.outcome = failure

    async def crash(self, failure: Failure) -> None:
        """A bug of ours ended it: put that on record, and tell the app if so much still works. A
        connection that is only cut leaves it to each client what to make of it."""
        closing = self._closing
        self.abandon(failure)
        if not closing:
            with suppress(Exception):
                async with asyncio.timeout(CRASH_S):
                    await self._writer.fail(failure)

    def interrupt(self) -> None:
        """The process is stopping: end the answer explicitly, as soon as it is safe."""
        self._stopping = True
        # Only a wait for a node is cut short. Evidence on its way to the disk, or the last words
        # on their way to the app, are let through, and ``_read`` looks at the flag after them.
        for lane in self._lanes.values():
            if lane.limit is not None:
                lane.limit.cut()

    def _now_s(self) -> float:
        return self._shared.clock.monotonic_s()

    def _launch(self, seek: Seek, lease: Lease | None = None) -> None:
        """Begin a lane; with ``lease`` it has its place already."""
        lane = Lane(keeping=self._client_request is not None)
        lane.lease = lease
        self._lanes[seek.number] = lane
        self._tasks[seek.number] = asyncio.create_task(self._lane(seek, lane))

    def _begin(self, start: Start) -> None:
        """An attempt begins in its lane. It is looked at again when it ought to have shown
        something."""
        self._lanes[start.number].start = start
        self._shared.health.started(start.deployment)
        self._observer.attempt_began(start)
        after_s = self._shared.hedger.after_s(self._plan, start.deployment)
        if self._hedge_alarm is not None:
            self._hedge_alarm.stop()
            self._hedge_alarm = None
        if after_s is not None:
            self._hedge_alarm = Alarm(partial(self._hedge, start.number))
            self._hedge_alarm.set(start.delay_s + after_s)

    def _hedge(self, number: int) -> None:
        """The attempt is slow: a second one beside it, if that can begin this instant."""
        answer, now_s = self._answer, self._now_s()
        if self._stopping:
            return
        for seek in answer.on_slow(number, now_s):
            if not isinstance(seek, Seek):
                continue
            lease = self._shared.hedger.place(seek.need, self._ticket())
            if lease is None:
                answer.on_unplaced(seek.number, None, now_s)
                continue
            self._observer.hedged()
            self._launch(seek, lease)
            for action in answer.on_placed(seek.number, lease.deployment, now_s):
                if isinstance(action, Start):
                    self._begin(action)

    async def _lane(self, seek: Seek, lane: Lane) -> None:
        """One attempt: find it a place, carry it to its end, give the place back."""
        number = seek.number
        try:
            if lane.lease is None:
                async with Limit() as lane.limit:
                    self._arm(number, lane)
                    await self._place(seek, lane, lane.limit)
            if lane.start is not None:
                await self._attempt(lane.start, lane)
        except TimeoutError:
            await self._do(self._late(number))
        except asyncio.CancelledError:
            # Nobody but this pump waits for a lane. A task that ended by an exception is held by
            # that exception's frames until a garbage collection, and with it what they refer to.
            return
        finally:
            lane.limit = None
            lane.release(Outcome())

    def _ticket(self) -> Ticket:
        plan = self._plan
        return Ticket(
            answer=plan.answer,
            tenant=plan.tenant,
            priority=plan.priority,
            deadline_s=plan.deadline_s,
            tokens=plan.tokens,
            prompt_tokens=plan.prompt_tokens,
            text_bytes=plan.text_bytes,
            body_bytes=len(self._request_bytes),
        )

    async def _place(self, seek: Seek, lane: Lane, limit: Limit) -> None:
        number, answer = seek.number, self._answer
        asked_s = self._now_s()
        try:
            lane.lease = await self._shared.dispatcher.place(seek.need, self._ticket())
        except NoRouteError as error:
            quarantined = error.error_code == QUARANTINED
            failure = _refusal(error) if quarantined else None
            actions = answer.on_unplaced(number, failure, self._now_s())
        except RequestError as error:
            failure = msgspec.structs.replace(Failure.of(error), faultless=True)
            actions = answer.on_unplaced(number, failure, self._now_s())
        except (OverloadedError, RateLimitedError) as error:
            actions = answer.on_unplaced(number, _refusal(error), self._now_s())
        else:
            actions = answer.on_placed(number, lane.lease.deployment, self._now_s())
        self._observer.waited(self._now_s() - asked_s)
        # What is said now is no wait for a place any more.
        limit.disarm()
        await self._do(actions)

    async def _attempt(self, start: Start, lane: Lane) -> None:
        """One attempt, from its delay to its end. The connection is closed when this returns."""
        stream: AttemptStream | None = None
        try:
            async with Limit() as limit:
                lane.limit = limit
                self._arm(start.number, lane)
                if start.delay_s > 0:
                    await asyncio.sleep(start.delay_s)
                stream = await self._open(start, limit)
                await self._read(start, stream, lane, limit)
        except TimeoutError:
            await self._do(self._late(start.number))
        except Error as error:
            if isinstance(error, NodeRefusedError):
                self._learn(start, error.node_error.limits)
            failure = self._failure_of(error)
            await self._do(self._answer.on_failed(start.number, failure, self._now_s()))
        finally:
            lane.limit = None
            if stream is not None:
                await stream.aclose()

    async def _open(self, start: Start, limit: Limit) -> AttemptStream:
        caller = self._shared.directory.caller(start.deployment.node)
        timeouts, expected = self._plan.timeouts, start.deployment.expected
        asked_s, before_s = self._now_s(), limit.lost_s
        stream = await caller.attempt(
            self._message(start),
            first_id=start.first_event,
            traceparent=self._observer.traceparent(start.number),
            connect_timeout_s=connect_limit_s(timeouts, expected),
            head_timeout_s=head_limit_s(timeouts, expected),
            # Silence in the queue or while the prompt is read; the machine's own stages are finer.
            idle_timeout_s=max(timeouts.first_event_s, timeouts.first_token_s, timeouts.idle_s),
        )
        lost_s = limit.lost_s
        self._answer.excuse(start.number, lost_s)
        took_s = self._now_s() - asked_s - (lost_s - before_s)
        self._shared.health.answered(start.deployment, max(took_s, 0.0))
        return stream

    def _message(self, start: Start) -> Attempt:
        plan = self._plan
        origin = start.origin
        left_ms = int((plan.deadline_s - self._now_s()) * 1000)
        return Attempt(
            kind=plan.kind,
            attempt=start.attempt,
            answer=plan.answer,
            created_s=plan.created_s,
            model=start.deployment.model,
            client_format=plan.client_format,
            client_request_digest=plan.client_digest,
            caller_nonce=plan.caller_nonce,
            deadline_ms=max(left_ms, 1),
            mode=plan.mode,
            audit=plan.audit,
            blinding=plan.blinding,
            cache=plan.cache,
            share=plan.share,
            seed=start.seed,
            node_nonce=None if origin is None else origin.node_nonce,
            nonces=None if origin is None else origin.nonces,
            nonce_index=0 if origin is None else origin.nonce_index,
            numerics=None if origin is None else origin.numerics,
            previous=start.previous,
            resume=None if start.resume is None else Resume(tokens=start.resume),
            prefix=start.prefix,
            request=self._request,
        )

    async def _read(self, start: Start, stream: AttemptStream, lane: Lane, limit: Limit) -> None:
        """Hand the attempt's events in until it is over. Those that came together are taken at one
        moment, and the app is sent what they say in one piece."""
        number, answer = start.number, self._answer
        came_s = self._now_s()
        while True:
            waiting = not stream.ready
            if waiting:
                self._arm(number, lane)
            try:
                event = await anext(stream)
            except StopAsyncIteration:
                raise MalformedError("the node ended without a receipt") from None
            if waiting:
                answer.excuse(number, limit.lost_s)
                # From here the node is not to blame for time: the app or our disk may be slow.
                limit.disarm()
                came_s = self._now_s()
            await self._do(self._report(start, lane, event, came_s), more=stream.ready)
            if not stream.ready:
                answer.excuse(number, self._now_s() - came_s)
            await self._alive()
            if not answer.runs(number):
                if answer.over and self.outcome is None:
                    await self._drain(stream, limit)
                return
            if self._stopping:
                await self._do(answer.stop(STOPPING))
                return

    def _report(
        self, start: Start, lane: Lane, event: AttemptEvent, now_s: float
    ) -> tuple[Action, ...]:
        answer, number = self._answer, start.number
        match event:
            case ChunkEvent():
                if lane.kept is not None and event.data is not None:
                    lane.keep(event.data)
                return answer.on_chunk(
                    number, event.id, event.tokens, event.data, now_s, used=event.used
                )
            case ProgressEvent():
                return answer.on_progress(number, event.tokens, now_s)
            case ReplayedEvent():
                return answer.on_replayed(number, event.digest, now_s)
            case AcceptedEvent():
                return answer.on_accepted(number, event.accepted, now_s)
            case LimitsEvent():
                self._learn(start, event.limits)
                return ()
            case ReceiptEvent():
                return answer.on_receipt(number, event.signed, now_s)
            case ErrorEvent():
                self._learn(start, event.error.limits)
                return answer.on_failed(number, node_failure(event.error), now_s)
            case _:
                assert_never(event)

    def _learn(self, start: Start, limits: Limits | None) -> None:
        if limits is not None:
            self._shared.dispatcher.learned(start.deployment, limits)

    async def _do(self, actions: tuple[Action, ...], *, more: bool = False) -> None:
        """Carry out actions in order. Neighbouring pieces of text are sent together; ``more``: the
        last of them may wait for the next call, which follows at once."""
        for action in actions:
            if isinstance(action, Relay):
                self._text.append(action.data)
                continue
            await self._show()
            await self._do_one(action)
        if not more:
            await self._show()

    async def _do_one(self, action: Action) -> None:
        match action:
            case Seek():
                self._launch(action)
            case Start():
                self._begin(action)
            case Ended():
                self._ended(action)
            case Judge():
                await self._judge(action)
            case Store():
                await self._store(action)
            case Finish():
                await self._finish()
            case Fail():
                self.outcome, self._closing = action.failure, True
                await self._writer.fail(action.failure)
            case Cancel():
                self._cancel(action.number)
            case Relay():
                self._text.append(action.data)
            case _:
                assert_never(action)

    def _cancel(self, number: int) -> None:
        task = self._tasks.get(number)
        # The lane that does these actions ends after them by itself, and closes its connection.
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    async def _show(self) -> None:
        data, self._text = self._text, []
        if not data or self.outcome is not None:
            return
        try:
            await self._writer.relay(data)
        except MalformedError as error:
            await self._unsayable(error)

    async def _finish(self) -> None:
        if self.outcome is not None:
            return
        self._closing = True
        try:
            await self._writer.finish()
        except MalformedError as error:
            await self._unsayable(error)

    async def _unsayable(self, error: MalformedError) -> None:
        """The client's format has no words for what the node sent. It is part of the answer, so no
        other node could do better: an explicit end, also where the evidence is stored already."""
        failure = Failure(code="upstream_bad_response", message=error.message)
        actions = self._answer.stop(failure)
        await self._do(actions or (Fail(failure=failure),))

    async def _judge(self, wanted: Judge) -> None:
        """Hold the whole answer until verifiers have spoken or its time is over."""
        number = wanted.part.number
        lane = self._lanes[number]
        # The node is done: its place is for others while this waits.
        lane.release(Outcome.of(wanted.part.verified.receipt, lane.first_token_s))
        left_s = self._plan.deadline_s - self._now_s() - TELLING_S
        timeout_s = min(wanted.before.deadline_s, left_s)
        judge, blinding = self._shared.judge, self._plan.blinding
        judging = asyncio.create_task(
            judge.judge(wanted, self._request, blinding, timeout_s=timeout_s)
        )
        try:
            while not judging.done():
                await asyncio.wait([judging], timeout=ALIVE_S)
                await self._alive()
        finally:
            judging.cancel()
        await self._do(self._answer.on_judged(number, judging.result(), self._now_s()))

    async def _alive(self) -> None:
        """Tell an app whose stream is held that it is not forgotten."""
        now_s = self._now_s()
        if self._plan.before is not None and now_s - self._told_s >= ALIVE_S:
            self._told_s = now_s
            await self._writer.alive()

    async def _store(self, part: Store) -> None:
        answer, bodies = self._answer, self._bodies(self._lanes[part.number])
        kept = await self._writer.seal(answer.rest())
        try:
            await self._shared.vault.keep(
                self._plan,
                part,
                answer.attempts,
                bodies,
                kept,
                possible_double_work=answer.possible_double_work,
            )
        except Error as error:
            actions = self._answer.on_not_stored(error)
        else:
            self._observer.stored(part)
            lane = self._lanes[part.number]
            lane.release(Outcome.of(part.verified.receipt, lane.first_token_s))
            actions = self._answer.on_stored()
        await self._do(actions)

    def _bodies(self, lane: Lane) -> Bodies:
        blinding = self._plan.blinding
        if lane.kept is None or self._client_request is None:
            return Bodies(blinding=blinding)
        return Bodies(
            blinding=blinding,
            request=self._request_bytes,
            client_request=self._client_request,
            chunks=tuple(data.decode() for data in lane.kept),
        )

    def _ended(self, ended: Ended) -> None:
        """An attempt is over: what that says of its node, and one line if it failed."""
        failure = ended.failure
        self._shared.health.ended(ended.deployment, failure, ended.timings)
        self._observer.attempt_ended(ended)
        if failure is None:
            self._lanes[ended.number].first_token_s = ended.timings.first_token_s
            return
        self._lanes[ended.number].release(Outcome(failure=failure))
        about = {"answer": self._plan.answer, "attempt": ended.attempt}
        if failure is HEDGE_LOST:
            self._shared.logger.info("attempt.outrun", node=ended.deployment.node, **about)
            return
        if failure.refused or not failure.faultless or failure is KEY_CHANGED:
            self._shared.directory.look_again(ended.deployment.node)
        self._shared.logger.warning(
            "attempt.failed",
            node=ended.deployment.node,
            error=failure.code,
            relayed=self._answer.relayed,
            **about,
        )

    def _late(self, number: int) -> tuple[Action, ...]:
        if self._stopping:
            return self._answer.stop(STOPPING)
        # The loop's clock and ours may differ by a tick; the machine takes only what is due.
        return self._answer.timed_out(number, max(self._now_s(), self._answer.due_s(number)))

    def _failure_of(self, error: Error) -> Failure:
        failure = Failure.of(error)
        if isinstance(error, NodeRefusedError):
            return node_failure(error.node_error)
        if isinstance(error, MalformedError):
            return msgspec.structs.replace(
                failure, code="upstream_bad_response", status=502, suspect=True
            )
        if isinstance(error, BadResponseError):
            return msgspec.structs.replace(failure, suspect=True)
        busy = failure.code in BUSY_CODES or isinstance(error, RateLimitedError)
        return msgspec.structs.replace(
            failure, refused=isinstance(error, ConnectError), faultless=busy
        )

    def _arm(self, number: int, lane: Lane) -> None:
        """The next wait for a node ends when the machine says so."""
        now_s = self._now_s()
        left_s = 0.0 if self._stopping else self._answer.due_s(number) - now_s
        if lane.limit is not None:
            lane.limit.arm(max(left_s, 0.0), max(self._plan.deadline_s - now_s, 0.0))

    async def _drain(self, stream: AttemptStream, limit: Limit) -> None:
        """Read the end of the node's response. The app has its answer, so failures say nothing."""
        limit.arm(DRAIN_S)
        try:
            await anext(stream)
        except (StopAsyncIteration, Error):
            return


def _refusal(error: NoRouteError | OverloadedError | RateLimitedError) -> Failure:
    """No place, which says nothing against a node, and when to come back."""
    return msgspec.structs.replace(
        Failure.of(error), retry_after_s=error.retry_after_s, faultless=True
    )
