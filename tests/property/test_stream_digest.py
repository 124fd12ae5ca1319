"""The stream digest: equal for equal streams, and for no others."""

from hypothesis import given
from hypothesis import strategies as st

from trunkline.receipts import StreamDigest, stream_digest, tokens_digest

REQUEST = bytes(32)
streams = st.lists(st.binary(max_size=8), max_size=6)
choices = st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=4), max_size=4)


@given(streams, streams)
def test_only_equal_streams_have_equal_digests(one: list[bytes], two: list[bytes]) -> None:
    same = stream_digest(REQUEST, "att", one) == stream_digest(REQUEST, "att", two)
    assert same == (one == two)


@given(streams, st.integers(0, 5))
def test_no_prefix_ends_like_the_whole(chunks: list[bytes], size: int) -> None:
    prefix = chunks[:size]
    same = stream_digest(REQUEST, "att", prefix) == stream_digest(REQUEST, "att", chunks)
    assert same == (len(prefix) == len(chunks))


@given(streams)
def test_running_and_whole_agree(chunks: list[bytes]) -> None:
    running = StreamDigest(REQUEST, "att")
    for chunk in chunks:
        running.update(chunk)
    assert running.chunks == len(chunks)
    assert running.close() == stream_digest(REQUEST, "att", chunks)


@given(choices, choices)
def test_only_equal_tokens_have_equal_digests(one: list[list[int]], two: list[list[int]]) -> None:
    assert (tokens_digest(one) == tokens_digest(two)) == (one == two)
