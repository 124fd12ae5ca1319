"""What an HTTP status and its headers say about a failed call: the one table for all callers.

Pure. Messages hold the status and, where it looks like a code and not like prose, the upstream's
own error code; never the upstream's words, which may quote a prompt.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    RateLimitedError,
    TimedOutError,
    UpstreamError,
)
from trunkline.remote import limits
from trunkline.remote.limits import Windows, stated
from trunkline.schema.attempt import Limits

RETRY_AFTER_S_MAX: Final = 24 * 3600.0
ERROR_BODY_BYTES_MAX: Final = 64 * 1024

AUTH: Final = "upstream_auth"
MODEL_MISSING: Final = "upstream_model_missing"
NOT_FOUND: Final = "upstream_not_found"
TIMEOUT: Final = "upstream_timeout"
CONFLICT: Final = "upstream_conflict"
REJECTED: Final = "upstream_rejected"
RATE_LIMITED: Final = "upstream_rate_limited"
QUOTA_EXHAUSTED: Final = "upstream_quota_exhausted"
DECLINED: Final = "upstream_declined"
UNAVAILABLE: Final = "upstream_unavailable"
"""It, or what stands before it, says that it is not there or has no room just now."""
FAILED: Final = "upstream_failed"
"""It took the request, and something went wrong with it there."""
REDIRECT: Final = "upstream_redirect"
NOT_JSON: Final = "upstream_not_json"
TOO_LARGE: Final = "request_too_large"

_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")
_PARAM = re.compile(r"[A-Za-z][A-Za-z0-9_.\[\]-]{0,63}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_OVERLOADED_CODES: Final = frozenset(
    {"overloaded_error", "server_error", "api_error", "internal_error", "unavailable",
     "service_unavailable", "internal", "engine_overloaded"}
)  # fmt: skip
_LIMIT_CODES: Final = frozenset(
    {"rate_limit_exceeded", "rate_limit_error", "resource_exhausted", "too_many_requests",
     "requests", "tokens"}
)  # fmt: skip
_QUOTA_CODES: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_AUTH_CODES: Final = frozenset(
    {"authentication_error", "invalid_api_key", "permission_error", "unauthenticated",
     "permission_denied", "api_key_invalid", "api_key_expired", "organization_restricted"}
)  # fmt: skip
_MODEL_CODES: Final = frozenset(
    {"model_not_found", "not_found_error", "not_found", "model_decommissioned"}
)
_SPOILED_CODES: Final = frozenset({"tool_use_failed", "json_validate_failed"})
"""Groq's, with a 400: the model said what is no tool call, or no JSON."""
_ACCOUNT_CODES: Final = frozenset({"failed_precondition"})
"""Google's, with a 400: it is not for this account (where it is, how it pays)."""

_AWAY: Final = frozenset({502, 503, 520, 521, 522, 523, 529, 530})
"""Besides gateways' usual ones Cloudflare's, and Anthropic's for "overloaded"."""
_OF_REQUESTS: Final = frozenset({400, 413, 422})
"""By these an API finds fault with a request. Other refusals, and those that are no JSON, are of
whatever stands before it, and say nothing of what others would do."""


class RejectedError(UpstreamError):
    """The upstream found fault with the request itself. Not retryable: another deployment of the
    same kind would say the same."""

    code = REJECTED
    status = 400

    def __init__(self, message: str, *, upstream_code: str, param: str | None) -> None:
        super().__init__(message, retryable=False)
        self.upstream_code = upstream_code
        """The upstream's own code (``context_length_exceeded``); empty if it gave none;
        ``upstream_declined`` if it was no API's refusal."""
        self.param = param
        """The parameter that it named."""


class LimitedError(RateLimitedError):
    """The upstream said "later". ``limits``: what it said of its limits, if anything."""

    def __init__(
        self, message: str, *, code: str, retry_after_s: float | None, limits: Limits | None = None
    ) -> None:
        super().__init__(message, code=code, retry_after_s=retry_after_s)
        self.limits = limits


