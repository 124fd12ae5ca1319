"""The gateway's telemetry: its metrics, one line and, where configured, one trace for each answer.

Names follow OpenTelemetry's GenAI semantic conventions (status Development; as of semantic
conventions 1.41.0) where they have one, and are ``trunkline.gateway.*`` elsewhere. All of them are
listed in ``docs/operate/telemetry.md``, which a test holds against this file. Nothing that people
or models wrote is seen here, and no key; a tenant is named by its id. A model is a label only if
the routing policy or a node knows it: no other call gets so far.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from trunkline.base.ports import Clock, Randomness
from trunkline.gateway.core.actions import Ended, Failure, Plan, Start, Store
from trunkline.gateway.core.attempt import Answer
from trunkline.gateway.core.ending import HEDGE_LOST
from trunkline.gateway.core.route import Deployment
from trunkline.gateway.status import Counters
from trunkline.receipts import ReceiptUsage
from trunkline.remote.target import parse_url
from trunkline.runtime.logger import Field, Logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.otlp import CLIENT, SERVER, Span, Value
from trunkline.runtime.otlp_export import Exporter
from trunkline.schema.traceparent import SPAN_BYTES, TRACE_BYTES, TraceParent

PROVIDER: Final = "trunkline"
"""Of ``gen_ai.provider.name``: whom an app's call is made to. Nodes know the provider behind."""

DURATION_S: Final = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
)  # fmt: skip
TOKENS: Final = tuple(4.0**power for power in range(14))
"""Both as the conventions have them."""
WAIT_S: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

CLIENT_GONE: Final = "client_gone"


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """Which answers are traced, and who is told."""

    share: float = 1.0
    """Of those of which the app does not say it itself."""
    told: bool = True
    """Nodes are told the trace."""


class Telemetry:
    """The gateway's instruments. Gives each answer an observer of its own."""

    def __init__(
        self,
        metrics: Metrics,
        exporter: Exporter | None,
        sampling: Sampling,
        *,
        clock: Clock,
        randomness: Randomness,
        logger: Logger,
    ) -> None:
        """``exporter``: where traces go; None: there are none."""
        self.counters = Counters()
        self.exporter = exporter
        self.sampling = sampling
        self.clock = clock
        self.logger = logger
        self._randomness = randomness
        ai = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")
        self.duration = metrics.histogram(
            "gen_ai.client.operation.duration", "s",
            "Time of an answer, from its request read to its end told",
            DURATION_S, *ai, "error.type",
        )  # fmt: skip
        self.first_chunk = metrics.histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s",
            "Time to the first token of a streamed answer", DURATION_S, *ai,
        )  # fmt: skip
        self.tokens = metrics.histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of an answer, by its receipt",
            TOKENS, *ai, "gen_ai.token.type",
        )  # fmt: skip
        self.answers = metrics.counter(
            "trunkline.gateway.answers", "{answer}",
            "Answers by how they ended: whole, survived (whole after a failure), failed, gone",
            "outcome", "error.type",
        )  # fmt: skip
        self.refused = metrics.counter(
            "trunkline.gateway.calls.refused", "{call}", "Calls refused before an answer began",
            "error.type",
        )  # fmt: skip
        self.attempts = metrics.counter(
            "trunkline.gateway.attempts", "{attempt}", "Attempts that ended, by node",
            "trunkline.node", "error.type",
        )  # fmt: skip
        self.hedges = metrics.counter(
            "trunkline.gateway.hedges", "{attempt}", "Attempts begun beside a slow one"
        )
        self.waits = metrics.histogram(
            "trunkline.gateway.queue.duration", "s", "Time until an attempt had a place", WAIT_S
        )

    def begin(self, plan: Plan, parent: TraceParent | None, began_s: float) -> "Watch":
        """An answer begins. ``parent``: what the app said of its trace."""
        self.counters.taken += 1
        self.counters.running += 1
        return Watch(self, plan, self._trace(parent), parent, began_s)

    def _trace(self, parent: TraceParent | None) -> str | None:
        """Id of the trace that the answer is recorded in; None: it is not."""
        if self.exporter is None:
            return None
        if parent is not None:
            return parent.trace if parent.sampled else None
        trace = self._randomness.token(TRACE_BYTES)
        # Its first bytes are as random as any others.
        if int.from_bytes(trace[:4], "big") >= self.sampling.share * 2**32:
            return None
        return trace.hex()

    def span_id(self) -> str:
        """A fresh one."""
        return self._randomness.token(SPAN_BYTES).hex()


