"""Fronts an Anthropic account for requests in the OpenAI format."""

from trunkline.base.ports import Clock
from trunkline.node.translated import TranslatedAnswer, no_embeddings, refused
from trunkline.remote.anthropic import AnthropicCaller
from trunkline.remote.status import RejectedError
from trunkline.schema import openai_chat
from trunkline.schema.grid import openai_anthropic


class AnthropicChat:
    """An account as ``Provider`` wants it (``translated.Caller``)."""

    __slots__ = ("_caller", "_clock", "_max_tokens")

    def __init__(self, caller: AnthropicCaller, *, clock: Clock, max_tokens: int) -> None:
        """``max_tokens``: the bound of an answer whose request gives none."""
        self._caller = caller
        self._clock = clock
        self._max_tokens = max_tokens

    async def chat(
        self, body: bytes, stream: bool, *, idempotency_key: str | None = None
    ) -> TranslatedAnswer:
        """``body`` is a chat request. ``idempotency_key``: the Messages API takes none.

        Raises :class:`RequestError` for what can not be translated, or was refused translated.
        """
        request = openai_chat.parse(body)
        asked = openai_anthropic.from_openai(request, max_tokens=self._max_tokens)
        try:
            answer = await self._caller.messages(asked, stream=stream)
        except RejectedError as error:
            raise refused(error) from None
        created_s = self._clock.unix_ms() // 1000
        return TranslatedAnswer(
            answer,
            stream=openai_anthropic.StreamTranslator(
                created_s=created_s, include_usage=request.include_usage
            ),
            whole=lambda data: openai_anthropic.translate_answer(data, created_s=created_s),
        )

    async def embeddings(
        self, body: bytes, *, idempotency_key: str | None = None
    ) -> TranslatedAnswer:
        raise no_embeddings()

    async def models(self) -> bytes:
        """The account's models: of one shape with OpenAI's list, as far as it is read."""
        return await self._caller.models()
