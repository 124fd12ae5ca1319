"""Is this receipt the statement about the attempt that we saw? Signature first, then every claim.

What a gateway can check by itself at once, before the app is told that the answer is whole. What a
receipt binds is specified in ``docs/spec/receipt.md``; what it says of the model's work is for a
verifier, later.
"""

from typing import Final

import msgspec

from trunkline.base.errors import DigestError, VerificationError
from trunkline.gateway.core.actions import Plan, Start
from trunkline.receipts import (
    Hiding,
    Receipt,
    ReceiptAttempt,
    VerifiedReceipt,
    prefix_digest,
    tokens_digest,
    verify_signed,
)
from trunkline.schema.attempt import Accepted, SignedReceipt

MODEL_CHARS_MAX: Final = 256
"""Longest name that a node may give the model it serves: it becomes a header."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway saw of the attempt."""

    plan: Plan
    start: Start
    accepted: Accepted
    stream: str
    """End of the stream digest over what arrived."""
    chunks: int
    tokens: tuple[tuple[int, ...], ...]
    """Every token of the answer, per choice."""
    finish: dict[int, str]
    """Finish reasons by choice; empty where not read."""


def accepted_problem(
    accepted: Accepted, start: Start, first: Accepted | None, *, cache: str
) -> str | None:
    """What is wrong with an ``accepted``, if anything. ``first``: of whose text stands; ``cache``:
    the plan's."""
    if accepted.attempt != start.attempt:
        return "another attempt's id"
    if accepted.node != start.deployment.node:
        return "another node's name"
    if accepted.operator != start.deployment.operator:
        return "another operator's name"
    if not 0 < len(accepted.model) <= MODEL_CHARS_MAX:
        return "a model's name of absurd length"
    listed = start.deployment
    if listed.weights is not None and _served(accepted) != (listed.model, listed.weights):
        # Verdicts are about a model by its name and weights: under others it would be nobody's.
        return "another model than it lists"
    if accepted.cached and (not cache or start.previous):
        return "an answer from a cache, where one was to be made"
    text = None if start.prefix is None else prefix_digest(start.prefix.text)
    if accepted.prefix != text:
        return "another text to go on after"
    if text is not None and first is not None and accepted.weights != first.weights:
        return "other weights than the answer's"
    if start.resume is None:
        return None
    if first is None or accepted.seed != start.seed:
        return "another seed than the answer's"
    if (accepted.numerics, accepted.weights) != (first.numerics, first.weights):
        return "other weights or numerics than the answer's"
    if _nonce(accepted) != _nonce(first):
        return "another nonce than the answer's"
    return None


def _served(accepted: Accepted) -> tuple[str, str | None]:
    return accepted.model, accepted.weights


def _nonce(accepted: Accepted) -> tuple[str | None, str | None, int]:
    """The node's part of the seed, and where it was committed to."""
    return accepted.node_nonce, accepted.nonces, accepted.nonce_index


def check_receipt(signed: SignedReceipt, seen: Seen) -> VerifiedReceipt:
    """The receipt, shown to be signed by the pinned key and to say what was seen.

    Raises :class:`MalformedError` or a :class:`VerificationError`.
    """
    verified = verify_signed(signed, seen.start.deployment.key)
    check_claims(verified.receipt, seen)
    return verified


def check_claims(receipt: Receipt, seen: Seen) -> None:
    """Hold what a receipt says against what was seen. Raises a :class:`VerificationError`."""
    _check_identity(receipt, seen)
    _check_request(receipt, seen)
    _check_response(receipt, seen)


def _agree(claimed: object, seen: object, what: str) -> None:
    if claimed != seen:
        raise VerificationError(f"the receipt's {what} is not what was seen", code="bad_receipt")


def _check_identity(receipt: Receipt, seen: Seen) -> None:
    _agree(receipt.answer, seen.plan.answer, "answer")
    _agree(receipt.attempt, seen.start.attempt, "attempt")
    _agree(receipt.operator, seen.start.deployment.operator, "operator")
    _agree(receipt.created_s, seen.plan.created_s, "creation time")
    _agree(bool(receipt.cached), seen.accepted.cached, "word on its node's cache")
    _agree(receipt.policy.mode, seen.plan.mode, "mode")
    _agree(receipt.policy.audit, seen.plan.audit, "word on audits")
    _agree(receipt.model.requested, seen.plan.model, "requested model")
    # An upstream may spell its model's name more precisely in the answer than beforehand; weights
    # and numerics are facts and must agree, and of weights that are known so must the name.
    if seen.accepted.weights:
        _agree(receipt.model.served, seen.accepted.model, "served model")
    _agree(receipt.model.weights, seen.accepted.weights or "", "weights")
    _agree(receipt.model.numerics, seen.accepted.numerics or "", "numerics")


def _check_request(receipt: Receipt, seen: Seen) -> None:
    _agree(receipt.request.client, seen.plan.client_digest, "client request digest")
    _agree(receipt.request.digest, seen.plan.request_digest, "request digest")
    _agree(receipt.request.format, seen.plan.client_format, "format")
    _agree(receipt.sampling.caller_nonce, seen.plan.caller_nonce, "caller nonce")
    sampling, accepted = receipt.sampling, seen.accepted
    _agree(sampling.seed, accepted.seed or "", "seed")
    nonce = (sampling.node_nonce or None, sampling.nonces or None, sampling.nonce_index)
    _agree(nonce, _nonce(accepted), "nonce")
    route = tuple(
        ReceiptAttempt(
            attempt=p.attempt,
            characters=p.characters,
            error=p.error,
            node=p.node,
            tokens=p.tokens,
        )
        for p in seen.start.previous
    )
    _agree(receipt.route, route, "route")


def _check_response(receipt: Receipt, seen: Seen) -> None:
    response, plan = receipt.response, seen.plan
    bind = Hiding(plan.blinding, answer=plan.answer, attempt=seen.start.attempt).bind
    if response.digest != bind("response.digest", seen.stream):
        raise DigestError("the receipt's stream digest is not that of what arrived")
    _agree(response.chunks, seen.chunks, "number of chunks")
    _agree(response.status, 200, "status")
    given = seen.start.resume
    _agree(response.resumed, () if given is None else tuple(map(len, given)), "resumed tokens")
    resumed = "" if given is None else tokens_digest(given)
    _agree(response.resumed_digest, bind("response.resumed_digest", resumed), "resumed digest")
    text = None if seen.start.prefix is None else seen.start.prefix.text
    prefix = "" if text is None else prefix_digest(text)
    _agree(response.prefix, bind("response.prefix", prefix), "prefix")
    _agree(response.prefix_characters, len(text or ""), "prefix's characters")
    if response.tokens:
        tokens = bind("response.tokens", tokens_digest(seen.tokens))
        _agree(response.tokens, tokens, "tokens digest")
    if seen.finish:
        finish = tuple(reason for _, reason in sorted(seen.finish.items()))
        _agree(response.finish, finish, "finish reasons")
