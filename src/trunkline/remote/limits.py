"""What a provider's answer says of its account's limits: rate-limit headers and error details.

Pure. Read are the headers of OpenAI and those who follow it (a unit, and sometimes a window, after
``x-ratelimit-limit-`` and its like), of Anthropic, of Together and OpenRouter (no unit), the IETF's
``RateLimit`` and ``RateLimit-Policy`` (draft-ietf-httpapi-ratelimit-headers-10, and 07's form), and
Google's ``QuotaFailure``. Any bytes give quotas or nothing: what is not legible was not said. It
guesses nothing: a window or a limit that was not stated stays unknown.
"""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from trunkline.schema.attempt import Limits, Quota

Unit = Literal["requests", "tokens", "input_tokens", "output_tokens", "concurrency"]
Windows = Mapping[Unit, int]
"""Window lengths in milliseconds that a provider documents and does not send."""

QUOTAS_MAX: Final = 16
AMOUNT_MAX: Final = 10**15
RESET_MS_MAX: Final = 31 * 24 * 3600 * 1000
VALUE_CHARS_MAX: Final = 1024
SECOND_MS: Final = 1000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

_SUFFIX: Final = re.compile(r"x-(rate|token)limit-(limit|remaining|reset)(?:-([a-z-]{1,40}))?")
_ANTHROPIC: Final = re.compile(r"anthropic-ratelimit-([a-z-]{1,40})-(limit|remaining|reset)")
_IETF_OLD: Final = re.compile(r"ratelimit-(limit|remaining|reset)")
_SUFFIX_UNITS: Final[Mapping[str, Unit]] = {
    "requests": "requests", "req": "requests", "request": "requests",
    "tokens": "tokens", "token": "tokens",
    "input-tokens": "input_tokens", "tokens-prompt": "input_tokens",
    "output-tokens": "output_tokens", "tokens-generated": "output_tokens",
    "concurrent-requests": "concurrency",
}  # fmt: skip
_WINDOWS: Final = {
    "second": SECOND_MS, "minute": MINUTE_MS, "hour": HOUR_MS, "day": DAY_MS,
}  # fmt: skip
_PARTS: Final = re.compile(r"(\d{1,12}(?:\.\d{1,9})?)(ms|us|µs|ns|d|h|m|s)")
_PART_MS: Final = {
    "d": DAY_MS, "h": HOUR_MS, "m": MINUTE_MS, "s": SECOND_MS,
    "ms": 1, "us": 1e-3, "µs": 1e-3, "ns": 1e-6,
}  # fmt: skip
_NUMBER: Final = re.compile(r"\d{1,16}(?:\.\d{1,9})?")
_EPOCH_S_MIN: Final = 1e9
"""A larger number of seconds is a date, and one larger still a date in milliseconds."""
_EPOCH_MS_MIN: Final = 1e11
_ITEM: Final = re.compile(r'(?:"([^"]{0,64})"|([A-Za-z0-9_*-]{1,64}))((?:\s*;[^,"]*(?:"[^"]*")?)*)')
_PARAMETER: Final = re.compile(r';\s*([a-z]{1,8})\s*=\s*(?:"([^"]{0,64})"|([A-Za-z0-9.-]{1,32}))')
_MEMBER: Final = re.compile(r"(limit|remaining|reset)\s*=\s*(\d{1,16})")
_IETF_UNITS: Final[Mapping[str, Unit]] = {
    "requests": "requests", "concurrent-requests": "concurrency", "tokens": "tokens",
}  # fmt: skip
_GOOGLE_WINDOW: Final = re.compile(r"Per(Second|Minute|Hour|Day)")

Key = tuple[Unit, int | None, str]
"""A quota's unit, its window and, with the IETF's headers, its policy's name."""


