"""Fronts an AWS Bedrock account for requests in the OpenAI format."""

from trunkline.base.errors import RequestError
from trunkline.base.ports import Clock
from trunkline.node.translated import ChatAccount, TranslatedAnswer
from trunkline.remote.bedrock import BedrockCaller
from trunkline.schema.grid import openai_bedrock
from trunkline.schema.grid.openai_bedrock_answer import Head
from trunkline.schema.openai_chat import ChatRequest


class BedrockChat(ChatAccount):
    """Over the Converse API."""

    __slots__ = ("_caller",)

    def __init__(self, caller: BedrockCaller, *, clock: Clock) -> None:
        super().__init__(clock)
        self._caller = caller

    async def _ask(self, request: ChatRequest, stream: bool, name: str) -> TranslatedAnswer:
        asked = openai_bedrock.from_openai(request)
        answer = await self._caller.converse(asked.model, asked.body, stream=stream)
        head = Head(
            id=answer.header("x-amzn-requestid") or name,
            model=asked.model,
            created_s=self._now_s,
        )
        return TranslatedAnswer(
            answer,
            stream=openai_bedrock.StreamTranslator(head, include_usage=request.include_usage),
            whole=lambda data: openai_bedrock.translate_answer(data, head),
        )

    async def models(self) -> bytes:
        """The runtime's endpoint has no list; the configuration names the models."""
        raise RequestError("Bedrock lists no models here", code="not_found", status=404)
