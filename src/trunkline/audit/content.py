"""Is what was opened what was signed, and is it what this request had to lead to?

Each member of an opening is held against the receipt: first the digests, then what follows from
the request alone (parameters, prompt, seed) and from the tokens (the bytes that the app was sent).
Names of checks are stable; they stand in verdicts.

A digest that no salt opens is ``inconclusive``: the node opened half.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from re import compile as regex
from typing import Final

from trunkline.audit import replay, rerun
from trunkline.audit.findings import either, failed, inconclusive, not_applicable
from trunkline.audit.replay import Measured
from trunkline.base.errors import RequestError
from trunkline.inference.plan import ChatPlan
from trunkline.receipts import (
    Item,
    Receipt,
    binds,
    prompt_digest,
    request_digest,
    tokens_digest,
)
from trunkline.schema.audit import OpenedContent
from trunkline.schema.openai_chat import ChatRequest
from trunkline.verdicts import Check

REQUEST: Final = "request"
PROMPT: Final = "prompt"
TOKENS: Final = "tokens"
RESUMED: Final = "resumed"
RESPONSE: Final = "response"
SAMPLER: Final = "sampler"
TEMPLATE: Final = "template"

LOGPROBS_CLOSED: Final = not_applicable(RESPONSE, "log-probabilities were sent, and are not opened")
"""Without them the bytes that were sent can not be made. Whose they are is for the caller to say:
a node has them."""

BINDING: Final = frozenset({REQUEST, PROMPT, TOKENS})
"""Checks without which an opening is about nothing: its tokens are then no trials."""

NO_MODEL: Final = "the verifier could not ask the model"
_SALT: Final = regex(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A receipt and its opening, with what they were found to mean."""

    receipt: Receipt
    content: OpenedContent
    measured: Measured | None
    """None: the model could not be asked."""
    unmeasured: str
    """Why not."""
    request: ChatRequest | None
    """None: none that the model could have served."""
    planned: ChatPlan | None
    rerun: rerun.Rerun | None


def open_(
    receipt: Receipt,
    content: OpenedContent,
    measured: Measured | None,
    context_tokens: int = 0,
    *,
    unmeasured: str = NO_MODEL,
) -> Opened:
    """Read an opening. ``context_tokens``: of the node's engine; 0: as the verifier's.
    ``unmeasured``: why ``measured`` is None, if it is."""
    request, planned, again = None, None, None
    try:
        request = rerun.read_request(content)
        if measured is not None:
            planned = rerun.plan(
                request, content.prompt, measured.model, context_tokens, content.tokens
            )
            logprobs = content.logprobs if planned.logprobs else ()
            again = rerun.rerun(receipt, planned, content.tokens, measured.pieces, logprobs)
    except RequestError:
        planned = None
    return Opened(
        receipt=receipt,
        content=content,
        measured=measured,
        unmeasured=unmeasured,
        request=request,
        planned=planned,
        rerun=again,
    )


def check(opened: Opened) -> list[Check]:
    """All checks of content, in order."""
    content = opened.content
    return [
        check_request(opened.receipt, content),
        _bound(opened, PROMPT, "request.prompt", _prompt_digest(content.prompt)),
        _bound(opened, TOKENS, "response.tokens", _tokens_digest(content.tokens)),
        _resumed(opened),
        _response(opened),
        _sampler(opened),
        _template(opened),
    ]


def check_request(receipt: Receipt, content: OpenedContent) -> Check:
    """Is the request that was opened the one that was signed for?"""
    made = request_digest(bytes(content.request))
    return bound(receipt, content, REQUEST, "request.digest", made)


def bound(receipt: Receipt, content: OpenedContent, name: str, item: Item, digest: str) -> Check:
    """Whether the receipt binds ``digest`` (``sha256:…``; empty: none could be made) as ``item``,
    by the salts that were opened. The check's own name is ``name``."""
    salts = content.salts
    if not all(_SALT.fullmatch(salt) for salt in salts.values()):
        return failed(name, "a salt is not 32 bytes in hex")
    agrees = bool(digest) and binds(receipt, item, digest, salts)
    if agrees is None:
        return inconclusive(name, "the receipt hides it, and no salt opens it")
    return either(name, agrees, yes="as signed", no="not what the receipt was signed for")


def _bound(opened: Opened, name: str, item: Item, digest: str) -> Check:
    return bound(opened.receipt, opened.content, name, item, digest)


def _resumed(opened: Opened) -> Check:
    receipt, tokens = opened.receipt, opened.content.tokens
    counts = receipt.response.resumed
    if not counts:
        digest = receipt.response.resumed_digest
        if digest:
            return failed(RESUMED, "a digest of tokens taken over, and no number of them")
        return not_applicable(RESUMED, "nothing was taken over")
    if len(counts) != len(tokens) or any(
        count > len(choice) for count, choice in zip(counts, tokens, strict=True)
    ):
        return failed(RESUMED, "more tokens were taken over than there are")
    given = [choice[:count] for count, choice in zip(counts, tokens, strict=True)]
    return _bound(opened, RESUMED, "response.resumed_digest", _tokens_digest(given))


def _response(opened: Opened) -> Check:
    """What the app was sent says what these tokens say."""
    again, response = opened.rerun, opened.receipt.response
    if again is None or opened.planned is None:
        return _unread(opened, RESPONSE)
    if again.problem:
        return failed(RESPONSE, again.problem)
    if again.chunks != response.chunks:
        return failed(RESPONSE, "these tokens make another number of events than were sent")
    if opened.planned.logprobs and not opened.content.logprobs:
        return LOGPROBS_CLOSED
    return _bound(opened, RESPONSE, "response.digest", again.digest)


def is_response(opened: Opened, again: rerun.Rerun) -> bool:
    """Whether ``again`` is to the byte what the app was sent."""
    return _bound(opened, RESPONSE, "response.digest", again.digest).result == "pass"


def _sampler(opened: Opened) -> Check:
    if opened.planned is None:
        return _unread(opened, SAMPLER)
    said, asked = opened.receipt.sampling, opened.planned.sampling
    good = (said.temperature, said.top_p, said.top_k, said.min_p) == (
        repr(asked.temperature),
        repr(asked.top_p),
        asked.top_k,
        repr(asked.min_p),
    )
    return either(SAMPLER, good, yes="as the request asks", no="not as the request asks")


def _template(opened: Opened) -> Check:
    """The prompt is exactly what the model's template makes of the request: nothing was hidden."""
    measured = opened.measured
    if measured is None or measured.prompt is None:
        return _unread(opened, TEMPLATE)
    return either(
        TEMPLATE,
        measured.prompt == opened.content.prompt,
        yes="the prompt is the request's",
        no="the prompt is not what the model's template makes of the request",
    )


def _unread(opened: Opened, name: str) -> Check:
    measured = opened.measured
    if measured is None:
        return inconclusive(name, opened.unmeasured)
    return inconclusive(name, measured.unreachable or replay.NOT_SERVABLE)


def _prompt_digest(prompt: Sequence[int]) -> str:
    try:
        return prompt_digest(prompt)
    except ValueError:
        return ""


def _tokens_digest(tokens: Sequence[Sequence[int]]) -> str:
    try:
        return tokens_digest(tokens)
    except ValueError:
        return ""
