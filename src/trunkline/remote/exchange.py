"""One call to a provider of any format: send, tell failures apart, hand over what passed.

What passes has status 200 and the content type that was asked for. Which paths and headers a
provider wants is its caller's to know (``remote/anthropic.py``, ``remote/gemini.py``). Upstream's
words are never put into an error: they may quote a prompt.
"""

from collections.abc import Sequence

import msgspec

from trunkline.base.errors import BadResponseError
from trunkline.base.ports import Clock
from trunkline.remote.provider import WRONG_TYPE, ProviderAnswer, ProviderTimeouts
from trunkline.remote.status import (
    ERROR_BODY_BYTES_MAX,
    MODEL_MISSING,
    NOT_JSON,
    error_object,
    failure,
    failure_in_answer,
)
from trunkline.remote.transport import Method, Response, Transport

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
            await self._check_head(response, stream)
        except BaseException:
            await response.aclose()
            raise
        return ProviderAnswer(response)

    async def _check_head(self, response: Response, stream: bool) -> None:
        if response.status != 200:
            raise failure(
                response.status,
                response,
                await response.read(ERROR_BODY_BYTES_MAX),
                now_unix_s=self.clock.unix_ms() / 1000,
                missing=MODEL_MISSING,
            )
        kind = (response.header("content-type") or "").partition(";")[0].strip().lower()
        if stream and kind != "text/event-stream":
            error = error_object(await response.read(ERROR_BODY_BYTES_MAX))
            if error is not None:
                raise failure_in_answer(error)
            raise BadResponseError("a stream was asked for", code=WRONG_TYPE)
        if not stream and kind in ("text/event-stream", "text/html"):
            code = NOT_JSON if kind == "text/html" else WRONG_TYPE
            raise BadResponseError("a JSON object was asked for", code=code)
