"""What a request will probably use."""

import base64
import json
import struct

from hypothesis import given
from hypothesis import strategies as st

from trunkline.gateway.core.estimate import (
    IMAGE_TOKENS,
    IMAGE_TOKENS_MAX,
    IMAGE_TOKENS_MIN,
    TOKENS_PER_BYTE_MAX,
    Estimates,
    image_tokens,
)
from trunkline.gateway.core.quota import Cost


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(9000)


def jpeg(width: int, height: int) -> bytes:
    table = b"\xff\xc4" + struct.pack(">H", 6) + bytes(4)
    frame = b"\xff\xc0" + struct.pack(">HBHH", 11, 8, height, width) + bytes(4)
    return b"\xff\xd8" + table + frame + bytes(9000)


def chat(content: object, **more: object) -> bytes:
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": "m", "messages": messages, **more}).encode()


def picture(kind: str, data: bytes) -> dict[str, object]:
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def test_a_bound_of_the_request_counts_as_providers_count_it() -> None:
    cost = Estimates().cost("m", chat("hello", max_tokens=70), "chat", 2)
    assert cost.output_tokens == 140
    assert 10 < cost.input_tokens < 100
    assert cost.tokens == cost.input_tokens + 140


def test_embeddings_generate_nothing() -> None:
    assert Estimates().cost("m", b'{"input": "word"}', "embeddings", 1).output_tokens == 0


def test_real_usage_corrects_both_parts() -> None:
    estimates = Estimates()
    request = chat("to be " * 667)
    for _ in range(100):
        estimated = estimates.cost("m", request, "chat", 1)
        estimates.learned("m", estimated, Cost(input_tokens=1000, output_tokens=30))
    learned = estimates.cost("m", request, "chat", 1)
    assert 950 <= learned.input_tokens <= 1050
    assert 30 <= learned.output_tokens <= 40
    assert estimates.cost("other", request, "chat", 1).input_tokens > 1500


def test_many_estimates_of_one_rate_correct_it_once() -> None:
    """They were all under way when the first of them came back."""
    estimates = Estimates()
    request = chat("to be " * 667)
    estimated = [estimates.cost("m", request, "chat", 1) for _ in range(200)]
    for one in estimated:
        estimates.learned("m", one, Cost(input_tokens=1000, output_tokens=30))
    assert 950 <= estimates.cost("m", request, "chat", 1).input_tokens <= 1050


def test_the_rate_of_text_is_not_learned_from_pictures() -> None:
    estimates = Estimates()
    before = estimates.cost("m", chat("hello"), "chat", 1)
    request = chat([picture("png", png(1024, 1024) * 200)])
    for _ in range(50):
        estimated = estimates.cost("m", request, "chat", 1)
        estimates.learned("m", estimated, Cost(input_tokens=1500, output_tokens=512))
    assert estimates.cost("m", chat("hello"), "chat", 1).input_tokens == before.input_tokens


def test_an_expectation_allows_for_spread() -> None:
    estimates = Estimates()
    for number in range(200):
        used = Cost(input_tokens=10, output_tokens=100 if number % 2 else 300)
        estimates.learned("m", Cost(input_tokens=10), used)
    assert 300 <= estimates.cost("m", chat("hi"), "chat", 1).output_tokens <= 500


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_absurd_usage_stays_within_bounds(prompt: int, output: int) -> None:
    estimates = Estimates()
    used = Cost(input_tokens=prompt, output_tokens=output)
    for _ in range(50):
        estimates.learned("m", Cost(input_tokens=1, text_bytes=10), used)
    request = chat("to be " * 167)
    cost = estimates.cost("m", request, "chat", 1)
    assert 1 <= cost.input_tokens <= len(request) * TOKENS_PER_BYTE_MAX
    assert cost.output_tokens >= 1


def test_pictures_count_by_their_size_not_their_bytes() -> None:
    for kind, made in (("png", png(1024, 1024)), ("jpeg", jpeg(1024, 1024))):
        cost = Estimates().cost("m", chat([picture(kind, made)], max_tokens=1), "chat", 1)
        assert 1500 < cost.input_tokens < 1800
    linked = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    assert Estimates().cost("m", chat([linked]), "chat", 1).input_tokens > IMAGE_TOKENS


def test_a_picture_has_a_least_and_a_most() -> None:
    assert image_tokens(base64.b64encode(png(1, 1))) == IMAGE_TOKENS_MIN
    assert image_tokens(base64.b64encode(png(60000, 60000))) == IMAGE_TOKENS_MAX
    assert image_tokens(base64.b64encode(b"RIFF....WEBP")) == IMAGE_TOKENS


@given(st.binary(max_size=200))
def test_any_bytes_are_a_picture_of_some_size(data: bytes) -> None:
    for head in (data, base64.b64encode(b"\xff\xd8" + data), base64.b64encode(data)):
        assert IMAGE_TOKENS_MIN <= image_tokens(head) <= IMAGE_TOKENS_MAX


def test_sound_is_not_read_as_text() -> None:
    sound = base64.b64encode(bytes(range(256)) * 4000).decode()
    part = {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}
    assert Estimates().cost("m", chat([part], max_tokens=1), "chat", 1).input_tokens < 3000
