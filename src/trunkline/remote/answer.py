"""A provider's successful response, read as one JSON object or as a stream of events.

Errors in disguise are found: an error object in place of an answer, or within a stream. What the
answer means (finish reasons, missing usage, a missing ``[DONE]``) is the caller's to judge.
Upstream's words are never put into an error: they may quote a prompt.
"""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

import msgspec

from trunkline.base.errors import BadResponseError, MalformedError
from trunkline.remote.status import NOT_JSON, error_object, failure_in_answer
from trunkline.remote.transport import Response
from trunkline.schema.attempt import Limits
from trunkline.schema.sse import SseEvent, SseParser

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
EVENT_BYTES_MAX: Final = 8 * 1024 * 1024
BAD_STREAM: Final = "upstream_bad_stream"
SIGNS_OF_LIFE: Final = frozenset({"ping", "keepalive", "keep-alive", "heartbeat"})
"""Names of events that say nothing else."""
_ERROR: Final = msgspec.Raw(b'"error"')
_RETRY: Final = frozenset({"retry"})
"""Fields of an event stream beside those that are read: no provider sends others."""


class ProviderAnswer:
    """A successful response: read it as :meth:`whole` or as :meth:`events`, and close it."""

    __slots__ = ("limits", "response")

    def __init__(self, response: Response, limits: Limits | None = None) -> None:
        self.response = response
        self.limits = limits
        """What its head said of the account's limits."""

    def header(self, name: str) -> str | None:
        """A response header, by lower-case name (rate limits, request id, processing time)."""
        return self.response.header(name)

    async def whole(self, limit: int = ANSWER_BYTES_MAX) -> bytes:
        """The body: one JSON object and no error. Raises UpstreamErrors otherwise."""
        body = await self.response.read(limit)
        members = _members(body)
        # Decoding all of a large body takes long, and the word may stand anywhere in it.
        if members is None or "error" in members or members.get("object") == _ERROR:
            error = error_object(body)
            if error is not None:
                raise failure_in_answer(error)
        if members is None:
            raise BadResponseError("the answer is no JSON object", code=NOT_JSON)
        return body

    async def events(self) -> AsyncIterator[SseEvent]:
        """The stream's events, ``[DONE]`` included; comments and other signs of life are left out.

        Ends where the body ends. Raises the UpstreamError that an error event stands for, and
        BadResponseError ``upstream_bad_stream`` for bytes that are no event stream.
        """
        parser = SseParser(EVENT_BYTES_MAX)
        async for data in self.response.chunks():
            for event in _parse(parser, data):
                if event.fields and event.fields.keys() != _RETRY:
                    # A browser would skip such a line, and lose the text of a garbled one unseen.
                    raise BadResponseError("a line of the stream is no field", code=BAD_STREAM)
                if event.data and event.event not in SIGNS_OF_LIFE:
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
    return _members(body) is not None


def _members(body: bytes) -> dict[str, msgspec.Raw] | None:
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


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
