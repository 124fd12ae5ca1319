"""Fronts an AWS Bedrock account for requests in the OpenAI format."""

from trunkline.base.errors import RequestError
from trunkline.base.ports import Clock
from trunkline.node.translated import TranslatedAnswer, no_embeddings, refused
from trunkline.remote.bedrock import BedrockCaller
from trunkline.remote.status import RejectedError
from trunkline.schema import openai_chat
from trunkline.schema.grid import openai_bedrock
from trunkline.schema.grid.openai_bedrock_answer import Head


class BedrockChat:
    """An account as ``Provider`` wants it (``translated.Caller``)."""

    __slots__ = ("_caller", "_clock")

    def __init__(self, caller: BedrockCaller, *, clock: Clock) -> None:
        self._caller = caller
        self._clock = clock

    async def chat(
        self, body: bytes, stream: bool, *, idempotency_key: str | None = None
    ) -> TranslatedAnswer:
        """``body`` is a chat request. ``idempotency_key``: the Converse API takes none.

        Raises :class:`RequestError` for what can not be translated, or was refused translated.
        """
        request = openai_chat.parse(body)
        asked = openai_bedrock.from_openai(request)
        try:
            answer = await self._caller.converse(asked.model, asked.body, stream=stream)
        except RejectedError as error:
            raise refused(error) from None
        head = Head(
            id=answer.header("x-amzn-requestid") or idempotency_key or "",
            model=asked.model,
            created_s=self._clock.unix_ms() // 1000,
        )
        return TranslatedAnswer(
            answer,
            stream=openai_bedrock.StreamTranslator(head, include_usage=request.include_usage),
            whole=lambda data: openai_bedrock.translate_answer(data, head),
        )

    async def embeddings(
        self, body: bytes, *, idempotency_key: str | None = None
    ) -> TranslatedAnswer:
        raise no_embeddings()

    async def models(self) -> bytes:
        """The runtime's endpoint has no list; the configuration names the models."""
        raise RequestError("Bedrock lists no models here", code="not_found", status=404)
