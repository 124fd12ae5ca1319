"""The stream digest: every way of tampering with a stream shows."""

import hashlib

import pytest

from trunkline.base.errors import CorruptStateError
from trunkline.receipts import (
    StreamDigest,
    prompt_digest,
    request_digest,
    stream_digest,
    tokens_digest,
)

REQUEST = bytes(range(32))
CHUNKS = [b"The", b" quick", b"", b" brown", b" fox"]


def of(chunks: list[bytes], *, attempt: str = "att_1", request: bytes = REQUEST) -> str:
    return stream_digest(request, attempt, chunks)


def test_the_chain_as_specified() -> None:
    link = hashlib.sha256(b"trunkline.stream/v1\n\x00\x05att_1" + REQUEST).digest()
    link = hashlib.sha256(b"\x01" + link + b"\x00\x00\x00\x02hi").digest()
    end = hashlib.sha256(b"\x02" + link + b"\x00" * 7 + b"\x01").hexdigest()
    assert of([b"hi"]) == "sha256:" + end


def test_truncation_shows_at_every_length() -> None:
    assert len({of(CHUNKS[:size]) for size in range(len(CHUNKS) + 1)}) == len(CHUNKS) + 1


def test_reordering_shows() -> None:
    swapped = [CHUNKS[1], CHUNKS[0], *CHUNKS[2:]]
    assert of(swapped) != of(CHUNKS)


def test_moved_boundaries_show() -> None:
    assert of([b"Th", b"e quick", *CHUNKS[2:]]) != of(CHUNKS)
    assert of([chunk for chunk in CHUNKS if chunk]) != of(CHUNKS)


def test_a_repeated_chunk_shows() -> None:
    assert of([*CHUNKS, CHUNKS[-1]]) != of(CHUNKS)


def test_splicing_in_another_answer_shows() -> None:
    """The same chunks under another attempt or another request have another digest."""
    assert of(CHUNKS, attempt="att_2") != of(CHUNKS)
    assert of(CHUNKS, request=bytes(32)) != of(CHUNKS)
    # The attempt's length is hashed: its end can not be traded for the start of the digest.
    assert of([], attempt="a\x00", request=REQUEST) != of(
        [], attempt="a", request=b"\0" + REQUEST[:31]
    )


def test_an_end_can_not_be_a_link() -> None:
    """A chunk that spells an end's input does not end the stream: the tags differ."""
    forged = of([*CHUNKS, len(CHUNKS).to_bytes(8, "big")])
    assert forged != of(CHUNKS)


def test_a_stream_ends_once() -> None:
    running = StreamDigest(REQUEST, "att_1")
    running.update(b"x")
    assert running.chunks == 1
    running.close()
    with pytest.raises(CorruptStateError):
        running.close()
    with pytest.raises(CorruptStateError):
        running.update(b"y")


@pytest.mark.parametrize(
    ("request_", "attempt"), [(b"", "a"), (bytes(31), "a"), (bytes(32), "a" * 65536)]
)
def test_a_start_is_well_formed(request_: bytes, attempt: str) -> None:
    with pytest.raises(ValueError, match=r"digest|attempt"):
        StreamDigest(request_, attempt)


def test_digests_as_specified() -> None:
    def sha256(data: bytes) -> str:
        return "sha256:" + hashlib.sha256(data).hexdigest()

    assert request_digest(b"{}") == sha256(b"trunkline.request/v1\n{}")
    assert prompt_digest([1, 2**32 - 1]) == sha256(b"trunkline.prompt/v1\n\1\0\0\0\xff\xff\xff\xff")
    assert tokens_digest([[7], []]) == sha256(
        b"trunkline.tokens/v1\n\2\0\0\0" + b"\1\0\0\0\7\0\0\0" + b"\0\0\0\0"
    )


def test_tokens_keep_their_choice() -> None:
    assert len({tokens_digest(c) for c in ([[1, 2]], [[1], [2]], [[1, 2], []], [[], [1, 2]])}) == 4


@pytest.mark.parametrize("token", [-1, 2**32])
def test_a_token_id_has_32_bits(token: int) -> None:
    with pytest.raises(ValueError, match="token id"):
        tokens_digest([[token]])


def test_domains_do_not_meet() -> None:
    assert (
        len(
            {
                request_digest(b""),
                prompt_digest([]),
                of([]),
                "sha256:" + hashlib.sha256().hexdigest(),
            }
        )
        == 4
    )
