"""The answer once more, from its request and its tokens: what the app must have been sent.

Text, tool calls, stop strings, limits and the bytes of every event are a function of the request
and the tokens (``trunkline.inference.answer``). So whoever has the two knows what this attempt
sent, how each choice ended, and whether the tokens stop where the answer does: not one too few
(cut short) and none too many (billed, never sent).

It needs no engine, only what a model's file says of its tokens. Log-probabilities are no function
of the tokens: answers that carry them are made with those that were opened, whatever they are.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.inference.answer import Answer, AnswerHead, Event, token_logprob
from trunkline.inference.plan import ChatPlan, Limits, check_supported, plan_chat
from trunkline.inference.ports import ModelInfo
from trunkline.receipts import Receipt, StreamDigest, bound_bytes
from trunkline.schema import openai_chat
from trunkline.schema.audit import OpenedContent, OpenedLogprob
from trunkline.schema.openai_chat import ChatRequest

CUT_SHORT: Final = "the tokens end before the answer does"
TOO_MANY: Final = "there are tokens after the answer's end"
OUT_OF_STEP: Final = "the tokens taken over are none that choices in lock-step could have had"
NOT_IN_VOCABULARY: Final = "there is a token that the model does not have"
NOT_THE_LOGPROBS: Final = "not a log-probability for each token"
NOT_THE_CHOICES: Final = "there are not as many choices as the request asks for"


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    """What the attempt sent, and how its choices ended."""

    problem: str = ""
    """Why these tokens are no whole answer to this request; then the rest is empty."""
    digest: str = ""
    """Stream digest, ``sha256:…``."""
    chunks: int = 0
    finish: tuple[str, ...] = ()


def read_request(content: OpenedContent) -> ChatRequest:
    """The opened request. Raises ``RequestError`` for what the model could not have served."""
    request = openai_chat.parse(bytes(content.request))
    check_supported(request)
    return request


def plan(
    request: ChatRequest,
    prompt: tuple[int, ...],
    model: ModelInfo,
    context_tokens: int = 0,
    answer: Sequence[Sequence[int]] = (),
) -> ChatPlan:
    """As the node had to plan it. ``context_tokens``: of the node's engine, as it says it now; 0:
    as ``model``'s. It held prompt and ``answer`` in any case: a node could else say that it has no
    room for what it answered, and nothing would be held against it.

    Raises ``RequestError``.
    """
    if context_tokens:
        context_tokens = max(context_tokens, len(prompt) + max(map(len, answer), default=0))
    limits = Limits(
        context_tokens=context_tokens or model.context_tokens,
        vocabulary_size=model.vocabulary_size,
        choices_max=request.choices,
        end_tokens=model.eos_token_ids,
        temperature=model.temperature,
        top_p=model.top_p,
    )
    return plan_chat(request, prompt, limits)


def rerun(
    receipt: Receipt,
    planned: ChatPlan,
    tokens: Sequence[Sequence[int]],
    pieces: Sequence[bytes],
    logprobs: Sequence[Sequence[OpenedLogprob]] = (),
) -> Rerun:
    """Push ``tokens`` (per choice) through the answer that ``planned`` makes of them, with the
    ``logprobs`` that were sent beside them, if any are given."""
    if len(tokens) != planned.choices:
        return Rerun(problem=NOT_THE_CHOICES)
    if any(not 0 <= token < len(pieces) for choice in tokens for token in choice):
        return Rerun(problem=NOT_IN_VOCABULARY)
    if logprobs and not _fits(logprobs, tokens, len(pieces)):
        return Rerun(problem=NOT_THE_LOGPROBS)
    answer = _answer(receipt, planned, pieces)
    sent = _Sent(receipt)
    given = list(receipt.response.resumed) or [0] * len(tokens)
    if len(given) != len(tokens):
        return Rerun(problem=OUT_OF_STEP)
    left = sum(given)
    opening = answer.opening()
    if not left:
        sent.add(opening)
    at = [0] * len(tokens)
    while (choice := answer.next_choice) is not None:
        if at[choice] >= len(tokens[choice]):
            return Rerun(problem=CUT_SHORT)
        taken_over = at[choice] < given[choice]
        if taken_over is not bool(left):
            return Rerun(problem=OUT_OF_STEP)
        token = tokens[choice][at[choice]]
        beside = logprobs[choice][at[choice]] if logprobs else None
        events = answer.push(
            token,
            None if beside is None else token_logprob(pieces, token, beside.logprob, beside.top),
        )
        at[choice] += 1
        if taken_over:
            left -= 1
            # The app has the events up to the last given token's own, and lacks those after it.
            events = [] if left else events[1:]
        sent.add(events)
    if any(place < len(choice) for place, choice in zip(at, tokens, strict=True)):
        return Rerun(problem=TOO_MANY)
    sent.add(answer.closing())
    return Rerun(digest=sent.chain.close(), chunks=sent.chain.chunks, finish=answer.finish)


def _fits(
    logprobs: Sequence[Sequence[OpenedLogprob]], tokens: Sequence[Sequence[int]], vocabulary: int
) -> bool:
    return [len(choice) for choice in logprobs] == [len(choice) for choice in tokens] and all(
        0 <= token < vocabulary
        for choice in logprobs
        for beside in choice
        for token, _ in beside.top
    )


class _Sent:
    """The stream digest of what the app gets."""

    __slots__ = ("chain",)

    def __init__(self, receipt: Receipt) -> None:
        self.chain = StreamDigest(bound_bytes(receipt.request.digest), receipt.attempt)

    def add(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.id is not None and event.data is not None:
                self.chain.update(event.data)


def _answer(receipt: Receipt, planned: ChatPlan, pieces: Sequence[bytes]) -> Answer:
    return Answer(
        AnswerHead(
            answer=receipt.answer,
            created_s=receipt.created_s,
            model=receipt.model.served,
            fingerprint=AnswerHead.fingerprint_of(receipt.model.numerics),
        ),
        choices=planned.choices,
        pipe=planned.pipe,
        pieces=pieces,
        prompt_tokens=len(planned.prompt),
        stream=planned.stream,
        include_usage=planned.include_usage,
    )
