"""What this gateway has learnt of its deployments by using them.

For each (node, model): its breaker, its load, what it normally does, and the limits that follow
from that. Decisions are in ``core`` (``breaker``, ``outlier``, ``normal``, ``deadline``); here are
the records and the clock. What is learnt outlives the process by :mod:`health_file`, in durations
and not in times, and fades with its age: stale health is worse than none.
"""

from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from trunkline.base.ports import Clock
from trunkline.gateway.core.actions import Failure
from trunkline.gateway.core.breaker import (
    Admission,
    Breaker,
    BreakerPolicy,
    BreakerState,
    Fault,
    State,
)
from trunkline.gateway.core.deadline import (
    QUANTILE,
    UNKNOWN,
    StageLimits,
    learnt,
    more_patience,
    waited_for,
)
from trunkline.gateway.core.ending import HEDGE_LOST
from trunkline.gateway.core.normal import Measure, Normal, Timings
from trunkline.gateway.core.outlier import OutlierPolicy, Peer, Tally, ejection_s, outliers
from trunkline.gateway.core.policy import TimeoutPolicy
from trunkline.gateway.core.route import Deployment, smoothed

DEPLOYMENTS_MAX: Final = 1024
"""Kept; beyond it the one unused for longest is forgotten."""
LEARN_EVERY: Final = 8
"""Attempts between two computations of a deployment's limits."""
POOL_EVERY: Final = 32
"""Attempts between two looks at what is normal for a model."""
HALF_LIFE_S: Final = 6 * 3600.0
"""What a deployment normally does counts half as much when it is so old."""
REST_S: Final = 5.0
"""A deployment that was bad when the process ended is not probed earlier after a restart."""
LOAD_WEIGHT: Final = 0.05

OUTRUN_MAX: Final = 4
"""Hedges lost in a row that say nothing: whoever loses more, and finishes nothing, may hang."""
_FAULTS: Final = {"upstream_auth": Fault.AUTH, "upstream_model_missing": Fault.MODEL}


class DeploymentHealth(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot, for routing and for the status page."""

    state: State = State.CLOSED
    admission: Admission = Admission.FREE
    running: int = 0
    first_token_s: float | None = None
    """EWMA of the time to the first token."""
    share: float = 1.0
    """Of the calls that it is fit for, above 0 to 1: it grows after a return."""
    fault: Fault | None = None
    """Why it is not used, or failed last."""
    failures: int = 0
    """In a row."""
    error: str = ""
    """Stable code of the failure that opened it, or of the last one; empty after a success."""
    left_s: float = 0.0
    """Until it may be asked again."""
    usual_load: float = 0.0
    limits: StageLimits = UNKNOWN
    """While no more runs there than usual."""

    def expected(self, load: int) -> StageLimits:
        """The limits while ``load`` attempts run there. Whoever is asked as the last resort is
        waited for as long as is configured: there is nobody better to turn to."""
        if self.admission is Admission.NO:
            return UNKNOWN
        crowd = (load + 1) / (self.usual_load + 1)
        if self.limits is UNKNOWN or crowd <= 1:
            return self.limits
        return msgspec.structs.replace(self.limits, crowd=crowd)


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment as it is written down."""

    node: str
    model: str
    breaker: BreakerState
    error: str = ""
    ejections: int = 0
    first_token_s: float | None = None
    normal: tuple[tuple[str, int, tuple[tuple[int, float], ...]], ...] = ()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="trunkline.health"):
    """Everything that outlives the process."""

    version: Literal[1] = 1
    written_ms: int
    deployments: tuple[Remembered, ...] = ()


class _Known:
    """One deployment's record."""

    __slots__ = (
        "breaker", "error", "first_token_s", "limits", "load", "normal", "outrun", "patience",
        "running", "tally", "unlearnt",
    )  # fmt: skip

    def __init__(self, breaker: Breaker, half_life_s: float) -> None:
        self.breaker = breaker
        self.tally = Tally(half_life_s)
        self.normal = Normal()
        self.patience: dict[Measure, float] = {}
        self.limits: dict[bool, StageLimits] = {}
        """By whether the deployment's text can be continued exactly."""
        self.unlearnt = 0
        """Attempts that the limits do not know of."""
        self.first_token_s: float | None = None
        self.running = 0
        self.outrun = 0
        """Attempts in a row that a hedge beside them was faster than."""
        self.load = 0.0
        """What ran there when attempts began: EWMA."""
        self.error = ""


