"""Chat by the embedded engine: prompt, plan, tokens in lock-step, events.

Everything about text is decided in ``core``; here are only the waits for the engine.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from trunkline.base.errors import BadResponseError, RequestError, TruncatedError, UpstreamError
from trunkline.inference.answer import Answer, AnswerHead, Event, Given, as_sent, token_logprob
from trunkline.inference.messages import prompt_messages
from trunkline.inference.plan import (
    ChatPlan,
    Limits,
    caller_seed,
    check_supported,
    plan_chat,
)
from trunkline.inference.ports import Engine, ModelInfo, Sharing, Token
from trunkline.inference.template import ChatTemplate, Segment
from trunkline.node.core import account
from trunkline.node.core.content import Made
from trunkline.node.core.prefix import cannot_continue
from trunkline.node.core.seed import Seed, caller_given, from_nonces, inherited
from trunkline.node.core.statement import Identity, Outcome
from trunkline.node.nonces import NonceSource
from trunkline.node.plants import PlantDesk
from trunkline.node.work import Output, patiently
from trunkline.receipts import (
    ReceiptModel,
    ReceiptSampling,
    ShownDigest,
    prompt_digest,
    tokens_digest,
)
from trunkline.schema import openai_chat
from trunkline.schema.attempt import Accepted, Attempt, ServedModel
from trunkline.schema.audit import OpenedLogprob
from trunkline.schema.openai_answer import TokenLogprob

PROVIDER: Final = "embedded"
CACHED_SEGMENTS_MAX: Final = 256


class EmbeddedChat:
    """Serves ``chat`` attempts for the engine's model."""

    def __init__(
        self,
        engine: Engine,
        identity: Identity,
        *,
        choices_max: int,
        nonces: NonceSource,
        plants: PlantDesk | None = None,
    ) -> None:
        """``choices_max``: sequences that the engine runs at once."""
        self._engine = engine
        self._identity = identity
        self._choices_max = choices_max
        self._nonces = nonces
        self._plants = plants
        self._model: ModelInfo | None = None
        self._template: ChatTemplate | None = None
        self._longest_piece = 1
        self._segments: dict[str, tuple[int, ...]] = {}

    @property
    def ready(self) -> bool:
        """The model has been loaded."""
        return self._model is not None

    async def load(self) -> ModelInfo:
        """Wait for the model. Raises the engine's errors, and ConfigError for a bad template."""
        model = await self._engine.model()
        if model != self._model:
            self._template = ChatTemplate(
                model.chat_template, bos_text=model.bos_text, eos_text=model.eos_text
            )
            self._longest_piece = max(map(len, self._engine.pieces()), default=1) or 1
            self._segments.clear()
            self._model = model
        return model

    def models(self) -> tuple[ServedModel, ...]:
        model = self._model
        if model is None:
            return ()
        return (
            ServedModel(
                name=model.name,
                kind="chat",
                provider=PROVIDER,
                weights=model.weights_digest,
                numerics=model.numerics,
                context_tokens=model.context_tokens,
            ),
        )

    def serves(self, attempt: Attempt) -> bool:
        # Not loaded yet: the model's name is not known, so nothing can be ruled out.
        known = self._model is None or attempt.model == self._model.name
        return attempt.kind == "chat" and known

    async def prepare(self, attempt: Attempt) -> "ChatWork":
        if self._model is None:
            raise UpstreamError(
                "the model is still being loaded", code="engine_starting", retry_after_s=1.0
            )
        if attempt.prefix is not None:
            raise cannot_continue("this model is continued by its tokens")
        request = openai_chat.parse(bytes(attempt.request))
        check_supported(request)
        messages = prompt_messages(request)
        model = await self.load()
        template = self._template
        if template is None or attempt.model != model.name:
            raise RequestError("the model is not served here", code="model_not_found", status=404)
        segments = template.render(messages, created_s=attempt.created_s)
        prompt = await self._tokenize(segments, model)
        plan = plan_chat(
            request,
            prompt,
            Limits(
                context_tokens=model.context_tokens,
                vocabulary_size=model.vocabulary_size,
                choices_max=self._choices_max,
                end_tokens=model.eos_token_ids,
                temperature=model.temperature,
                top_p=model.top_p,
            ),
        )
        plan = msgspec.structs.replace(plan, sharing=await self._sharing(attempt, segments))
        given = None if attempt.resume is None else _given(attempt, plan, model)
        seed = await self._seed(attempt, caller_seed(request))
        work = ChatWork(
            engine=self._engine,
            identity=self._identity,
            attempt=attempt,
            requested=request.model,
            model=model,
            plan=plan,
            seed=seed,
            computed=self._computed(attempt, seed, plan),
            given=given,
        )
        work.rehearse()
        return work

    def _computed(self, attempt: Attempt, seed: Seed, plan: ChatPlan) -> bytes:
        if self._plants is None:
            return seed.value
        return self._plants.seed(attempt, seed.value, temperature=plan.sampling.temperature)

    async def _tokenize(self, segments: tuple[Segment, ...], model: ModelInfo) -> tuple[int, ...]:
        """Template and text apart: control tokens come from the template alone."""
        size = sum(len(segment.text.encode("utf-8", "replace")) for segment in segments)
        if size > model.context_tokens * self._longest_piece:
            # More tokens than the context whatever they are: not worth counting.
            raise RequestError(
                f"the prompt is longer than the model's context of {model.context_tokens} tokens",
                code="context_length_exceeded",
                param="messages",
            )
        tokens: list[int] = []
        for segment in segments:
            if segment.control:
                tokens += await self._tokenize_control(segment.text)
            else:
                tokens += await self._engine.tokenize(segment.text, parse_special=False)
        return tuple(tokens)

    async def _tokenize_control(self, text: str) -> tuple[int, ...]:
        known = self._segments.get(text)
        if known is None:
            known = await self._engine.tokenize(text, parse_special=True)
            if len(self._segments) < CACHED_SEGMENTS_MAX:
                self._segments[text] = known
        return known

    async def _sharing(self, attempt: Attempt, segments: tuple[Segment, ...]) -> Sharing:
        """What the template begins with is the same for everybody who sends nothing before it."""
        lead: tuple[int, ...] = ()
        if segments and segments[0].control:
            lead = await self._tokenize_control(segments[0].text)
        scope = "" if attempt.mode == "private" else attempt.share
        return Sharing(lead=len(lead), scope=scope)

    async def _seed(self, attempt: Attempt, asked: bytes | None) -> Seed:
        if attempt.seed is not None:
            return inherited(attempt, asked)
        if asked is not None:
            return caller_given(asked)
        return from_nonces(attempt, await self._nonces.take())


