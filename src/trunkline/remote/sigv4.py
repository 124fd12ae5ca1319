"""AWS Signature Version 4, of header form: what proves to AWS who sends a request.

Pure. Follows AWS's "Signature Version 4 signing process" for all services but S3, whose paths are
encoded once less; for a path that no encoding changes it is right there too. Signed are the host,
the date, the session token if there is one, and the body's digest; it refuses nothing and sends
nothing. Errors never hold a credential.
"""

import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from trunkline.base.errors import MalformedError
from trunkline.remote.target import Target

BAD_CREDENTIALS: Final = "bad_credentials"
ALGORITHM: Final = "AWS4-HMAC-SHA256"
_UNRESERVED: Final = "-_.~"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """An access key. Its ``repr`` says nothing of it."""

    access_key_id: str
    secret_access_key: str
    session_token: str | None = None

    def __repr__(self) -> str:
        return "Credentials(…)"

    @classmethod
    def parse(cls, text: str) -> "Credentials":
        """``ACCESS_KEY_ID:SECRET_ACCESS_KEY``, and ``:SESSION_TOKEN`` for temporary ones. Raises
        :class:`MalformedError`."""
        parts = text.split(":", 2)
        if len(parts) < 2 or not all(part and part.isascii() for part in parts):
            raise MalformedError(
                "an AWS key is ACCESS_KEY_ID:SECRET_ACCESS_KEY, with :SESSION_TOKEN if temporary",
                code=BAD_CREDENTIALS,
            )
        token = parts[2] if len(parts) == 3 else None
        return cls(access_key_id=parts[0], secret_access_key=parts[1], session_token=token)


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature is good for."""

    region: str
    service: str


def signed_headers(
    method: str,
    target: Target,
    body: bytes,
    *,
    credentials: Credentials,
    scope: Scope,
    unix_s: float,
    also: Mapping[str, str] | None = None,
) -> tuple[tuple[str, str], ...]:
    """The headers to send besides ``host``: date, session token, authorization.

    ``target``: its path percent-encoded once, as it is sent. ``also``: further headers that are
    sent, to be signed too; names in lower case.
    """
    at = datetime.fromtimestamp(unix_s, UTC)
    date = at.strftime("%Y%m%dT%H%M%SZ")
    added = {"x-amz-date": date}
    if credentials.session_token is not None:
        added["x-amz-security-token"] = credentials.session_token
    headers = {"host": target.authority, **(also or {}), **added}
    names = ";".join(sorted(headers))
    digest = sha256(_canonical(method, target, headers, names, body).encode()).hexdigest()
    credential_scope = f"{date[:8]}/{scope.region}/{scope.service}/aws4_request"
    to_sign = f"{ALGORITHM}\n{date}\n{credential_scope}\n{digest}"
    key = _key(credentials.secret_access_key, date[:8], scope)
    signature = hmac.new(key, to_sign.encode(), sha256).hexdigest()
    authorization = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{credential_scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return (*added.items(), ("authorization", authorization))


def _canonical(
    method: str, target: Target, headers: Mapping[str, str], names: str, body: bytes
) -> str:
    path, _, query = target.path.partition("?")
    lines = [f"{name}:{' '.join(headers[name].split())}" for name in sorted(headers)]
    return "\n".join(
        # All services but S3 encode the path again, as it was sent.
        (method, quote(path, safe="/" + _UNRESERVED), _query(query), *lines, "", names,
         sha256(body).hexdigest())
    )  # fmt: skip


def _query(query: str) -> str:
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    encoded = [
        (quote(unquote(name), safe=_UNRESERVED), quote(unquote(value), safe=_UNRESERVED))
        for name, value in pairs
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


def _key(secret: str, day: str, scope: Scope) -> bytes:
    key = b"AWS4" + secret.encode()
    for part in (day, scope.region, scope.service, "aws4_request"):
        key = hmac.new(key, part.encode(), sha256).digest()
    return key
