"""An answer given again from its node's exact cache: is it the answer that it is said to be?

Such a receipt binds no tokens of its own, and names the receipt of the answer's origin. The node
shows that one, and opens both with one request and one answer: so the origin is held against the
model like any answer, and this says whether what was given again is the same, to the byte, and
whether the node was bound to the origin by its log. Who could call answers cached and show nothing
would be free of audits, so what is not shown is a fault (``docs/spec/audit.md``, "Answers given
again").

What an origin's tokens score says nothing of its subject here: whoever repeats a request, the
node or its enemy, picks the answer that is looked at (``judge.Case.picked``).
"""

from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from msgspec import UnsetType

from trunkline.audit import content as contents
from trunkline.audit import embedding, rerun
from trunkline.audit.content import REQUEST, RESPONSE, Opened
from trunkline.audit.findings import failed, inconclusive, passed
from trunkline.base.errors import Error
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts import Batch, Receipt, verify_signed
from trunkline.schema.audit import REPEATED_MS_MAX, OpenedContent
from trunkline.verdicts import Check

CACHED: Final = "cached"
"""Whether the origin is what the receipt says; there only where an answer was given again."""
REPEATED: Final = "repeated"
"""Whether request and answer are the origin's."""

Logged = Literal["yes", "no", "unknown"]
"""Whether the log has the origin's batch, before the answer's. ``no``: it would have been seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The receipt of the answer when it was made, as its node signed and shows it."""

    receipt: Receipt
    leaf: bytes
    batch: Batch
    content: OpenedContent
    """What opens that receipt."""
    logged: Logged = "unknown"
    entry: int | None = None
    """The log's entry with its batch, where it is there."""


def is_repeated(receipt: Receipt) -> bool:
    """Whether the receipt says that its answer was given again."""
    return not isinstance(receipt.cached, UnsetType)


def shown(content: OpenedContent | None, key: VerifierKey) -> Origin | None:
    """The origin that an opening shows; None: none that ``key`` signed."""
    origin = None if content is None else content.origin
    if content is None or origin is None:
        return None
    try:
        verified = verify_signed(origin.signed, key)
    except Error:
        return None
    opened = msgspec.structs.replace(content, origin=None, salts=origin.salts)
    return Origin(
        receipt=verified.receipt, leaf=verified.leaf, batch=verified.batch, content=opened
    )


def fits(receipt: Receipt, origin: Origin | None) -> bool:
    """Whether ``origin`` is the one that the receipt names: worth holding against the model."""
    return origin is not None and not _fault(receipt, origin)


def check_origin(receipt: Receipt, origin: Origin | None) -> Check:
    """Is there an origin, is it this one, and was its node bound to it?"""
    if origin is None:
        return failed(CACHED, "no receipt of the node is shown that the answer came from")
    if fault := _fault(receipt, origin):
        return failed(CACHED, fault)
    if origin.logged == "no":
        return failed(CACHED, "the receipt that it came from was not in the log before it")
    if origin.logged == "unknown":
        return inconclusive(CACHED, "it came from before this verifier followed the log")
    return passed(CACHED, "given before, as the receipt says, and in the log by then")


def check_answer(receipt: Receipt, content: OpenedContent, read: Opened | None) -> Check:
    """Was the same asked, and the same answered? ``content``: what opens ``receipt``, with the
    origin's answer; ``read``: the origin's opening as it was found to mean, None for embeddings."""
    if read is None:
        checks = embedding.check(receipt, content, None)
    else:
        checks = [contents.check_request(receipt, content), _same_events(receipt, content, read)]
    for one in checks:
        if one.name in (REQUEST, RESPONSE, REPEATED) and one.result != "pass":
            return msgspec.structs.replace(one, name=REPEATED)
    return passed(REPEATED, "the same request, and the same answer to the byte")


def _fault(receipt: Receipt, origin: Origin) -> str:
    cached, made = receipt.cached, origin.receipt
    if isinstance(cached, UnsetType) or origin.leaf.hex() != cached.receipt:
        return "the receipt shown is not the one that the answer is said to come from"
    if is_repeated(made):
        return "it is said to come from an answer that was itself given again"
    if _shown(made) != _shown(receipt) or made.times.ended_ms != cached.ended_ms:
        return "not the answer of the receipt that it is said to come from"
    if not made.policy.audit:
        return "it may be audited, and the receipt that it came from may not"
    if receipt.times.arrived_ms - cached.ended_ms > REPEATED_MS_MAX:
        return "given again later than an answer that may be audited is"
    return ""


def _shown(receipt: Receipt) -> tuple[object, ...]:
    """What an answer that is given again has in common with the first."""
    model, response = receipt.model, receipt.response
    return (
        receipt.key,
        (model.provider, model.served, model.weights),
        embedding.is_embedding(receipt),
        (response.chunks, response.finish, response.status),
        receipt.usage,
    )


def _same_events(receipt: Receipt, content: OpenedContent, read: Opened) -> Check:
    """The origin's tokens make, under this answer's id and time, what the app was sent."""
    planned, measured = read.planned, read.measured
    if planned is None or measured is None:
        why = read.unmeasured if measured is None else "the request is none that can be read"
        return inconclusive(REPEATED, why)
    given = msgspec.structs.replace(
        read.receipt,
        answer=receipt.answer,
        attempt=receipt.attempt,
        created_s=receipt.created_s,
        request=receipt.request,
    )
    logprobs = content.logprobs if planned.logprobs else ()
    again = rerun.rerun(given, planned, content.tokens, measured.pieces, logprobs)
    if again.problem:
        return failed(REPEATED, again.problem)
    return contents.bound(receipt, content, REPEATED, "response.digest", again.digest)
