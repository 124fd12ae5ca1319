"""Limits as providers state them: documented examples of each, and any bytes at all."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.remote import limits
from trunkline.remote.limits import DAY_MS, MINUTE_MS, stated
from trunkline.schema.attempt import Limits, Quota

NOW_S = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def read(headers: dict[str, str], body: bytes = b"", **more) -> tuple[Quota, ...]:
    found = stated(headers.items(), body, now_unix_s=NOW_S, **more)
    return () if found is None else found.quotas


def test_openai_and_groq():
    headers = {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-limit-tokens": "18000",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-remaining-tokens": "17997",
        "x-ratelimit-reset-requests": "2m59.56s",
        "x-ratelimit-reset-tokens": "7.66s",
        "x-request-id": "req_1",
    }
    plain = (
        Quota(unit="requests", limit=14400, remaining=14370, reset_ms=179_560),
        Quota(unit="tokens", limit=18000, remaining=17997, reset_ms=7660),
    )
    assert read(headers) == plain
    windows = {"requests": DAY_MS, "tokens": MINUTE_MS}
    assert [quota.window_ms for quota in read(headers, windows=windows)] == [DAY_MS, MINUTE_MS]


def test_anthropic():
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:01Z",
        "anthropic-ratelimit-input-tokens-limit": "30000",
        "anthropic-ratelimit-input-tokens-remaining": "0",
        "anthropic-ratelimit-input-tokens-reset": "2026-01-01T00:00:30.5+00:00",
        "anthropic-ratelimit-output-tokens-limit": "8000",
        "anthropic-ratelimit-unified-status": "allowed",
    }
    assert read(headers) == (
        Quota(unit="requests", limit=50, remaining=49, reset_ms=1000),
        Quota(unit="input_tokens", limit=30000, remaining=0, reset_ms=30_500),
        Quota(unit="output_tokens", limit=8000),
    )


@pytest.mark.parametrize(
    ("headers", "quotas"),
    [
        (
            {
                "x-ratelimit-limit": "20",
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": "1767225660000",
            },
            (Quota(unit="requests", limit=20, remaining=0, reset_ms=60_000),),
        ),
        (
            {
                "x-ratelimit-limit": "10",
                "x-ratelimit-reset": "1",
                "x-tokenlimit-limit": "3000",
                "x-tokenlimit-remaining": "2000",
            },
            (
                Quota(unit="requests", limit=10, reset_ms=1000),
                Quota(unit="tokens", limit=3000, remaining=2000),
            ),
        ),
        (
            {
                "x-ratelimit-limit-tokens-minute": "500000",
                "x-ratelimit-remaining-req-minute": "59",
                "x-ratelimit-reset-requests-day": "33011.382867",
                "x-ratelimit-limit-requests-day": "100",
            },
            (
                Quota(unit="tokens", limit=500_000, window_ms=MINUTE_MS),
                Quota(unit="requests", remaining=59, window_ms=MINUTE_MS),
                Quota(unit="requests", limit=100, window_ms=DAY_MS, reset_ms=33_011_383),
            ),
        ),
        (
            {
                "ratelimit-policy": '"burst";q=100;w=60,"daily";q=1000;w=86400',
                "ratelimit": '"burst";r=50;t=30',
            },
            (
                Quota(unit="requests", limit=100, remaining=50, window_ms=60_000, reset_ms=30_000),
                Quota(unit="requests", limit=1000, window_ms=DAY_MS),
            ),
        ),
        (
            {"ratelimit": '"p";r=3', "ratelimit-policy": '"p";q=8;qu="concurrent-requests"'},
            (Quota(unit="concurrency", limit=8, remaining=3),),
        ),
        (
            {"ratelimit": "limit=100, remaining=50, reset=5"},
            (Quota(unit="requests", limit=100, remaining=50, reset_ms=5000),),
        ),
        (
            {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "1"},
            (Quota(unit="requests", limit=100, remaining=1),),
        ),
        ({"x-ratelimit-reset-requests": "1s"}, ()),
        ({"x-ratelimit-limit-requests": "many", "x-ratelimit-limit-cats": "3"}, ()),
        ({"ratelimit-policy": '"bytes";q=100;qu="content-bytes"'}, ()),
    ],
)
def test_other_headers(headers, quotas):
    assert read(headers) == quotas


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        ("1s", 1000),
        ("6m0s", 360_000),
        ("20ms", 20),
        ("1h2m3.5s", 3_723_500),
        ("0.2ms", 1),
        ("59.7", 59_700),
        ("1767225610", 10_000),
        ("2025-12-31T23:00:00Z", 0),
        ("99999999999d", limits.RESET_MS_MAX),
        ("soon", None),
        ("1s later", None),
        ("", None),
    ],
)
def test_resets(value, milliseconds):
    assert limits.reset_ms(value, NOW_S) == milliseconds


def test_google_says_which_quota_is_used_up():
    error = {
        "code": 429,
        "status": "RESOURCE_EXHAUSTED",
        "message": "words",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [
                    {
                        "quotaMetric": "generativelanguage.googleapis.com/requests",
                        "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
                        "quotaDimensions": {"location": "global"},
                        "quotaValue": "15",
                    },
                    {"quotaId": "GenerateContentInputTokensPerModelPerDay", "quotaValue": "9"},
                ],
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "38.2s"},
        ],
    }
    for shape in ({"error": error}, [{"error": error}]):
        assert read({}, msgspec.json.encode(shape)) == (
            Quota(unit="requests", limit=15, remaining=0, window_ms=MINUTE_MS, reset_ms=38_200),
            Quota(unit="input_tokens", limit=9, remaining=0, window_ms=DAY_MS, reset_ms=38_200),
        )


def test_what_is_used_up_longest_decides_the_wait():
    used_up = Quota(unit="tokens", remaining=0, reset_ms=2500)
    free = Quota(unit="requests", remaining=3, reset_ms=9000)
    assert limits.wait_s(Limits(quotas=(used_up, free))) == 2.5
    assert limits.wait_s(Limits(quotas=(free,))) is None


NAMES = st.sampled_from(
    ["ratelimit", "ratelimit-policy", "ratelimit-limit", "x-ratelimit-reset-tokens",
     "x-ratelimit-remaining", "x-tokenlimit-limit", "anthropic-ratelimit-requests-reset"]
)  # fmt: skip
VALUES = st.text() | st.from_regex(r'[0-9hms.;,="rtqw T:-]{0,40}', fullmatch=True)


@given(st.lists(st.tuples(NAMES | st.text(), VALUES), max_size=40), st.binary())
def test_any_bytes_give_bounded_quotas_or_nothing(headers, body):
    found = stated(headers, b'{"error":"QuotaFailure"}' + body, now_unix_s=NOW_S)
    for quota in () if found is None else found.quotas:
        assert quota.limit is None or 0 <= quota.limit <= limits.AMOUNT_MAX
        assert quota.remaining is None or 0 <= quota.remaining <= limits.AMOUNT_MAX
        assert quota.reset_ms is None or 0 <= quota.reset_ms <= limits.RESET_MS_MAX
    assert found is None or len(found.quotas) <= limits.QUOTAS_MAX
