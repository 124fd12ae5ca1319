"""Small whole-body calls, for the services that are no streams: log and witness."""

from trunkline.base.errors import UpstreamError
from trunkline.remote.status import ERROR_BODY_BYTES_MAX, failure
from trunkline.remote.transport import Headers, Method, Response, Transport


class PlainCaller:
    """One service by its base URL, every phase of a call bounded by ``timeout_s``."""

    __slots__ = ("_base", "_timeout_s", "_transport")

    def __init__(self, transport: Transport, base_url: str, timeout_s: float) -> None:
        self._transport = transport
        self._base = base_url.rstrip("/")
        self._timeout_s = timeout_s

    async def call(
        self, method: Method, path: str, limit: int, *, body: bytes | None = None
    ) -> bytes:
        """The body of a 200, at most ``limit`` bytes. Anything else is an UpstreamError."""
        headers = () if body is None else (("content-type", "application/octet-stream"),)
        async with await self.open(method, path, headers, body) as response:
            if response.status != 200:
                raise await refusal(response)
            return await response.read(limit)

    async def open(
        self, method: Method, path: str, headers: Headers = (), body: bytes | None = None
    ) -> Response:
        """The response, whatever its status; the caller closes it."""
        return await self._transport.request(
            method,
            self._base + path,
            headers=headers,
            body=body,
            connect_timeout_s=self._timeout_s,
            head_timeout_s=self._timeout_s,
            idle_timeout_s=self._timeout_s,
        )


async def refusal(response: Response) -> UpstreamError:
    """The error for a response that is no success."""
    body = await response.read(ERROR_BODY_BYTES_MAX)
    return failure(response.status, response, body, now_unix_s=0.0)
