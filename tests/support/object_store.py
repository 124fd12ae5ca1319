"""A stand-in for an S3-compatible object store: one bucket in memory, stricter than real ones.

It checks every signature by its own reading of AWS's description, every body's digest and every
condition, and lists in small pages. Some of its requests can be made to fail, before or after they
took effect.
"""

import hmac
import re
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from urllib.parse import parse_qsl, quote

ACCESS, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
BUCKET, REGION = "a-bucket", "eu-central-1"
PAGE = 3
AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<access>[^/]+)/(?P<scope>[^,]+), "
    r"SignedHeaders=(?P<names>[^,]+), Signature=(?P<signature>[0-9a-f]{64})"
)


class ObjectStore:
    """An ASGI application. ``objects``: (body, headers) by key."""

    def __init__(self, plan=None, *, honours_conditions=True):
        """``plan``: by a request's number, how it fails: ``refused`` (503, no effect), ``stored``
        (500, but it took effect), ``silent`` (it took effect, and nothing is answered), ``late``
        (503, and it takes effect before the next request), ``gone`` (refused, and so is all that
        follows until :attr:`gone` is cleared)."""
        self.objects = {}
        self.plan = plan or {}
        self.requests = 0
        self.gone = False
        self.wrong = []
        """What no client should have sent."""
        self._honours_conditions = honours_conditions
        self._late = []

    async def startup(self):
        """Nothing to begin."""

    async def shutdown(self):
        """Nothing to end."""

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        number, self.requests = self.requests, self.requests + 1
        while self._late:
            self._answer(*self._late.pop())
        kind = self.plan.get(number)
        self.gone = self.gone or kind == "gone"
        request = (scope, {n.decode(): v.decode() for n, v in scope["headers"]}, body)
        if kind == "late":
            self._late.append(request)
        if self.gone or kind in ("refused", "late"):
            status, headers, found = 503, {}, b"<Error><Code>SlowDown</Code></Error>"
        else:
            status, headers, found = self._answer(*request)
            if kind == "stored":
                status, headers, found = 500, {}, b""
            if kind == "silent":
                await receive()
                return
        raw = [(b"content-length", b"%d" % len(found))]
        raw += [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})
        await send({"type": "http.response.body", "body": found})

    def _answer(self, scope, headers, body):
        """Status, headers and body of one request, done."""
        try:
            self._check(scope, headers, body)
        except AssertionError as error:
            self.wrong.append(str(error))
            return 403, {}, b"<Error><Code>SignatureDoesNotMatch</Code></Error>"
        bucket, _, key = scope["path"].removeprefix("/").partition("/")
        if bucket != BUCKET:
            return 404, {}, b"<Error><Code>NoSuchBucket</Code></Error>"
        match scope["method"], key:
            case "GET", "":
                return 200, {}, self._list(dict(parse_qsl(scope["query_string"].decode())))
            case "GET", _ if key in self.objects:
                found, kept = self.objects[key]
                return 200, {**kept, "etag": etag(found)}, found
            case "PUT", _:
                return self._put(key, headers, body)
            case "DELETE", _:
                self.objects.pop(key, None)
                return 204, {}, b""
        return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"

    def _put(self, key, headers, body):
        there = self.objects.get(key)
        wanted = headers.get("if-match")
        if self._honours_conditions:
            if headers.get("if-none-match") == "*" and there is not None:
                return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
            if wanted is not None and there is None:
                return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
            if wanted is not None and wanted != etag(there[0]):
                return 412, {}, b"<Error><Code>PreconditionFailed</Code></Error>"
        kept = {name: headers[name] for name in ("content-type", "cache-control")}
        self.objects[key] = (body, kept)
        return 200, {"etag": etag(body)}, b""

    def _list(self, query):
        prefix, after = query.get("prefix", ""), query.get("continuation-token", "")
        after = after.removeprefix("+/=")
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        page = keys[:PAGE]
        parts = [f"<Contents><Key>{key}</Key><Size>0</Size></Contents>" for key in page]
        more = len(keys) > PAGE
        if more:
            token = f"<NextContinuationToken>+/={page[-1]}</NextContinuationToken>"
            parts.append(token)
        truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
        return f"<ListBucketResult>{truncated}{''.join(parts)}</ListBucketResult>".encode()

    def _check(self, scope, headers, body):
        match = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
        assert match and match["access"] == ACCESS, "no authorization"
        at = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert abs(datetime.now(UTC) - at) < timedelta(minutes=15), "an old request"
        assert headers["x-amz-content-sha256"] == sha256(body).hexdigest(), "another body"
        names = match["names"].split(";")
        # Whatever means something must be signed.
        must = {name for name in headers if name.startswith(("x-amz-", "if-", "content-type"))}
        assert must | {"host"} <= set(names), "not all is signed"
        day, region, service, end = match["scope"].split("/")
        assert (day, region, service, end) == (
            headers["x-amz-date"][:8], REGION, "s3", "aws4_request",
        ), "another scope"  # fmt: skip
        signed = signature(
            scope["method"],
            scope["raw_path"].decode(),
            scope["query_string"].decode(),
            {name: headers[name] for name in names},
            sha256(body).hexdigest(),
            headers["x-amz-date"],
            match["scope"],
        )
        assert hmac.compare_digest(signed, match["signature"]), "another signature"


def etag(body):
    return f'"{md5(body, usedforsecurity=False).hexdigest()}"'


def signature(method, path, query, headers, digest, date, scope, secret=SECRET):
    """AWS Signature Version 4 as S3 has it: the path as it was sent, not encoded again."""
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join(
        [
            method,
            path,
            "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs),
            *(f"{name}:{headers[name].strip()}" for name in sorted(headers)),
            "",
            ";".join(sorted(headers)),
            digest,
        ]
    )
    to_sign = ["AWS4-HMAC-SHA256", date, scope, sha256(canonical.encode()).hexdigest()]
    key = b"AWS4" + secret.encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, "\n".join(to_sign).encode(), "sha256").hex()
