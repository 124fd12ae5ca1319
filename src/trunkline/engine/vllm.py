"""vLLM behind the ports that the embedded engine has: a server on a GPU (or anything else that vLLM
runs on) that answers as ``ports.Engine``, or checks as ``ports.Scorer``.

Logits are the server's. Text is not: tokeniser, chat template, pieces and end tokens are those of
the model's GGUF file, read by a child process that loads no weights (``client.py``, compute
``vocabulary``). The operator states by that file which weights the server holds; its digest is what
receipts name. Before anything is asked, the server is held against it: model's name, context
length, and how a text falls into tokens.

An answering server has our logits processor (``vllm_processor.py``), and one without it is refused
before it answers anything: vLLM passes over arguments that it does not know. A checking one is a
plain vLLM: scores come from ``prompt_logprobs``, as far as they go (``sampling/leading.py``).

Neither is exact: batches change logits. So there is no self-test, and an answer is judged in the
noisy regime. Refuses grammars. Driven against vLLM 0.32.0 on CPUs (``docs/adr/0029``).
"""

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    ConfigError,
    ConnectError,
    RequestError,
    TruncatedError,
    UpstreamError,
)
from trunkline.base.ports import Clock
from trunkline.engine import vllm_wire as wire
from trunkline.engine.calls import Calls
from trunkline.engine.client import EmbeddedEngine, EngineConfig, check, check_score
from trunkline.engine.scoring import may_have_none, token_score
from trunkline.engine.weights import PIPELINE_VERSION
from trunkline.inference.ports import (
    Generate,
    ModelInfo,
    Sampling,
    Score,
    Token,
    TokenScore,
)
from trunkline.remote.exchange import Exchange, ProviderTimeouts
from trunkline.remote.status import RejectedError
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Transport
from trunkline.sampling.leading import check as check_leading
from trunkline.sampling.leading import score_leading

ANSWER_BYTES_MAX: Final = 96 * 1024 * 1024
VALUE_BYTES: Final = 96
"""Of one candidate at one position in an answer: 70 to 85 were seen."""
EMPTY_EVENTS_MAX: Final = 64
"""Of a stream. Each of the others brings a token, of which there are as many as were asked for."""
NOT_KEYED: Final = "vllm_not_keyed"
OTHER_MODEL: Final = "vllm_other_model"
LOOK_S: Final = 30.0
"""After so long the server is looked at again: it may have been started with other options."""
_PROBE_TEXT: Final = "Trunk lines carry 1234 calls:\n\tdef route(call): return best[call]"


class VllmConfig(msgspec.Struct, frozen=True, kw_only=True):
    """A vLLM server, and the model that it serves."""

    url: str
    """Its address, ``http://host:port``; nobody else should reach it."""
    vocabulary: EngineConfig
    """The model's file; ``compute`` is ``vocabulary``. The server serves it by its name."""
    owner: str
    """Whose engine this is: no other's computes its bits, so its numerics are its own."""
    candidates: int = 1000
    """Likeliest tokens asked for at each position when scoring."""
    timeouts: ProviderTimeouts = ProviderTimeouts()


