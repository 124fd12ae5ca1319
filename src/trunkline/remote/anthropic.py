"""Calling Anthropic's Messages API (version 2023-06-01): one account, every failure told apart.

It sends the body as given and hands back the answer as it came; translating is the grid's.
"""

from typing import Final

from trunkline.base.ports import Clock
from trunkline.remote.answer import ProviderAnswer
from trunkline.remote.exchange import Exchange, ProviderTimeouts
from trunkline.remote.limits import MINUTE_MS, Windows
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Transport

VERSION: Final = "2023-06-01"
WINDOWS: Final[Windows] = {
    "requests": MINUTE_MS,
    "tokens": MINUTE_MS,
    "input_tokens": MINUTE_MS,
    "output_tokens": MINUTE_MS,
}
"""Its limits are of a minute, which its headers do not say."""
MODELS_MAX: Final = 1000
"""Largest page that the API gives."""


class AnthropicCaller:
    """One Anthropic account: base URL (with its version part, ``…/v1``) and API key."""

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
        key = () if api_key is None else (("x-api-key", api_key),)
        self._exchange = Exchange(
            transport=transport,
            headers=(*key, ("anthropic-version", VERSION)),
            clock=clock,
            timeouts=timeouts or ProviderTimeouts(),
            windows=WINDOWS,
        )

    async def messages(self, body: bytes, *, stream: bool) -> ProviderAnswer:
        """``POST /messages`` with exactly ``body``, which says ``stream`` as well."""
        return await self._exchange.post(self._base + "/messages", body, stream=stream)

    async def models(self) -> bytes:
        """``GET /models``: the first page, which holds more models than an account has."""
        return await self._exchange.get(f"{self._base}/models?limit={MODELS_MAX}")
