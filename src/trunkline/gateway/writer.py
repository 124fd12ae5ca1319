"""Answers in the client's own format: the head, the text as it comes, the end, or the failure.

One class per way of answering. A failure before the head is an HTTP error; after it, the format's
own error event, and never anything that looks like a finish.
"""

import asyncio
import copy
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from trunkline.gateway.core.actions import Chain, Failure
from trunkline.gateway.core.replay import Kept
from trunkline.runtime.http import JSON_TYPE, SSE_TYPE, HeaderItems
from trunkline.schema import errors
from trunkline.schema.attempt import ClientFormat
from trunkline.schema.errors import Described
from trunkline.schema.grid import (
    anthropic_openai,
    anthropic_openai_params,
    openai_openai,
    responses_openai,
    responses_openai_params,
)
from trunkline.schema.openai_responses_answer import Echo

ALIVE = b": held for a verdict\n\n"
"""A comment, which readers of event streams skip."""

Headers = list[tuple[str, str]]
Head = Callable[[], Headers]
"""The answer's own headers, asked for when the head is sent."""


class Sink(Protocol):
    """Where an answer's bytes go: a call, or what several calls follow."""

    @property
    def started(self) -> bool:
        """Status and headers have been sent."""
        ...

    @property
    def stopping(self) -> asyncio.Event:
        """Set when the time for running answers is over."""
        ...

    def while_connected(self) -> AbstractAsyncContextManager[None]:
        """Inside, work is cancelled with ``ClientGoneError`` once nobody is there any more."""
        ...

    async def start(self, status: int, headers: HeaderItems = ()) -> None: ...

    async def send(self, data: bytes) -> None: ...

    async def finish(self, data: bytes = b"") -> None: ...

    async def reply(
        self,
        status: int,
        body: bytes,
        content_type: str = JSON_TYPE,
        headers: HeaderItems = (),
    ) -> None: ...


class Source(Protocol):
    """Knows whose text is being relayed."""

    @property
    def chain(self) -> Chain | None: ...


class Writer(Protocol):
    """Where the answer's state machine's actions become bytes to the app."""

    async def seal(self, rest: list[bytes]) -> Kept | None:
        """The evidence is about to be stored, and ``rest`` is what will be relayed after it.
        Returns what is to be stored of the answer itself; None: nothing."""
        ...

    async def relay(self, data: list[bytes]) -> None:
        """Give the app these events' data. Raises MalformedError for what can not be said."""
        ...

    async def alive(self) -> None:
        """A sign of life, where the format has one, while nothing may be shown yet."""
        ...

    async def finish(self) -> None:
        """End a whole answer."""
        ...

    async def fail(self, failure: Failure) -> None:
        """End it explicitly without one."""
        ...


Translator = (
    anthropic_openai.StreamTranslator
    | openai_openai.StreamTranslator
    | responses_openai.StreamTranslator
)


def stream_translator(format_: ClientFormat, answer: str, echo: Echo | None) -> Translator:
    """What turns a node's chunks into the client's events. ``echo``: as in :class:`Asked`."""
    if format_ == "anthropic.messages":
        return anthropic_openai.StreamTranslator(message_id=message_id(answer))
    if format_ == "openai.responses":
        return responses_openai.StreamTranslator(
            response_id=response_id(answer), told=echo or Echo()
        )
    return openai_openai.StreamTranslator()


def whole_answer(body: bytes, format_: ClientFormat, answer: str, echo: Echo | None) -> bytes:
    """A node's whole answer, for the client. Raises MalformedError for what can not be said."""
    if format_ == "anthropic.messages":
        return anthropic_openai.translate_answer(body, message_id=message_id(answer))
    if format_ == "openai.responses":
        return responses_openai.translate_answer(
            body, response_id=response_id(answer), told=echo or Echo()
        )
    return body