class _Server:
    """What answering and checking share: the vocabulary, and calls to one server."""

    def __init__(self, config: VllmConfig, transport: Transport, clock: Clock) -> None:
        self.config = config
        self.vocabulary = EmbeddedEngine(config.vocabulary)
        self._base = config.url.rstrip("/")
        parse_url(self._base)
        self._exchange = Exchange(
            transport=transport, headers=(), clock=clock, timeouts=config.timeouts
        )
        self.calls = Calls(config.vocabulary.jobs_max)
        self.room: int | None = None
        """The server's ``--max-model-len``, as it last said."""

    async def whole(self, path: str, body: bytes) -> bytes:
        """The JSON object that a call answers."""
        url = self._base + path
        async with await self._exchange.post(url, body, stream=False) as answer:
            return await answer.whole(ANSWER_BYTES_MAX)

    async def stream(self, body: bytes) -> AsyncGenerator[wire.Piece, None]:
        """The pieces of a streamed completion."""
        url = f"{self._base}/v1/completions"
        empty = 0
        async with await self._exchange.post(url, body, stream=True) as answer:
            async for event in answer.events():
                if event.data and event.data != b"[DONE]":
                    piece = wire.event(event.data)
                    empty += piece is None or not piece.token_ids
                    if empty > EMPTY_EVENTS_MAX:
                        raise BadResponseError(
                            "the vLLM server's events bring no tokens", code=wire.NOT_AN_ANSWER
                        )
                    if piece is not None:
                        yield piece

    async def prepared(self) -> ModelInfo:
        """The model as the file and the server have it.

        Raises ``ConfigError`` where the server serves another.
        """
        info = await self.vocabulary.model()
        raw = await self._exchange.get(f"{self._base}/v1/models")
        served = wire.read(raw, wire.Models, "no list of models")
        found = next((one for one in served.data if one.id == info.name), None)
        if found is None:
            raise ConfigError(
                f"the vLLM server does not serve {info.name}: start it with"
                f" --served-model-name {info.name}",
                code=OTHER_MODEL,
            )
        self.room = found.max_model_len
        if self.room is not None and self.room < info.context_tokens:
            raise ConfigError(
                f"context_tokens is {info.context_tokens}; the vLLM server's --max-model-len is"
                f" {self.room}",
                code=OTHER_MODEL,
            )
        body = wire.tokenize_body(info.name, _PROBE_TEXT)
        raw = await self.whole("/tokenize", body)
        theirs = wire.read(raw, wire.Tokens, "no tokens").tokens
        if tuple(theirs) != await self.vocabulary.tokenize(_PROBE_TEXT, parse_special=False):
            raise ConfigError(
                "the vLLM server's tokens are not those of model_path: it serves another model",
                code=OTHER_MODEL,
            )
        return msgspec.structs.replace(info, numerics=await self._numerics(info))

    async def _numerics(self, info: ModelInfo) -> str:
        """As ``weights.numerics``, of this owner and server alone: ``vllm-<hex>``."""
        raw = await self._exchange.get(f"{self._base}/version")
        deciding = {
            "pipeline": PIPELINE_VERSION,
            "advice": [info.temperature, info.top_p],
            "weights": info.weights_digest,
            "version": wire.read(raw, wire.Version, "no version").version,
            "owner": self.config.owner,
            "candidates": self.config.candidates,
            "url": self.config.url,
        }
        canonical = json.dumps(deciding, sort_keys=True, separators=(",", ":")).encode()
        return f"vllm-{hashlib.sha256(canonical).hexdigest()[:32]}"

    async def refuses(self, body: bytes) -> bool:
        """Whether the server finds fault with a completion."""
        try:
            await self.whole("/v1/completions", body)
        except RejectedError:
            return True
        return False


class _Vllm:
    """The parts of the two ports that are the same."""

    def __init__(self, config: VllmConfig, transport: Transport, *, clock: Clock) -> None:
        """``transport`` stays its owner's. Raises ``MalformedError`` for a URL that is none."""
        self._server = _Server(config, transport, clock)
        self._clock = clock
        self._model: ModelInfo | None = None
        self._looked_s = 0.0
        self._looking = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Of the vocabulary's process."""
        return self._server.vocabulary.pid

    async def model(self) -> ModelInfo:
        """As ``ports.Engine.model``. Raises ``ConfigError`` for a server that can not be used."""
        async with self._looking:
            if self._model is None or self._clock.monotonic_s() - self._looked_s >= LOOK_S:
                model = await self._server.prepared()
                await self._check_server(model)
                self._model, self._looked_s = model, self._clock.monotonic_s()
            return self._model

    async def _check_server(self, model: ModelInfo) -> None:
        raise NotImplementedError

    async def tokenize(self, text: str, *, parse_special: bool) -> tuple[int, ...]:
        return await self._server.vocabulary.tokenize(text, parse_special=parse_special)

    def pieces(self) -> Sequence[bytes]:
        return self._server.vocabulary.pieces()

    async def close(self) -> None:
        await self._server.vocabulary.close()


class VllmEngine(_Vllm):
    """``ports.Engine`` over a server with our logits processor."""

    async def _check_server(self, model: ModelInfo) -> None:
        if not await self._server.refuses(wire.probe_body(model.name)):
            raise ConfigError(
                "the vLLM server chooses tokens by its own rule: start it with --logits-processors"
                " trunkline.engine.vllm_processor:KeyedNoise",
                code=NOT_KEYED,
            )

    async def generate(self, job: Generate) -> AsyncGenerator[Token, None]:
        """As ``ports.Engine.generate``, but that other work in the server may move a token."""
        with self._server.calls.admitted():
            model = await self.model()
            check(job, model)
            _check_grammar(job.sampling)
            if set(job.prefix) & set(model.eos_token_ids):
                raise RequestError(
                    "the answer so far can not be continued: it holds an end-of-turn token",
                    code="prefix_invalid",
                    param="prefix",
                )
            for token in await self._replayed(job, model):
                yield token
            chosen = self._chosen(job, model)
            try:
                async for token in chosen:
                    yield token
            except (ConnectError, TruncatedError):
                # It ended: what is started in its place may be another version.
                self._model = None
                raise
            finally:
                await chosen.aclose()

    async def _chosen(self, job: Generate, model: ModelInfo) -> AsyncGenerator[Token, None]:
        """The new tokens, until one ends the answer."""
        position = len(job.prefix)
        ends = model.eos_token_ids
        pieces = self._server.stream(wire.generate_body(model.name, job, ends))
        try:
            async for piece in pieces:
                if piece.prompt_token_ids not in (None, [*job.prompt, *job.prefix]):
                    raise BadResponseError(
                        "the vLLM server answered another prompt", code=wire.NOT_AN_ANSWER
                    )
                for at, token in enumerate(piece.token_ids or ()):
                    wire.known(token, model.vocabulary_size)
                    last = position + 1 >= job.max_tokens
                    finish = "stop" if token in ends else "length" if last else ""
                    own, top = wire.beside(
                        piece, at, job.sampling.top_logprobs, vocabulary=model.vocabulary_size
                    )
                    yield Token(token=token, position=position, logprob=own, top=top, finish=finish)
                    position += 1
                    if finish:
                        return
        finally:
            await pieces.aclose()
        raise TruncatedError("the vLLM server's stream ended before its answer")

    async def _replayed(self, job: Generate, model: ModelInfo) -> list[Token]:
        """The prefix, where its log-probabilities are asked for."""
        count = job.sampling.top_logprobs
        if count < 0 or not job.prefix:
            return []
        tokens = [*job.prompt, *job.prefix]
        asked = max(count, 1)
        body = await self._server.whole(
            "/v1/completions", wire.score_body(model.name, tokens, asked)
        )
        found = wire.scored(
            body, tokens, len(job.prompt), candidates=asked, vocabulary=model.vocabulary_size
        )
        return [
            Token(
                token=token,
                position=at,
                replayed=True,
                logprob=one.claimed,
                top=wire.ranked(
                    list(zip(one.tokens.tolist(), one.logprobs.tolist(), strict=True)), count
                ),
            )
            for at, (token, one) in enumerate(zip(job.prefix, found, strict=True))
        ]


