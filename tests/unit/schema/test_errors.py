"""Errors in both formats: status, type, code, and when to come back."""

import json

import pytest

from trunkline.base import errors as base
from trunkline.gateway.core.actions import Failure
from trunkline.runtime.store import DiskError
from trunkline.schema import errors, sse
from trunkline.schema.attempt import NodeError

LATER = base.RateLimitedError("later", retry_after_s=2.5)
SLOW = base.TimedOutError("slow")


@pytest.mark.parametrize(
    ("error", "status", "openai_type", "anthropic_status", "anthropic_type"),
    [
        (base.RequestError("x"), 400, "invalid_request_error", 400, "invalid_request_error"),
        (
            base.RequestError("x", status=401),
            401,
            "authentication_error",
            401,
            "authentication_error",
        ),
        (base.RequestError("x", status=403), 403, "permission_error", 403, "permission_error"),
        (base.RequestError("x", status=404), 404, "not_found_error", 404, "not_found_error"),
        (
            base.RequestError("x", status=413),
            413,
            "invalid_request_error",
            413,
            "request_too_large",
        ),
        (base.MalformedError("x"), 400, "invalid_request_error", 400, "invalid_request_error"),
        (LATER, 429, "rate_limit_error", 429, "rate_limit_error"),
        (SLOW, 504, "server_error", 504, "timeout_error"),
        (base.BadResponseError("x"), 502, "server_error", 502, "api_error"),
        (base.OverloadedError("x"), 503, "server_error", 529, "overloaded_error"),
        (base.NoRouteError("x"), 503, "server_error", 503, "api_error"),
        (
            base.NoRouteError("x", attempts=(LATER,)),
            429,
            "rate_limit_error",
            429,
            "rate_limit_error",
        ),
        (base.NoRouteError("x", attempts=(SLOW,)), 504, "server_error", 504, "timeout_error"),
        (base.NoRouteError("x", attempts=(SLOW, LATER)), 503, "server_error", 503, "api_error"),
        (ValueError("x"), 500, "server_error", 500, "api_error"),
    ],
)
def test_each_error_has_its_status_and_types(
    error: Exception, status: int, openai_type: str, anthropic_status: int, anthropic_type: str
) -> None:
    described = errors.describe(error)
    assert described.status == status
    assert json.loads(errors.openai_body(described))["error"]["type"] == openai_type
    assert errors.anthropic_status(described) == anthropic_status
    assert json.loads(errors.anthropic_body(described))["error"]["type"] == anthropic_type


def test_the_openai_body_is_written_byte_for_byte() -> None:
    error = base.RequestError("n: too many", code="invalid_value", param="n")
    assert errors.openai_body(errors.describe(error)) == (
        b'{"error":{"message":"n: too many","type":"invalid_request_error",'
        b'"param":"n","code":"invalid_value"}}'
    )


def test_the_anthropic_event_is_written_byte_for_byte() -> None:
    described = errors.describe(base.TruncatedError("cut"))
    assert errors.anthropic_event(described, "ans_1") == (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"cut",'
        b'"details":{"error_code":"upstream_truncated"}},"request_id":"ans_1"}\n\n'
    )


def test_the_openai_event_has_no_name() -> None:
    (event,) = sse.SseParser().feed(errors.openai_event(errors.describe(SLOW)))
    assert event.event == ""
    assert json.loads(event.data or b"")["error"]["code"] == "upstream_timeout"


def test_foreign_exceptions_are_not_quoted() -> None:
    described = errors.describe(KeyError("a secret"))
    assert b"secret" not in errors.openai_body(described)
    assert described.code == "internal_error"


def test_when_to_come_back_is_never_too_early() -> None:
    headers = errors.retry_headers(errors.describe(LATER))
    assert headers == [("retry-after", "3"), ("retry-after-ms", "2500")]
    assert errors.retry_headers(errors.describe(SLOW)) == []
    route = base.NoRouteError("x", attempts=(SLOW, LATER, base.RateLimitedError("y")))
    assert errors.describe(route).retry_after_s == 2.5
    assert errors.describe(base.NoRouteError("x", retry_after_s=9.0)).retry_after_s == 9.0


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (base.RequestError("x", code="invalid_value"), False),
        (base.RequestError("x", code="unsupported_parameter"), True),
        (base.RequestError("x", code="model_not_found", status=404), True),
        (base.OverloadedError("x"), True),
        (base.BadResponseError("x", retryable=False), False),
        (RuntimeError("x"), True),
    ],
)
def test_a_node_says_whether_another_may_succeed(error: Exception, retryable: bool) -> None:
    assert errors.node_error(error).retryable is retryable


