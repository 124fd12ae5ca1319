"""Fronts any upstream that speaks the OpenAI format: one account, relayed and signed for.

The request's bytes go on as they came, but for ``model`` where the configuration gives the
upstream's own name for it; parameters are the upstream's to honour or refuse. The answer comes back
as it was written, once it was seen to be one (``core/upstream.py``). Usage is the upstream's word.
There is no seed and there are no numerics: an answer can not be continued elsewhere by its tokens,
but by its text where the configuration says how this upstream is asked to (``core/prefix.py``).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final, Protocol
from urllib.parse import urlsplit

import msgspec

from trunkline.base.errors import RequestError, UpstreamError
from trunkline.inference.answer import AnswerHead, Event
from trunkline.node.core import account, upstream
from trunkline.node.core.calls import CallNumbers
from trunkline.node.core.heads import COMPLETION, VECTORS, Heads, filled
from trunkline.node.core.joint import Joint
from trunkline.node.core.keyring import KeyState
from trunkline.node.core.prefix import Prefixes, cannot_continue, going_on
from trunkline.node.core.presets import NOTHING_KNOWN, Preset
from trunkline.node.core.statement import Identity, Outcome
from trunkline.node.core.upstream import Said, StreamCheck
from trunkline.node.core.usage import Told, UsageAsked, UsageFilter
from trunkline.node.core.vectors import check_embeddings, inputs
from trunkline.node.translated import Answer, Caller
from trunkline.node.work import Output, patiently
from trunkline.receipts import ReceiptModel, ReceiptSampling, prefix_digest
from trunkline.remote.status import RejectedError
from trunkline.remote.transport import BAD_HTTP, CLOSED, STALLED, TRUNCATED
from trunkline.schema.attempt import Accepted, Attempt, Kind, Limits, ServedModel
from trunkline.schema.parsing import decode, top_level
from trunkline.schema.sse import SseEvent

UPSTREAM_MODELS_MAX: Final = 1024
ENDING_S: Final = 1.0
"""For what follows an answer's end on its connection: usage, ``[DONE]``, the body's end. Shorter
than any gateway's patience between two events."""
ENDING_EVENTS_MAX: Final = 64
_ENDINGS: Final = frozenset({BAD_HTTP, CLOSED, STALLED, TRUNCATED})


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The few fields that decide how the upstream is called; the rest is its own business."""

    model: str
    stream: bool | None = None
    n: int | None = None


class _Listed(msgspec.Struct, frozen=True):
    id: str


class _ModelList(msgspec.Struct, frozen=True):
    data: tuple[_Listed, ...] = ()


_ASKED: Final = msgspec.json.Decoder(_Asked)
_MODELS: Final = msgspec.json.Decoder(_ModelList)


class ProviderModels(msgspec.Struct, frozen=True, kw_only=True):
    """Which models are served, and what the upstream calls them."""

    chat: tuple[str, ...] | None
    """None: whatever the upstream has."""
    embeddings: tuple[str, ...] = ()
    upstream_names: Mapping[str, str] = {}
    served_names: Mapping[str, str] = {}
    """What its answers call a model, where that is yet another name; ``*``: anything."""
    preset: Preset = NOTHING_KNOWN
    """What is known of the upstream's differences."""
    prefixes: Prefixes = Prefixes()
    """How its models go on after a given text."""
    ask_usage: bool = True
    """It takes ``stream_options.include_usage``."""
    limits: Limits | None = None
    """What the operator states of the account."""

    def right(self, model: str) -> tuple[str, ...]:
        """Every name by which an answer may call the model."""
        names = (self.upstream_names.get(model), self.served_names.get(model))
        return (model, *(name for name in names if name is not None))