class VllmScorer(_Vllm):
    """``ports.Scorer`` over a vLLM server, with or without our logits processor."""

    async def _check_server(self, model: ModelInfo) -> None:
        wanted = self._candidates(model, 2)
        try:
            body = await self._server.whole(
                "/v1/completions", wire.score_body(model.name, [0, 0], wanted)
            )
        except RejectedError:
            raise ConfigError(
                f"the vLLM server does not say {wanted} candidates a position: start it with"
                f" --max-logprobs {wanted}, or set candidates to what it has",
                code=OTHER_MODEL,
            ) from None
        size = model.vocabulary_size
        (found,) = wire.scored(body, [0, 0], 1, candidates=wanted, vocabulary=size)
        try:
            check_leading(found, 0)
        except ValueError:
            raise ConfigError(
                "the vLLM server says no log-probabilities: start it with --logprobs-mode"
                " raw_logprobs",
                code=OTHER_MODEL,
            ) from None

    def _candidates(self, model: ModelInfo, tokens: int) -> int:
        """How many to ask for at each of so many positions, so that the answer stays in bounds."""
        affordable = ANSWER_BYTES_MAX // (VALUE_BYTES * tokens)
        return max(1, min(self._server.config.candidates, model.vocabulary_size, affordable))

    async def score(self, job: Score) -> tuple[TokenScore, ...]:
        """As ``ports.Scorer.score``. What the candidates leave open is not ``decided``."""
        with self._server.calls.admitted():
            model = await self.model()
            check_score(job, model)
            _check_grammar(job.sampling)
            if not job.tokens:
                return ()
            tokens = [*job.prompt, *job.tokens]
            if self._server.room is not None and len(tokens) >= self._server.room:
                # It makes one token more than it is given, or does nothing.
                raise RequestError(
                    f"{len(tokens)} tokens are scored with a --max-model-len of one more",
                    code="context_length_exceeded",
                    param="messages",
                )
            asked = self._candidates(model, len(tokens))
            body = await self._server.whole(
                "/v1/completions", wire.score_body(model.name, tokens, asked)
            )
            # Seconds of work for a long answer: others go on meanwhile.
            return await asyncio.to_thread(_scores, job, model, body, asked)

    async def self_test(self) -> str:
        """None: raises ``UpstreamError`` (``engine_not_exact``)."""
        raise UpstreamError(
            "a vLLM server's logits depend on what else it computes: it is not exact",
            code="engine_not_exact",
            retryable=False,
        )


def _scores(job: Score, model: ModelInfo, body: bytes, asked: int) -> tuple[TokenScore, ...]:
    """The scores of an answer, from what the server said of it."""
    tokens = [*job.prompt, *job.tokens]
    found = wire.scored(
        body, tokens, len(job.prompt), candidates=asked, vocabulary=model.vocabulary_size
    )
    counts: Counter[int] = Counter()
    scores: list[TokenScore] = []
    for at, (token, leading) in enumerate(zip(job.tokens, found, strict=True)):
        with may_have_none(at):
            one = score_leading(
                leading,
                job.sampling,
                seed=job.sampling.seed,
                position=at,
                counts=counts,
                token=token,
                ends=model.eos_token_ids,
            )
        counts[token] += 1
        scores.append(token_score(token, at, one, kept=one.kept))
    return tuple(scores)


def _check_grammar(sampling: Sampling) -> None:
    if sampling.grammar:
        raise RequestError(
            "answers in a grammar are not for this engine",
            code="grammar_unsupported",
            param="response_format",
        )
