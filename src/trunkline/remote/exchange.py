"""One call to a provider of any format: send, tell failures apart, hand over what passed.

What passes has status 200 and the content type that was asked for. Which paths and headers a
provider wants is its caller's to know (``remote/anthropic.py``, ``remote/gemini.py``). Upstream's
words are never put into an error: they may quote a prompt.
"""

from collections.abc import Sequence

import msgspec

from trunkline.base.ports import Clock
from trunkline.remote.provider import ProviderAnswer, ProviderTimeouts, check_head
from trunkline.remote.transport import Method, Transport

Headers = Sequence[tuple[str, str]]


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls to one account share."""

    transport: Transport
    headers: tuple[tuple[str, str], ...]
    """Sent with every call: the API key, the version of the format."""
    clock: Clock
    """Measures a ``retry-after`` that is a date."""
    timeouts: ProviderTimeouts

    async def post(self, url: str, body: bytes, *, stream: bool) -> ProviderAnswer:
        """POST a JSON body. Raises the UpstreamErrors of :class:`ProviderCaller`."""
        kind = "text/event-stream" if stream else "application/json"
        headers = (("content-type", "application/json"), ("accept", kind))
        return await self._call("POST", url, headers, body, stream=stream)

    async def get(self, url: str) -> bytes:
        """GET one JSON object."""
        answer = await self._call("GET", url, (), None, stream=False)
        async with answer:
            return await answer.whole()

    async def _call(
        self, method: Method, url: str, headers: Headers, body: bytes | None, *, stream: bool
    ) -> ProviderAnswer:
        limits = self.timeouts
        response = await self.transport.request(
            method,
            url,
            headers=(*self.headers, *headers),
            body=body,
            connect_timeout_s=limits.connect_s,
            head_timeout_s=limits.stream_head_s if stream else limits.whole_head_s,
            idle_timeout_s=limits.idle_s,
        )
        try:
            await check_head(response, self.clock, stream=stream)
        except BaseException:
            await response.aclose()
            raise
        return ProviderAnswer(response)
