"""The object store's caller: what it sends against AWS's own library, what it makes of answers."""

import pytest
from tests.support import object_store

from trunkline.base.errors import BadResponseError, MalformedError, UpstreamError
from trunkline.remote.http1 import HttpTransport
from trunkline.remote.s3 import Bucket, Condition, ObjectChangedError, S3Caller, Stored
from trunkline.remote.sigv4 import Credentials
from trunkline.remote.target import parse_url
from trunkline.runtime.clock import SystemClock
from trunkline.runtime.server import serving

TILE = {
    "content-type": "application/octet-stream",
    "cache-control": "public, max-age=31536000, immutable",
}
NOTE = {"content-type": "text/plain; charset=utf-8", "cache-control": "no-cache"}
ETAG = '"9dd4e461268c8034f5c8564e155c67a6"'
AWS = Bucket(
    endpoint="https://s3.eu-central-1.amazonaws.com",
    name="a-bucket",
    region="eu-central-1",
    path_style=False,
)
OTHER = Bucket(
    endpoint="https://objects.example:9000/",
    name="a-bucket",
    region="eu-central-1",
    path_style=True,
)


class FixedClock:
    def unix_ms(self):
        return 1_795_255_200_000

    def monotonic_s(self):
        return 0.0


class Sent(Exception):
    def __init__(self, method, url, headers):
        self.method, self.url, self.headers = method, url, dict(headers)


class Recording:
    """A transport that sends nothing."""

    async def request(self, method, url, *, headers, **_):
        raise Sent(method, url, headers)


CALLS = [
    (
        AWS,
        lambda caller: caller.put(
            "logs/one/tile/0/x001/234.p/17", b"\0\1bytes", Condition.absent(), TILE
        ),
        "PUT https://a-bucket.s3.eu-central-1.amazonaws.com/logs/one/tile/0/x001/234.p/17",
        "e6760b395e3ea867eaf3c965de941a4148114d1a851b4a4db6e9ee80958dac44",
        "92080763d5c7f33c66e8755cd1b99f588679910c839ada237e5b2e5f3f0ca86e",
    ),
    (
        OTHER,
        lambda caller: caller.put("checkpoint", b"note\n", Condition.unchanged(ETAG), NOTE),
        "PUT https://objects.example:9000/a-bucket/checkpoint",
        "cd784a3cee0d64190079babf55a02d9afb4055910b1b6de25780f3d45c47fa44",
        "c8672a336ce3360d7d2fc40da1caac843974327c0f629b731d751e9cdbe01b7c",
    ),
    (
        OTHER,
        lambda caller: caller._page("logs/one/tile/", "1/aB+=="),
        "GET https://objects.example:9000/a-bucket/?continuation-token=1%2FaB%2B%3D%3D"
        "&list-type=2&prefix=logs%2Fone%2Ftile%2F",
        "4baff3fd663642e7e0b7c4a34325135a70d8030bc1518742d543dcdfd6b23560",
        "27411644558a8b0e89eb592a75e0f465d93135e07bf0c5b4ca8be5408567cec9",
    ),
    (
        OTHER,
        lambda caller: caller.delete("tile/entries/000.p/5"),
        "DELETE https://objects.example:9000/a-bucket/tile/entries/000.p/5",
        "508a929e0c13a3b23af1c0ac28c891069eade4ca86a2a95ece10d88059560a81",
        "2b02870f954ba7c6e662092ac61e16b23ae3d927ab3513e87a05f35dc109d887",
    ),
]


@pytest.mark.parametrize("token", [None, "TOKEN/+=="])
@pytest.mark.parametrize(("bucket", "call", "request_line", "plain", "temporary"), CALLS)
async def test_it_signs_as_botocore_does(bucket, call, request_line, plain, temporary, token):
    """Signatures by botocore 1.44.5, S3SigV4Auth, over the same requests."""
    credentials = Credentials(
        access_key_id=object_store.ACCESS,
        secret_access_key=object_store.SECRET,
        session_token=token,
    )
    caller = S3Caller(Recording(), bucket, credentials, clock=FixedClock())
    with pytest.raises(Sent) as sent:
        await call(caller)
    assert f"{sent.value.method} {sent.value.url}" == request_line
    wanted = plain if token is None else temporary
    assert sent.value.headers["authorization"].endswith(f"Signature={wanted}")
    # The stand-in's own reading agrees too.
    names = sent.value.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0]
    target = parse_url(sent.value.url)
    path, _, query = target.path.partition("?")
    headers = {"host": target.authority, **sent.value.headers}
    digest, date = headers["x-amz-content-sha256"], headers["x-amz-date"]
    again = object_store.signature(
        sent.value.method, path, query, {name: headers[name] for name in names.split(";")},
        digest, date, "20261121/eu-central-1/s3/aws4_request",
    )  # fmt: skip
    assert again == wanted


