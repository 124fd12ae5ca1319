"""What observing an answer costs the gateway's CPU.

    python bench/telemetry.py

Prints microseconds of CPU per answer with two attempts, of which one fails: counted only; with its
line written too; with a trace offered to the exporter as well. Beside these: what the exporter's
task spends on encoding that trace, and what a scrape of ``/metrics`` takes. The parts are called as
the relay calls them, in one process and one thread.
"""

import io
import time
from collections.abc import Callable, Sequence
from typing import cast

from trunkline.crypto.signer import Signer
from trunkline.gateway.core.actions import Ended, Failure, Plan, Start
from trunkline.gateway.core.attempt import Answer
from trunkline.gateway.core.deadline import Timeouts
from trunkline.gateway.core.normal import Timings
from trunkline.gateway.core.route import Deployment
from trunkline.gateway.telemetry import Sampling, Telemetry
from trunkline.runtime.clock import SystemClock, SystemRandomness
from trunkline.runtime.logger import Logger, configure, get_logger
from trunkline.runtime.metrics import Metrics
from trunkline.runtime.otlp import Span, encode_spans
from trunkline.runtime.otlp_export import Exporter

ANSWERS = 20_000
FAILURE = Failure(code="upstream_truncated", message="cut")


class Kept:
    """An exporter that keeps the last trace."""

    make: Callable[[], Sequence[Span]] = list

    def offer(self, make: Callable[[], Sequence[Span]]) -> None:
        self.make = make


def main() -> None:
    quiet = io.StringIO()
    configure(level="error", stream=quiet)
    silent = get_logger("gateway")
    metrics = Metrics()
    print(f"    counted                   {_cost_us(metrics, None, silent):8.1f} us an answer")
    configure(stream=quiet)
    print(f"    and its line written      {_cost_us(Metrics(), None, silent):8.1f} us an answer")
    kept = Kept()
    print(f"    and its trace offered     {_cost_us(Metrics(), kept, silent):8.1f} us an answer")
    print(
        f"    the trace encoded, later  {_time_us(lambda: _encode(kept), 2000):8.1f} us an answer"
    )
    print(f"    a scrape                  {_time_us(metrics.render, 500):8.1f} us")


def _encode(kept: Kept) -> None:
    encode_spans({"service.name": "bench"}, "0", kept.make())


def _cost_us(metrics: Metrics, kept: Kept | None, logger: Logger) -> float:
    clock = SystemClock()
    telemetry = Telemetry(
        metrics,
        cast("Exporter | None", kept),
        Sampling(),
        clock=clock,
        randomness=SystemRandomness(),
        logger=logger,
    )
    plan = Plan(
        answer="ans_bench", kind="chat", model="m", stream=True, choices=1,
        client_format="openai.chat", client_digest="", request_digest="", caller_nonce="",
        created_s=0, mode="batched", deadline_s=1e18, timeouts=Timeouts(),
    )  # fmt: skip
    key = Signer.generate("a.example/node", bytes(32)).vkey
    starts = [
        Start(
            number=number, attempt=f"att_{number}", delay_s=0.0, previous=(), first_event=0,
            deployment=Deployment(
                node=f"{number}.example/node", operator=f"{number}.example", key=key, kind="chat",
                url="http://127.0.0.1:1", model="m",
            ),
        )
        for number in range(2)
    ]  # fmt: skip
    answer = Answer(plan, lambda: "att")
    answer.attempts = 2

    def one() -> None:
        watch = telemetry.begin(plan, None, clock.monotonic_s())
        for start, failure in zip(starts, (FAILURE, None), strict=True):
            watch.waited(0.0)
            watch.attempt_began(start)
            watch.traceparent(start.number)
            watch.attempt_ended(
                Ended(
                    number=start.number, attempt=start.attempt, deployment=start.deployment,
                    failure=failure, timings=Timings(first_token_s=0.1),
                )
            )  # fmt: skip
        watch.ended(None, answer)

    return _time_us(one, ANSWERS)


def _time_us(work: Callable[[], object], times: int) -> float:
    work()
    begun = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - begun) * 1e6 / times


if __name__ == "__main__":
    main()
