"""Checkpoints (C2SP tlog-checkpoint v1): origin, tree size, root hash, as a signed note's text."""

from dataclasses import dataclass
from typing import Self

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto import note
from trunkline.crypto.encoding import UINT63_MAX, decode_decimal, decode_hash, encode_base64
from trunkline.crypto.keys import VerifierKey

CHECKPOINT_BYTES_MAX = 64 * 1024
"""Of its text; most are 200 bytes."""
CHECKPOINT_NOTE_BYTES_MAX = 512 * 1024
"""With its signatures: a hundred of ML-DSA-44 are two thirds of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a log promises: a tree of ``size`` entries with this root. Not verified by itself."""

    origin: str
    """The log's identity; for our logs, its key's name."""
    size: int
    root: bytes
    """32 bytes; of the empty tree, SHA-256 of nothing."""
    extensions: tuple[str, ...] = ()
    """Opaque lines, not recommended by the specification; carried so that signatures verify."""

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a note's text; MalformedError."""
        note.check_text(text)
        if len(text) > CHECKPOINT_BYTES_MAX:
            raise MalformedError("checkpoint too long")
        lines = text[:-1].split(b"\n")
        if len(lines) < 3 or not all(lines):
            raise MalformedError("a checkpoint has at least three lines, none of them empty")
        return cls(
            origin=lines[0].decode(),
            size=decode_decimal(lines[1]),
            root=decode_hash(lines[2]),
            extensions=tuple(line.decode() for line in lines[3:]),
        )

    def text(self) -> bytes:
        """The note text that stands for this checkpoint; MalformedError if none can."""
        if not 0 <= self.size <= UINT63_MAX or len(self.root) != 32:
            raise MalformedError("a checkpoint has a size below 2^63 and a 32-byte root")
        lines = (self.origin, str(self.size), encode_base64(self.root), *self.extensions)
        if any(not line or "\n" in line for line in lines):
            raise MalformedError("a checkpoint's lines are not empty")
        text = "".join(line + "\n" for line in lines).encode()
        note.check_text(text)
        return text


def open_checkpoint(
    checkpoint_note: bytes, log_key: VerifierKey, *, origin: str | None = None
) -> Checkpoint:
    """The checkpoint in a note, once ``log_key`` is known to have signed it.

    ``origin`` is the log's, by default its key's name. MalformedError, or SignatureError when the
    signature is missing or bad, or the checkpoint is another log's.
    """
    parsed = note.parse(checkpoint_note)
    parsed.verify(log_key)
    checkpoint = Checkpoint.parse(parsed.text)
    if checkpoint.origin != (log_key.name if origin is None else origin):
        raise SignatureError("the checkpoint has another log's origin")
    return checkpoint