def _given(attempt: Attempt, plan: ChatPlan, model: ModelInfo) -> Given:
    if attempt.numerics != model.numerics:
        raise RequestError(
            "resume: this node computes with other numerics",
            code="cannot_resume",
            param="numerics",
            status=409,
        )
    tokens = () if attempt.resume is None else attempt.resume.tokens
    return Given(tokens, choices=plan.choices, vocabulary=model.vocabulary_size)


class ChatWork:
    """One chat attempt."""

    def __init__(
        self,
        *,
        engine: Engine,
        identity: Identity,
        attempt: Attempt,
        requested: str,
        model: ModelInfo,
        plan: ChatPlan,
        seed: Seed,
        computed: bytes,
        given: Given | None,
    ) -> None:
        """``computed``: what the tokens come from, which is the seed's value of every answer but a
        plant's."""
        self._engine = engine
        self._attempt = attempt
        self._requested = requested
        self._model = model
        self._plan = plan
        self._seed = seed
        self._computed = computed
        self._given = given
        self._pieces = engine.pieces()
        self._given_ends: tuple[bool, ...] = ()
        self._lanes: list[_Lane] = []
        self._sent: list[list[OpenedLogprob]] = [[] for _ in range(plan.choices)]
        """Of each choice's tokens, their log-probabilities, if they are asked for."""
        self.accepted = Accepted(
            attempt=attempt.attempt,
            node=identity.node,
            operator=identity.operator,
            key=identity.key,
            model=model.name,
            weights=model.weights_digest,
            numerics=model.numerics,
            seed=seed.value.hex(),
            node_nonce=seed.node_nonce or None,
            nonces=seed.nonces or None,
            nonce_index=seed.nonce_index,
        )

    @property
    def places(self) -> int:
        return self._plan.choices

    def rehearse(self) -> None:
        """Replay the given tokens for nobody, so that what can not be replayed is refused early.

        Raises :class:`RequestError` ``invalid_resume``.
        """
        if self._given is None:
            return
        trial = self._answer()
        copy = Given(
            self._given.tokens, choices=self._plan.choices, vocabulary=self._model.vocabulary_size
        )
        while copy:
            trial.push(copy.take(trial.next_choice))
        self._given_ends = tuple(bool(reason) for reason in trial.finish)

    async def begin(self) -> None:
        """Refuse where another engine has taken the place of the one that was asked while this
        waited for its turn: what is to be signed names what that one computes with.

        Raises :class:`UpstreamError` ``engine_replaced``.
        """
        if (await self._engine.model()).numerics != self._model.numerics:
            raise UpstreamError("the engine was replaced meanwhile", code="engine_replaced")

    async def run(self, output: Output) -> Outcome:
        answer = self._answer()
        opening = answer.opening()
        try:
            if self._given:
                await self._replay(answer, opening, self._given, output)
            else:
                await _send(output, opening)
            await self._generate(answer, output)
        finally:
            await self.close()
        await _send(output, answer.closing())
        return self._outcome(answer)

    async def close(self) -> None:
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            await lane.aclose()

    def _answer(self) -> Answer:
        return Answer(
            AnswerHead(
                answer=self._attempt.answer,
                created_s=self._attempt.created_s,
                model=self._model.name,
                fingerprint=AnswerHead.fingerprint_of(self._model.numerics),
            ),
            choices=self._plan.choices,
            pipe=self._plan.pipe,
            pieces=self._pieces,
            prompt_tokens=len(self._plan.prompt),
            stream=self._plan.stream,
            include_usage=self._plan.include_usage,
        )

    async def _replay(
        self, answer: Answer, opening: list[Event], given: Given, output: Output
    ) -> None:
        """Push the tokens that the app has the events of; say what these show, and send what
        follows the last of them."""
        shown = ShownDigest()
        since = opening
        if self._plan.logprobs:
            self._start(answer, self._given_ends)
        while given:
            choice = answer.next_choice
            token = given.take(choice)
            scored = None
            if self._plan.logprobs and choice is not None:
                produced = await patiently(self._lanes[choice].next(), output.alive)
                if produced.token != token:
                    raise _cannot_resume("they are not what this model would have produced")
                scored = self._scored(choice, produced)
            own, *after = answer.push(token, scored)
            for event in (*since, own):
                shown.update(event.data)
            since = after
        if self._plan.stream:
            await output.replayed(shown.digest())
        await _send(output, since)

    async def _generate(self, answer: Answer, output: Output) -> None:
        if answer.next_choice is not None and not self._lanes:
            self._start(answer, (False,) * self._plan.choices)
        while (choice := answer.next_choice) is not None:
            lane = self._lanes[choice]
            # Reading a long prompt takes its time; after that a silence means trouble.
            produced = await (lane.next() if lane.began else patiently(lane.next(), output.alive))
            await _send(output, answer.push(produced.token, self._scored(choice, produced)))

    def _start(self, answer: Answer, complete: tuple[bool, ...]) -> None:
        """Start the engine's jobs, one a choice that is not finished. ``complete``: the choices
        that the given tokens complete, of which only the scores are wanted."""
        given = self._given.tokens if self._given is not None else ((),) * self._plan.choices
        for choice, tokens in enumerate(given):
            # The engine continues no complete answer: it is asked for the last token once more.
            prefix = tokens[:-1] if complete[choice] else tokens
            finished = bool(answer.finish[choice])
            job = None if finished else self._plan.job(choice, self._computed, prefix)
            generator = None if job is None else self._engine.generate(job)
            self._lanes.append(_Lane(generator, eager=self._plan.choices > 1))

    def _scored(self, choice: int, produced: Token) -> TokenLogprob | None:
        if not self._plan.logprobs:
            return None
        sent = as_sent(produced.logprob, produced.top)
        self._sent[choice].append(sent)
        return token_logprob(self._pieces, produced.token, sent.logprob, sent.top)

    def _outcome(self, answer: Answer) -> Outcome:
        return Outcome(
            model=ReceiptModel(
                numerics=self._model.numerics,
                provider=PROVIDER,
                requested=self._requested,
                served=self._model.name,
                weights=self._model.weights_digest,
            ),
            sampling=ReceiptSampling(
                caller_nonce=self._attempt.caller_nonce,
                min_p=repr(self._plan.sampling.min_p),
                node_nonce=self._seed.node_nonce,
                nonce_index=self._seed.nonce_index,
                nonces=self._seed.nonces,
                seed=self._seed.value.hex(),
                source=self._seed.source,
                temperature=repr(self._plan.sampling.temperature),
                top_k=self._plan.sampling.top_k,
                top_p=repr(self._plan.sampling.top_p),
            ),
            usage=account.counted(answer.usage),
            finish=answer.finish,
            prompt=prompt_digest(self._plan.prompt),
            tokens=tokens_digest(answer.tokens),
            resumed=() if self._given is None else self._given.tokens,
            made=Made(
                prompt=self._plan.prompt,
                tokens=answer.tokens,
                logprobs=tuple(map(tuple, self._sent)) if self._plan.logprobs else (),
            ),
        )


