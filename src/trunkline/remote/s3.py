"""Calling an S3-compatible object store: read, write under a condition, delete, list; one bucket.

Follows the S3 REST API of 2006-03-01 with its conditional writes (``If-None-Match: *`` and
``If-Match``), which a store must know: one that ignores them overwrites. Each call is one attempt,
signed with AWS Signature Version 4. A store's own words are never put into an error.
"""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Final, Self
from urllib.parse import quote

import msgspec

from trunkline.base.errors import BadResponseError, ConflictError, MalformedError
from trunkline.base.ports import Clock
from trunkline.crypto.digest import sha256
from trunkline.remote.plain import refusal
from trunkline.remote.sigv4 import Credentials, Scope, signed_headers
from trunkline.remote.target import parse_url
from trunkline.remote.transport import Method, Response, Transport

SERVICE: Final = "s3"
LIST_BYTES_MAX: Final = 4 * 1024 * 1024
"""A page of 1,000 keys has about 300 kB."""
BAD_STORE: Final = "s3_bad_response"
OBJECT_CHANGED: Final = "s3_condition_failed"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# Unreserved characters and slashes: what no percent-encoding changes, so that what is signed is
# what is sent, and what no XML has to escape.
_KEY = re.compile(r"[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*")
_PREFIX = re.compile(r"[A-Za-z0-9._~/-]{0,1024}")
_ETAG = re.compile(r'"[!#-~]{1,255}"')
_KEYS = re.compile(rb"<Key>([^<]*)</Key>")
_NEXT = re.compile(rb"<NextContinuationToken>([^<&]+)</NextContinuationToken>")


class ObjectChangedError(ConflictError):
    """The condition of a write was not met: nothing was written."""

    code = OBJECT_CHANGED


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """Where the objects are."""

    endpoint: str
    """URL of the service, without the bucket."""
    name: str
    region: str
    path_style: bool
    """Whether the bucket is in the URL's path, instead of before its host."""

    def url(self) -> str:
        """The URL that keys are put behind. MalformedError if it is none."""
        if _BUCKET.fullmatch(self.name) is None or ".." in self.name:
            raise MalformedError("not a bucket's name", code="bad_bucket")
        endpoint = self.endpoint.rstrip("/")
        if parse_url(endpoint).path != "/":
            raise MalformedError("an endpoint has no path", code="bad_url")
        scheme, _, host = endpoint.partition("://")
        url = f"{endpoint}/{self.name}" if self.path_style else f"{scheme}://{self.name}.{host}"
        parse_url(url)
        return url


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """An object as it was read."""

    body: bytes
    etag: str
    """Names this version of it, quotes included."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold for a write to happen."""

    header: tuple[str, str]

    @classmethod
    def absent(cls) -> Self:
        """There is no such object yet."""
        return cls(header=("if-none-match", "*"))

    @classmethod
    def unchanged(cls, etag: str) -> Self:
        """It is still the version ``etag``."""
        return cls(header=("if-match", etag))


class S3Caller:
    """One bucket. Keys are of letters, digits, ``-._~`` and slashes; others are MalformedError."""

    __slots__ = ("_base", "_clock", "_credentials", "_scope", "_timeout_s", "_transport")

    def __init__(
        self,
        transport: Transport,
        bucket: Bucket,
        credentials: Credentials,
        *,
        clock: Clock,
        timeout_s: float = 10.0,
    ) -> None:
        """``timeout_s`` bounds every phase of a call. MalformedError for a bucket that is none."""
        self._transport = transport
        self._base = bucket.url()
        self._credentials = credentials
        self._scope = Scope(region=bucket.region, service=SERVICE)
        self._clock = clock
        self._timeout_s = timeout_s

    async def get(self, key: str, limit: int) -> Stored | None:
        """An object of at most ``limit`` bytes; None if there is none."""
        async with await self._open("GET", _path(key)) as response:
            if response.status == 404:
                return None
            if response.status != 200:
                raise await refusal(response)
            return Stored(body=await response.read(limit), etag=_etag(response))

    async def put(
        self, key: str, body: bytes, condition: Condition, headers: Mapping[str, str]
    ) -> str:
        """Write an object whole, durably; returns its etag.

        ``headers``: its content type and the like, in lower case. ObjectChangedError if the
        condition is not met. After an UpstreamError it may have been written or not, or may be
        yet: the request can still be on its way.
        """
        named = dict([*headers.items(), condition.header])
        async with await self._open("PUT", _path(key), body, named) as response:
            if response.status == 412:
                raise ObjectChangedError("the object is not as the write demands")
            if response.status not in (200, 201, 204):
                raise await refusal(response)
            return _etag(response)

    async def delete(self, key: str) -> None:
        """Delete an object; one that is gone already is fine."""
        async with await self._open("DELETE", _path(key)) as response:
            if response.status not in (200, 204, 404):
                raise await refusal(response)

    async def keys(self, prefix: str) -> AsyncIterator[str]:
        """Every key that begins with ``prefix``, ascending."""
        if _PREFIX.fullmatch(prefix) is None:
            raise MalformedError("not the beginning of a key", code="bad_key")
        token = ""
        while True:
            page = await self._page(prefix, token)
            for found in _KEYS.findall(page):
                yield found.decode("utf-8", "replace")
            if b"<IsTruncated>true</IsTruncated>" not in page:
                return
            more = _NEXT.search(page)
            if more is None or more[1].decode("latin-1") == token:
                raise BadResponseError("a list breaks off", code=BAD_STORE)
            token = more[1].decode("latin-1")

    async def _page(self, prefix: str, token: str) -> bytes:
        query = f"list-type=2&prefix={quote(prefix, safe='')}"
        if token:
            query = f"continuation-token={quote(token, safe='')}&{query}"
        async with await self._open("GET", f"/?{query}") as response:
            if response.status != 200:
                raise await refusal(response)
            page = await response.read(LIST_BYTES_MAX)
        if b"<ListBucketResult" not in page:
            raise BadResponseError("not a list of objects", code=BAD_STORE)
        return page

    async def _open(
        self,
        method: Method,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        url = self._base + path
        named = {**(headers or {}), "x-amz-content-sha256": sha256(body or b"").hex()}
        signed = signed_headers(
            method,
            parse_url(url),
            body or b"",
            credentials=self._credentials,
            scope=self._scope,
            unix_s=self._clock.unix_ms() / 1000,
            also=named,
        )
        return await self._transport.request(
            method,
            url,
            headers=(*named.items(), *signed),
            body=body,
            connect_timeout_s=self._timeout_s,
            head_timeout_s=self._timeout_s,
            idle_timeout_s=self._timeout_s,
        )


def _path(key: str) -> str:
    if _KEY.fullmatch(key) is None or len(key) > 1024 or {".", ".."} & set(key.split("/")):
        raise MalformedError("not a key that is used here", code="bad_key")
    return f"/{key}"


def _etag(response: Response) -> str:
    found = response.header("etag") or ""
    if _ETAG.fullmatch(found) is None:
        raise BadResponseError("an object without an etag", code=BAD_STORE)
    return found