class Provider:
    """Serves attempts by one provider account."""

    def __init__(
        self,
        caller: Caller,
        base_url: str,
        models: ProviderModels,
        identity: Identity,
        *,
        keys: Callable[[], tuple[KeyState, ...]] | None = None,
    ) -> None:
        """``keys``: asked for the state of each, where the account has several."""
        self._caller = caller
        self._host = urlsplit(base_url).hostname or "unknown"
        self._models = models
        self._identity = identity
        self._listed: tuple[str, ...] = ()
        self._keys = keys

    async def refresh(self) -> None:
        """Ask the upstream what it has, where the configuration does not say. For ``/v1/info``."""
        if self._models.chat is None:
            body = await self._caller.models()
            try:
                listed = _MODELS.decode(body).data
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return
            names = (model.id for model in listed[:UPSTREAM_MODELS_MAX])
            self._listed = tuple(name for name in names if name not in self._models.embeddings)

    def keys(self) -> tuple[KeyState, ...]:
        """The account's keys, where it has several."""
        return () if self._keys is None else self._keys()

    def models(self) -> tuple[ServedModel, ...]:
        chat = self._listed if self._models.chat is None else self._models.chat
        kinds: tuple[tuple[Kind, tuple[str, ...]], ...] = (
            ("chat", chat),
            ("embeddings", self._models.embeddings),
        )
        return tuple(
            ServedModel(
                name=name,
                kind=kind,
                provider=self._host,
                limits=self._models.limits,
                prefix=kind == "chat" and self._models.prefixes.of(name) is not None,
            )
            for kind, names in kinds
            for name in names
        )

    def serves(self, attempt: Attempt) -> bool:
        if attempt.kind == "embeddings":
            return attempt.model in self._models.embeddings
        return self._models.chat is None or attempt.model in self._models.chat

    async def prepare(self, attempt: Attempt) -> "ProviderWork":
        if attempt.resume is not None:
            raise RequestError(
                "resume: a provider's model can not be continued token by token",
                code="cannot_resume",
                param="resume",
                status=409,
            )
        raw = bytes(attempt.request)
        top_level(raw)
        asked = decode(raw, _ASKED, unknown_code="invalid_value")
        if asked.n is not None and not 1 <= asked.n <= upstream.CHOICES_MAX:
            raise RequestError(
                f"n: must be between 1 and {upstream.CHOICES_MAX}", code="invalid_value", param="n"
            )
        wanted = self._models.upstream_names.get(attempt.model, attempt.model)
        body = self._models.preset.request(raw) if attempt.kind == "chat" else raw
        body = body if wanted == asked.model else upstream.with_model(body, wanted)
        names = self._models.right(attempt.model)
        dialect = self._models.prefixes.of(attempt.model)
        usage = UsageAsked()
        if attempt.kind == "chat" and asked.stream:
            running = dialect is not None and dialect.running_usage
            usage = UsageAsked.of(raw, ask=self._models.ask_usage, running=running)
            body = usage.request(body)
        teller: Teller = UsageFilter(usage)
        if attempt.prefix is not None:
            if dialect is None:
                raise cannot_continue("this model is not asked to go on after a text")
            body = going_on(body, attempt.prefix, dialect)
            teller = Joint(attempt.prefix, dialect, usage, names)
        return ProviderWork(
            caller=self._caller,
            host=self._host,
            identity=self._identity,
            attempt=attempt,
            asked=asked,
            body=body,
            names=names,
            teller=teller,
            usage=usage,
            preset=self._models.preset,
        )


class Teller(Protocol):
    """What the app is told of each chunk."""

    def tell(self, line: bytes) -> Told | None: ...