class Headed(Protocol):
    """Anything with response headers."""

    def header(self, name: str) -> str | None: ...


class Head(Headed, Protocol):
    """All of a response's headers, names in lower case."""

    @property
    def headers(self) -> Sequence[tuple[str, str]]: ...


class ErrorObject(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of an error object that are read, whatever else it holds. All are untrusted."""

    code: str | int | None = None
    type: str | None = None
    status: str | None = None
    param: str | None = None
    retry_delay_s: float | None = None
    reason: str | None = None
    """Of a google.rpc.ErrorInfo among its details."""

    @property
    def codes(self) -> set[str]:
        """Everything in it that may be a code, in lower case."""
        found = (self.code, self.type, self.status, self.reason)
        return {one.lower() for one in found if isinstance(one, str)}

    @property
    def label(self) -> str:
        """Its most precise code that looks like one; empty without."""
        for found in (self.code, self.status, self.type):
            if isinstance(found, str) and _CODE.fullmatch(found):
                return found
        return ""


def failure(
    status: int,
    head: Head,
    body: bytes,
    *,
    now_unix_s: float,
    missing: str = NOT_FOUND,
    windows: Windows | None = None,
) -> UpstreamError:
    """The error for a response of ``status`` (anything but success). ``missing``: the code of a
    404. ``now_unix_s``: the time that dates in the head are measured from. ``windows``: as in
    :func:`trunkline.remote.limits.stated`."""
    error = error_object(body) or ErrorObject()
    wait_s = retry_after_s(head, now_unix_s=now_unix_s)
    if wait_s is None:
        wait_s = error.retry_delay_s
    made = _classify(status, error, wait_s, missing)
    if isinstance(made, RejectedError) and status not in _OF_REQUESTS:
        made.upstream_code = DECLINED
    elif isinstance(made, RejectedError) and not _is_json(body):
        made.upstream_code = made.upstream_code or DECLINED
    if isinstance(made, LimitedError):
        made.limits = stated(head.headers, body, now_unix_s=now_unix_s, windows=windows)
        if made.retry_after_s is None and made.limits is not None:
            made.retry_after_s = limits.wait_s(made.limits)
    return made


def failure_in_answer(error: ErrorObject) -> UpstreamError:
    """The error for an error object inside a successful response, classified by its own code."""
    status = error.code if isinstance(error.code, int) and 400 <= error.code <= 599 else 0
    status = status or _status_of(error)
    if status:
        return _classify(status, error, error.retry_delay_s, MODEL_MISSING)
    return BadResponseError(
        f"an error instead of an answer{_said(error)}", retry_after_s=error.retry_delay_s
    )


def _status_of(error: ErrorObject) -> int:
    """The status that its code should have come with; 0 for a code that is not known."""
    codes = error.codes
    for status, known in (
        (429, _QUOTA_CODES | _LIMIT_CODES),
        (401, _AUTH_CODES),
        (404, _MODEL_CODES),
        (503, _OVERLOADED_CODES),
    ):
        if codes & known:
            return status
    return 0


def _classify(status: int, error: ErrorObject, wait_s: float | None, missing: str) -> UpstreamError:
    message = f"HTTP {status}{_said(error)}"
    match status:
        case 401 | 403 | 498:
            # 498: proxies' word for a token that is no good.
            return UpstreamError(message, code=AUTH)
        case 402:
            return LimitedError(message, code=QUOTA_EXHAUSTED, retry_after_s=wait_s)
        case 404 | 405 | 410 | 421:
            # It, or the way to ask for it, is not there, or not any more.
            return UpstreamError(message, code=missing)
        case 408 | 504:
            return TimedOutError(message, code=TIMEOUT, retry_after_s=wait_s)
        case 409 | 423 | 425:
            return UpstreamError(message, code=CONFLICT, retry_after_s=wait_s)
        case 429:
            code = QUOTA_EXHAUSTED if error.codes & _QUOTA_CODES else RATE_LIMITED
            return LimitedError(message, code=code, retry_after_s=wait_s)
        case 424 | 499:
            # AWS: the model failed, whatever the request was. Google, nginx: given up on the way.
            return UpstreamError(message, code=FAILED, retry_after_s=wait_s)
        case _ if status != 413 and 400 <= status < 500 and _status_of(error):
            # What is no fault of the request, under a status that says it is.
            return _classify(_status_of(error), error, wait_s, missing)
        case _ if error.codes & _SPOILED_CODES:
            return BadResponseError(message)
        case _ if 400 <= status < 500:
            param = error.param if error.param and _PARAM.fullmatch(error.param) else None
            # Too large for this one, or for what its account may take in a minute.
            label = TOO_LARGE if status == 413 else error.label
            label = DECLINED if error.codes & _ACCOUNT_CODES else label
            return RejectedError(message, upstream_code=label, param=param)
        case _ if status >= 500:
            code = UNAVAILABLE if status in _AWAY else FAILED
            return UpstreamError(message, code=code, retry_after_s=wait_s)
        case _ if 300 <= status < 400:
            return BadResponseError(message, code=REDIRECT)
        case _:
            return BadResponseError(message)


def _is_json(body: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(body), dict | list)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def error_object(body: bytes) -> ErrorObject | None:
    """The error object of a JSON body: ``{"error": {…}}``, ``{"error": "…"}``, either in a list of
    one, or ``{"object": "error", …}`` (Mistral, older vLLM). None if there is none."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, dict) and found.get("object") == "error":
        return _read_error(found)
    if not isinstance(found, dict) or found.get("error") in (None, False):
        return None
    inner = found["error"]
    return _read_error(inner) if isinstance(inner, dict) else ErrorObject()


def _read_error(inner: dict[str, object]) -> ErrorObject:
    code = inner.get("code")
    return ErrorObject(
        code=code if isinstance(code, str | int) else None,
        type=_text(inner.get("type")),
        status=_text(inner.get("status")),
        param=_text(inner.get("param")),
        retry_delay_s=_retry_delay(inner.get("details")),
        reason=_reason(inner.get("details")),
    )


def _reason(details: object) -> str | None:
    """``reason`` of a google.rpc.ErrorInfo among an error's details: ``API_KEY_INVALID``."""
    for detail in details[:32] if isinstance(details, list) else ():
        reason = _text(detail.get("reason")) if isinstance(detail, dict) else None
        if reason:
            return reason
    return None


def _retry_delay(details: object) -> float | None:
    """``retryDelay`` of a google.rpc.RetryInfo among an error's details: ``"13.5s"``."""
    for detail in details[:32] if isinstance(details, list) else ():
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        if isinstance(delay, str) and delay.endswith("s") and _SECONDS.fullmatch(delay[:-1]):
            return _bounded(float(delay[:-1]))
    return None


def retry_after_s(headers: Headed, *, now_unix_s: float) -> float | None:
    """How long the upstream asks to wait: ``retry-after-ms`` (Azure: with ``x-ms-``), or
    ``retry-after`` in seconds or as an HTTP date. None if it does not say, or not legibly. Between
    0 and ``RETRY_AFTER_S_MAX``."""
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        milliseconds = headers.header(name)
        if milliseconds is not None and _SECONDS.fullmatch(milliseconds.strip()):
            return _bounded(float(milliseconds) / 1000)
    value = headers.header("retry-after")
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return _bounded(float(value))
    try:
        at = parsedate_to_datetime(value)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return _bounded(at.timestamp() - now_unix_s)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _bounded(seconds: float) -> float | None:
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX) if math.isfinite(seconds) else None


def _said(error: ErrorObject) -> str:
    return f" ({error.label})" if error.label else ""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
