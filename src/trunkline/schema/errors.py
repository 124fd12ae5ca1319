"""Errors as clients are told them: HTTP bodies and in-stream events, in both formats.

OpenAI: ``{"error":{"message","type","param","code"}}``, and in a stream the same object as data.
Anthropic: ``{"type":"error","error":{"type","message","details"},"request_id"}``, and in a stream
the same object in an event named ``error``. A Responses stream has OpenAI's object in an event
named ``error``, after ``response.failed``. The stable code is ``error.code`` in the one and
``error.details.error_code`` in the other, where each client library looks for it.

It refuses to describe what it does not know: any exception outside our tree becomes
``internal_error`` without its text, which could hold anything.
"""

import math
from collections.abc import Callable

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    BudgetError,
    Error,
    NoRouteError,
    OverloadedError,
    RateLimitedError,
    RequestError,
    TimedOutError,
    UpstreamError,
)
from trunkline.schema import sse
from trunkline.schema.attempt import NodeError, NodeErrorBody

MESSAGE_CHARS_MAX = 2_000
OVERLOADED_STATUS = 529
"""The Anthropic API's own status for "try again later"; its client retries it."""
BILLING_STATUS = 402
"""The Anthropic API's status for money that is missing."""
RETRY_S_MAX = 40 * 24 * 3600
"""Longest wait that is told: a month's budget, and more."""

_encode = msgspec.json.Encoder().encode

_OPENAI_TYPES = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
}
_OPENAI_QUOTA_TYPE = "insufficient_quota"
"""By it OpenAI tells a budget that is spent from a rate that is too high; both are 429 there."""
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    OVERLOADED_STATUS: "overloaded_error",
}


class Produced(msgspec.Struct, frozen=True, kw_only=True):
    """How much of an answer the app had been sent when it ended in error. Never what."""

    chunks: int
    """Events of the node's stream."""
    characters: int
    """Characters of text, and of tool calls' arguments."""


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """An error, as far as a client is concerned."""

    status: int
    """HTTP status, in the OpenAI format; the Anthropic one says 529 for an overload, and 402 for
    a spent budget."""
    code: str
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    overloaded: bool = False
    """True: a queue of ours is full, rather than a limit of the caller's reached."""
    exhausted: bool = False
    """True: a budget is spent. Coming back sooner than told is of no use."""
    produced: Produced | None = None
    """For an error that ends a stream: what had been sent before it."""


def describe(error: BaseException) -> Described:
    """Status, code and message for ``error``."""
    if not isinstance(error, Error):
        return Described(status=500, code="internal_error", message="an internal error")
    return Described(
        status=_status(error),
        code=error.error_code,
        message=error.told[:MESSAGE_CHARS_MAX],
        param=error.param if isinstance(error, RequestError) else None,
        retry_after_s=_retry_after_s(error),
        overloaded=isinstance(error, OverloadedError),
        exhausted=isinstance(error, BudgetError) and error.error_code == BudgetError.code,
    )


def describe_node(error: NodeError) -> Described:
    """The same for what a node said."""
    status = error.status if 400 <= error.status <= 599 else 502
    return Described(
        status=status,
        code=error.code,
        message=error.message[:MESSAGE_CHARS_MAX],
        param=error.param,
        retry_after_s=None if error.retry_after_ms is None else error.retry_after_ms / 1000,
        overloaded=status in (503, OVERLOADED_STATUS) and error.code == OverloadedError.code,
    )


def _status(error: Error) -> int:
    if isinstance(error, RequestError):
        return error.http_status
    if isinstance(error, NoRouteError):
        attempts = error.attempts
        # Capacity ran out everywhere: that is a limit reached, not an outage.
        if attempts and all(isinstance(attempt, RateLimitedError) for attempt in attempts):
            return 429
        if attempts and all(isinstance(attempt, TimedOutError) for attempt in attempts):
            return 504
    return error.status


def _retry_after_s(error: Error) -> float | None:
    if isinstance(error, UpstreamError | OverloadedError | BudgetError):
        return error.retry_after_s
    if isinstance(error, NoRouteError):
        if error.retry_after_s is not None:
            return error.retry_after_s
        waits = [a.retry_after_s for a in error.attempts if a.retry_after_s is not None]
        return min(waits, default=None)
    return None


def retry_headers(described: Described) -> list[tuple[str, str]]:
    """``retry-after`` in whole seconds, never too early, and ``retry-after-ms`` beside it.

    For a spent budget also what both client libraries take for "do not even try again".
    """
    wait_s = described.retry_after_s
    never = [("x-should-retry", "false")] if described.exhausted else []
    if wait_s is None or not 0 <= wait_s < RETRY_S_MAX:
        return never
    return [
        *never,
        ("retry-after", str(math.ceil(wait_s))),
        ("retry-after-ms", str(math.ceil(wait_s * 1000))),
    ]


