"""Answers in the client's own format: the head, the text as it comes, the end, or the failure.

One class per way of answering. A failure before the head is an HTTP error; after it, the format's
own error event, and never anything that looks like a finish.
"""

from collections.abc import Callable
from typing import Protocol

from trunkline.gateway.core.actions import Failure
from trunkline.runtime.http import JSON_TYPE, SSE_TYPE, Call
from trunkline.schema import errors
from trunkline.schema.attempt import ClientFormat
from trunkline.schema.errors import Described
from trunkline.schema.grid import anthropic_openai, anthropic_openai_params, openai_openai

Headers = list[tuple[str, str]]
Head = Callable[[], Headers]
"""The answer's own headers, asked for when the head is sent."""


class Writer(Protocol):
    """Where the answer's state machine's actions become bytes to the app."""

    async def relay(self, data: list[bytes]) -> None:
        """Give the app these events' data. Raises MalformedError for what can not be said."""
        ...

    async def finish(self) -> None:
        """End a whole answer."""
        ...

    async def fail(self, failure: Failure) -> None:
        """End it explicitly without one."""
        ...


class _Translator(Protocol):
    def feed(self, data: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


class StreamWriter:
    """A stream of events."""

    def __init__(self, call: Call, format_: ClientFormat, answer: str, head: Head) -> None:
        self._call = call
        self._format = format_
        self._answer = answer
        self._head = head
        self._translator: _Translator = (
            anthropic_openai.StreamTranslator(message_id=message_id(answer))
            if format_ == "anthropic.messages"
            else openai_openai.StreamTranslator()
        )

    async def relay(self, data: list[bytes]) -> None:
        feed = self._translator.feed
        out = b"".join([feed(part) for part in data]) if len(data) > 1 else feed(data[0])
        if not self._call.started:
            headers = [("content-type", SSE_TYPE), ("cache-control", "no-cache"), *self._head()]
            await self._call.start(200, headers)
        if out:
            await self._call.send(out)

    async def finish(self) -> None:
        await self._call.finish(self._translator.finish())

    async def fail(self, failure: Failure) -> None:
        told = described(failure, self._format)
        if not self._call.started:
            await reply_error(self._call, self._format, told, self._answer)
        elif self._format == "anthropic.messages":
            await self._call.finish(errors.anthropic_event(told, self._answer))
        else:
            await self._call.finish(errors.openai_event(told))


class WholeWriter:
    """One response object."""

    def __init__(self, call: Call, format_: ClientFormat, answer: str, head: Head) -> None:
        self._call = call
        self._format = format_
        self._answer = answer
        self._head = head
        self._body = b""

    async def relay(self, data: list[bytes]) -> None:
        (body,) = data
        if self._format == "anthropic.messages":
            body = anthropic_openai.translate_answer(body, message_id=message_id(self._answer))
        self._body = body

    async def finish(self) -> None:
        await self._call.reply(200, self._body, JSON_TYPE, self._head())

    async def fail(self, failure: Failure) -> None:
        told = described(failure, self._format)
        await reply_error(self._call, self._format, told, self._answer)


def message_id(answer: str) -> str:
    """An answer's id as Anthropic clients expect ids of messages to look."""
    return "msg_" + answer.removeprefix("ans_")


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
    translated = format_ == "anthropic.messages"
    return anthropic_openai_params.caller_words(told) if translated else told


def request_id_header(format_: ClientFormat, request_id: str) -> tuple[str, str]:
    """The header in which each official client looks for the request's id."""
    return ("request-id" if format_ == "anthropic.messages" else "x-request-id", request_id)


async def reply_error(call: Call, format_: ClientFormat, error: Described, request_id: str) -> None:
    """An error as a whole HTTP answer."""
    headers = [request_id_header(format_, request_id), *errors.retry_headers(error)]
    if format_ == "anthropic.messages":
        body = errors.anthropic_body(error, request_id)
        await call.reply(errors.anthropic_status(error), body, JSON_TYPE, headers)
    else:
        await call.reply(error.status, errors.openai_body(error), JSON_TYPE, headers)