class _Seen:
    """An attempt, as far as it has come."""

    __slots__ = ("began_s", "deployment", "ended_s", "error", "hedge", "name", "span")

    def __init__(self, start: Start, began_s: float, span: str, *, hedge: bool) -> None:
        self.name = start.attempt
        self.deployment: Deployment = start.deployment
        self.began_s = began_s
        self.ended_s = began_s
        self.error: str | None = None
        self.hedge = hedge
        self.span = span


class Watch:
    """One answer's :class:`trunkline.gateway.observer.Observer`."""

    __slots__ = (
        "_began_ms", "_began_s", "_failed", "_first_s", "_hedges", "_next_is_hedge", "_parent",
        "_part", "_plan", "_seen", "_span", "_telemetry", "_trace", "_waited_s",
    )  # fmt: skip

    def __init__(
        self,
        telemetry: Telemetry,
        plan: Plan,
        trace: str | None,
        parent: TraceParent | None,
        began_s: float,
    ) -> None:
        self._telemetry = telemetry
        self._plan = plan
        self._trace = trace
        self._parent = parent
        self._span = "" if trace is None else telemetry.span_id()
        self._began_s = began_s
        self._began_ms = 0 if trace is None else telemetry.clock.unix_ms()
        self._waited_s = 0.0
        self._first_s: float | None = None
        self._hedges = 0
        self._next_is_hedge = False
        self._failed = 0
        self._seen: dict[int, _Seen] = {}
        self._part: Store | None = None

    # What the relay tells.

    def waited(self, seconds: float) -> None:
        self._waited_s += seconds
        self._telemetry.waits.record(seconds)

    def hedged(self) -> None:
        self._hedges += 1
        self._next_is_hedge = True
        self._telemetry.hedges.add()

    def attempt_began(self, start: Start) -> None:
        span = "" if self._trace is None else self._telemetry.span_id()
        began_s = self._telemetry.clock.monotonic_s() + start.delay_s
        self._seen[start.number] = _Seen(start, began_s, span, hedge=self._next_is_hedge)
        self._next_is_hedge = False

    def attempt_ended(self, ended: Ended) -> None:
        code = "" if ended.failure is None else ended.failure.code
        self._telemetry.attempts.add(ended.deployment.node, code)
        self._failed += ended.failure is not None and ended.failure is not HEDGE_LOST
        seen = self._seen.get(ended.number)
        if seen is None:
            return
        seen.ended_s = max(self._telemetry.clock.monotonic_s(), seen.began_s)
        seen.error = code or None
        if ended.timings.first_token_s is not None and ended.failure is not HEDGE_LOST:
            first_s = seen.began_s + ended.timings.first_token_s - self._began_s
            self._first_s = first_s if self._first_s is None else min(self._first_s, first_s)

    def traceparent(self, number: int) -> str | None:
        if not self._telemetry.sampling.told:
            return None
        seen = self._seen.get(number)
        if self._trace is None or seen is None:
            # Nothing is recorded here: what the app said is as true as before.
            return None if self._parent is None else self._parent.header()
        return TraceParent(trace=self._trace, span=seen.span, sampled=True).header()

    def stored(self, part: Store) -> None:
        self._part = part

    # What the front door tells.

    def ended(self, outcome: Failure | None, answer: Answer) -> None:
        """The answer is over: count it, write its line, and offer its trace. Called once."""
        telemetry = self._telemetry
        ended_s = telemetry.clock.monotonic_s()
        self._count(outcome, answer, ended_s - self._began_s)
        line = telemetry.logger.line("answer.ended", **self._line(outcome, answer, ended_s))
        line.emit()
        if self._trace is not None and telemetry.exporter is not None:
            telemetry.exporter.offer(self._spans(self._trace, outcome, ended_s))

    def _count(self, outcome: Failure | None, answer: Answer, duration_s: float) -> None:
        telemetry, plan, counters = self._telemetry, self._plan, self._telemetry.counters
        counters.running -= 1
        code = "" if outcome is None else outcome.code
        if outcome is None:
            survived = answer.attempts > 1
            counters.succeeded += 1
            counters.survived += survived
            telemetry.answers.add("survived" if survived else "whole", "")
        elif code == CLIENT_GONE:
            counters.client_gone += 1
            telemetry.answers.add("gone", code)
        else:
            counters.failed += 1
            telemetry.answers.add("failed", code)
        telemetry.duration.record(duration_s, _operation(plan), PROVIDER, plan.model, code)
        if plan.stream and self._first_s is not None:
            telemetry.first_chunk.record(self._first_s, _operation(plan), PROVIDER, plan.model)
        usage = self._usage()
        if usage is not None:
            about = (_operation(plan), PROVIDER, plan.model)
            telemetry.tokens.record(usage.prompt, *about, "input")
            telemetry.tokens.record(usage.completion, *about, "output")

    def _usage(self) -> ReceiptUsage | None:
        return None if self._part is None else self._part.verified.receipt.usage

    def _line(self, outcome: Failure | None, answer: Answer, ended_s: float) -> dict[str, Field]:
        plan, part, usage = self._plan, self._part, self._usage()
        served = answer.accepted
        fields: dict[str, Field] = {
            "answer": plan.answer,
            "format": plan.client_format,
            "model": plan.model,
            "stream": plan.stream,
            "tenant": plan.tenant.id,
            "attempts": answer.attempts,
            "node": None if served is None else served.node,
            "operator": None if served is None else served.operator,
            "served_model": None if served is None else served.model,
            "receipt": None if part is None else part.attempt,
            "prompt_tokens": None if usage is None else usage.prompt,
            "completion_tokens": None if usage is None else usage.completion,
            "queued_ms": round(self._waited_s * 1000),
            "first_token_ms": None if self._first_s is None else round(self._first_s * 1000),
            "duration_ms": round((ended_s - self._began_s) * 1000),
        }
        trace = self._trace or (None if self._parent is None else self._parent.trace)
        said: dict[str, Field] = {
            "attempts_failed": self._failed,
            "hedges": self._hedges,
            "trace": trace,
            "error": None if outcome is None else outcome.code,
        }
        # What did not happen is not said.
        return fields | {name: value for name, value in said.items() if value}

    def _spans(
        self, trace: str, outcome: Failure | None, ended_s: float
    ) -> Callable[[], Sequence[Span]]:
        """Makes the answer's spans; all that they say stands now."""

        def at_ns(at_s: float) -> int:
            return self._began_ms * 1_000_000 + round((at_s - self._began_s) * 1e9)

        def make() -> Sequence[Span]:
            whole = Span(
                trace=trace,
                span=self._span,
                parent=None if self._parent is None else self._parent.span,
                name=f"{_operation(self._plan)} {self._plan.model}",
                kind=SERVER,
                start_ns=at_ns(self._began_s),
                end_ns=at_ns(ended_s),
                attributes=self._about_answer(outcome),
                error=None if outcome is None else outcome.code,
            )
            return [whole, *(one(seen) for seen in self._seen.values())]

        def one(seen: _Seen) -> Span:
            # An attempt that was cut off with the answer ended with it.
            end_s = ended_s if seen.ended_s == seen.began_s else seen.ended_s
            return Span(
                trace=trace,
                span=seen.span,
                parent=self._span,
                name=f"{_operation(self._plan)} {seen.deployment.model}",
                kind=CLIENT,
                start_ns=at_ns(seen.began_s),
                end_ns=at_ns(max(end_s, seen.began_s)),
                attributes=_about_attempt(self._plan, seen),
                error=seen.error,
            )

        return make

    def _about_answer(self, outcome: Failure | None) -> dict[str, Value]:
        plan, part, usage = self._plan, self._part, self._usage()
        found: dict[str, Value] = {
            "gen_ai.operation.name": _operation(plan),
            "gen_ai.provider.name": PROVIDER,
            "gen_ai.request.model": plan.model,
            "gen_ai.response.id": plan.answer,
            "gen_ai.request.stream": plan.stream,
        }
        if plan.choices != 1:
            found["gen_ai.request.choice.count"] = plan.choices
        if self._first_s is not None and plan.stream:
            found["gen_ai.response.time_to_first_chunk"] = self._first_s
        if part is not None and usage is not None:
            found["gen_ai.response.model"] = part.accepted.model
            found["gen_ai.usage.input_tokens"] = usage.prompt
            found["gen_ai.usage.output_tokens"] = usage.completion
            found["trunkline.receipt"] = part.attempt
        if plan.tenant.id:
            found["trunkline.tenant"] = plan.tenant.id
        if outcome is not None:
            found["error.type"] = outcome.code
        found["trunkline.queue.duration"] = self._waited_s
        return found


def _about_attempt(plan: Plan, seen: _Seen) -> dict[str, Value]:
    deployment = seen.deployment
    origin = parse_url(deployment.url).origin
    found: dict[str, Value] = {
        "gen_ai.operation.name": _operation(plan),
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": deployment.model,
        "gen_ai.response.id": seen.name,
        "server.address": origin.host,
        "server.port": origin.port,
        "trunkline.node": deployment.node,
        "trunkline.operator": deployment.operator,
    }
    if seen.hedge:
        found["trunkline.hedge"] = True
    if seen.error is not None:
        found["error.type"] = seen.error
    return found


def _operation(plan: Plan) -> str:
    """The conventions' names are those of the kinds."""
    return plan.kind