class _OpenAIError(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str
    param: str | None
    code: str
    produced: Produced | msgspec.UnsetType = msgspec.UNSET
    """Ours; clients pass on members that they do not know."""


class _OpenAIBody(msgspec.Struct, frozen=True, kw_only=True):
    error: _OpenAIError


class _ResponsesEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The Responses format's own members, and the object for which client libraries look."""

    type: str = "error"
    sequence_number: int
    code: str
    message: str
    param: str | None
    error: _OpenAIError


class _AnthropicDetails(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    error_code: str
    param: str | None = None
    produced: Produced | None = None


class _AnthropicError(msgspec.Struct, frozen=True, kw_only=True):
    type: str
    message: str
    details: _AnthropicDetails


class _AnthropicBody(msgspec.Struct, frozen=True, kw_only=True):
    type: str = "error"
    error: _AnthropicError
    request_id: str | None


def openai_type(status: int) -> str:
    """``error.type`` for an HTTP status."""
    return _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")


def anthropic_type(status: int) -> str:
    """``error.type`` for an HTTP status."""
    return _ANTHROPIC_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")


def openai_body(described: Described) -> bytes:
    """The HTTP body in the OpenAI format; send it with ``described.status``."""
    return _encode(_OpenAIBody(error=_openai_error(described)))


def _openai_error(described: Described) -> _OpenAIError:
    return _OpenAIError(
        message=described.message,
        type=_OPENAI_QUOTA_TYPE if described.exhausted else openai_type(described.status),
        param=described.param,
        code=described.code,
        produced=msgspec.UNSET if described.produced is None else described.produced,
    )


def anthropic_status(described: Described) -> int:
    """The HTTP status in the Anthropic format."""
    if described.exhausted:
        return BILLING_STATUS
    return OVERLOADED_STATUS if described.overloaded else described.status


def anthropic_body(described: Described, request_id: str | None = None) -> bytes:
    """The HTTP body in the Anthropic format; send it with :func:`anthropic_status`."""
    return _encode(
        _AnthropicBody(
            error=_AnthropicError(
                type=anthropic_type(anthropic_status(described)),
                message=described.message,
                details=_AnthropicDetails(
                    error_code=described.code,
                    param=described.param,
                    produced=described.produced,
                ),
            ),
            request_id=request_id,
        )
    )


def openai_event(described: Described) -> bytes:
    """The event that ends a stream in error. No ``[DONE]`` follows: the answer is not done.

    It has no name: the client library looks for ``error`` in the data of unnamed events.
    """
    return sse.encode(data=openai_body(described))


def responses_event(described: Described, sequence: int) -> bytes:
    """The last event of a Responses stream that fails."""
    event = _ResponsesEvent(
        sequence_number=sequence,
        code=described.code,
        message=described.message,
        param=described.param,
        error=_openai_error(described),
    )
    return sse.encode(event="error", data=_encode(event))


def anthropic_event(described: Described, request_id: str | None = None) -> bytes:
    """The event that ends a stream in error. No ``message_stop`` follows."""
    return sse.encode(event="error", data=anthropic_body(described, request_id))


def renamed(described: Described, caller_name: Callable[[str], str]) -> Described:
    """The error with the parameter's name as the caller knows it, in ``param`` and in the message,
    which begins with it where it is about one parameter."""
    if described.param is None:
        return described
    param, message = caller_name(described.param), described.message
    if message.startswith(f"{described.param}:"):
        message = param + message.removeprefix(described.param)
    return msgspec.structs.replace(described, param=param, message=message)


def node_error(error: BaseException) -> NodeError:
    """What a node tells a gateway."""
    described = describe(error)
    wait_s = described.retry_after_s
    return NodeError(
        code=described.code,
        message=described.message,
        retryable=_retryable(error),
        param=described.param,
        retry_after_ms=None if wait_s is None else math.ceil(wait_s * 1000),
        status=described.status,
    )


def node_error_body(error: NodeError) -> bytes:
    """The HTTP body of a refusal before the stream."""
    return _encode(NodeErrorBody(error=error))


def _retryable(error: BaseException) -> bool:
    if isinstance(error, RequestError):
        # "Not here" is no fault of the request: another node may honour the parameter.
        return error.http_status in (404, 408, 409) or error.error_code in _ELSEWHERE
    return error.retryable if isinstance(error, UpstreamError) else True


_ELSEWHERE = frozenset(
    {"unsupported_parameter", "model_not_found", "context_length_exceeded", "request_too_large",
     "upstream_declined"}
)  # fmt: skip


def from_node(error: NodeError) -> Error:
    """The exception that stands for a node's error, to be raised or recorded by the gateway."""
    wait_s = None if error.retry_after_ms is None else error.retry_after_ms / 1000
    if not error.retryable and 400 <= error.status < 500:
        return RequestError(error.message, code=error.code, param=error.param, status=error.status)
    kind: type[UpstreamError]
    match error.status:
        case 429:
            kind = RateLimitedError
        case 408 | 504:
            kind = TimedOutError
        case _:
            kind = BadResponseError
    return kind(error.message, code=error.code, retryable=error.retryable, retry_after_s=wait_s)
