"""A deterministic engine without weights: says what its script says, token by token.

Its vocabulary: ids 0 to 255 are single bytes, then control tokens, then a few longer pieces, one of
which is half a character. Passes the same contract tests as the real engine.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from hashlib import sha256

from trunkline.base.errors import RequestError, UpstreamError
from trunkline.inference.ports import Generate, ModelInfo, Token, TokenLogprob

BOS, EOS = 256, 257
CONTROLS = {"<|im_start|>": BOS, "<|im_end|>": EOS}
LONGER = [b"The", b" capital", b" of", b" France", b" is", b" Paris", b".", "é".encode()[:1], b"{}"]
PIECES: tuple[bytes, ...] = (*(bytes((i,)) for i in range(256)), b"", b"", *LONGER)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MODEL = ModelInfo(
    name="scripted",
    weights_digest="sha256:" + "1" * 64,
    source_digest="sha256:" + "1" * 64,
    numerics="scripted-1",
    context_tokens=512,
    vocabulary_size=len(PIECES),
    eos_token_ids=(EOS,),
    chat_template=TEMPLATE,
    bos_text="<|im_start|>",
    eos_text="<|im_end|>",
)

Script = Callable[[Generate], Sequence[int]]
"""The whole answer to a job, its end token included; cut at ``max_tokens``."""


def spell(text: str) -> tuple[int, ...]:
    """A text, one token a byte, and the end of the turn."""
    return (*text.encode(), EOS)


def says(text: str) -> Script:
    return lambda job: spell(text)


def noise(job: Generate) -> Sequence[int]:
    """An answer that depends on the prompt and the seed, as sampling's would."""
    stream = b"".join(
        sha256(repr((job.prompt, number)).encode() + job.sampling.seed).digest()
        for number in range(8)
    )
    tokens = [byte if byte % 3 else 258 + byte % len(LONGER) for byte in stream]
    return (*tokens[: 20 + stream[0] % 100], EOS)


class ScriptedEngine:
    """``ports.Engine``. ``pause`` holds generation until it is set; ``fail_at`` breaks it."""

    def __init__(self, script: Script = noise, *, model: ModelInfo = MODEL) -> None:
        self.script = script
        self.info = model
        self.fail_at: int | None = None
        self.pause: asyncio.Event | None = None
        self.jobs: list[Generate] = []
        self.running = 0
        self.busy = asyncio.Event()
        self.idle = asyncio.Event()
        self.cancelled = 0
        self.prompts: list[tuple[str, bool]] = []
        self.closed = False

    async def model(self) -> ModelInfo:
        return self.info

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        self.prompts.append((text, parse_special))
        tokens: list[int] = []
        while text:
            control = next((c for c in CONTROLS if parse_special and text.startswith(c)), None)
            if control is None:
                tokens += text[0].encode("utf-8", "replace")
                text = text[1:]
            else:
                tokens.append(CONTROLS[control])
                text = text[len(control) :]
        return tuple(tokens)

    def pieces(self) -> Sequence[bytes]:
        return PIECES

    async def generate(self, job: Generate) -> AsyncGenerator[Token, None]:
        self.jobs.append(job)
        if EOS in job.prefix:
            raise RequestError("the prefix holds an end token", code="prefix_invalid")
        whole = tuple(self.script(job))[: job.max_tokens]
        self._count(1)
        ended = False
        try:
            first = 0 if job.sampling.top_logprobs >= 0 else len(job.prefix)
            for position in range(first, len(whole)):
                if self.pause is not None:
                    await self.pause.wait()
                await asyncio.sleep(0)
                if position == self.fail_at:
                    raise UpstreamError("the engine's process is gone", code="engine_crashed")
                event = self._token(job, whole, position)
                ended = bool(event.finish)
                yield event
        finally:
            self._count(-1)
            self.cancelled += not ended

    def _count(self, change: int) -> None:
        self.running += change
        (self.busy if self.running else self.idle).set()
        (self.idle if self.running else self.busy).clear()

    def _token(self, job: Generate, whole: Sequence[int], position: int) -> Token:
        token = whole[position]
        finish = ""
        if token == EOS:
            finish = "stop"
        elif position + 1 >= job.max_tokens:
            finish = "length"
        elif position + 1 == len(whole):
            finish = "grammar"
        wanted = job.sampling.top_logprobs
        return Token(
            token=token,
            position=position,
            replayed=position < len(job.prefix),
            logprob=-0.5 - position / 64 if wanted >= 0 else 0.0,
            top=tuple(TokenLogprob(n, -1.0 - n) for n in range(max(wanted, 0))),
            finish=finish,
        )

    async def close(self) -> None:
        self.closed = True
