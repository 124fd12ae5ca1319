"""The embedded engine as node and verifier see it: ``ports.Engine`` and ``ports.Scorer`` over a
child process.

Neither ever loads native inference code itself. A fault there costs the work in flight, which fails
with a retryable error, and a restart; nothing else.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from trunkline.base.errors import Error, RequestError, UpstreamError
from trunkline.engine.calls import Calls
from trunkline.engine.child import Child
from trunkline.engine.frames import (
    Cancel,
    EngineSetup,
    Failed,
    FromChild,
    Ready,
    SelfTested,
    Start,
    StartScore,
    Step,
    TestSelf,
    ToChild,
    Tokenize,
    Tokenized,
    raised,
)
from trunkline.engine.llama import TEXT_BYTES_MAX
from trunkline.engine.weights import MODEL_NAME
from trunkline.inference.ports import Generate, ModelInfo, Sampling, Score, Token, TokenScore
from trunkline.sampling import SEED_BYTES

TOP_LOGPROBS_MAX = 20
LOGIT_BIAS_MAX = 1024
TEMPERATURE_MAX = 100.0

JOBS_MAX = 64

_WORKER = "trunkline.engine.worker"
_KEPT_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)}
"""The C library gives memory of the size of a token's logits back to the system at once, and gets
it again for the next token, page by page: half of what choosing and scoring took. Other C libraries
do not read these."""

_T = TypeVar("_T")


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The embedded engine's part of a node's configuration."""

    cache_folder: str
    """Where derived weights are kept (258 MiB for the default model). May be shared by nodes."""
    model_path: str = ""
    """A GGUF file. Empty: the one in the installed model package."""
    model_name: str = ""
    """Empty: the file's name without its ending, or that of the model in the package."""
    weights: str = "f16"
    """``f16``: best answers. ``as_shipped``: 4-bit as in the file; a lone answer twice as fast."""
    compute: Literal["llama.cpp", "pytorch", "vocabulary"] = "llama.cpp"
    """``pytorch``: a second opinion on the same weights. Slow, not exact, an extra to install.
    ``vocabulary``: nothing; text and tokens alone (``vllm.py``)."""
    sequences: int = 8
    """Answers generated at once; more wait."""
    context_tokens: int = 2048
    """Longest prompt plus answer. Memory: about 23 kB a token and sequence."""
    threads: int = 1
    """Threads that compute. More than the machine's idle cores is much slower, not faster."""
    jobs_max: int = JOBS_MAX
    """Answers in progress or waiting; beyond, callers are told to come back."""
    start_timeout_s: float = 60.0
    stall_timeout_s: float = 30.0
    """Silence, while there is work, after which the process is taken for hung and restarted."""


