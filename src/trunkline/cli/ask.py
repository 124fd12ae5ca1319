"""One question to the running network, through the unmodified ``openai`` client.

The commands speak to the gateway as any app would; what they know beyond that, they learn from the
response's headers and the gateway's own API.
"""

import asyncio
import importlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from trunkline.base.errors import Error

if TYPE_CHECKING:
    import openai

NO_KEY: Final = "none-needed"
RECEIPT_HEADER: Final = "trunkline-receipt"
MODEL_HEADER: Final = "trunkline-model"
NODE_HEADER: Final = "trunkline-node"
CALL_S_MAX: Final = 300.0


class AnswerError(Error):
    """The question was not answered."""

    code = "not_answered"


@dataclass(slots=True, kw_only=True)
class Answer:
    """What came back."""

    id: str
    """The answer's id: the handle of its receipt."""
    model: str
    """The model that really served."""
    node: str = ""
    text: str = ""
    finish: str = ""
    pieces: int = 0
    first_s: float = 0.0
    """From the call to the first piece of text."""
    ended_s: float = 0.0
    gaps: list[tuple[float, float]] = field(default_factory=list)
    """When each piece came (monotonic seconds), and how long after the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One user message and how to answer it."""

    prompt: str
    model: str
    max_tokens: int | None = None
    seed: int | None = None
    temperature: float | None = None
    frequency_penalty: float | None = None
    keep_bodies: bool = False


async def client(base_url: str) -> "openai.AsyncOpenAI":
    """The official client, pointed at the gateway. Its import takes a while: not in the loop."""
    module = await asyncio.to_thread(importlib.import_module, "openai")
    made: openai.AsyncOpenAI = module.AsyncOpenAI(
        base_url=base_url + "/v1", api_key=NO_KEY, max_retries=0, timeout=CALL_S_MAX
    )
    return made


async def chat_model(caller: "openai.AsyncOpenAI") -> str:
    """The network's chat model: the embedded one where there is one."""
    import openai

    try:
        names = [model.id async for model in caller.models.list()]
    except openai.OpenAIError as error:
        raise AnswerError(f"the gateway did not list its models: {type(error).__name__}") from None
    chat = [name for name in names if "embed" not in name and "e5" not in name]
    if not chat:
        raise AnswerError("no node offers a chat model; see `trunkline status`")
    embedded = [name for name in chat if name.startswith("smollm2")]
    return (embedded or chat)[0]


async def ask(
    caller: "openai.AsyncOpenAI",
    question: Question,
    on_text: Callable[[str], None],
    on_piece: Callable[[Answer], Awaitable[None]] | None = None,
) -> Answer:
    """Stream one answer. ``on_piece`` is awaited after each piece. Raises AnswerError."""
    import openai

    begun = time.monotonic()
    headers = {"trunkline-detail": "1"}
    if question.keep_bodies:
        headers["trunkline-keep"] = "bodies"
    try:
        stream = await caller.chat.completions.create(
            model=question.model,
            messages=[{"role": "user", "content": question.prompt}],
            stream=True,
            max_tokens=openai.omit if question.max_tokens is None else question.max_tokens,
            seed=openai.omit if question.seed is None else question.seed,
            temperature=openai.omit if question.temperature is None else question.temperature,
            frequency_penalty=openai.omit
            if question.frequency_penalty is None
            else question.frequency_penalty,
            extra_headers=headers,
        )
        given = stream.response.headers
        answer = Answer(
            id=given.get(RECEIPT_HEADER, ""),
            model=given.get(MODEL_HEADER, question.model),
            node=given.get(NODE_HEADER, ""),
        )
        last = begun
        async for text, finish in _pieces(stream):
            now = time.monotonic()
            answer.gaps.append((now, now - last))
            last = now
            answer.first_s = answer.first_s or now - begun
            answer.text += text
            answer.finish = finish or answer.finish
            answer.pieces += 1
            on_text(text)
            if on_piece is not None:
                await on_piece(answer)
    except openai.APIConnectionError:
        raise AnswerError("the gateway can not be reached; see `trunkline status`") from None
    except openai.OpenAIError as error:
        raise AnswerError(f"the call failed: {_explain(error)}") from None
    answer.ended_s = time.monotonic() - begun
    if not answer.finish:
        raise AnswerError("the answer ended without a finish reason: it is not whole")
    return answer


async def _pieces(
    stream: "openai.AsyncStream[openai.types.chat.ChatCompletionChunk]",
) -> AsyncIterator[tuple[str, str]]:
    async for chunk in stream:
        for choice in chunk.choices:
            text, finish = choice.delta.content or "", choice.finish_reason or ""
            if text or finish:
                yield text, finish


def _explain(error: "openai.OpenAIError") -> str:
    code = getattr(error, "code", None)
    status = getattr(error, "status_code", None)
    known = [str(each) for each in (status, code) if each is not None]
    return " ".join([type(error).__name__, *known])
