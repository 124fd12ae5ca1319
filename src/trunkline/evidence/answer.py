"""Step 8: do the receipts belong together, as one answer to one request?

An answer whose node died half-way is carried on by another. The receipt of each later part says
what it took over; here the parts are held against each other. An attempt that died left no receipt:
the later ones name it, and nobody else vouches for that.
"""

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise

from trunkline.evidence.report import Finding, failed, passed, plain
from trunkline.receipts import Receipt, bound_bytes

SEED_DOMAIN = b"trunkline/sampling-seed/answer/v1\0"
"""As in ``trunkline.sampling.seeds``, whose package needs numpy; a test holds the two together."""


def check_answer(answer: str, receipts: Sequence[Receipt]) -> Finding:
    """Step 8, over all receipts of the file (at least one), in order."""
    problem = next(
        (
            found
            for found in (
                _same(answer, receipts),
                *(_alone(receipt) for receipt in receipts),
                *(_after(earlier, later) for earlier, later in pairwise(receipts)),
                _routes(receipts),
            )
            if found
        ),
        None,
    )
    if problem is not None:
        return failed(problem)
    return passed(_story(receipts))


def _same(answer: str, receipts: Sequence[Receipt]) -> str | None:
    """What every receipt of one answer has in common."""
    first = receipts[0]
    if any(receipt.answer != answer for receipt in receipts):
        return "a receipt belongs to another answer"
    if len({receipt.attempt for receipt in receipts}) != len(receipts):
        return "two receipts are for the same attempt"
    for receipt in receipts[1:]:
        if receipt.request.client != first.request.client:
            return "the receipts are for different requests of the app"
        if receipt.sampling.caller_nonce != first.sampling.caller_nonce:
            return "the receipts have different nonces of the caller"
        if receipt.created_s != first.created_s:
            return "the receipts give different times of the request"
    return None


def _alone(receipt: Receipt) -> str | None:
    """What a receipt says of a takeover must agree with itself."""
    response, sampling = receipt.response, receipt.sampling
    if bool(response.resumed) != bool(response.resumed_digest):
        return "a receipt counts tokens that it took over and does not bind them, or the reverse"
    if response.resumed and len(response.resumed) != len(response.finish):
        return "a receipt took over another number of choices than it finished"
    if response.resumed and not receipt.route:
        return "a receipt took over tokens and names no attempt before it"
    if sampling.source == "nonces" and sampling.seed != _seed(receipt):
        return "a receipt's seed is not the one that its nonces and its request give"
    if response.resumed and sampling.source != "inherited":
        return "a receipt took over tokens and has a seed of its own"
    if (sampling.source == "none") != (not sampling.seed):
        return "a receipt names a source of its seed and no seed, or the reverse"
    if any(len(attempt.tokens) > len(response.finish) for attempt in receipt.route):
        return "a receipt's route counts tokens of choices that the answer does not have"
    if response.resumed and _given(receipt) != response.resumed:
        return "a receipt took over other tokens than its route accounts for"
    if receipt.cached and (response.resumed or response.prefix or sampling.source != "none"):
        return "a receipt says that its answer was cached, and how it was made"
    return _text(receipt)


def _text(receipt: Receipt) -> str | None:
    """What a receipt says of text that it went on after must agree with itself."""
    response = receipt.response
    if bool(response.prefix) != bool(response.prefix_characters):
        return "a receipt counts text that it took over and does not bind it, or the reverse"
    if response.prefix and (response.resumed or len(response.finish) != 1):
        return "a receipt took over text of more than one choice, or tokens besides"
    if sum(attempt.characters for attempt in receipt.route) != response.prefix_characters:
        return "a receipt took over other text than its route accounts for"
    return None


def _seed(receipt: Receipt) -> str:
    """The seed that both nonces and the request give, hex (``docs/spec/receipt.md``, "Seed")."""
    nonces = bytes.fromhex(receipt.sampling.caller_nonce + receipt.sampling.node_nonce)
    return sha256(SEED_DOMAIN + nonces + bound_bytes(receipt.request.digest)).hexdigest()


def _given(receipt: Receipt) -> tuple[int, ...]:
    """Tokens per choice that the attempts named in the route left behind, summed up."""
    total = [0] * len(receipt.response.resumed)
    for attempt in receipt.route:
        for choice, count in enumerate(attempt.tokens):
            total[choice] += count
    return tuple(total)


def _after(earlier: Receipt, later: Receipt) -> str | None:
    """What a later part must have from the part before it."""
    if not (later.response.resumed or later.response.prefix):
        return "a later part took nothing over: it is not the same answer"
    if later.request.digest != earlier.request.digest:
        return "a part went on with another request than the one before it"
    if later.response.prefix:
        if later.model.weights != earlier.model.weights:
            return "a part went on with another model than the one before it"
        if later.response.prefix_characters < earlier.response.prefix_characters:
            return "a part took over less text than the one before it"
        return None
    if later.sampling.seed != earlier.sampling.seed:
        return "a part went on with another seed than the one before it"
    model, before = later.model, earlier.model
    if (model.weights, model.numerics) != (before.weights, before.numerics):
        return "a part went on with another model than the one before it"
    counts, had = (
        later.response.resumed,
        earlier.response.resumed or (0,) * len(later.response.finish),
    )
    if len(counts) != len(had) or any(new < old for new, old in zip(counts, had, strict=True)):
        return "a part took over fewer tokens than the one before it"
    return None


def _routes(receipts: Sequence[Receipt]) -> str | None:
    """Each route names the parts before it and begins as theirs did."""
    for earlier, later in pairwise(receipts):
        named = [(attempt.attempt, attempt.node) for attempt in later.route]
        history = [(attempt.attempt, attempt.node) for attempt in earlier.route]
        if named[: len(history) + 1] != [*history, (earlier.attempt, earlier.node)]:
            return "a part's route does not go on from the route of the part before it"
    if any(r.attempt in {attempt.attempt for attempt in r.route} for r in receipts):
        return "a receipt's route names its own attempt"
    return None


def _story(receipts: Sequence[Receipt]) -> str:
    last, signed = receipts[-1], {receipt.attempt for receipt in receipts}
    lost = [attempt for attempt in last.route if attempt.attempt not in signed]
    parts = [f"one answer in {len(receipts)} signed part{'s' if len(receipts) > 1 else ''}"]
    if lost:
        ends = ", ".join(f"{plain(item.node)} ({plain(item.error)})" for item in lost[:8])
        parts.append(f"earlier attempts that left no receipt, as told by the gateway: {ends}")
    if last.response.resumed:
        parts.append(f"{sum(last.response.resumed)} tokens were taken over, bound by digest")
    if last.response.prefix:
        size = last.response.prefix_characters
        parts.append(f"{size} characters of text were taken over, bound by digest")
    if last.cached:
        first = f"first given at {last.cached.ended_ms} (Unix ms), receipt {last.cached.receipt}"
        parts.append(f"taken from the node's cache, not made for this request: {first}")
    if receipts[0].sampling.source == "inherited":
        parts.append("where the seed came from is not shown: that attempt left no receipt")
    return "; ".join(parts)
