"""What a node says of an attempt when it is over: the receipt, all but its place in the chain."""

import msgspec

from trunkline.receipts import (
    Receipt,
    ReceiptAttempt,
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


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """What left for the app."""

    chunks: int
    digest: str
    times: ReceiptTimes


def statement(
    identity: Identity, attempt: Attempt, outcome: Outcome, sent: Sent, *, salt: bytes
) -> Receipt:
    """The receipt, with ``previous`` left for the signer. ``salt``: 32 random bytes."""
    return Receipt(
        answer=attempt.answer,
        attempt=attempt.attempt,
        created_s=attempt.created_s,
        key=identity.key,
        model=outcome.model,
        node=identity.node,
        operator=identity.operator,
        policy=ReceiptPolicy(mode=attempt.mode),
        previous="",
        request=ReceiptRequest(
            client=attempt.client_request_digest,
            digest=request_digest(bytes(attempt.request)),
            format=attempt.client_format,
            prompt=outcome.prompt,
        ),
        response=ReceiptResponse(
            chunks=sent.chunks,
            digest=sent.digest,
            finish=outcome.finish,
            prefix=prefix_digest(attempt.prefix.text) if attempt.prefix else "",
            prefix_characters=len(attempt.prefix.text) if attempt.prefix else 0,
            resumed=tuple(len(tokens) for tokens in outcome.resumed),
            resumed_digest=tokens_digest(outcome.resumed) if outcome.resumed else "",
            status=STATUS,
            tokens=outcome.tokens,
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