class _Stated:
    """Quotas as they come together, a header at a time."""

    __slots__ = ("_found", "_windows")

    def __init__(self, windows: Windows) -> None:
        self._found: dict[Key, dict[str, int]] = {}
        self._windows = windows

    def note(
        self,
        unit: Unit,
        what: str,
        value: int | None,
        *,
        window_ms: int | None = None,
        of: str = "",
    ) -> None:
        """``what``: limit, remaining or reset. The first statement of a thing counts."""
        window = self._windows.get(unit) if window_ms is None else window_ms
        key = (unit, window, of)
        if value is None or (key not in self._found and len(self._found) >= QUOTAS_MAX):
            return
        self._found.setdefault(key, {}).setdefault(what, value)

    def limits(self) -> Limits | None:
        quotas = tuple(
            Quota(
                unit=unit,
                limit=said.get("limit"),
                remaining=said.get("remaining"),
                window_ms=window_ms,
                reset_ms=said.get("reset"),
            )
            for (unit, window_ms, _), said in self._found.items()
            # A reset alone limits nothing.
            if said.keys() - {"reset"}
        )
        return Limits(quotas=quotas) if quotas else None


def stated(
    headers: Iterable[tuple[str, str]],
    body: bytes = b"",
    *,
    now_unix_s: float,
    windows: Windows | None = None,
) -> Limits | None:
    """The limits that an answer's headers, and a refusal's body, state. None if they state none.

    ``headers``: names in lower case. ``now_unix_s``: what dates are measured from.
    """
    found = _Stated(windows or {})
    policies: dict[str, tuple[Unit, int | None]] = {}
    services: list[str] = []
    for name, value in headers:
        # Most headers are none of these; those that are begin alike.
        if "ratelimit" not in name and "tokenlimit" not in name:
            continue
        value = value.strip()[:VALUE_CHARS_MAX]
        if name == "ratelimit-policy":
            _policies(found, policies, value)
        elif name == "ratelimit":
            services.append(value)
        else:
            _header(found, name, value, now_unix_s)
    for value in services:
        _service(found, policies, value)
    if b"QuotaFailure" in body:
        _google(found, body)
    return found.limits()


def _header(found: _Stated, name: str, value: str, now_unix_s: float) -> None:
    window_ms: int | None = None
    if matched := _SUFFIX.fullmatch(name):
        kind, what, suffix = matched[1], matched[2], matched[3] or ""
        base, _, last = suffix.rpartition("-")
        if last in _WINDOWS and base:
            suffix, window_ms = base, _WINDOWS[last]
        unit = _SUFFIX_UNITS.get(suffix or ("tokens" if kind == "token" else "requests"))
    elif matched := _ANTHROPIC.fullmatch(name):
        what, unit = matched[2], _SUFFIX_UNITS.get(matched[1])
    elif matched := _IETF_OLD.fullmatch(name):
        what, unit = matched[1], "requests"
    else:
        return
    if unit is not None:
        read = reset_ms(value, now_unix_s) if what == "reset" else _amount(value)
        found.note(unit, what, read, window_ms=window_ms)


def _amount(value: str) -> int | None:
    """A number, of which some follow with a window (``100, 100;w=60``)."""
    matched = _NUMBER.match(value)
    return None if matched is None else min(int(float(matched[0])), AMOUNT_MAX)


