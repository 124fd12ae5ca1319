"""The stream digest: one hash chain over what an attempt sent, closed by an end marker.

Specified in ``docs/spec/receipt.md``, "Stream digest". Each link hashes the one before it, so a
missing, added, repeated or moved chunk changes the end; the first link names the attempt and its
request, so chunks of another answer can not be spliced in; and the end hashes the number of chunks
under its own tag, so no prefix of a stream ends like a whole one.

    c₀  = SHA256("trunkline.stream/v1\\n" ‖ u16(attempt length) ‖ attempt ‖ request digest)
    cᵢ  = SHA256(0x01 ‖ cᵢ₋₁ ‖ u32(length) ‖ chunk)
    end = SHA256(0x02 ‖ cₙ ‖ u64(n))                                      integers big-endian
"""

from collections.abc import Iterable
from hashlib import sha256
from struct import Struct

from trunkline.base.errors import require

STREAM_DOMAIN = b"trunkline.stream/v1\n"
SHOWN_DOMAIN = b"trunkline.shown/v1\n"
CHUNK_BYTES_MAX = 2**32 - 1
ATTEMPT_BYTES_MAX = 2**16 - 1

_LINK = Struct(">c32sI").pack
"""What a link hashes before its chunk. Made for every event of every stream: kept cheap."""


class StreamDigest:
    """The running digest of one attempt's stream: ``update`` per chunk, then ``close`` once.

    ``chunks`` counts the updates so far. Costs one SHA-256 a chunk; keeps nothing of what it saw.
    """

    __slots__ = ("_closed", "_link", "chunks")

    def __init__(self, request_digest: bytes, attempt: str) -> None:
        """Start the chain of ``attempt`` at the request with this 32-byte digest.

        Raises ``ValueError`` for a digest of another size or an attempt id beyond 65,535 bytes.
        """
        name = attempt.encode()
        if len(request_digest) != 32:
            raise ValueError(f"a request digest has 32 bytes, not {len(request_digest)}")
        if len(name) > ATTEMPT_BYTES_MAX:
            raise ValueError("an attempt id is too long")
        head = STREAM_DOMAIN + len(name).to_bytes(2, "big") + name
        self._link = sha256(head + request_digest).digest()
        self._closed = False
        self.chunks = 0

    def update(self, data: bytes) -> None:
        """Add one unnamed event's ``data``, exactly as sent."""
        if self._closed:
            require(False, "a stream digest takes no chunk after its end")
        if len(data) > CHUNK_BYTES_MAX:
            raise ValueError("a chunk is too long")
        self._link = sha256(_LINK(b"\x01", self._link, len(data)) + data).digest()
        self.chunks += 1

    def close(self) -> str:
        """End the chain: ``sha256:<hex>``. A stream ends once."""
        require(not self._closed, "a stream digest ends once")
        self._closed = True
        return self.so_far()

    def so_far(self) -> str:
        """What the chain would end in if the stream ended here, which may still go on."""
        end = sha256(b"\x02" + self._link + self.chunks.to_bytes(8, "big"))
        return "sha256:" + end.hexdigest()


class ShownDigest:
    """The digest of what an answer showed so far, whoever sent it: ``update`` per event's data.

    It names no attempt, so that the node that takes over can compute the same from its replay.
    """

    __slots__ = ("_hash",)

    def __init__(self) -> None:
        self._hash = sha256(SHOWN_DOMAIN)

    def update(self, data: bytes | None) -> None:
        """Add one unnamed event's ``data``; an event without any shows nothing."""
        if data is not None:
            self._hash.update(len(data).to_bytes(4, "big") + data)

    def digest(self) -> str:
        """``sha256:<hex>`` of everything so far."""
        return "sha256:" + self._hash.hexdigest()


def stream_digest(request_digest: bytes, attempt: str, chunks: Iterable[bytes]) -> str:
    """The digest of a whole stream at once: ``sha256:<hex>``."""
    running = StreamDigest(request_digest, attempt)
    for chunk in chunks:
        running.update(chunk)
    return running.close()