class EmbeddedEngine:
    """``ports.Engine`` and ``ports.Scorer`` over a child process, which starts with the first call.

    Both kinds of work share the process: neither changes a bit of the other's.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._jobs: dict[int, asyncio.Queue[list[Token] | Error]] = {}
        self._scores: dict[int, asyncio.Queue[list[TokenScore] | Error]] = {}
        self._texts: dict[int, asyncio.Future[tuple[int, ...]]] = {}
        self._tests: dict[int, asyncio.Future[str]] = {}
        self._last_id = 0
        self._calls = Calls(config.jobs_max)
        self._model: ModelInfo | None = None
        self._pieces: list[bytes] = []
        self._child = Child(
            module=_WORKER,
            setup=EngineSetup(
                model_name=config.model_name or _own_name(config.model_path),
                model_path=config.model_path,
                cache_folder=config.cache_folder,
                weights=config.weights,
                sequences=config.sequences,
                context_tokens=config.context_tokens,
                threads=config.threads,
                compute=config.compute,
            ),
            replies=msgspec.msgpack.Decoder(FromChild),
            on_frame=self._on_frame,
            on_lost=self._on_lost,
            busy=lambda: bool(self._jobs or self._scores or self._texts or self._tests),
            start_timeout_s=config.start_timeout_s,
            stall_timeout_s=config.stall_timeout_s,
            environment={
                "OMP_NUM_THREADS": str(config.threads),
                "OMP_WAIT_POLICY": "passive",
                **_KEPT_MEMORY,
            },
        )

    @property
    def pid(self) -> int | None:
        """The child's process id, for operators and for tests that kill it."""
        return self._child.pid

    async def model(self) -> ModelInfo:
        """As ``ports.Engine.model``. Raises ``ConfigError`` if the model can not be had."""
        await self._child.ready()
        if self._model is None:
            raise UpstreamError("the engine is not ready", code="engine_crashed")
        return self._model

    def pieces(self) -> Sequence[bytes]:
        return self._pieces

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        if len(text) > TEXT_BYTES_MAX:
            raise RequestError(
                f"{len(text)} characters of text; at most {TEXT_BYTES_MAX} are tokenised",
                code="text_too_long",
            )
        return await self._asked(
            self._texts, lambda id_: Tokenize(id=id_, text=text, parse_special=parse_special)
        )

    async def self_test(self) -> str:
        """As ``ports.Scorer.self_test``. Takes its turn among the other work, whose company is part
        of what is tested."""
        return await self._asked(self._tests, lambda id_: TestSelf(id=id_))

    async def _asked(
        self, pending: dict[int, asyncio.Future[_T]], message: Callable[[int], ToChild]
    ) -> _T:
        with self._calls.admitted():
            await self._child.ready()
            id_ = self._next_id()
            future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
            pending[id_] = future
            try:
                self._send(message(id_))
                return await future
            finally:
                pending.pop(id_, None)

    def _send(self, message: ToChild) -> None:
        if not self._child.send(message):
            raise UpstreamError("the engine's process is gone", code="engine_crashed")

    async def generate(self, job: Generate) -> AsyncGenerator[Token, None]:
        """As ``ports.Engine.generate``."""
        with self._calls.admitted():
            check(job, await self.model())
            id_ = self._next_id()
            # Bounded by the job's own length: at most one item a token.
            events: asyncio.Queue[list[Token] | Error] = asyncio.Queue()
            self._jobs[id_] = events
            finished = False
            try:
                self._send(Start(id=id_, job=job))
                while not finished:
                    tokens = await events.get()
                    if isinstance(tokens, Error):
                        finished = True
                        raise tokens
                    for token in tokens:
                        finished = bool(token.finish)
                        yield token
            finally:
                del self._jobs[id_]
                if not finished:
                    self._child.send(Cancel(id=id_))

    async def score(self, job: Score) -> tuple[TokenScore, ...]:
        """As ``ports.Scorer.score``."""
        with self._calls.admitted():
            check_score(job, await self.model())
            if not job.tokens:
                return ()
            id_ = self._next_id()
            # Bounded by the answer's length: at most one item a token.
            arriving: asyncio.Queue[list[TokenScore] | Error] = asyncio.Queue()
            self._scores[id_] = arriving
            scores: list[TokenScore] = []
            try:
                self._send(StartScore(id=id_, job=job))
                while len(scores) < len(job.tokens):
                    some = await arriving.get()
                    if isinstance(some, Error):
                        raise some
                    scores += some
            finally:
                del self._scores[id_]
                if len(scores) < len(job.tokens):
                    self._child.send(Cancel(id=id_))
            return tuple(scores)

    async def close(self) -> None:
        await self._child.close()

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _on_frame(self, frame: FromChild) -> None:
        match frame:
            case Step():
                # A job that was just cancelled may still have had an event under way.
                for id_, tokens in frame.events:
                    if events := self._jobs.get(id_):
                        events.put_nowait(tokens)
                for id_, scores in frame.scores:
                    if arriving := self._scores.get(id_):
                        arriving.put_nowait(scores)
            case Tokenized():
                _settle(self._texts, frame.id, frame.tokens)
            case SelfTested():
                _settle(self._tests, frame.id, frame.digest)
            case Failed():
                self._fail(frame.id, raised(frame))
            case Ready():
                self._model = frame.model
                self._pieces = frame.pieces
            case _:
                pass

    def _fail(self, id_: int, error: Error) -> None:
        if events := self._jobs.get(id_):
            events.put_nowait(error)
        if arriving := self._scores.get(id_):
            arriving.put_nowait(error)
        _settle(self._texts, id_, error)
        _settle(self._tests, id_, error)

    def _on_lost(self, error: UpstreamError) -> None:
        for id_ in (*self._jobs, *self._scores, *self._texts, *self._tests):
            self._fail(id_, UpstreamError(error.message, code=error.error_code))


