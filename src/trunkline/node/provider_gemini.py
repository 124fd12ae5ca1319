"""Fronts a Google Gemini account for requests in the OpenAI format."""

from typing import Final

import msgspec

from trunkline.base.errors import BadResponseError
from trunkline.base.ports import Clock
from trunkline.node.translated import ChatAccount, TranslatedAnswer
from trunkline.remote.gemini import GeminiCaller
from trunkline.schema.grid import openai_gemini
from trunkline.schema.openai_chat import ChatRequest

CHAT_METHOD: Final = "generateContent"
_PREFIX: Final = "models/"


class _Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    name: str
    """``models/<name>``."""
    supported_generation_methods: tuple[str, ...] = ()


class _Models(msgspec.Struct, frozen=True, kw_only=True):
    models: tuple[_Model, ...] = ()


_MODELS: Final = msgspec.json.Decoder(_Models)


class GeminiChat(ChatAccount):
    """Over ``generateContent``."""

    __slots__ = ("_caller",)

    def __init__(self, caller: GeminiCaller, *, clock: Clock) -> None:
        super().__init__(clock)
        self._caller = caller

    async def _ask(self, request: ChatRequest, stream: bool, name: str) -> TranslatedAnswer:
        asked = openai_gemini.from_openai(request)
        answer = await self._caller.generate_content(asked.model, asked.body, stream=stream)
        created_s, choices = self._now_s, request.choices
        return TranslatedAnswer(
            answer,
            stream=openai_gemini.StreamTranslator(
                created_s=created_s, choices=choices, include_usage=request.include_usage
            ),
            whole=lambda data: openai_gemini.translate_answer(
                data, created_s=created_s, choices=choices
            ),
        )

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