class Health:
    """Learns from attempts. Keyed by (node, model), so that one bad model benches no other."""

    def __init__(
        self,
        clock: Clock,
        policy: BreakerPolicy | None = None,
        *,
        outlier: OutlierPolicy | None = None,
        timeouts: Callable[[], TimeoutPolicy] = TimeoutPolicy,
    ) -> None:
        """``timeouts`` says how limits are to follow what is normal, at the moment of use."""
        self._clock = clock
        self._policy = policy or BreakerPolicy()
        self._outlier = outlier or OutlierPolicy()
        self._timeouts = timeouts
        self._known: dict[tuple[str, str], _Known] = {}
        self._pools: dict[str, tuple[int, Normal]] = {}
        """By model: when it was put together, in attempts learnt from, and what it is."""
        self._swept_s = clock.monotonic_s()
        self.learnt = 0
        """Attempts learnt from in this process: it changes when there is something to keep."""

    def of(self, node: str, model: str, *, exact: bool = False) -> DeploymentHealth:
        """What is known of a deployment now. ``exact``: its text can be continued elsewhere."""
        known = self._get(node, model)
        now_s = self._clock.monotonic_s()
        breaker = known.breaker
        return DeploymentHealth(
            admission=breaker.admission(now_s),
            state=breaker.state,
            running=known.running,
            first_token_s=known.first_token_s,
            share=breaker.share(now_s),
            fault=breaker.fault,
            failures=breaker.failures,
            error=known.error,
            left_s=breaker.left_s(now_s),
            usual_load=known.load,
            limits=self._limits(known, model, exact=exact),
        )

    def normal_s(
        self, deployment: Deployment, share: float = 0.95, size: int = 0, *, whole: bool = False
    ) -> float | None:
        """The time to the first token that ``share`` of its answers to requests of this class of
        sizes do not exceed, seconds; None while too little is known. ``whole``: the same of answers
        that nothing is heard of until they are there."""
        known = self._known.get((deployment.node, deployment.model))
        measure = Measure.WHOLE if whole else Measure.FIRST_TOKEN
        return None if known is None else known.normal.quantile(measure, share, size)

    def started(self, deployment: Deployment) -> None:
        """An attempt begins."""
        known = self._get(deployment.node, deployment.model)
        known.load += LOAD_WEIGHT * (deployment.load - known.load)
        known.running += 1
        known.breaker.started(self._clock.monotonic_s())

    def answered(self, deployment: Deployment, head_s: float) -> None:
        """The head of a node's response arrived ``head_s`` after it was asked."""
        self._get(deployment.node, deployment.model).normal.add(Measure.HEAD, head_s)

    def ended(self, deployment: Deployment, failure: Failure | None, timings: Timings) -> None:
        """An attempt that had started is over."""
        self.learnt += 1
        now_s = self._clock.monotonic_s()
        known = self._get(deployment.node, deployment.model)
        known.running = max(known.running - 1, 0)
        self._learn(known, timings)
        known.outrun = known.outrun + 1 if failure is HEDGE_LOST else 0
        if failure is None:
            known.tally.add(now_s, failed=False)
            known.breaker.succeeded(now_s)
            if known.breaker.state is State.CLOSED:
                known.error = ""
        elif failure.faultless and known.outrun <= OUTRUN_MAX:
            known.breaker.abandoned()
        else:
            known.tally.add(now_s, failed=True)
            self._lose_patience(known, failure)
            self._failed(deployment, failure, now_s)
        self._sweep(now_s)

    def heard_of(self, node: str) -> None:
        """A node that could not be reached answers again: let probes through at once."""
        for (name, _), known in self._known.items():
            if name == node:
                known.breaker.heard_of()

    def snapshot(self) -> Snapshot:
        """What is to outlive the process."""
        now_s = self._clock.monotonic_s()
        return Snapshot(
            written_ms=self._clock.unix_ms(),
            deployments=tuple(
                Remembered(
                    node=node,
                    model=model,
                    breaker=known.breaker.dump(now_s),
                    error=known.error,
                    ejections=known.tally.times,
                    first_token_s=known.first_token_s,
                    normal=known.normal.dump(),
                )
                for (node, model), known in self._known.items()
            ),
        )

    def restore(self, snapshot: Snapshot, nodes: Iterable[str]) -> None:
        """Take over what an earlier process learnt of ``nodes``, faded by its age."""
        now_s, wanted = self._clock.monotonic_s(), frozenset(nodes)
        age_s = max(self._clock.unix_ms() - snapshot.written_ms, 0) / 1000
        for kept in snapshot.deployments[-DEPLOYMENTS_MAX:]:
            if kept.node not in wanted:
                continue
            breaker = Breaker.of(self._policy, kept.breaker, now_s, age_s, REST_S)
            known = self._known[kept.node, kept.model] = _Known(breaker, self._outlier.half_life_s)
            known.error = kept.error
            known.tally.times = min(max(kept.ejections, 0), 100)
            known.normal = Normal.of(kept.normal)
            known.normal.fade(0.5 ** (age_s / HALF_LIFE_S))
            if kept.first_token_s is not None and age_s < HALF_LIFE_S:
                known.first_token_s = max(kept.first_token_s, 0.0)

    # Inside.

    def _learn(self, known: _Known, timings: Timings) -> None:
        for measure, seconds in timings.taken():
            known.normal.add(measure, seconds, timings.size)
            self._regain(known, measure, seconds, timings.size)
        if timings.first_token_s is not None:
            known.first_token_s = smoothed(known.first_token_s, timings.first_token_s)
        known.unlearnt += 1

    def _regain(self, known: _Known, measure: Measure, seconds: float, size: int) -> None:
        """Patience shrinks when it was not needed."""
        patience = known.patience.get(measure)
        if patience is None:
            return
        usual_s = known.normal.quantile(measure, QUANTILE, size)
        if usual_s is None or seconds <= self._timeouts().margin * usual_s:
            known.patience[measure] = patience / 2
            if patience <= 2:
                del known.patience[measure]
            known.limits.clear()

    def _lose_patience(self, known: _Known, failure: Failure) -> None:
        """Whoever was given up on may only be slow: wait for longer next time."""
        measure = waited_for(failure.code)
        if measure is not None:
            before = known.patience.get(measure, 1.0)
            probing = known.breaker.state is not State.CLOSED
            known.patience[measure] = more_patience(before, probing=probing)
            known.limits.clear()

    def _failed(self, deployment: Deployment, failure: Failure, now_s: float) -> None:
        fault = _fault(failure)
        for (node, model), known in self._known.items():
            same = model == deployment.model
            # A refused connection is the whole node's, not one model's.
            if node == deployment.node and (same or failure.refused):
                if known.breaker.state is not State.OPEN:
                    known.error = failure.code
                known.breaker.failed(now_s, fault)

    def _limits(self, known: _Known, model: str, *, exact: bool) -> StageLimits:
        if known.unlearnt >= LEARN_EVERY:
            known.limits.clear()
        found = known.limits.get(exact)
        if found is None:
            known.unlearnt = 0
            found = known.limits[exact] = learnt(
                known.normal,
                self._pool(model),
                self._timeouts(),
                patience=known.patience,
                exact=exact,
            )
        return found

    def _pool(self, model: str) -> Normal:
        """What all deployments of a model normally do, as of a few attempts ago."""
        built, pool = self._pools.get(model, (-POOL_EVERY, None))
        if pool is None or self.learnt - built >= POOL_EVERY:
            pool = Normal()
            for (_, name), known in self._known.items():
                if name == model:
                    pool.merge(known.normal)
            self._pools[model] = self.learnt, pool
        return pool

    def _sweep(self, now_s: float) -> None:
        """From time to time: eject who does worse than its peers, and let the past fade."""
        past_s = now_s - self._swept_s
        if past_s < self._outlier.sweep_s:
            return
        self._swept_s = now_s
        self._pools.clear()
        for model in {name for _, name in self._known}:
            self._sweep_model(model, now_s)
        for known in self._known.values():
            known.normal.fade(0.5 ** (past_s / HALF_LIFE_S))

    def _sweep_model(self, model: str, now_s: float) -> None:
        known = {node: each for (node, name), each in self._known.items() if name == model}
        found = dict(outliers([_peer(n, k, now_s) for n, k in known.items()], self._outlier))
        for node, each in known.items():
            if node in found:
                each.tally.ejected()
                each.error = f"outlier_{found[node]}"
                each.breaker.eject(now_s, ejection_s(each.tally.times, self._outlier))
            elif each.breaker.state is State.CLOSED:
                each.tally.well()

    def _get(self, node: str, model: str) -> _Known:
        found = self._known.get((node, model))
        if found is None:
            if len(self._known) >= DEPLOYMENTS_MAX:
                idle = (key for key, known in self._known.items() if not known.running)
                self._known.pop(next(idle, next(iter(self._known))))
            made = _Known(Breaker(self._policy), self._outlier.half_life_s)
            found = self._known[node, model] = made
        return found


def _fault(failure: Failure) -> Fault:
    if failure.refused:
        return Fault.REFUSED
    if waited_for(failure.code) is not None:
        return Fault.SILENT
    return _FAULTS.get(failure.code, Fault.ORDINARY)


def _peer(node: str, known: _Known, now_s: float) -> Peer:
    attempts, failures = known.tally.counts(now_s)
    return Peer(
        name=node,
        attempts=attempts,
        failures=failures,
        first_token_s=known.first_token_s,
        usual_s=known.normal.quantile(Measure.FIRST_TOKEN, 0.5),
        available=known.breaker.admission(now_s) is Admission.FREE,
    )