def test_a_refusal_goes_from_node_to_gateway_unchanged() -> None:
    refusal = base.RequestError("n: too many", code="invalid_value", param="n")
    back = errors.from_node(errors.node_error(refusal))
    assert isinstance(back, base.RequestError)
    assert errors.describe(back) == errors.describe(refusal)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, base.RateLimitedError),
        (504, base.TimedOutError),
        (503, base.BadResponseError),
        (404, base.BadResponseError),
    ],
)
def test_a_nodes_failure_becomes_a_failed_attempt(status: int, kind: type[base.Error]) -> None:
    error = NodeError(code="c", message="m", retryable=True, status=status, retry_after_ms=1500)
    back = errors.from_node(error)
    assert type(back) is kind
    assert back.error_code == "c"
    assert errors.describe(back).retry_after_s == 1.5


def test_a_node_can_not_choose_an_impossible_status() -> None:
    error = NodeError(code="c", message="m" * 9_999, retryable=True, status=200)
    described = errors.describe_node(error)
    assert described.status == 502
    assert len(described.message) == errors.MESSAGE_CHARS_MAX


def test_an_ended_stream_says_how_much_had_been_sent() -> None:
    described = errors.Described(
        status=502,
        code="answer_interrupted",
        message="cut",
        produced=errors.Produced(chunks=3, characters=17),
    )
    produced = {"chunks": 3, "characters": 17}
    (openai,) = sse.SseParser().feed(errors.openai_event(described))
    assert json.loads(openai.data or b"")["error"]["produced"] == produced
    (anthropic,) = sse.SseParser().feed(errors.anthropic_event(described, "ans_1"))
    assert json.loads(anthropic.data or b"")["error"]["details"]["produced"] == produced


def test_other_errors_say_nothing_of_that() -> None:
    described = errors.describe(LATER)
    assert b"produced" not in errors.openai_body(described)
    assert b"produced" not in errors.anthropic_body(described)


def test_a_spent_budget_is_told_as_each_vendor_does() -> None:
    spent = base.BudgetError("spent", retry_after_s=2_000_000.5)
    described = errors.describe(spent)
    openai, anthropic = (
        json.loads(errors.openai_body(described)),
        json.loads(errors.anthropic_body(described)),
    )
    assert (described.status, openai["error"]["type"]) == (429, "insufficient_quota")
    assert errors.anthropic_status(described) == 402
    assert anthropic["error"]["type"] == "billing_error"
    assert openai["error"]["code"] == anthropic["error"]["details"]["error_code"]
    assert dict(errors.retry_headers(described)) == {
        "x-should-retry": "false",
        "retry-after": "2000001",
        "retry-after-ms": "2000000500",
    }


def test_a_budget_that_never_comes_back_names_no_time() -> None:
    described = errors.describe(base.BudgetError("spent"))
    assert errors.retry_headers(described) == [("x-should-retry", "false")]


def test_a_budget_that_is_only_held_is_worth_another_try() -> None:
    described = errors.describe(base.BudgetError("held", code="budget_held", retry_after_s=1.0))
    assert errors.openai_type(described.status) == "rate_limit_error"
    assert errors.anthropic_status(described) == 429
    assert dict(errors.retry_headers(described))["retry-after"] == "1"


@pytest.mark.parametrize(
    "error",
    [
        DiskError("/srv/app/evidence.db: database or disk is full"),
        base.ConfigError("/srv/app/gateway.toml: key x"),
        base.CorruptStateError("/srv/app/evidence.db: damaged"),
    ],
)
def test_callers_are_told_no_places_of_this_machine(error: base.Error) -> None:
    described = errors.describe(error)
    assert "/srv" not in described.message
    assert described.message
    assert described.code == error.error_code
    assert "/srv" not in errors.node_error(error).message
    assert "/srv" not in Failure.of(error).message
    assert "/srv" in error.message
