"""A provider of another format behind the face of one that speaks the OpenAI format.

``Provider`` (``provider.py``) asks for chunks and completions; these classes put a translator of
the schema's grid between it and a caller of ``remote``. One per format: ``provider_anthropic.py``
and its like. They refuse embeddings, and translate nothing themselves.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

from trunkline.base.errors import BadResponseError, MalformedError, RequestError
from trunkline.base.ports import Clock
from trunkline.node.core.order import BAD_CHUNK
from trunkline.remote.answer import ProviderAnswer
from trunkline.remote.status import RejectedError
from trunkline.schema import openai_chat
from trunkline.schema.attempt import Limits
from trunkline.schema.openai_chat import ChatRequest
from trunkline.schema.sse import DONE_DATA, SseEvent

NOT_EMBEDDING: Final = "this provider gives no embeddings"


class Answer(Protocol):
    """An answer in the OpenAI format, read one way or the other, and closed."""

    @property
    def limits(self) -> Limits | None:
        """What the provider said with it of the account's limits."""
        ...

    def events(self) -> AsyncIterator[SseEvent]:
        """The stream's chunks, ``[DONE]`` after the last."""
        ...

    async def whole(self) -> bytes:
        """The completion."""
        ...

    async def aclose(self) -> None: ...


class Caller(Protocol):
    """What ``Provider`` asks of an account; ``remote.ProviderCaller`` is one."""

    async def chat(
        self, body: bytes, stream: bool, *, idempotency_key: str | None = None
    ) -> Answer: ...

    async def embeddings(self, body: bytes, *, idempotency_key: str | None = None) -> Answer: ...

    async def models(self) -> bytes: ...


class ChatAccount(ABC):
    """An account of another format as ``Provider`` wants it: it chats, and does not embed."""

    __slots__ = ("_clock",)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def chat(
        self, body: bytes, stream: bool, *, idempotency_key: str | None = None
    ) -> "TranslatedAnswer":
        """``body`` is a chat request. ``idempotency_key``: none of these formats takes one.

        Raises :class:`RequestError` for what can not be translated, or was refused translated.
        """
        try:
            return await self._ask(openai_chat.parse(body), stream, idempotency_key or "")
        except RejectedError as error:
            raise refused(error) from None

    async def embeddings(
        self, body: bytes, *, idempotency_key: str | None = None
    ) -> "TranslatedAnswer":
        """Raises :class:`RequestError`."""
        raise RequestError(NOT_EMBEDDING, code="model_not_found", status=404)

    @abstractmethod
    async def models(self) -> bytes:
        """The account's models as OpenAI lists models, as far as that is read."""

    @abstractmethod
    async def _ask(self, request: ChatRequest, stream: bool, name: str) -> "TranslatedAnswer":
        """Translate the request and make the call. ``name``: of the attempt, where the provider
        gives its answer none."""

    @property
    def _now_s(self) -> int:
        """Unix seconds: when an answer that does not say it was made."""
        return self._clock.unix_ms() // 1000


class StreamTranslator(Protocol):
    """A translator of the grid, for one stream."""

    def feed(self, data: bytes) -> list[bytes]: ...

    def finish(self) -> list[bytes]: ...


class TranslatedAnswer:
    """A provider's answer, translated as it is read."""

    __slots__ = ("_answer", "_stream", "_whole")

    def __init__(
        self, answer: ProviderAnswer, *, stream: StreamTranslator, whole: Callable[[bytes], bytes]
    ) -> None:
        self._answer = answer
        self._stream = stream
        self._whole = whole

    @property
    def limits(self) -> Limits | None:
        return self._answer.limits

    async def events(self) -> AsyncIterator[SseEvent]:
        """Raises BadResponseError ``upstream_bad_chunk`` for what no answer can be made of,
        :class:`TruncatedError` for a stream that ends before its answer, and
        :class:`RequestError` for a refusal in place of one."""
        try:
            async for event in self._answer.events():
                for chunk in self._stream.feed(event.data or b""):
                    yield SseEvent(data=chunk)
        except MalformedError as error:
            raise BadResponseError(error.message, code=BAD_CHUNK) from None
        except RejectedError as error:
            raise refused(error) from None
        for chunk in self._stream.finish():
            yield SseEvent(data=chunk)
        yield SseEvent(data=DONE_DATA)

    async def whole(self) -> bytes:
        """Raises BadResponseError ``upstream_bad_chunk`` for a body that is no answer, and
        :class:`RequestError` for a refusal in place of one."""
        try:
            return self._whole(await self._answer.whole())
        except MalformedError as error:
            raise BadResponseError(error.message, code=BAD_CHUNK) from None
        except RejectedError as error:
            raise refused(error) from None

    async def aclose(self) -> None:
        await self._answer.aclose()


def refused(error: RejectedError) -> RequestError:
    """The provider found fault with the request that was made of the caller's. That may be the
    translation's limit rather than the caller's mistake, so another node may be asked."""
    return RequestError(
        "the provider refused the request as it was translated",
        code="unsupported_parameter",
        param=error.param,
    )
