"""Steps 6 and 7: are these the request and the answer that the receipts were signed for?

They compare digests with bytes that the reader has, or that the file carries. Without bytes there
is nothing to compare, and the steps say so. They say nothing about whether the answer is right.
"""

from collections.abc import Sequence

from trunkline.base.errors import Error
from trunkline.evidence.node import NO_RECEIPT, Part
from trunkline.evidence.report import (
    Finding,
    combine,
    failed,
    inconclusive,
    not_applicable,
    passed,
)
from trunkline.evidence.response import PassingResponse, Response, WholeResponse
from trunkline.receipts import (
    Item,
    Receipt,
    binds,
    bound_bytes,
    request_digest,
    stream_digest,
)

VERBATIM = frozenset({"openai.chat", "openai.embeddings"})
"""Formats in which the node's own bytes reach the app; in any other they were translated."""

GIVEN = "the response given here"
SEALED = inconclusive("the receipt hides it, and the file has no salt that opens it")


def check_request(part: Part, request: bytes | None) -> Finding:
    """Step 6: ``request`` (the app's body, from the reader) and the bodies in the file."""
    if part.receipt is None:
        return NO_RECEIPT
    bodies = part.source.bodies
    kept = (None, None) if bodies is None else (bodies.client_request, bodies.request)
    sources: tuple[tuple[str, bytes | None, Item], ...] = (
        ("the request given here", request, "request.client"),
        ("the app's request in the file", kept[0], "request.client"),
        ("the node's request in the file", kept[1], "request.digest"),
    )
    compared = [
        (source, binds(part.receipt, item, request_digest(raw), part.source.salts))
        for source, raw, item in sources
        if raw is not None
    ]
    if not compared:
        return not_applicable("no request to compare with: the receipt has its digest only")
    wrong = [source for source, agrees in compared if agrees is False]
    if wrong:
        return failed(f"{' and '.join(wrong)}: not what the receipt was signed for")
    if any(agrees is None for _, agrees in compared):
        return SEALED
    return passed(f"{', '.join(source for source, _ in compared)}: as signed")


def check_bodies(part: Part) -> Finding:
    """Step 7, for the bodies that the file carries."""
    if part.receipt is None:
        return NO_RECEIPT
    bodies = part.source.bodies
    if bodies is None or bodies.chunks is None:
        return not_applicable("no answer to compare with: the receipt has its digest only")
    return _compare(part, [chunk.encode() for chunk in bodies.chunks], "the answer in the file")


def check_response(parts: Sequence[Part], response: bytes | PassingResponse) -> Finding:
    """Step 7, for the response that the reader has: what the app received, all parts."""
    receipts = [part.receipt for part in parts if part.receipt is not None]
    if len(receipts) != len(parts):
        return NO_RECEIPT
    if any(receipt.request.format not in VERBATIM for receipt in receipts):
        return inconclusive(
            "the gateway translated this answer for the app: what the node sent can not be told "
            "from it, only from bodies that were kept"
        )
    try:
        shown = WholeResponse(response) if isinstance(response, bytes) else response
        return _check_messages(parts, receipts, shown)
    except Error as error:
        return failed(f"{GIVEN}: {error.message}")


def _check_messages(
    parts: Sequence[Part], receipts: Sequence[Receipt], response: Response
) -> Finding:
    """The receipts sign the last messages, one part after the other. What is before them came from
    attempts that left no receipt. Raises :class:`MalformedError` for a response that is none."""
    count = response.count()
    before = count - sum(receipt.response.chunks for receipt in receipts)
    first = receipts[0].response
    if before < 0 or (before > 0 and not (first.resumed or first.prefix)):
        return failed(f"{GIVEN} has another number of events than was signed")
    start, findings = before, []
    for part, receipt in zip(parts, receipts, strict=True):
        end = start + receipt.response.chunks
        digest = response.digest(receipt, start, end)
        findings.append(_agree(part, receipt, digest, end - start, GIVEN))
        start = end
    found = combine(findings)
    if first.prefix:
        says = binds(receipts[0], "response.prefix", response.said(before), parts[0].source.salts)
        if says is False:
            return failed(f"the first {before} events do not say the text that was taken over")
        if says is None and found.result == "pass":
            return SEALED
    if before and found.result == "pass" and first.prefix:
        return inconclusive(
            f"the last {count - before} events are as signed; the first {before} say the "
            "text that was taken over, from an attempt that left no receipt"
        )
    if before and found.result == "pass":
        return inconclusive(
            f"the last {count - before} events are as signed; the first {before} came from "
            "an attempt that left no receipt, and are bound by their token ids only"
        )
    return found


def _compare(part: Part, chunks: Sequence[bytes], source: str) -> Finding:
    receipt = part.receipt
    if receipt is None:
        return NO_RECEIPT
    if len(chunks) != receipt.response.chunks:
        return failed(f"{source} has another number of events than was signed")
    digest = stream_digest(bound_bytes(receipt.request.digest), receipt.attempt, chunks)
    return _agree(part, receipt, digest, len(chunks), source)


def _agree(part: Part, receipt: Receipt, digest: str, events: int, source: str) -> Finding:
    agrees = binds(receipt, "response.digest", digest, part.source.salts)
    if agrees is None:
        return SEALED
    if not agrees:
        return failed(f"{source} is not what the receipt was signed for")
    return passed(f"{source}: {events} events as signed")
