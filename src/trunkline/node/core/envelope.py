"""Reading the body of ``POST /v1/attempts``: bounded, typed, and every field checked.

Refuses a version it does not know. What the request inside means is for the service that serves it.
"""

import re
from typing import Final

import msgspec

from trunkline.base.errors import RequestError
from trunkline.receipts.nonces import NONCES_COUNT_MAX
from trunkline.schema.attempt import (
    ATTEMPT_BODY_BYTES_MAX,
    PREFIX_CHARS_MAX,
    RESUME_TOKENS_MAX,
    Attempt,
    Prefix,
)

ID_CHARS_MAX: Final = 128
NAME_CHARS_MAX: Final = 512
DEADLINE_MS_MAX: Final = 60 * 60 * 1000
PREVIOUS_MAX: Final = 64
CHOICES_MAX: Final = 16
INTEGER_MAX: Final = 2**53 - 1

_ID: Final = re.compile(rf"[A-Za-z0-9_-]{{1,{ID_CHARS_MAX}}}")
_DIGEST: Final = re.compile(r"(?:sha256|salted):[0-9a-f]{64}")
_HEX32: Final = re.compile(r"[0-9a-f]{64}")
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_DECODER: Final = msgspec.json.Decoder(Attempt)


def parse(raw: bytes) -> Attempt:
    """The attempt. Raises :class:`RequestError`: ``invalid_attempt``, ``body_too_large``."""
    if len(raw) > ATTEMPT_BODY_BYTES_MAX:
        raise RequestError("the attempt is too large", code="body_too_large", status=413)
    try:
        attempt = _DECODER.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not the decoder's message: it may quote the request.
        raise RequestError("the body is no attempt of version 1", code="invalid_attempt") from None
    for param, valid in _checks(attempt):
        if not valid:
            raise RequestError(f"{param}: is not valid", code="invalid_attempt", param=param)
    return attempt


def _checks(attempt: Attempt) -> tuple[tuple[str, bool], ...]:
    resume = attempt.resume
    return (
        ("attempt", _ID.fullmatch(attempt.attempt) is not None),
        ("answer", _ID.fullmatch(attempt.answer) is not None),
        ("created_s", 0 <= attempt.created_s <= INTEGER_MAX),
        ("model", 1 <= len(attempt.model) <= NAME_CHARS_MAX and attempt.model.isprintable()),
        ("client_request_digest", _DIGEST.fullmatch(attempt.client_request_digest) is not None),
        ("caller_nonce", _HEX32.fullmatch(attempt.caller_nonce) is not None),
        ("blinding", not attempt.blinding or _HEX32.fullmatch(attempt.blinding) is not None),
        ("cache", not attempt.cache or _HEX32.fullmatch(attempt.cache) is not None),
        ("share", not attempt.share or _HEX32.fullmatch(attempt.share) is not None),
        ("deadline_ms", 1 <= attempt.deadline_ms <= DEADLINE_MS_MAX),
        ("audit", not (attempt.audit and attempt.mode == "private")),
        ("seed", attempt.seed is None or _HEX32.fullmatch(attempt.seed) is not None),
        # Else its receipt could be held against the node: nothing says what it goes on from.
        ("seed", attempt.seed is None or not attempt.audit or _goes_on(attempt)),
        ("node_nonce", _nonce_valid(attempt)),
        ("numerics", attempt.numerics is None or len(attempt.numerics) <= NAME_CHARS_MAX),
        ("previous", _previous_valid(attempt)),
        ("resume", resume is None or (attempt.kind == "chat" and attempt.seed is not None)),
        ("resume.tokens", resume is None or _tokens_valid(resume.tokens)),
        ("prefix", attempt.prefix is None or (resume is None and attempt.kind == "chat")),
        ("prefix", attempt.prefix is None or _prefix_valid(attempt.prefix)),
        ("client_format", (attempt.kind == "embeddings") == _embeds(attempt)),
    )


def is_id(text: str) -> bool:
    """Whether ``text`` may be an attempt's id."""
    return _ID.fullmatch(text) is not None


def _embeds(attempt: Attempt) -> bool:
    return attempt.client_format == "openai.embeddings"


def _goes_on(attempt: Attempt) -> bool:
    return attempt.resume is not None and bool(attempt.previous)


def _nonce_valid(attempt: Attempt) -> bool:
    nonce, nonces = attempt.node_nonce, attempt.nonces
    return (
        (nonce is None or (attempt.seed is not None and _HEX32.fullmatch(nonce) is not None))
        and (nonces is None or (nonce is not None and _HEX32.fullmatch(nonces) is not None))
        and 0 <= attempt.nonce_index <= (0 if nonces is None else NONCES_COUNT_MAX - 1)
    )


def _previous_valid(attempt: Attempt) -> bool:
    return len(attempt.previous) <= PREVIOUS_MAX and all(
        _ID.fullmatch(before.attempt)
        and 1 <= len(before.node) <= NAME_CHARS_MAX
        and _CODE.fullmatch(before.error)
        and len(before.tokens) <= CHOICES_MAX
        and all(0 <= count <= INTEGER_MAX for count in (*before.tokens, before.characters))
        for before in attempt.previous
    )


def _prefix_valid(prefix: Prefix) -> bool:
    used = prefix.used
    return (
        1 <= len(prefix.text) <= PREFIX_CHARS_MAX
        and len(prefix.id) <= NAME_CHARS_MAX
        and len(prefix.model) <= NAME_CHARS_MAX
        and 1 <= prefix.events <= INTEGER_MAX
        and 0 <= prefix.created <= INTEGER_MAX
        and (used is None or all(0 <= n <= INTEGER_MAX for n in (used.prompt, used.completion)))
    )


def _tokens_valid(tokens: tuple[tuple[int, ...], ...]) -> bool:
    return 1 <= len(tokens) <= CHOICES_MAX and sum(map(len, tokens)) <= RESUME_TOKENS_MAX