class _Lane:
    """The engine's tokens for one choice. Eager: the next is fetched before it is asked for, so
    that the choices of one answer advance together."""

    __slots__ = ("_ahead", "_eager", "_ended", "_generator", "began")

    def __init__(self, generator: AsyncGenerator[Token, None] | None, *, eager: bool) -> None:
        self._generator = generator
        self._eager = eager
        self._ended = generator is None
        self._ahead: asyncio.Task[Token] | None = None
        self.began = False
        """A token has come."""
        if eager:
            self._fetch()

    async def next(self) -> Token:
        """The next token. Raises what the engine raises, TruncatedError where it just ends."""
        if self._ahead is None:
            if self._ended:
                raise _inconsistent()
            return self._note(await self._take())
        token = self._note(await self._ahead)
        self._ahead = None
        self._fetch()
        return token

    def _note(self, token: Token) -> Token:
        self.began = True
        self._ended = self._ended or bool(token.finish)
        return token

    def _fetch(self) -> None:
        if not self._ended:
            self._ahead = asyncio.create_task(self._take(), name="node.lane")

    async def _take(self) -> Token:
        if self._generator is None:
            raise _inconsistent()
        try:
            return await anext(self._generator)
        except StopAsyncIteration:
            raise TruncatedError(
                "the engine stopped before the answer's end", code="engine_truncated"
            ) from None
        except RequestError as error:
            if error.error_code == "prefix_invalid":
                raise _cannot_resume("the engine does not continue them") from None
            raise

    async def aclose(self) -> None:
        """Cancel the engine's work."""
        try:
            if self._ahead is not None:
                self._ahead.cancel()
                # Not awaited itself: its cancellation must not be taken for one of this task.
                await asyncio.wait((self._ahead,))
                if not self._ahead.cancelled():
                    # Whatever it had to say, nobody wants to know any more.
                    self._ahead.exception()
        finally:
            if self._generator is not None:
                await self._generator.aclose()


async def _send(output: Output, events: list[Event]) -> None:
    for event in events:
        await output.event(event)


def _cannot_resume(why: str) -> RequestError:
    return RequestError(f"resume: {why}", code="cannot_resume", param="resume", status=409)


def _inconsistent() -> BadResponseError:
    return BadResponseError(
        "the engine and the text pipeline disagree about the answer's end",
        code="engine_inconsistent",
    )