def _settle(pending: dict[int, asyncio.Future[_T]], id_: int, result: _T | Error) -> None:
    future = pending.get(id_)
    if future is None or future.done():
        return
    if isinstance(result, Error):
        future.set_exception(result)
    else:
        future.set_result(result)


def check(job: Generate, model: ModelInfo) -> None:
    """Refuse what ``model`` can not serve, before it costs anything. Raises ``RequestError``."""
    if job.max_tokens < 1 or len(job.prefix) >= job.max_tokens:
        raise RequestError(
            f"max_tokens is {job.max_tokens}, with {len(job.prefix)} tokens of the answer given",
            code="max_tokens_invalid",
            param="max_tokens",
        )
    _check_tokens(job.prompt, ("prefix", job.prefix), job.max_tokens, model)
    _check_sampling(job.sampling, model)


def check_score(job: Score, model: ModelInfo) -> None:
    """Refuse what ``model`` can not score. Raises ``RequestError``."""
    _check_tokens(job.prompt, ("tokens", job.tokens), len(job.tokens), model)
    _check_sampling(job.sampling, model)


def _check_tokens(
    prompt: tuple[int, ...], answer: tuple[str, tuple[int, ...]], room: int, model: ModelInfo
) -> None:
    if not prompt:
        raise RequestError("the prompt is empty", code="prompt_empty", param="prompt")
    wanted = len(prompt) + room
    if wanted > model.context_tokens:
        raise RequestError(
            f"the model's context is {model.context_tokens} tokens; the prompt's"
            f" {len(prompt)} and {room} for the answer make {wanted}",
            code="context_length_exceeded",
            param="messages",
        )
    for name, tokens in (("prompt", prompt), answer):
        if tokens and not 0 <= min(tokens) <= max(tokens) < model.vocabulary_size:
            raise RequestError(
                f"the {name} holds a token that the model does not have",
                code="token_unknown",
                param=name,
            )


def _check_sampling(sampling: Sampling, model: ModelInfo) -> None:
    limits = (
        ("temperature", sampling.temperature, 0.0, TEMPERATURE_MAX),
        ("top_p", sampling.top_p, 0.0, 1.0),
        ("min_p", sampling.min_p, 0.0, 1.0),
        ("top_k", sampling.top_k, 0, model.vocabulary_size),
        ("frequency_penalty", sampling.frequency_penalty, -100.0, 100.0),
        ("presence_penalty", sampling.presence_penalty, -100.0, 100.0),
        ("top_logprobs", sampling.top_logprobs, -1, TOP_LOGPROBS_MAX),
    )
    for name, value, low, high in limits:
        # Written so that a NaN is refused too.
        if not low <= value <= high:
            raise RequestError(
                f"{name} is {value}; from {low} to {high} is possible",
                code="parameter_out_of_range",
                param=name,
            )
    bias = sampling.logit_bias
    if len(bias) > LOGIT_BIAS_MAX or not all(
        0 <= token < model.vocabulary_size and math.isfinite(value) and abs(value) <= 100.0
        for token, value in bias.items()
    ):
        raise RequestError(
            f"logit_bias: at most {LOGIT_BIAS_MAX} known tokens, each from -100 to 100",
            code="parameter_out_of_range",
            param="logit_bias",
        )
    if len(sampling.seed) != SEED_BYTES:
        raise RequestError(f"a seed is {SEED_BYTES} bytes", code="seed_invalid", param="seed")


def _own_name(model_path: str) -> str:
    return Path(model_path).stem if model_path else MODEL_NAME
