"""Calling Google's Gemini API (v1beta): one account, every failure told apart.

It sends the body as given and hands back the answer as it came; translating is the grid's. The API
key travels in a header, never in a URL, which proxies write down.
"""

import re
from typing import Final

from trunkline.base.errors import RequestError
from trunkline.base.ports import Clock
from trunkline.remote.answer import ProviderAnswer
from trunkline.remote.exchange import Exchange, ProviderTimeouts
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Transport

MODELS_MAX: Final = 1000
"""Largest page that the API gives."""
_MODEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class GeminiCaller:
    """One Gemini account: base URL (with its version part, ``…/v1beta``) and API key."""

    __slots__ = ("_base", "_exchange")

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        api_key: str | None,
        *,
        clock: Clock,
        timeouts: ProviderTimeouts | None = None,
    ) -> None:
        """Raises :class:`MalformedError` for a base URL that is none."""
        self._base = base_url.rstrip("/")
        parse_url(self._base)
        self._exchange = Exchange(
            transport=transport,
            headers=() if api_key is None else (("x-goog-api-key", api_key),),
            clock=clock,
            timeouts=timeouts or ProviderTimeouts(),
        )

    async def generate_content(self, model: str, body: bytes, *, stream: bool) -> ProviderAnswer:
        """``POST /models/<model>:generateContent``, or ``:streamGenerateContent`` as events.

        Raises :class:`RequestError` for a name that no model has, before it gets into a URL.
        """
        if _MODEL.fullmatch(model) is None:
            raise RequestError("the model is not served here", code="model_not_found", status=404)
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return await self._exchange.post(
            f"{self._base}/models/{model}:{method}", body, stream=stream
        )

    async def models(self) -> bytes:
        """``GET /models``: the first page, which holds more models than an account has."""
        return await self._exchange.get(f"{self._base}/models?pageSize={MODELS_MAX}")
