"""What a log sends to a witness and hears back (C2SP tlog-witness, ``POST /add-checkpoint``)."""

from dataclasses import dataclass

from trunkline.base.errors import MalformedError
from trunkline.crypto.encoding import decode_decimal, decode_hash, encode_base64
from trunkline.crypto.merkle import PROOF_HASHES_MAX

ADD_CHECKPOINT_PATH = "/add-checkpoint"
SIZE_CONTENT_TYPE = "text/x.tlog.size"
REQUEST_BYTES_MAX = 1_010_000
"""A note of the largest size and 63 hashes."""
SIZE_BODY_BYTES_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class AddCheckpoint:
    """The request: from the size that the witness last cosigned, to this checkpoint."""

    old_size: int
    proof: tuple[bytes, ...]
    """RFC 6962 consistency proof; empty for ``old_size`` 0 or for the same size again."""
    checkpoint_note: bytes

    def body(self) -> bytes:
        """The request's body."""
        hashes = "".join(encode_base64(item) + "\n" for item in self.proof)
        return f"old {self.old_size}\n{hashes}\n".encode() + self.checkpoint_note


def parse_add_checkpoint(body: bytes) -> AddCheckpoint:
    """Read a request's body; MalformedError. The note in it is not parsed yet."""
    if len(body) > REQUEST_BYTES_MAX:
        raise MalformedError("request too long")
    head, gap, checkpoint_note = body.partition(b"\n\n")
    if not gap:
        raise MalformedError("an empty line stands before the checkpoint")
    lines = head.split(b"\n", PROOF_HASHES_MAX + 1)
    if not lines[0].startswith(b"old "):
        raise MalformedError("the first line is the old size")
    if len(lines) > PROOF_HASHES_MAX + 1:
        raise MalformedError(f"more than {PROOF_HASHES_MAX} proof lines")
    return AddCheckpoint(
        old_size=decode_decimal(lines[0][len(b"old ") :]),
        proof=tuple(decode_hash(line) for line in lines[1:]),
        checkpoint_note=checkpoint_note,
    )


def parse_size(body: bytes) -> int:
    """The size in a 409's body; MalformedError."""
    if len(body) > SIZE_BODY_BYTES_MAX or not body.endswith(b"\n"):
        raise MalformedError("a conflict's body is a decimal size and a newline")
    return decode_decimal(body[:-1])
