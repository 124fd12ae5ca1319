"""Everything that a check needs a model for, asked of a scorer: prompt, tokenisation, scores.

The only module here that waits; what it waits for comes in as a port, and it does no I/O of its
own. A scorer that fails raises its own error: the audit is to be tried again. What can not be
measured at all (other weights, a request that the model could not have served) is said as such,
and no check that depends on it will pass.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.audit import rerun
from trunkline.base.errors import RequestError
from trunkline.inference.messages import prompt_messages
from trunkline.inference.plan import ChatPlan
from trunkline.inference.ports import ModelInfo, Score, Scorer, TokenScore
from trunkline.inference.template import ChatTemplate
from trunkline.receipts import Receipt
from trunkline.sampling import choice_seed
from trunkline.schema.audit import OpenedContent
from trunkline.schema.openai_chat import ChatRequest

OTHER_WEIGHTS: Final = "the verifier has other weights than the receipt names"
NOT_SERVABLE: Final = "the model could not have served the request that was opened"
TOO_LONG: Final = "prompt and answer do not fit into the verifier's context"
NOT_SCORABLE: Final = "the engine can not score this answer"
NO_SEED: Final = "the receipt names no seed"
NOT_AN_ANSWER: Final = "what was opened is no whole answer to the request"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What the verifier's model makes of an opening."""

    model: ModelInfo
    pieces: Sequence[bytes]
    """The bytes each token id stands for."""
    unreachable: str = ""
    """Why there are no scores; empty: there are."""
    prompt: tuple[int, ...] | None = None
    """The request rendered by the model's own template; None: it can not be."""
    canonical: tuple[int, ...] = ()
    """Per choice, how many tokens its text takes."""
    scores: tuple[tuple[TokenScore, ...], ...] = ()
    """Per choice, a score per token."""


async def measure(
    receipt: Receipt, content: OpenedContent, scorer: Scorer, *, context_tokens: int = 0
) -> Measured:
    """Ask ``scorer`` for all there is to know. ``context_tokens``: as for :func:`rerun.plan`.

    Raises the scorer's errors, ``RequestError`` excepted.
    """
    model = await scorer.model()
    found = Measured(model=model, pieces=scorer.pieces())
    if receipt.model.weights != model.weights_digest:
        return _without_scores(found, OTHER_WEIGHTS)
    try:
        request = rerun.read_request(content)
        found = msgspec.structs.replace(
            found, prompt=await _prompt(receipt, request, model, scorer)
        )
        planned = rerun.plan(request, content.prompt, model, context_tokens, content.tokens)
    except RequestError:
        return _without_scores(found, NOT_SERVABLE)
    known = all(0 <= token < len(found.pieces) for token in content.prompt)
    if not known or rerun.rerun(receipt, planned, content.tokens, found.pieces).problem:
        return _without_scores(found, NOT_AN_ANSWER)
    found = msgspec.structs.replace(
        found,
        canonical=tuple([await _canonical(choice, found, scorer) for choice in content.tokens]),
    )
    return await _scored(receipt, content, planned, found, scorer)


async def rendered(
    receipt: Receipt, content: OpenedContent, scorer: Scorer
) -> tuple[int, ...] | None:
    """The request's prompt by the model's own template; None: it has none. Nothing is scored."""
    try:
        return await _prompt(receipt, rerun.read_request(content), await scorer.model(), scorer)
    except RequestError:
        return None


async def _scored(
    receipt: Receipt, content: OpenedContent, planned: ChatPlan, found: Measured, scorer: Scorer
) -> Measured:
    if not receipt.sampling.seed:
        return _without_scores(found, NO_SEED)
    longest = max((len(choice) for choice in content.tokens), default=0)
    if len(content.prompt) + longest > found.model.context_tokens:
        return _without_scores(found, TOO_LONG)
    seed = bytes.fromhex(receipt.sampling.seed)
    scores = []
    try:
        for index, tokens in enumerate(content.tokens):
            sampling = msgspec.structs.replace(planned.sampling, seed=choice_seed(seed, index))
            job = Score(prompt=content.prompt, tokens=tuple(tokens), sampling=sampling)
            scores.append(await scorer.score(job))
    except RequestError:
        return _without_scores(found, NOT_SCORABLE)
    return msgspec.structs.replace(found, scores=tuple(scores))


async def _prompt(
    receipt: Receipt, request: ChatRequest, model: ModelInfo, scorer: Scorer
) -> tuple[int, ...]:
    template = ChatTemplate(model.chat_template, bos_text=model.bos_text, eos_text=model.eos_text)
    segments = template.render(prompt_messages(request), created_s=receipt.created_s)
    longest = max(map(len, scorer.pieces()), default=1) or 1
    if sum(len(segment.text) for segment in segments) > model.context_tokens * longest:
        # More tokens than the context whatever they are: not worth counting.
        raise RequestError("the prompt is too long", code="context_length_exceeded")
    tokens: list[int] = []
    for segment in segments:
        tokens += await scorer.tokenize(segment.text, parse_special=segment.control)
    return tuple(tokens)


async def _canonical(tokens: Sequence[int], found: Measured, scorer: Scorer) -> int:
    text = text_of(tokens, found.pieces)
    return len(await scorer.tokenize(text, parse_special=False)) if text else 0


def text_of(tokens: Sequence[int], pieces: Sequence[bytes]) -> str:
    """The text that tokens spell; broken characters as U+FFFD."""
    return b"".join(pieces[token] for token in tokens).decode("utf-8", "replace")


def _without_scores(found: Measured, why: str) -> Measured:
    return msgspec.structs.replace(found, unreachable=why)
