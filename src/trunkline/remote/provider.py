"""Calling a provider that speaks the OpenAI format: one attempt, every failure told apart.

What passes has status 200, the content type that was asked for, and is no error in disguise.
What the answer means (finish reasons, missing usage, a missing ``[DONE]``) is the caller's to
judge. Upstream's words are never put into an error: they may quote a prompt.
"""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

import msgspec

from trunkline.base.errors import BadResponseError, MalformedError
from trunkline.base.ports import Clock
from trunkline.remote.status import (
    ERROR_BODY_BYTES_MAX,
    MODEL_MISSING,
    NOT_JSON,
    error_object,
    failure,
    failure_in_answer,
)
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Method, Response, Transport
from trunkline.schema.sse import SseEvent, SseParser

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
EVENT_BYTES_MAX: Final = 8 * 1024 * 1024
WRONG_TYPE: Final = "upstream_wrong_content_type"
BAD_STREAM: Final = "upstream_bad_stream"
_RETRY: Final = frozenset({"retry"})
"""Fields of an event stream beside those that are read: no provider sends others."""


class ProviderTimeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one call. The head of a whole answer comes when the model is done."""

    connect_s: float = 5.0
    stream_head_s: float = 60.0
    whole_head_s: float = 600.0
    idle_s: float = 60.0


class ProviderCaller:
    """One provider account: base URL (with its version part, ``…/v1``) and API key."""

    __slots__ = ("_base", "_clock", "_headers", "_timeouts", "_transport")

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        api_key: str | None,
        *,
        clock: Clock,
        timeouts: ProviderTimeouts | None = None,
    ) -> None:
        """``clock`` measures a ``retry-after`` that is a date."""
        self._transport = transport
        self._base = base_url.rstrip("/")
        parse_url(self._base)
        self._clock = clock
        self._timeouts = timeouts or ProviderTimeouts()
        self._headers: tuple[tuple[str, str], ...] = (
            () if api_key is None else (("authorization", f"Bearer {api_key}"),)
        )

    async def chat(
        self, body: bytes, stream: bool, *, idempotency_key: str | None = None
    ) -> "ProviderAnswer":
        """``POST /chat/completions`` with exactly ``body``, which says ``stream`` as well."""
        return await self._post("/chat/completions", body, stream, idempotency_key)

    async def embeddings(self, body: bytes, *, idempotency_key: str | None = None) -> bytes:
        """``POST /embeddings``: the answer, checked to be JSON and no error."""
        answer = await self._post("/embeddings", body, False, idempotency_key)
        async with answer:
            return await answer.whole()

    async def models(self) -> bytes:
        """``GET /models``, likewise."""
        answer = await self._call("GET", "/models", (), None, stream=False)
        async with answer:
            return await answer.whole()

    async def _post(
        self, path: str, body: bytes, stream: bool, idempotency_key: str | None
    ) -> "ProviderAnswer":
        headers = [("content-type", "application/json")]
        headers.append(("accept", "text/event-stream" if stream else "application/json"))
        if idempotency_key is not None:
            headers.append(("idempotency-key", idempotency_key))
        return await self._call("POST", path, tuple(headers), body, stream=stream)

    async def _call(
        self,
        method: Method,
        path: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes | None,
        *,
        stream: bool,
    ) -> "ProviderAnswer":
        limits = self._timeouts
        response = await self._transport.request(
            method,
            self._base + path,
            headers=(*self._headers, *headers),
            body=body,
            connect_timeout_s=limits.connect_s,
            head_timeout_s=limits.stream_head_s if stream else limits.whole_head_s,
            idle_timeout_s=limits.idle_s,
        )
        try:
            await check_head(response, self._clock, stream=stream)
        except BaseException:
            await response.aclose()
            raise
        return ProviderAnswer(response)


async def check_head(response: Response, clock: Clock, *, stream: bool) -> None:
    """Raise the failure that a response's status and type stand for; nothing if it may be read."""
    if response.status != 200:
        raise failure(
            response.status,
            response,
            await response.read(ERROR_BODY_BYTES_MAX),
            now_unix_s=clock.unix_ms() / 1000,
            missing=MODEL_MISSING,
        )
    kind = (response.header("content-type") or "").partition(";")[0].strip().lower()
    if stream and kind != "text/event-stream":
        # Some send the error of a streamed request as plain JSON, with a 200.
        error = error_object(await response.read(ERROR_BODY_BYTES_MAX))
        if error is not None:
            raise failure_in_answer(error)
        raise BadResponseError("a stream was asked for", code=WRONG_TYPE)
    if not stream and kind in ("text/event-stream", "text/html"):
        code = NOT_JSON if kind == "text/html" else WRONG_TYPE
        raise BadResponseError("a JSON object was asked for", code=code)


class ProviderAnswer:
    """A successful response: read it as :meth:`whole` or as :meth:`events`, and close it."""

    __slots__ = ("response",)

    def __init__(self, response: Response) -> None:
        self.response = response

    def header(self, name: str) -> str | None:
        """A response header, by lower-case name (rate limits, request id, processing time)."""
        return self.response.header(name)

    async def whole(self, limit: int = ANSWER_BYTES_MAX) -> bytes:
        """The body: one JSON object and no error. Raises UpstreamErrors otherwise."""
        body = await self.response.read(limit)
        start = body.lstrip()[:1]
        if start == b"[" or (start == b"{" and b'"error"' in body):
            error = error_object(body)
            if error is not None:
                raise failure_in_answer(error)
        if not is_json_object(body):
            raise BadResponseError("the answer is no JSON object", code=NOT_JSON)
        return body

    async def events(self) -> AsyncIterator[SseEvent]:
        """The stream's events, ``[DONE]`` included; comments are left out.

        Ends where the body ends. Raises the UpstreamError that an error event stands for, and
        BadResponseError ``upstream_bad_stream`` for bytes that are no event stream.
        """
        parser = SseParser(EVENT_BYTES_MAX)
        async for data in self.response.chunks():
            for event in _parse(parser, data):
                if event.fields and event.fields.keys() != _RETRY:
                    # A browser would skip such a line, and lose the text of a garbled one unseen.
                    raise BadResponseError("a line of the stream is no field", code=BAD_STREAM)
                if event.data is not None:
                    yield _checked(event)
        # A last event without its blank line counts only if its data is whole in itself.
        for event in parser.finish():
            if event.data == b"[DONE]" or (event.data and is_json_object(event.data)):
                yield _checked(event)

    async def aclose(self) -> None:
        """Give the answer up; an unfinished one is cancelled by cutting the connection."""
        await self.response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def is_json_object(body: bytes) -> bool:
    """Whether ``body`` is exactly one JSON object; nothing of it is kept."""
    try:
        return isinstance(msgspec.json.decode(body, type=dict[str, msgspec.Raw]), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _parse(parser: SseParser, data: bytes) -> list[SseEvent]:
    try:
        return parser.feed(data)
    except MalformedError as error:
        raise BadResponseError(
            f"the stream is unusable: {error.message}", code=BAD_STREAM
        ) from None


def _checked(event: SseEvent) -> SseEvent:
    """Turn an error event into the error. The search is cheap; decoding happens on a hit only."""
    data = event.data or b""
    if event.event == "error" or b'"error"' in data:
        error = error_object(data)
        if error is not None:
            raise failure_in_answer(error)
        if event.event == "error":
            raise BadResponseError("an error event in the stream")
    return event