def reset_ms(value: str, now_unix_s: float) -> int | None:
    """Milliseconds until a reset that is a duration (``6m0s``, ``20ms``), a number of seconds, a
    Unix time in seconds or milliseconds, or an RFC 3339 date. None if it is none of these.
    Between 0 and ``RESET_MS_MAX``, and never too early."""
    if _NUMBER.fullmatch(value):
        number = float(value)
        if number >= _EPOCH_MS_MIN:
            return _bounded(number - now_unix_s * 1000)
        return _bounded((number - now_unix_s if number >= _EPOCH_S_MIN else number) * 1000)
    parts = _PARTS.findall(value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return _bounded(sum(float(number) * _PART_MS[unit] for number, unit in parts))
    try:
        at = datetime.fromisoformat(value)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return _bounded((at.timestamp() - now_unix_s) * 1000)
    except (ValueError, OverflowError):
        return None


def _bounded(milliseconds: float) -> int:
    return math.ceil(min(max(milliseconds, 0.0), RESET_MS_MAX))


def _policies(found: _Stated, policies: dict[str, tuple[Unit, int | None]], value: str) -> None:
    """``"burst";q=100;w=60;qu="requests"``, or 07's ``100;w=60``."""
    for name, parameters in _items(value):
        unit = _IETF_UNITS.get(parameters.get("qu", "requests"))
        if unit is None:
            continue
        seconds = _amount(parameters.get("w", ""))
        window_ms = None if seconds is None else min(seconds * 1000, RESET_MS_MAX)
        policies[name] = (unit, window_ms)
        quota = _amount(parameters.get("q", name))
        found.note(unit, "limit", quota, window_ms=window_ms, of=name)


def _service(found: _Stated, policies: Mapping[str, tuple[Unit, int | None]], value: str) -> None:
    """``"burst";r=50;t=30``, or 07's ``limit=100, remaining=50, reset=5``."""
    old = _MEMBER.findall(value)
    for what, number in old:
        amount = _amount(number)
        if what == "reset" and amount is not None:
            amount = _bounded(amount * 1000)
        found.note("requests", what, amount)
    for name, parameters in () if old else _items(value):
        unit, window_ms = policies.get(name, ("requests", None))
        found.note(
            unit, "remaining", _amount(parameters.get("r", "")), window_ms=window_ms, of=name
        )
        seconds = _amount(parameters.get("t", ""))
        wait_ms = None if seconds is None else _bounded(seconds * 1000)
        found.note(unit, "reset", wait_ms, window_ms=window_ms, of=name)


def _items(value: str) -> Iterable[tuple[str, dict[str, str]]]:
    for item in list(_ITEM.finditer(value))[:QUOTAS_MAX]:
        parameters = {
            found[1]: found[2] if found[2] is not None else found[3]
            for found in _PARAMETER.finditer(item[3] or "")
        }
        yield item[1] if item[1] is not None else item[2], parameters


class _Violation(msgspec.Struct, frozen=True, rename="camel"):
    quota_id: str = ""
    quota_metric: str = ""
    quota_value: str | int | None = None


class _Detail(msgspec.Struct, frozen=True, rename="camel"):
    violations: tuple[_Violation, ...] = ()
    retry_delay: str = ""


class _Error(msgspec.Struct, frozen=True):
    details: tuple[_Detail, ...] = ()


class _Body(msgspec.Struct, frozen=True):
    error: _Error


_BODY: Final = msgspec.json.Decoder(_Body | tuple[_Body])


def _google(found: _Stated, body: bytes) -> None:
    """The quotas that ``google.rpc.QuotaFailure`` says are used up. Their names say unit and window
    (``GenerateRequestsPerMinutePerProjectPerModel``)."""
    try:
        read = _BODY.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    details = (read[0] if isinstance(read, tuple) else read).error.details[:QUOTAS_MAX]
    waits = [reset_ms(detail.retry_delay, 0.0) for detail in details if detail.retry_delay]
    for violation in (each for detail in details for each in detail.violations[:QUOTAS_MAX]):
        name = violation.quota_id[:VALUE_CHARS_MAX]
        window = _GOOGLE_WINDOW.search(name)
        window_ms = None if window is None else _WINDOWS[window[1].lower()]
        unit = _google_unit(name or violation.quota_metric[:VALUE_CHARS_MAX])
        if unit is None:
            continue
        value = "" if violation.quota_value is None else str(violation.quota_value)
        found.note(unit, "limit", _amount(value), window_ms=window_ms)
        found.note(unit, "remaining", 0, window_ms=window_ms)
        for wait_ms in waits[:1]:
            found.note(unit, "reset", wait_ms, window_ms=window_ms)


def _google_unit(name: str) -> Unit | None:
    lower = name.lower()
    if "input" in lower and "token" in lower:
        return "input_tokens"
    if "token" in lower:
        return "tokens"
    return "requests" if "request" in lower else None


def wait_s(limits: Limits) -> float | None:
    """How long what is used up stays so, in seconds; None if nothing is, or no reset was stated."""
    waits = [
        quota.reset_ms
        for quota in limits.quotas
        if quota.remaining == 0 and quota.reset_ms is not None
    ]
    return max(waits) / 1000 if waits else None