@pytest.fixture
async def made():
    """A store and a caller of it."""
    store, transport = object_store.ObjectStore(), HttpTransport()
    async with serving(store) as url:
        bucket = Bucket(
            endpoint=url, name=object_store.BUCKET, region=object_store.REGION, path_style=True
        )
        key = Credentials.parse(f"{object_store.ACCESS}:{object_store.SECRET}")
        yield store, S3Caller(transport, bucket, key, clock=SystemClock(), timeout_s=2)
        await transport.aclose()
    assert store.wrong == []


async def test_conditions(made):
    _, caller = made
    assert await caller.get("one", 10) is None
    etag = await caller.put("one", b"1", Condition.absent(), TILE)
    for condition in (Condition.absent(), Condition.unchanged(ETAG)):
        with pytest.raises(ObjectChangedError):
            await caller.put("one", b"2", condition, TILE)
    assert await caller.get("one", 10) == Stored(body=b"1", etag=etag)
    second = await caller.put("one", b"2", Condition.unchanged(etag), TILE)
    assert await caller.get("one", 10) == Stored(body=b"2", etag=second)
    await caller.delete("one")
    await caller.delete("one")
    with pytest.raises(UpstreamError):
        await caller.put("one", b"3", Condition.unchanged(second), TILE)
    assert await caller.get("one", 10) is None


async def test_a_long_list_is_read_to_its_end(made):
    store, caller = made
    names = [f"tile/0/{number:03d}" for number in range(3 * object_store.PAGE + 1)]
    store.objects = {name: (b"", {}) for name in [*names, "other"]}
    assert [key async for key in caller.keys("tile/")] == names
    assert [key async for key in caller.keys("nothing")] == []


@pytest.mark.parametrize(
    "key", ["", "a b", "a//b", "/a", "a/", "ä", "../a", "a/./b", "a&b", "a%20"]
)
async def test_a_key_that_would_need_encoding_is_refused(made, key):
    store, caller = made
    with pytest.raises(MalformedError):
        await caller.get(key, 10)
    assert store.requests == 0


@pytest.mark.parametrize(
    "change",
    [{"name": "A"}, {"name": "a..b"}, {"endpoint": "ftp://x"}, {"endpoint": "https://x/path"}],
)
def test_a_bucket_that_is_none(change):
    fields = {"endpoint": "https://x", "name": "a-bucket", "region": "r", "path_style": True}
    with pytest.raises(MalformedError):
        Bucket(**(fields | change)).url()


async def test_refusals_are_told_apart(made):
    store, caller = made
    store.objects = {"one": (b"12345", {})}
    with pytest.raises(BadResponseError):
        await caller.get("one", 4)
    store.plan = {1: "refused", 2: "stored"}
    with pytest.raises(UpstreamError) as refused:
        await caller.get("one", 10)
    assert refused.value.retryable
    with pytest.raises(UpstreamError):
        await caller.delete("one")
    assert store.objects == {}


async def test_another_key_is_refused_by_the_store(made):
    store, caller = made
    other = Credentials(access_key_id=object_store.ACCESS, secret_access_key="x")
    caller._credentials = other
    with pytest.raises(UpstreamError) as refused:
        await caller.get("one", 10)
    assert refused.value.error_code == "upstream_auth"
    assert store.wrong == ["another signature"]
    store.wrong.clear()


@pytest.mark.parametrize(
    "page",
    [b"", b"<html>", b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"],
)
async def test_a_list_that_is_none(made, monkeypatch, page):
    store, caller = made
    monkeypatch.setattr(store, "_list", lambda query: page)
    with pytest.raises(BadResponseError):
        assert [key async for key in caller.keys("tile/")]