class ProviderWork:
    """One attempt at the upstream."""

    places = 1

    def __init__(
        self,
        *,
        caller: Caller,
        host: str,
        identity: Identity,
        attempt: Attempt,
        asked: _Asked,
        body: bytes,
        names: tuple[str, ...],
        teller: Teller,
        usage: UsageAsked,
        preset: Preset,
    ) -> None:
        self._caller = caller
        self._teller = teller
        self._usage = usage
        self._preset = preset
        self._names = names
        self._host = host
        self._attempt = attempt
        self._asked = asked
        self._body = body
        self._answer: Answer | None = None
        self.accepted = Accepted(
            attempt=attempt.attempt,
            node=identity.node,
            operator=identity.operator,
            key=identity.key,
            model=attempt.model,
            prefix=None if attempt.prefix is None else prefix_digest(attempt.prefix.text),
        )

    async def begin(self) -> None:
        """For a stream, wait for the upstream's yes, so that its no is an HTTP status here too."""
        if self._attempt.kind == "chat" and self._asked.stream:
            self._answer = await self._call(stream=True)

    async def run(self, output: Output) -> Outcome:
        answer = self._answer
        if answer is None:
            answer = self._answer = await patiently(self._call(stream=False), output.alive)
        if answer.limits is not None:
            await output.limits(answer.limits)
        if self._attempt.kind == "chat" and self._asked.stream:
            said = await self._stream(answer, output)
        else:
            said = await self._whole(answer, output)
        return self._outcome(said)

    async def close(self) -> None:
        """Cut the connection of an answer that is not complete: the upstream's work ends too."""
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.aclose()

    async def _call(self, *, stream: bool) -> Answer:
        key = self._attempt.attempt
        try:
            if self._attempt.kind == "embeddings":
                return await self._caller.embeddings(self._body, idempotency_key=key)
            return await self._caller.chat(self._body, stream, idempotency_key=key)
        except RejectedError as error:
            raise _rejected(error) from None

    async def _stream(self, answer: Answer, output: Output) -> Said:
        prefix = self._attempt.prefix
        check = StreamCheck(
            self._asked.n or 1,
            self._names,
            goes_on=prefix is not None,
            running=self._usage.added_running or self._usage.app_running,
            known=self._translated,
        )
        # What goes on with another's answer is called as that was (``Joint``).
        heads = None if prefix is not None else Heads(*self._otherwise)
        number = 0 if prefix is None else prefix.events
        calls = CallNumbers(self._attempt.attempt.removeprefix("att_"))
        async for event in _to_its_end(answer.events(), check):
            lines = check.feed(calls.tidy(self._preset.answer(event.data or b"")))
            for line in lines if heads is None else heads.fit(lines):
                told = self._teller.tell(line)
                if told is not None:
                    await output.event(Event(id=number, data=told.data, used=told.used))
                    number += 1
        said = check.end()
        closing = check.closing() if self._usage.kept_back else None
        lines = [] if closing is None else [closing]
        for line in lines if heads is None else heads.fit(lines):
            told = self._teller.tell(line)
            if told is not None:
                await output.event(Event(id=number, data=told.data, used=told.used))
        return said

    async def _whole(self, answer: Answer, output: Output) -> Said:
        try:
            body = await patiently(answer.whole(), output.alive)
        except RejectedError as error:
            raise _rejected(error) from None
        if self._attempt.kind == "embeddings":
            said = check_embeddings(body, inputs(self._body), self._names)
            body = filled(body, VECTORS, model=self._attempt.model)
        else:
            body = upstream.readable(self._preset.answer(body))
            said = upstream.check_completion(
                body, self._asked.n or 1, self._names, known=self._translated
            )
            name, created_s, model = self._otherwise
            body = filled(body, COMPLETION, id=name, created=created_s, model=model)
        await output.event(Event(id=0, data=upstream.one_line(body)))
        return said

    @property
    def _translated(self) -> bool:
        """The gateway tells the app the answer in another format."""
        return self._attempt.client_format != "openai.chat"

    @property
    def _otherwise(self) -> tuple[str, int, str]:
        """``id``, ``created`` and ``model`` of an answer that does not say them."""
        asked = self._attempt
        head = AnswerHead(
            answer=asked.answer, created_s=asked.created_s, model=asked.model, fingerprint=""
        )
        return head.completion_id, head.created_s, head.model

    def _outcome(self, said: Said) -> Outcome:
        return Outcome(
            model=ReceiptModel(
                fingerprint=said.fingerprint,
                provider=self._host,
                requested=self._asked.model,
                # What it calls itself; silence is recorded as silence, not as our guess.
                served=said.model,
            ),
            sampling=ReceiptSampling(caller_nonce=self._attempt.caller_nonce, source="none"),
            usage=account.reported(said.usage),
            finish=said.finish,
        )


async def _to_its_end(
    events: AsyncIterator[SseEvent], check: StreamCheck
) -> AsyncIterator[SseEvent]:
    """The events as long as the answer that ``check`` follows is not over, and then what comes
    without ado (usage, ``[DONE]``): how the connection ends is no part of the answer any more."""
    async for event in events:
        yield event
        if check.over:
            break
    if not check.over:
        return
    rest: list[SseEvent] = []
    try:
        async with asyncio.timeout(ENDING_S):
            async for event in events:
                rest.append(event)
                if len(rest) == ENDING_EVENTS_MAX:
                    break
    except TimeoutError:
        pass
    except UpstreamError as error:
        if error.error_code not in _ENDINGS:
            raise
    for event in rest:
        yield event


def _rejected(error: RejectedError) -> RequestError:
    """The upstream found fault with the request: said as such, by its own code, not its words."""
    return RequestError(
        "the provider refused the request",
        code=error.upstream_code or error.error_code,
        param=error.param,
    )
