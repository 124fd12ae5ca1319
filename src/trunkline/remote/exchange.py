"""One call to a provider of any format: send, tell failures apart, hand over what passed.

What passes has status 200 and the content type that was asked for. Which paths and headers a
provider wants is its caller's to know (``remote/provider.py`` and its like). Upstream's words are
never put into an error: they may quote a prompt.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.base.errors import BadResponseError
from trunkline.base.ports import Clock
from trunkline.remote.answer import ProviderAnswer
from trunkline.remote.limits import Windows, stated
from trunkline.remote.status import (
    ERROR_BODY_BYTES_MAX,
    MODEL_MISSING,
    NOT_JSON,
    error_object,
    failure,
    failure_in_answer,
)
from trunkline.remote.transport import Method, Response, Transport

SSE_TYPE: Final = "text/event-stream"
WRONG_TYPE: Final = "upstream_wrong_content_type"

Headers = Sequence[tuple[str, str]]


class ProviderTimeouts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds of one call. The head of a whole answer comes when the model is done."""

    connect_s: float = 5.0
    """To open a connection."""
    stream_head_s: float = 60.0
    """To the head of a stream."""
    whole_head_s: float = 600.0
    """To the head of a whole (not streamed) answer: the model is done by then."""
    idle_s: float = 60.0
    """Between two pieces of data."""


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """What all calls to one account share."""

    transport: Transport
    headers: tuple[tuple[str, str], ...]
    """Sent with every call: the API key, the version of the format."""
    clock: Clock
    """What dates in an answer's head are measured from."""
    timeouts: ProviderTimeouts
    windows: Windows = {}
    """Lengths of its limits' windows, where it documents and does not send them."""
    stream_type: str = SSE_TYPE
    """Content type of its streams."""

    async def post(
        self, url: str, body: bytes, *, stream: bool, headers: Headers = ()
    ) -> ProviderAnswer:
        """POST a JSON body. Raises UpstreamErrors: the transport's, and the status table's."""
        kind = self.stream_type if stream else "application/json"
        named = (("content-type", "application/json"), ("accept", kind), *headers)
        return await self._call("POST", url, named, body, stream=stream)

    async def get(self, url: str) -> bytes:
        """GET one JSON object."""
        answer = await self._call("GET", url, (), None, stream=False)
        async with answer:
            return await answer.whole()

    async def _call(
        self, method: Method, url: str, headers: Headers, body: bytes | None, *, stream: bool
    ) -> ProviderAnswer:
        bounds = self.timeouts
        response = await self.transport.request(
            method,
            url,
            headers=(*self.headers, *headers),
            body=body,
            connect_timeout_s=bounds.connect_s,
            head_timeout_s=bounds.stream_head_s if stream else bounds.whole_head_s,
            idle_timeout_s=bounds.idle_s,
        )
        now_s = self.clock.unix_ms() / 1000
        try:
            expected = self.stream_type if stream else None
            await check_head(response, now_s, stream_type=expected, windows=self.windows)
        except BaseException:
            await response.aclose()
            raise
        limits = stated(response.headers, now_unix_s=now_s, windows=self.windows)
        return ProviderAnswer(response, limits)


async def check_head(
    response: Response, now_unix_s: float, *, stream_type: str | None, windows: Windows
) -> None:
    """Raise the failure that a response's status and type stand for; nothing if it may be read.

    ``stream_type``: the content type of the stream that was asked for; None for a whole answer.
    """
    if response.status != 200:
        raise failure(
            response.status,
            response,
            await response.read(ERROR_BODY_BYTES_MAX),
            now_unix_s=now_unix_s,
            missing=MODEL_MISSING,
            windows=windows,
        )
    kind = (response.header("content-type") or "").partition(";")[0].strip().lower()
    if stream_type is not None and kind != stream_type:
        # Some send the error of a streamed request as plain JSON, with a 200.
        error = error_object(await response.read(ERROR_BODY_BYTES_MAX))
        if error is not None:
            raise failure_in_answer(error)
        raise BadResponseError("a stream was asked for", code=WRONG_TYPE)
    if stream_type is None and kind in (SSE_TYPE, "text/html"):
        code = NOT_JSON if kind == "text/html" else WRONG_TYPE
        raise BadResponseError("a JSON object was asked for", code=code)
