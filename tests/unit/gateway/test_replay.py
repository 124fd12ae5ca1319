"""Whose answer a repeated request gets: keys, claims, and what is forgotten."""

import pytest

from trunkline.base.errors import RequestError
from trunkline.gateway.core.replay import (
    KEY_CHARS_MAX,
    Claim,
    ClaimRow,
    Kept,
    claim_of,
    expired,
    read_key,
    require_same,
    too_many,
    whole,
)

CLAIM = claim_of("ten_a", "key", "/v1/chat/completions", b"{}")


def row(body: bytes | None = b"said", *, done: bool = True) -> ClaimRow:
    kept = Kept(claim=CLAIM.id, status=200, headers=(), body=body) if done else None
    return ClaimRow(claim=CLAIM, answer="ans_a", created_ms=1000, kept=kept)


@pytest.mark.parametrize(
    ("header", "key"),
    [(None, None), ("a", "a"), ('"a"', "a"), (" a b ", "a b"), ('"', '"'), ("x" * 255, "x" * 255)],
)
def test_a_key_may_be_a_quoted_string(header: str | None, key: str | None) -> None:
    assert read_key(header) == key


@pytest.mark.parametrize("header", ["", " ", '""', "x" * (KEY_CHARS_MAX + 1), "a\tb", "ä"])
def test_other_keys_are_refused_by_name(header: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_key(header)
    assert refused.value.error_code == "invalid_idempotency_key"
    assert refused.value.param == "Idempotency-Key"
    assert header.strip() == "" or header not in refused.value.message


def test_a_claim_is_of_its_tenant_its_key_and_its_request() -> None:
    others = [
        claim_of("ten_b", "key", "/v1/chat/completions", b"{}"),
        claim_of("ten_a", "yek", "/v1/chat/completions", b"{}"),
        claim_of("ten_ak", "ey", "/v1/chat/completions", b"{}"),
    ]
    assert len({CLAIM.id, *(claim.id for claim in others)}) == 4
    for path, body in (("/v1/messages", b"{}"), ("/v1/chat/completions", b"{ }")):
        other = claim_of("ten_a", "key", path, body)
        assert other.id == CLAIM.id
        with pytest.raises(RequestError) as refused:
            require_same(CLAIM, other)
        assert (refused.value.error_code, refused.value.http_status) == (
            "idempotency_key_reused",
            422,
        )


def test_what_is_whole_is_shown_and_what_is_not_is_made() -> None:
    kept = whole(row(), CLAIM)
    assert kept is not None
    assert kept.body == b"said"
    assert whole(row(done=False), CLAIM) is None
    with pytest.raises(RequestError) as refused:
        whole(row(None), CLAIM)
    assert refused.value.http_status == 409
    assert "ans_a" in refused.value.message
    other = Claim(id=CLAIM.id, request=b"other")
    for found in (row(), row(done=False), row(None)):
        with pytest.raises(RequestError, match="another request"):
            whole(found, other)


def test_a_claim_is_forgotten_after_its_time() -> None:
    assert not expired(row(), 1999, 1000)
    assert expired(row(), 2000, 1000)


@pytest.mark.parametrize(
    ("sizes", "bytes_max", "gone"),
    [([], 0, 0), ([5], 5, 0), ([5], 4, 1), ([1, 2, 3], 6, 0), ([1, 2, 3], 5, 1), ([1, 2, 3], 0, 3)],
)
def test_the_oldest_go_first(sizes: list[int], bytes_max: int, gone: int) -> None:
    assert too_many(sizes, bytes_max) == gone
