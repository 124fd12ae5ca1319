"""Properties of the HTTP client's parsers: any bytes, cut anywhere, are told apart the same way."""

import asyncio
from datetime import UTC, datetime
from email.utils import format_datetime
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trunkline.base.errors import (
    BadResponseError,
    MalformedError,
    TruncatedError,
    UpstreamError,
)
from trunkline.remote.connection import Connection
from trunkline.remote.status import (
    RETRY_AFTER_S_MAX,
    error_object,
    failure,
    failure_in_answer,
    retry_after_s,
)
from trunkline.remote.target import encode_head, parse_url

NOW_S = 1_780_000_000.0


class Wire:
    """A transport without a network."""

    def __init__(self) -> None:
        self.written = b""
        self.cut = False

    def writelines(self, pieces) -> None:
        self.written += b"".join(pieces)

    def abort(self) -> None:
        self.cut = True

    def is_closing(self) -> bool:
        return self.cut

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Owner:
    def __init__(self) -> None:
        self.free = self.gone = 0

    def released(self, connection) -> None:
        self.free += 1

    def lost(self, connection) -> None:
        self.gone += 1


async def _exchange(pieces: list[bytes]) -> tuple[object, ...]:
    owner, wire = Owner(), Wire()
    connection = Connection(owner)
    connection.connection_made(wire)

    async def run() -> tuple[object, ...]:
        try:
            response = await connection.exchange((b"GET",), 5.0, 5.0)
            body = await response.read(10_000_000)
        except UpstreamError as error:
            return (type(error), error.error_code)
        return (response.status, tuple(response.headers), body)

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    for piece in pieces:
        if not wire.cut:
            connection.data_received(piece)
    connection.connection_lost(None)
    outcome = await task
    # Every connection is accounted for: gone exactly once, whatever came.
    assert owner.gone == 1
    return outcome


def exchange(data: bytes, cuts: list[int]) -> tuple[object, ...]:
    """What a response made of ``data``, cut at ``cuts`` and then closed, is taken for."""
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    bounds = [0, *places, len(data)]
    pieces = [data[a:b] for a, b in pairwise(bounds) if a < b]
    return asyncio.run(_exchange(pieces))


cuts = st.lists(st.integers(0, 10_000), max_size=8)
bodies = st.binary(max_size=300)
tokens = st.text("abcXYZ-_0", min_size=1, max_size=8)


@st.composite
def chunked(draw) -> tuple[bytes, bytes]:
    parts = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
    extension = draw(st.sampled_from([b"", b";a=b", b";x"]))
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts)
    return b"".join(parts), framed + b"0\r\n" + draw(st.sampled_from([b"", b"t: v\r\n"])) + b"\r\n"


@given(body=bodies, cuts=cuts, keep=st.booleans())
def test_declared_length(body, cuts, keep):
    closing = b"" if keep else b"connection: close\r\n"
    data = b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (closing, len(body), body)
    status, _, got = exchange(data, cuts)
    assert (status, got) == (200, body)


@given(made=chunked(), cuts=cuts)
def test_chunked(made, cuts):
    body, framed = made
    status, _, got = exchange(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + framed, cuts
    )
    assert (status, got) == (200, body)


@given(made=chunked(), cuts=cuts, cut=st.integers(0, 10_000))
def test_a_cut_is_never_a_complete_answer(made, cuts, cut):
    whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + made[1]
    cut %= len(whole)
    kind, code = exchange(whole[:cut], cuts)
    assert kind is TruncatedError
    assert code == ("upstream_truncated" if cut else "upstream_closed")


@given(body=bodies, cuts=cuts)
def test_close_delimited(body, cuts):
    status, _, got = exchange(b"HTTP/1.1 200 OK\r\n\r\n" + body, cuts)
    assert (status, got) == (200, body)


