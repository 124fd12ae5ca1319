"""When nobody could give the answer: what the app is told, honestly and in one stable code. And
what a node's own word on its failure means."""

from collections.abc import Sequence
from typing import Final

from trunkline.gateway.core.actions import Failure, Start, stable_code
from trunkline.gateway.core.deadline import Stage
from trunkline.schema.attempt import NodeError, PreviousAttempt
from trunkline.schema.errors import MESSAGE_CHARS_MAX

BUSY_CODES: Final = frozenset({"overloaded", "upstream_rate_limited", "rate_limited", "queue_full"})
DAMAGING_CODES: Final = frozenset({"upstream_repeated_chunk"})
"""By these a node says that the text it sent before is wrong."""
REFUSED_STATUSES: Final = frozenset({400, 413, 422})
"""By these a node says that the request is at fault, or (retryable) not for this node."""
UNKNOWN_CODES: Final = frozenset(
    {
        *(stage.value for stage in Stage),
        "upstream_timeout",
        "upstream_truncated",
        "upstream_reset",
    }
)
"""After these nobody knows what became of the work: the attempt was sent, and its end was not
heard."""

HEDGE_LOST: Final = Failure(
    code="hedge_lost", message="an attempt beside it was faster", faultless=True
)
"""How an attempt ends when another one's text came first."""
KEY_CHANGED: Final = Failure(
    code="node_key_changed", message="the node has another key by now", faultless=True
)
"""How an attempt ends whose node has changed its key since it was last looked at."""

NOT_VERIFIED: Final = Failure(
    code="verification_failed",
    message="verifiers found that the node did not compute this answer as it says",
    dishonest=True,
    suspect=True,
)
"""How an attempt ends whose answer is not shown, because verifiers were asked first."""
NOT_JUDGED: Final = Failure(
    code="verification_inconclusive",
    message="no verifier had a verdict on the answer in time, so it is not shown",
    status=503,
)
"""How an answer ends that is shown only with a verdict, where there was none."""
ALTERED: Final = Failure(
    code="answer_altered",
    message="what was sent is not what the answer's tokens say; the answer ends here",
    status=502,
)
"""A node lied about its text, or something changed it on the way to this gateway."""


def final_failure(failures: Sequence[Failure], *, relayed: bool) -> Failure:
    """The answer's failure, given its attempts' failures in order.

    ``relayed``: the app holds a part of the answer, so the end is called an interruption. Else:
    what the first node said where every node refused the request itself; 429 where every node said
    that it is busy, with the shortest time any of them named; 504 where all took too long; 503
    otherwise.
    """
    failures = [failure for failure in failures if failure is not HEDGE_LOST]
    said = ", ".join(dict.fromkeys(failure.code for failure in failures))
    tried = f"; attempts failed with: {said}" if said else ""
    if relayed:
        return Failure(
            code="answer_interrupted",
            message=f"the answer was interrupted and no node could go on with it{tried}",
            status=502,
        )
    if not failures:
        return Failure(
            code="no_route",
            message="no node that serves this model can be reached",
            status=503,
            retry_after_s=1.0,
        )
    unfit = [failure for failure in failures if failure.unfit]
    if len(unfit) == len(failures):
        return unfit[0]
    waits = [f.retry_after_s for f in failures if f.retry_after_s is not None]
    if all(_busy(failure) for failure in failures):
        return Failure(
            code="overloaded",
            message=f"every node that serves this model is busy{tried}",
            status=429,
            retry_after_s=min(waits, default=1.0),
        )
    if all(failure.status == 504 for failure in failures):
        return Failure(
            code="upstream_timeout", message=f"no node answered in time{tried}", status=504
        )
    # Who could not be asked might have honoured it. What those who were asked refuse is said too.
    refused = f" ({unfit[0].message})" if unfit else ""
    return Failure(
        code="no_route",
        message=f"no node could answer{tried}{refused}",
        status=503,
        param=unfit[0].param if unfit else None,
        retry_after_s=min(waits, default=1.0),
    )


def _busy(failure: Failure) -> bool:
    return failure.code in BUSY_CODES or failure.status == 429


def node_failure(error: NodeError) -> Failure:
    """What a node said of its own failure."""
    busy = error.status in (429, 503) and error.retryable
    unfit = error.status in REFUSED_STATUSES and error.retryable
    wait_ms = error.retry_after_ms
    return Failure(
        code=stable_code(error.code),
        message=error.message[:MESSAGE_CHARS_MAX],
        retryable=error.retryable,
        status=error.status if 400 <= error.status <= 599 else 502,
        param=error.param,
        retry_after_s=None if wait_ms is None else max(wait_ms, 0) / 1000,
        damaging=error.code in DAMAGING_CODES,
        faultless=busy or unfit or not error.retryable,
        unfit=unfit,
    )


def past(start: Start, error: str) -> PreviousAttempt:
    return PreviousAttempt(attempt=start.attempt, node=start.deployment.node, error=error)


def dishonest(message: str) -> Failure:
    return Failure(code="bad_receipt", message=message, dishonest=True, suspect=True)


def late(stage: Stage, *, faultless: bool = False) -> Failure:
    whole = stage is Stage.TOTAL
    message = "the answer's deadline has passed" if whole else "the node was silent for too long"
    return Failure(code=stage.value, message=message, status=504, faultless=faultless)
