"""What a node says of an attempt when it is over: the receipt, all but its place in the chain."""

import msgspec

from trunkline.node.core.content import Before, Made
from trunkline.receipts import (
    Hiding,
    Receipt,
    ReceiptAttempt,
    ReceiptCached,
    ReceiptModel,
    ReceiptPolicy,
    ReceiptRequest,
    ReceiptResponse,
    ReceiptSampling,
    ReceiptTimes,
    ReceiptUsage,
    prefix_digest,
    request_digest,
    tokens_digest,
)
from trunkline.schema.attempt import Attempt

STATUS = 200
"""Only answers get receipts."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who signs."""

    node: str
    operator: str
    key: str
    """The node's vkey."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a service knows of the answer that it gave."""

    model: ReceiptModel
    sampling: ReceiptSampling
    usage: ReceiptUsage
    finish: tuple[str, ...] = ()
    prompt: str = ""
    """Digest of the prompt's tokens."""
    tokens: str = ""
    """Digest of the answer's tokens."""
    resumed: tuple[tuple[int, ...], ...] = ()
    """Tokens per choice that an earlier attempt had produced."""
    made: Made | None = None
    """What can be held against the model; None: a provider's answer, or one that was kept."""
    cached: ReceiptCached | None = None
    """The receipt of the attempt that it was made for, if that is another one."""
    before: Before | None = None
    """The same with what opens it, where that was kept."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What left for the app."""

    request: str
    """Digest of the attempt's request as the receipt says it: the stream's began with it."""
    chunks: int
    digest: str
    times: ReceiptTimes


def hiding(attempt: Attempt) -> Hiding:
    """What makes the attempt's digests unguessable."""
    return Hiding(attempt.blinding, answer=attempt.answer, attempt=attempt.attempt)


def bound_request(attempt: Attempt) -> str:
    """The digest of the attempt's request as the receipt says it: stream and seed start from it."""
    return hiding(attempt).bind("request.digest", request_digest(bytes(attempt.request)))


def statement(
    identity: Identity, attempt: Attempt, outcome: Outcome, sent: Sent, *, salt: bytes
) -> Receipt:
    """The receipt, with ``previous`` left for the signer. ``salt``: 32 random bytes."""
    bind = hiding(attempt).bind
    resumed = tokens_digest(outcome.resumed) if outcome.resumed else ""
    prefix = prefix_digest(attempt.prefix.text) if attempt.prefix else ""
    return Receipt(
        answer=attempt.answer,
        attempt=attempt.attempt,
        cached=outcome.cached or msgspec.UNSET,
        created_s=attempt.created_s,
        key=identity.key,
        model=outcome.model,
        node=identity.node,
        operator=identity.operator,
        policy=ReceiptPolicy(audit=attempt.audit, mode=attempt.mode),
        previous="",
        request=ReceiptRequest(
            client=attempt.client_request_digest,
            digest=sent.request,
            format=attempt.client_format,
            prompt=bind("request.prompt", outcome.prompt),
        ),
        response=ReceiptResponse(
            chunks=sent.chunks,
            digest=bind("response.digest", sent.digest),
            finish=outcome.finish,
            prefix=bind("response.prefix", prefix),
            prefix_characters=len(attempt.prefix.text) if attempt.prefix else 0,
            resumed=tuple(len(tokens) for tokens in outcome.resumed),
            resumed_digest=bind("response.resumed_digest", resumed),
            status=STATUS,
            tokens=bind("response.tokens", outcome.tokens),
        ),
        route=tuple(
            ReceiptAttempt(
                attempt=before.attempt,
                characters=before.characters,
                error=before.error,
                node=before.node,
                tokens=before.tokens,
            )
            for before in attempt.previous
        ),
        salt=salt.hex(),
        sampling=outcome.sampling,
        times=sent.times,
        usage=outcome.usage,
    )
