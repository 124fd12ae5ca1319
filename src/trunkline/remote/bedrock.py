"""Calling AWS Bedrock's Converse API (2023-09-30): one account, every failure told apart.

A key is a Bedrock API key, sent as it is, or an AWS access key, which signs each request and is
never sent. It sends the body as given and hands back the answer as it came; translating is the
grid's. Upstream's words are never put into an error: they may quote a prompt.
"""

import re
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

import msgspec

from trunkline.base.errors import (
    BadResponseError,
    MalformedError,
    RequestError,
    TruncatedError,
    UpstreamError,
)
from trunkline.base.ports import Clock
from trunkline.remote.answer import BAD_STREAM, ProviderAnswer
from trunkline.remote.exchange import Exchange, ProviderTimeouts
from trunkline.remote.sigv4 import Credentials, Scope, signed_headers
from trunkline.remote.status import ErrorObject, failure_in_answer
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Transport
from trunkline.schema.eventstream import EventStreamParser, Message
from trunkline.schema.sse import SseEvent

SERVICE: Final = "bedrock"
STREAM_TYPE: Final = "application/vnd.amazon.eventstream"
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,2047}")
_EVENT: Final = re.compile(r"[A-Za-z]{1,64}")
_EXCEPTION_STATUS: Final = {
    "throttlingException": 429,
    "serviceUnavailableException": 503,
    "internalServerException": 500,
    "modelStreamErrorException": 502,
    "modelTimeoutException": 504,
    "validationException": 400,
}
"""The HTTP status that says the same; 500 for others."""


class BedrockCaller:
    """One account in one region."""

    __slots__ = ("_base", "_clock", "_credentials", "_exchange", "_scope")

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        api_key: str | Credentials,
        *,
        region: str,
        clock: Clock,
        timeouts: ProviderTimeouts | None = None,
    ) -> None:
        """``api_key``: text for a Bedrock API key. Raises :class:`MalformedError` for a base URL
        that is none."""
        self._base = base_url.rstrip("/")
        parse_url(self._base)
        self._clock = clock
        self._scope = Scope(region=region, service=SERVICE)
        self._credentials = api_key if isinstance(api_key, Credentials) else None
        own = () if isinstance(api_key, Credentials) else (("authorization", f"Bearer {api_key}"),)
        self._exchange = Exchange(
            transport=transport,
            headers=own,
            clock=clock,
            timeouts=timeouts or ProviderTimeouts(),
            stream_type=STREAM_TYPE,
        )

    async def converse(self, model: str, body: bytes, *, stream: bool) -> "BedrockAnswer":
        """``POST /model/<model>/converse``, or ``/converse-stream``.

        Raises :class:`RequestError` for a name that no model has, before it gets into a URL.
        """
        if _MODEL.fullmatch(model) is None:
            raise RequestError("the model is not served here", code="model_not_found", status=404)
        method = "converse-stream" if stream else "converse"
        url = f"{self._base}/model/{quote(model, safe='')}/{method}"
        headers: tuple[tuple[str, str], ...] = ()
        if self._credentials is not None:
            headers = signed_headers(
                "POST",
                parse_url(url),
                body,
                credentials=self._credentials,
                scope=self._scope,
                unix_s=self._clock.unix_ms() / 1000,
            )
        answer = await self._exchange.post(url, body, stream=stream, headers=headers)
        return BedrockAnswer(answer.response, answer.limits)


class BedrockAnswer(ProviderAnswer):
    """An answer whose events are messages of Amazon's own encoding."""

    __slots__ = ()

    async def events(self) -> AsyncIterator[SseEvent]:
        """The stream's events, each as ``{"<its type>": <its payload>}``.

        Raises the UpstreamError that an exception in the stream stands for, TruncatedError for a
        stream that ends within a message, and BadResponseError ``upstream_bad_stream`` for bytes
        that are no such stream.
        """
        parser = EventStreamParser()
        async for data in self.response.chunks():
            try:
                messages = parser.feed(data)
            except MalformedError as error:
                raise BadResponseError(
                    f"the stream is unusable: {error.message}", code=BAD_STREAM
                ) from None
            for message in messages:
                yield SseEvent(data=_event(message))
        if not parser.empty:
            raise TruncatedError("the stream ended within a message")


def _event(message: Message) -> bytes:
    kind = message.headers.get(":message-type", "")
    if kind == "exception":
        raise _failure(message.headers.get(":exception-type", ""))
    if kind == "error":
        raise _failure(message.headers.get(":error-code", ""))
    name = message.headers.get(":event-type", "")
    if kind != "event" or _EVENT.fullmatch(name) is None:
        raise BadResponseError("a message of the stream is no event", code=BAD_STREAM)
    return msgspec.json.encode({name: msgspec.Raw(message.payload or b"{}")})


def _failure(name: str) -> UpstreamError:
    lower = name[:1].lower() + name[1:]
    return failure_in_answer(ErrorObject(code=_EXCEPTION_STATUS.get(lower, 500), type=name))
