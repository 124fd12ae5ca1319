"""A model without weights: each token a keyed function of weights, prompt, seed and position.

That is all that exact continuation asks of a model, so the real text pipeline, receipts and gateway
around it behave as with the real engine. It can be slow, and it can die in the middle of a token.
Its vocabulary has pieces that are half a character, as real ones have.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from trunkline.base.errors import RequestError, UpstreamError
from trunkline.crypto.digest import digest
from trunkline.inference.ports import Generate, ModelInfo, Token, TokenLogprob

START: Final = 256
END: Final = 257
_CONTROLS: Final = {"<|im_start|>": START, "<|im_end|>": END}
_WORDS: Final = (" the", " sea", " is", " blue", ".", " why", "\n", " 7", " and", " light")
_BROKEN: Final = ("é".encode()[:1], "é".encode()[1:], "🌊".encode()[:2], "🌊".encode()[2:])
PIECES: Final[tuple[bytes, ...]] = (
    *(bytes((byte,)) for byte in range(256)),
    b"",
    b"",
    *(word.encode() for word in _WORDS),
    *_BROKEN,
)
_SPOKEN: Final = len(PIECES) - END - 1
TEMPLATE: Final = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOKENS_MIN: Final = 4
TOKENS_SPREAD: Final = 40


class Pace(msgspec.Struct):
    """How an engine fares now. Shared with the world, which changes it."""

    token_s: float = 0.01
    dies: Callable[[], bool] = lambda: False
    """Asked before each token."""


def model_info(name: str, weights: str) -> ModelInfo:
    """What an engine with these weights says of itself."""
    return ModelInfo(
        name=name,
        weights_digest=digest(weights.encode()),
        source_digest=digest(weights.encode()),
        numerics=f"keyed-{weights}",
        context_tokens=1024,
        vocabulary_size=len(PIECES),
        eos_token_ids=(END,),
        chat_template=TEMPLATE,
        bos_text="<|im_start|>",
        eos_text="<|im_end|>",
    )


class KeyedEngine:
    """An :class:`~trunkline.inference.ports.Engine`. ``weights`` decide its tokens, ``info``
    says what it is: an honest one is built by :func:`honest`."""

    def __init__(self, info: ModelInfo, weights: str, pace: Pace | None = None) -> None:
        self._info = info
        self._weights = weights
        self._pace = pace

    async def model(self) -> ModelInfo:
        return self._info

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        tokens: list[int] = []
        while text:
            control = next((c for c in _CONTROLS if parse_special and text.startswith(c)), None)
            if control is None:
                tokens += text[0].encode()
                text = text[1:]
            else:
                tokens.append(_CONTROLS[control])
                text = text[len(control) :]
        return tuple(tokens)

    def pieces(self) -> Sequence[bytes]:
        return PIECES

    def continues_at(self, job: Generate) -> int:
        """Position of the first token to yield."""
        return 0 if job.sampling.top_logprobs >= 0 else len(job.prefix)

    async def generate(self, job: Generate) -> AsyncGenerator[Token, None]:
        if END in job.prefix:
            raise RequestError("the prefix holds an end token", code="prefix_invalid")
        key = sha256(repr((self._weights, job.prompt)).encode() + job.sampling.seed).digest()
        length = min(TOKENS_MIN + key[0] % TOKENS_SPREAD, job.max_tokens - 1)
        for position in range(self.continues_at(job), length + 1):
            await self._take_time()
            yield _token(job, key, position, last=position == length)

    async def close(self) -> None:
        """Nothing to stop."""

    async def _take_time(self) -> None:
        pace = self._pace
        if pace is None:
            return
        await asyncio.sleep(pace.token_s)
        if pace.dies():
            raise UpstreamError("the engine's process is gone", code="engine_crashed")


def honest(name: str, weights: str, pace: Pace | None = None) -> KeyedEngine:
    """An engine that is what it says."""
    return KeyedEngine(model_info(name, weights), weights, pace)


def _token(job: Generate, key: bytes, position: int, *, last: bool) -> Token:
    hashed = sha256(key + position.to_bytes(4, "big")).digest()
    number = hashed[0] % (_SPOKEN + 26)
    token = END + 1 + number if number < _SPOKEN else ord("a") + number - _SPOKEN
    finish = ""
    if last:
        full = position + 1 >= job.max_tokens
        token, finish = (token, "length") if full else (END, "stop")
    wanted = job.sampling.top_logprobs
    return Token(
        token=token,
        position=position,
        replayed=position < len(job.prefix),
        logprob=-0.25 - position / 64 if wanted >= 0 else 0.0,
        top=tuple(TokenLogprob(other, -1.0 - other) for other in range(max(wanted, 0))),
        finish=finish,
    )
