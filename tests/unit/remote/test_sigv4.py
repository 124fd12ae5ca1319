"""AWS signatures: the published suite's vectors, and what AWS's own library signs for Bedrock."""

import pytest

from trunkline.base.errors import MalformedError
from trunkline.remote.sigv4 import Credentials, Scope, signed_headers
from trunkline.remote.target import parse_url

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
CREDENTIALS = Credentials(access_key_id="AKIDEXAMPLE", secret_access_key=SECRET)
SUITE = Scope(region="us-east-1", service="service")
SUITE_S = 1_440_938_160.0


@pytest.mark.parametrize(
    ("name", "method", "path", "signature"),
    [
        ("get-vanilla", "GET", "/",
         "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        ("post-vanilla", "POST", "/",
         "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"),
        ("get-vanilla-query-order-key-case", "GET", "/?Param2=value2&Param1=value1",
         "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"),
    ],
)  # fmt: skip
def test_the_published_suite(name: str, method: str, path: str, signature: str) -> None:
    target = parse_url("https://example.amazonaws.com" + path)
    headers = signed_headers(
        method, target, b"", credentials=CREDENTIALS, scope=SUITE, unix_s=SUITE_S
    )
    assert dict(headers) == {
        "x-amz-date": "20150830T123600Z",
        "authorization": "AWS4-HMAC-SHA256 "
        "Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}",
    }, name


@pytest.mark.parametrize(
    ("token", "signature"),
    [
        (None, "a4e2dba33a4b7a6a02a89279a081ab24707cf43c625a71eb08c0b363648dd9cb"),
        ("TOKEN/+=", "fc57e93d787c905950d1cde608bf2f39f021f2a2aa0557446830ab4124b97275"),
    ],
)
def test_as_botocore_signs_a_call_of_bedrock(token: str | None, signature: str) -> None:
    """The colon of a model's name is encoded twice: once as sent, once more when signed."""
    base = "https://bedrock-runtime.us-east-1.amazonaws.com"
    headers = signed_headers(
        "POST",
        parse_url(base + "/model/us.anthropic.claude-x-1%3A0/converse-stream"),
        b'{"messages":[]}',
        credentials=Credentials(
            access_key_id="AKIDEXAMPLE", secret_access_key=SECRET, session_token=token
        ),
        scope=Scope(region="us-east-1", service="bedrock"),
        unix_s=1_767_225_600.0,
    )
    assert dict(headers)["authorization"].endswith(f"Signature={signature}")
    assert dict(headers).get("x-amz-security-token") == token


def test_credentials_are_read_and_not_shown() -> None:
    read = Credentials.parse("AKID:secret/+:to:ken")
    assert (read.access_key_id, read.secret_access_key) == ("AKID", "secret/+")
    assert read.session_token == "to:ken"
    assert "secret" not in repr(read)
    assert Credentials.parse("a:b").session_token is None
    for wrong in ("", "only", ":b", "a:", "a:b:"):
        with pytest.raises(MalformedError) as refused:
            Credentials.parse(wrong)
        assert refused.value.error_code == "bad_credentials"
