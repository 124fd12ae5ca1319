"""Steps 6 and 7: are these the request and the answer that the receipts were signed for?

They compare digests with bytes that the reader has, or that the file carries. Without bytes there
is nothing to compare, and the steps say so. They say nothing about whether the answer is right.
"""

from collections.abc import Sequence

from trunkline.base.errors import Error, MalformedError
from trunkline.evidence.node import NO_RECEIPT, Part
from trunkline.evidence.report import (
    Finding,
    combine,
    failed,
    inconclusive,
    not_applicable,
    passed,
)
from trunkline.receipts import (
    Item,
    binds,
    bound_bytes,
    prefix_digest,
    request_digest,
    stream_digest,
)
from trunkline.schema import sse
from trunkline.schema.openai_answer import parse_chunk

RESPONSE_BYTES_MAX = 64 * 1024 * 1024
VERBATIM = frozenset({"openai.chat", "openai.embeddings"})
"""Formats in which the node's own bytes reach the app; in any other they were translated."""


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


def check_response(parts: Sequence[Part], response: bytes) -> Finding:
    """Step 7, for the response body that the reader has: what the app received, all parts."""
    receipts = [part.receipt for part in parts if part.receipt is not None]
    if len(receipts) != len(parts):
        return NO_RECEIPT
    if any(receipt.request.format not in VERBATIM for receipt in receipts):
        return inconclusive(
            "the gateway translated this answer for the app: what the node sent can not be told "
            "from it, only from bodies that were kept"
        )
    try:
        chunks = response_chunks(response)
    except Error as error:
        return failed(f"the response given here: {error.message}")
    before = len(chunks) - sum(receipt.response.chunks for receipt in receipts)
    first = receipts[0].response
    if before < 0 or (before > 0 and not (first.resumed or first.prefix)):
        return failed("the response given here has another number of events than was signed")
    start, findings = before, []
    for part, receipt in zip(parts, receipts, strict=True):
        end = start + receipt.response.chunks
        findings.append(_compare(part, chunks[start:end], "the response given here"))
        start = end
    found = combine(findings)
    if first.prefix:
        says = binds(
            receipts[0], "response.prefix", _prefix(chunks[:before]), parts[0].source.salts
        )
        if says is False:
            return failed(f"the first {before} events do not say the text that was taken over")
        if says is None and found.result == "pass":
            return SEALED
    if before and found.result == "pass" and first.prefix:
        return inconclusive(
            f"the last {len(chunks) - before} events are as signed; the first {before} say the "
            "text that was taken over, from an attempt that left no receipt"
        )
    if before and found.result == "pass":
        return inconclusive(
            f"the last {len(chunks) - before} events are as signed; the first {before} came from "
            "an attempt that left no receipt, and are bound by their token ids only"
        )
    return found


def _prefix(chunks: Sequence[bytes]) -> str:
    """Digest of the text that the chunks say; empty where they are none."""
    try:
        read = [parse_chunk(chunk) for chunk in chunks]
        said = (choice.delta.content or "" for chunk in read for choice in chunk.choices)
        return prefix_digest("".join(said))
    except (MalformedError, ValueError):
        return ""


def response_chunks(response: bytes) -> list[bytes]:
    """The messages in a response body in the OpenAI format: of a stream, or the one whole object.

    Raises :class:`MalformedError` for a stream that is cut or too long.
    """
    if len(response) > RESPONSE_BYTES_MAX:
        raise MalformedError(f"more than {RESPONSE_BYTES_MAX} bytes")
    if response[:1] == b"{":
        # A message has no line breaks (attempt protocol, rule 1): one at the end is an editor's.
        return [response.rstrip(b"\r\n")]
    parser = sse.SseParser(RESPONSE_BYTES_MAX)
    events = parser.feed(response) + parser.finish()
    if any(not event.complete and event.data != sse.DONE_DATA for event in events):
        raise MalformedError("the stream ends in the middle of an event")
    return [
        event.data
        for event in events
        if not event.event and event.data is not None and event.data != sse.DONE_DATA
    ]


def _compare(part: Part, chunks: Sequence[bytes], source: str) -> Finding:
    receipt = part.receipt
    if receipt is None:
        return NO_RECEIPT
    if len(chunks) != receipt.response.chunks:
        return failed(f"{source} has another number of events than was signed")
    digest = stream_digest(bound_bytes(receipt.request.digest), receipt.attempt, chunks)
    agrees = binds(receipt, "response.digest", digest, part.source.salts)
    if agrees is None:
        return SEALED
    if not agrees:
        return failed(f"{source} is not what the receipt was signed for")
    return passed(f"{source}: {len(chunks)} events as signed")
