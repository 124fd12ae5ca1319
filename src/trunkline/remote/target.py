"""Where a request goes, and the bytes of its head: checked so that no value can break a line.

Pure: no I/O. Messages never quote a URL or a header value, either may hold a key.
"""

import ipaddress
import re
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.remote.transport import Headers

URL_CHARS_MAX: Final = 8192
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# Letters, digits, dots, hyphens and underscores: what resolvers take. Other scripts come as xn--.
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
_URL = re.compile(r"[!-~]+")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[ -~\t]*")
_FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding",
     "upgrade"}
)  # fmt: skip


class Origin(msgspec.Struct, frozen=True):
    """What a connection belongs to. Hashable."""

    scheme: str
    host: str
    """A name or an address, without brackets."""
    port: int

    @property
    def tls(self) -> bool:
        return self.scheme == "https"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed URL."""

    origin: Origin
    authority: str
    """Value of the ``host`` header."""
    path: str
    """Path and query, as sent."""


@lru_cache(maxsize=1024)
def parse_url(url: str) -> Target:
    """Parse an ``http`` or ``https`` URL. Raises :class:`MalformedError` ``bad_url``."""
    if len(url) > URL_CHARS_MAX or not _URL.fullmatch(url):
        raise _bad_url("has spaces, control characters or non-ASCII characters, or is too long")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _bad_url("does not parse") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise _bad_url("is neither http nor https")
    if not host or "@" in parts.netloc or parts.fragment or port == 0:
        raise _bad_url("needs a host, and neither credentials nor fragment")
    shown = _checked_host(host)
    default = _DEFAULT_PORTS[parts.scheme]
    authority = shown if port in (None, default) else f"{shown}:{port}"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(
        origin=Origin(parts.scheme, host, port or default), authority=authority, path=path
    )


def encode_head(method: str, target: Target, headers: Headers, body_bytes: int | None) -> bytes:
    """The request's head. ``body_bytes``: None for a request without a body.

    Raises :class:`MalformedError` ``bad_header`` for a name or value that HTTP can not carry, and
    for headers that decide the framing, which are not the caller's.
    """
    lines = [f"{method} {target.path} HTTP/1.1\r\nhost: {target.authority}\r\n"]
    for name, value in headers:
        lower = _checked_name(name)
        if not _VALUE.fullmatch(value):
            raise MalformedError(f"header {lower}: the value can not be sent", code="bad_header")
        lines.append(f"{lower}: {value}\r\n")
    if body_bytes is not None:
        lines.append(f"content-length: {body_bytes}\r\n")
    lines.append("accept-encoding: identity\r\n\r\n")
    return "".join(lines).encode("ascii")


@lru_cache(maxsize=256)
def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise MalformedError("a header name can not be sent", code="bad_header")
    lower = name.lower()
    if lower in _FRAMING or lower == "accept-encoding":
        raise MalformedError(f"header {lower} is set by the transport", code="bad_header")
    return lower


def _checked_host(host: str) -> str:
    """The host as it is written in a URL: an IPv6 address in brackets."""
    if ":" in host:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            raise _bad_url("has a malformed IPv6 address") from None
        # A scope names an interface of this machine; it means nothing to the other side.
        return f"[{host.partition('%')[0] if address.scope_id else host}]"
    if not _HOST.fullmatch(host):
        raise _bad_url("has a malformed host")
    return host


def _bad_url(why: str) -> MalformedError:
    return MalformedError(f"the URL {why}", code="bad_url")
