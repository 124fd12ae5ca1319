"""Fronts a Google Gemini account for requests in the OpenAI format."""

from typing import Final

import msgspec

from trunkline.base.errors import BadResponseError
from trunkline.base.ports import Clock
from trunkline.node.translated import TranslatedAnswer, no_embeddings, refused
from trunkline.remote.gemini import GeminiCaller
from trunkline.remote.status import RejectedError
from trunkline.schema import openai_chat
from trunkline.schema.grid import openai_gemini

CHAT_METHOD: Final = "generateContent"
_PREFIX: Final = "models/"


class _Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str
    """``models/<name>``."""
    supported_generation_methods: tuple[str, ...] = ()


class _Models(msgspec.Struct, frozen=True, kw_only=True):
    models: tuple[_Model, ...] = ()


_MODELS: Final = msgspec.json.Decoder(_Models)


class GeminiChat:
    """An account as ``Provider`` wants it (``translated.Caller``)."""

    __slots__ = ("_caller", "_clock")

    def __init__(self, caller: GeminiCaller, *, clock: Clock) -> None:
        self._caller = caller
        self._clock = clock

    async def chat(
        self, body: bytes, stream: bool, *, idempotency_key: str | None = None
    ) -> TranslatedAnswer:
        """``body`` is a chat request. ``idempotency_key``: the Gemini API takes none.

        Raises :class:`RequestError` for what can not be translated, or was refused translated.
        """
        request = openai_chat.parse(body)
        asked = openai_gemini.from_openai(request)
        try:
            answer = await self._caller.generate_content(asked.model, asked.body, stream=stream)
        except RejectedError as error:
            raise refused(error) from None
        created_s, choices = self._clock.unix_ms() // 1000, request.choices
        return TranslatedAnswer(
            answer,
            stream=openai_gemini.StreamTranslator(
                created_s=created_s, choices=choices, include_usage=request.include_usage
            ),
            whole=lambda data: openai_gemini.translate_answer(
                data, created_s=created_s, choices=choices
            ),
        )

    async def embeddings(
        self, body: bytes, *, idempotency_key: str | None = None
    ) -> TranslatedAnswer:
        raise no_embeddings()

    async def models(self) -> bytes:
        """The account's models that chat, as OpenAI lists models, as far as it is read."""
        try:
            listed = _MODELS.decode(await self._caller.models()).models
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise BadResponseError("the list of models does not parse") from None
        chatting = [model for model in listed if CHAT_METHOD in model.supported_generation_methods]
        return msgspec.json.encode(
            {"data": [{"id": model.name.removeprefix(_PREFIX)} for model in chatting]}
        )
