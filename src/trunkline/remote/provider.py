"""Calling a provider that speaks the OpenAI format: one account, every failure told apart."""

from trunkline.base.ports import Clock
from trunkline.remote.answer import ProviderAnswer
from trunkline.remote.exchange import Exchange, ProviderTimeouts
from trunkline.remote.limits import Windows
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Transport


class ProviderCaller:
    """One provider account: base URL (with its version part, ``…/v1``) and API key."""

    __slots__ = ("_base", "_exchange")

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        api_key: str | None,
        *,
        clock: Clock,
        timeouts: ProviderTimeouts | None = None,
        windows: Windows | None = None,
    ) -> None:
        """``windows``: lengths of its limits' windows, where it does not send them. Raises
        :class:`MalformedError` for a base URL that is none."""
        self._base = base_url.rstrip("/")
        parse_url(self._base)
        self._exchange = Exchange(
            transport=transport,
            headers=() if api_key is None else (("authorization", f"Bearer {api_key}"),),
            clock=clock,
            timeouts=timeouts or ProviderTimeouts(),
            windows=windows or {},
        )

    async def chat(
        self, body: bytes, stream: bool, *, idempotency_key: str | None = None
    ) -> ProviderAnswer:
        """``POST /chat/completions`` with exactly ``body``, which says ``stream`` as well."""
        return await self._post("/chat/completions", body, stream, idempotency_key)

    async def embeddings(
        self, body: bytes, *, idempotency_key: str | None = None
    ) -> ProviderAnswer:
        """``POST /embeddings``, likewise."""
        return await self._post("/embeddings", body, False, idempotency_key)

    async def models(self) -> bytes:
        """``GET /models``: the answer, checked to be JSON and no error."""
        return await self._exchange.get(self._base + "/models")

    async def _post(
        self, path: str, body: bytes, stream: bool, idempotency_key: str | None
    ) -> ProviderAnswer:
        own = () if idempotency_key is None else (("idempotency-key", idempotency_key),)
        return await self._exchange.post(self._base + path, body, stream=stream, headers=own)