@given(data=st.binary(max_size=400), cuts=cuts)
@example(data=b"HTTP/1.1 200 OK\r\n\r\n", cuts=[3])
@example(data=b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nabc", cuts=[])
def test_any_bytes_are_an_answer_or_a_named_failure(data, cuts):
    outcome = exchange(data, cuts)
    assert outcome[0] in (TruncatedError, BadResponseError) or isinstance(outcome[0], int)


@settings(max_examples=300)
@given(
    start=st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200\r\n", b"HTTP/1.1 103 x\r\n\r\n"]),
    lines=st.lists(
        st.sampled_from(
            [
                b"content-length: 3\r\n",
                b"content-length: 3, 3\r\n",
                b"content-length: +3\r\n",
                b"transfer-encoding: chunked\r\n",
                b"transfer-encoding: gzip, chunked\r\n",
                b"transfer-encoding: chunked, gzip\r\n",
                b"transfer-encoding: identity\r\n",
                b"connection: close\r\n",
                b"connection: upgrade\r\nupgrade: h2c\r\n",
                b" folded\r\n",
                b"x: y\r\n",
                b"\r\n",
                b"3\r\nabc\r\n0\r\n\r\n",
                b"abc",
            ]
        ),
        max_size=6,
    ),
    one=cuts,
    other=cuts,
)
def test_what_it_is_does_not_depend_on_the_cuts(start, lines, one, other):
    data = start + b"".join(lines)
    assert exchange(data, one) == exchange(data, other)


@given(url=st.one_of(st.text(max_size=80), st.text("htps:/@.[]%a0?#\\", max_size=40)))
@example(url="http://a\r\nx: y/")
@example(url="http://[::1%25eth0]:80/")
@example(url="http://user:pass@host/")
@example(url="http://host:0/")
@example(url="http://host:99999/")
@example(url="http://[::1/")
@example(url="https://xn--bcher-kva.example/a?b=c#d")
def test_any_url_is_a_target_or_malformed(url):
    try:
        target = parse_url(url)
    except MalformedError as error:
        assert error.error_code == "bad_url"
        assert len(url) < 12 or url not in error.message
        return
    head = encode_head("GET", target, (), None)
    # Two header lines of our own, and nothing that the URL could have added.
    assert head.count(b"\r\n") == 4
    assert head.split(b"\r\n")[0].count(b" ") == 2


def test_urls():
    target = parse_url("HTTPS://Host.Example:443/a%20b?c=d")
    assert (target.origin.scheme, target.origin.host, target.origin.port) == (
        "https",
        "host.example",
        443,
    )
    assert (target.authority, target.path) == ("host.example", "/a%20b?c=d")
    assert parse_url("http://[::1]:80").authority == "[::1]"
    assert parse_url("http://h:81").authority == "h:81"


@given(name=st.text(max_size=12), value=st.text(max_size=20))
@example(name="x", value="a\r\nb: c")
@example(name="x\r\ny", value="")
@example(name="Content-Length", value="0")
@example(name="Transfer-Encoding", value="chunked")
@example(name="host", value="evil")
@example(name="", value="")
@example(name="", value="name")
def test_any_header_is_one_line_or_malformed(name, value):
    target = parse_url("http://h/")
    try:
        head = encode_head("POST", target, [(name, value)], 0)
    except MalformedError as error:
        assert error.error_code == "bad_header"
        # The value is a secret as often as not; the name may be told.
        lower = name.lower()
        assert error.message in {
            f"header {lower}: the value can not be sent",
            f"header {lower} is set by the transport",
            "a header name can not be sent",
        }
        return
    assert head.count(b"\r\n") == 6
    assert f"\r\n{name.lower()}: {value}\r\n".encode() in head


class Headers:
    def __init__(self, **fields: str) -> None:
        self.fields = {name.replace("_", "-"): value for name, value in fields.items()}

    @property
    def headers(self) -> list[tuple[str, str]]:
        return list(self.fields.items())

    def header(self, name: str) -> str | None:
        return self.fields.get(name)


@given(seconds=st.text(max_size=30), milliseconds=st.none() | st.text(max_size=12))
@example(seconds="1e308", milliseconds=None)
@example(seconds="Infinity", milliseconds="nan")
@example(seconds="Mon, 01 Jan 0001 00:00:00 -2400", milliseconds=None)
@example(seconds="Fri, 31 Dec 9999 23:59:59 -2300", milliseconds=None)
@example(seconds="١٢", milliseconds="١٢")
def test_any_retry_after_is_bounded_or_none(seconds, milliseconds):
    headers = Headers(retry_after=seconds)
    if milliseconds is not None:
        headers.fields["retry-after-ms"] = milliseconds
    wait_s = retry_after_s(headers, now_unix_s=NOW_S)
    assert wait_s is None or 0 <= wait_s <= RETRY_AFTER_S_MAX


@given(ahead_s=st.integers(0, 80_000))
def test_retry_after_dates(ahead_s):
    date = format_datetime(datetime.fromtimestamp(NOW_S + ahead_s, UTC), usegmt=True)
    assert retry_after_s(Headers(retry_after=date), now_unix_s=NOW_S) == ahead_s


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
error_fields = st.sampled_from(["code", "type", "status", "param", "details", "message"])


@given(
    body=st.binary(max_size=60)
    | json_values.map(msgspec.json.encode)
    | st.dictionaries(error_fields, json_values).map(lambda e: msgspec.json.encode({"error": e})),
    status=st.integers(100, 599).filter(lambda s: s != 200),
)
@example(body=b"[" * 100_000, status=500)
@example(body=b'{"error":{"code":NaN}}', status=429)
def test_any_error_body_becomes_a_failure_without_its_words(body, status):
    error = failure(status, Headers(), body, now_unix_s=NOW_S)
    assert isinstance(error, UpstreamError)
    assert len(error.message) < 100
    found = error_object(body)
    if found is not None:
        assert isinstance(failure_in_answer(found), UpstreamError)


@pytest.mark.parametrize("prompt", ["Tell me a secret about alice", "drop table; --", "ü" * 20])
def test_prose_never_passes_for_a_code(prompt):
    body = msgspec.json.encode(
        {"error": dict.fromkeys(("code", "type", "status", "param"), prompt)}
    )
    for status in (400, 401, 429, 500):
        assert prompt not in failure(status, Headers(), body, now_unix_s=NOW_S).message