class StreamWriter:
    """A stream of events."""

    def __init__(
        self,
        call: Sink,
        format_: ClientFormat,
        answer: str,
        head: Head,
        echo: Echo | None = None,
        source: Source | None = None,
    ) -> None:
        """``source``: where the text comes from, if the stream is to say so."""
        self._call = call
        self._format = format_
        self._answer = answer
        self._head = head
        self._translator = stream_translator(format_, answer, echo)
        self._source = source
        self._told: Chain | None = None

    def copy(self) -> Self:
        """One that goes on from here by itself, to the same sink."""
        twin = copy.copy(self)
        twin._translator = copy.deepcopy(self._translator)
        return twin

    async def seal(self, rest: list[bytes]) -> None:
        return None

    async def relay(self, data: list[bytes]) -> None:
        feed = self._translator.feed
        out = b"".join([feed(part) for part in data]) if len(data) > 1 else feed(data[0])
        await self._start()
        if out:
            await self._call.send(self._begun() + out)

    def _begun(self) -> bytes:
        """A field of the next event, which readers of event streams ignore: another attempt's
        chain begins with it."""
        chain = None if self._source is None else self._source.chain
        if chain is None or chain is self._told:
            return b""
        self._told = chain
        return f"chain: {chain.attempt} {chain.request} {chain.repeats}\n".encode()

    async def alive(self) -> None:
        await self._start()
        await self._call.send(ALIVE)

    async def _start(self) -> None:
        if not self._call.started:
            headers = [("content-type", SSE_TYPE), ("cache-control", "no-cache"), *self._head()]
            await self._call.start(200, headers)

    async def finish(self) -> None:
        await self._call.finish(self._translator.finish())

    async def fail(self, failure: Failure) -> None:
        told = described(failure, self._format)
        if not self._call.started:
            await reply_error(self._call, self._format, told, self._answer)
        else:
            await self._call.finish(self._ending(told))

    def _ending(self, told: Described) -> bytes:
        match self._translator:
            case anthropic_openai.StreamTranslator():
                return errors.anthropic_event(told, self._answer)
            case responses_openai.StreamTranslator() as translator:
                return translator.fail(told)
            case openai_openai.StreamTranslator():
                return errors.openai_event(told)


class WholeWriter:
    """One response object."""

    def __init__(
        self,
        call: Sink,
        format_: ClientFormat,
        answer: str,
        head: Head,
        echo: Echo | None = None,
    ) -> None:
        self._call = call
        self._format = format_
        self._answer = answer
        self._head = head
        self._echo = echo
        self._body = b""

    def copy(self) -> Self:
        """One that goes on from here by itself, to the same sink."""
        return copy.copy(self)

    async def seal(self, rest: list[bytes]) -> None:
        return None

    async def relay(self, data: list[bytes]) -> None:
        (body,) = data
        self._body = whole_answer(body, self._format, self._answer, self._echo)

    async def alive(self) -> None:
        return None

    async def finish(self) -> None:
        await self._call.reply(200, self._body, JSON_TYPE, self._head())

    async def fail(self, failure: Failure) -> None:
        told = described(failure, self._format)
        await reply_error(self._call, self._format, told, self._answer)


def message_id(answer: str) -> str:
    """An answer's id as Anthropic clients expect ids of messages to look."""
    return "msg_" + answer.removeprefix("ans_")


def response_id(answer: str) -> str:
    """An answer's id as OpenAI clients expect ids of responses to look."""
    return "resp_" + answer.removeprefix("ans_")


def described(failure: Failure, format_: ClientFormat) -> Described:
    """A failure, as far as a client of that format is concerned."""
    told = Described(
        status=failure.status if 400 <= failure.status <= 599 else 502,
        code=failure.code,
        message=failure.message,
        param=failure.param,
        retry_after_s=failure.retry_after_s,
        overloaded=failure.code == "overloaded" and failure.status == 503,
        produced=failure.produced,
    )
    if format_ == "anthropic.messages":
        return anthropic_openai_params.caller_words(told)
    if format_ == "openai.responses":
        return responses_openai_params.caller_words(told)
    return told


def request_id_header(format_: ClientFormat, request_id: str) -> tuple[str, str]:
    """The header in which each official client looks for the request's id."""
    return ("request-id" if format_ == "anthropic.messages" else "x-request-id", request_id)


async def reply_error(call: Sink, format_: ClientFormat, error: Described, request_id: str) -> None:
    """An error as a whole HTTP answer."""
    headers = [request_id_header(format_, request_id), *errors.retry_headers(error)]
    if format_ == "anthropic.messages":
        body = errors.anthropic_body(error, request_id)
        await call.reply(errors.anthropic_status(error), body, JSON_TYPE, headers)
    else:
        await call.reply(error.status, errors.openai_body(error), JSON_TYPE, headers)
