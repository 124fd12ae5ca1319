"""Fronts an Anthropic account for requests in the OpenAI format."""

from trunkline.base.ports import Clock
from trunkline.node.translated import ChatAccount, TranslatedAnswer
from trunkline.remote.anthropic import AnthropicCaller
from trunkline.schema.grid import openai_anthropic
from trunkline.schema.openai_chat import ChatRequest


class AnthropicChat(ChatAccount):
    """Over the Messages API."""

    __slots__ = ("_caller", "_max_tokens")

    def __init__(self, caller: AnthropicCaller, *, clock: Clock, max_tokens: int) -> None:
        """``max_tokens``: the bound of an answer whose request gives none."""
        super().__init__(clock)
        self._caller = caller
        self._max_tokens = max_tokens

    async def _ask(self, request: ChatRequest, stream: bool, name: str) -> TranslatedAnswer:
        asked = openai_anthropic.from_openai(request, max_tokens=self._max_tokens)
        answer = await self._caller.messages(asked, stream=stream)
        created_s = self._now_s
        return TranslatedAnswer(
            answer,
            stream=openai_anthropic.StreamTranslator(
                created_s=created_s, include_usage=request.include_usage
            ),
            whole=lambda data: openai_anthropic.translate_answer(data, created_s=created_s),
        )

    async def models(self) -> bytes:
        """The account's models: of one shape with OpenAI's list, as far as it is read."""
        return await self._caller.models()
