"""Calling Azure OpenAI: one resource, every failure told apart.

Two ways of the same format: the v1 API, where the model in the body names the deployment, and the
older one, where the deployment stands in the path and ``api-version`` in the query. Azure annotates
what its content filters found, in chunks of their own too, which say nothing that a client of the
OpenAI format knows and which break clients that look into each chunk's first choice: these are left
out. Everything else comes back as it came.
"""

import re
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import quote

import msgspec

from trunkline.base.errors import RequestError
from trunkline.base.ports import Clock
from trunkline.remote.answer import ProviderAnswer
from trunkline.remote.exchange import Exchange, ProviderTimeouts
from trunkline.remote.limits import MINUTE_MS
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Transport
from trunkline.schema.parsing import ABSENT, given
from trunkline.schema.sse import SseEvent

_DEPLOYMENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MARKS: Final = (b"content_filter", b"prompt_filter_results")


class _Asked(msgspec.Struct, frozen=True):
    model: str


class _Choice(msgspec.Struct, frozen=True, kw_only=True):
    delta: dict[str, msgspec.Raw] | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, frozen=True, kw_only=True):
    choices: tuple[_Choice, ...] = ()
    usage: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


_ASKED: Final = msgspec.json.Decoder(_Asked)
_CHUNK: Final = msgspec.json.Decoder(_Chunk)


class AzureCaller:
    """One Azure OpenAI resource: endpoint (``https://name.openai.azure.com``) and API key."""

    __slots__ = ("_api_version", "_endpoint", "_exchange")

    def __init__(
        self,
        transport: Transport,
        endpoint: str,
        api_key: str | None,
        *,
        clock: Clock,
        api_version: str | None = None,
        timeouts: ProviderTimeouts | None = None,
    ) -> None:
        """``api_version``: of the older API (``2024-10-21``); None for v1. Raises
        :class:`MalformedError` for an endpoint that is no URL."""
        self._endpoint = endpoint.rstrip("/")
        parse_url(self._endpoint)
        self._api_version = api_version
        self._exchange = Exchange(
            transport=transport,
            headers=() if api_key is None else (("api-key", api_key),),
            clock=clock,
            timeouts=timeouts or ProviderTimeouts(),
            windows={"requests": MINUTE_MS, "tokens": MINUTE_MS},
        )

    async def chat(
        self, body: bytes, stream: bool, *, idempotency_key: str | None = None
    ) -> "AzureAnswer":
        """``POST …/chat/completions``. ``idempotency_key``: Azure takes none."""
        answer = await self._exchange.post(self._url(body, "chat/completions"), body, stream=stream)
        return AzureAnswer(answer.response, answer.limits)

    async def embeddings(
        self, body: bytes, *, idempotency_key: str | None = None
    ) -> ProviderAnswer:
        """``POST …/embeddings``, likewise."""
        return await self._exchange.post(self._url(body, "embeddings"), body, stream=False)

    async def models(self) -> bytes:
        """A resource does not list its deployments here; the configuration names them."""
        raise RequestError("Azure lists no deployments here", code="not_found", status=404)

    def _url(self, body: bytes, operation: str) -> str:
        if self._api_version is None:
            return f"{self._endpoint}/openai/v1/{operation}"
        deployment = _ASKED.decode(body).model
        if _DEPLOYMENT.fullmatch(deployment) is None:
            raise RequestError("the model is not served here", code="model_not_found", status=404)
        version = quote(self._api_version, safe="")
        return f"{self._endpoint}/openai/deployments/{deployment}/{operation}?api-version={version}"


class AzureAnswer(ProviderAnswer):
    """An answer without the chunks that hold nothing but what a filter found."""

    __slots__ = ()

    async def events(self) -> AsyncIterator[SseEvent]:
        async for event in super().events():
            if not annotates_only(event.data or b""):
                yield event


def annotates_only(data: bytes) -> bool:
    """Whether a chunk has annotations of content filters, and nothing else."""
    if not any(mark in data for mark in _MARKS):
        return False
    try:
        chunk = _CHUNK.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Whoever reads it next will say what is wrong with it.
        return False
    if given(chunk.usage) or given(chunk.error):
        return False
    return not any(choice.delta or choice.finish_reason for choice in chunk.choices)
