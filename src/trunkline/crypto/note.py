"""Signed notes (C2SP signed-note v1): a text, an empty line, signature lines.

Reading a note proves nothing: its text counts only after :meth:`Note.verify` with a key from
configuration. Signatures by unknown keys are carried along and ignored, as the specification asks.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto.encoding import decode_base64, encode_base64
from trunkline.crypto.keys import ED25519, VerifierKey, is_key_name

NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 100

Text = TypeVar("Text")

_DASH = "— ".encode()
_CONTROLS = bytes(byte for byte in range(0x20) if byte != 0x0A)


class NoteSignature(msgspec.Struct, frozen=True, kw_only=True):
    """One signature line."""

    name: str
    key_id: int
    signature: bytes
    """Without the four bytes of the key id; its shape is the algorithm's."""

    def line(self) -> bytes:
        """The line as it stands in a note, with its newline."""
        material = encode_base64(self.key_id.to_bytes(4, "big") + self.signature)
        return f"— {self.name} {material}\n".encode()

    def is_by(self, key: VerifierKey) -> bool:
        """Whether the line claims to be by ``key``: same name and same id."""
        return self.key_id == key.key_id and self.name == key.name


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed note; nothing in it is verified yet."""

    text: bytes
    """The signed bytes, ending in a newline."""
    signatures: tuple[NoteSignature, ...]

    def verify(self, key: VerifierKey) -> None:
        """Check that ``key`` signed the text. SignatureError if it did not.

        Every line that claims to be by ``key`` must verify: one bad line condemns the note.
        """
        self.signatures_by(key)

    def signatures_by(self, key: VerifierKey) -> tuple[NoteSignature, ...]:
        """The lines by ``key``, verified, at least one. SignatureError otherwise."""
        lines = tuple(line for line in self.signatures if line.is_by(key))
        if not lines:
            raise SignatureError(f"no signature by {key.name}")
        for line in lines:
            key.verify(self.text, line.signature)
        return lines


def parse(data: bytes) -> Note:
    """Read a note; MalformedError. At most 1 MB and 100 signatures."""
    if len(data) > NOTE_BYTES_MAX:
        raise MalformedError("note too long")
    check_text(data)
    split = data.rfind(b"\n\n")
    if split < 0:
        raise MalformedError("a note ends with an empty line and its signatures")
    signatures = _parse_lines(data[split + 2 :])
    return Note(text=data[: split + 1], signatures=signatures)


def open_sole(
    data: bytes, key: VerifierKey, read: Callable[[bytes], Text], *, what: str, bytes_max: int
) -> Text:
    """What ``read`` makes of the text of a note that ``key`` signed, and nobody else: how every
    record is signed but checkpoints.

    ``what`` it is, with its article, is for the errors: MalformedError, also from ``read``, and
    SignatureError when ``key`` did not sign it or is not plain Ed25519 (``wrong_key``). Its bounds
    are checked first: nothing is verified that could not be a record.
    """
    if len(data) > bytes_max:
        raise MalformedError(f"{what} of {len(data)} bytes is too long")
    signed = parse(data)
    if len(signed.signatures) != 1:
        # The note is, or may be, a log's entry: a second spelling of it would be a second entry.
        raise MalformedError(f"{what} has exactly one signature")
    text = read(signed.text)
    if key.algorithm != ED25519:
        # A cosignature key signs under another prefix: it may vouch for trees, and nothing else.
        raise SignatureError(f"{what} is signed by a plain Ed25519 key", code="wrong_key")
    signed.verify(key)
    return text


def parse_signatures(lines: bytes) -> tuple[NoteSignature, ...]:
    """Read one to 100 signature lines, the last newline included; MalformedError.

    A witness answers with exactly this. UTF-8 and control characters are checked here too.
    """
    if len(lines) > NOTE_BYTES_MAX:
        raise MalformedError("signatures too long")
    check_text(lines)
    return _parse_lines(lines)


def _parse_lines(lines: bytes) -> tuple[NoteSignature, ...]:
    if lines.count(b"\n") > SIGNATURES_MAX:
        raise MalformedError(f"more than {SIGNATURES_MAX} signatures")
    return tuple(_parse_line(line) for line in lines[:-1].split(b"\n"))


def _parse_line(line: bytes) -> NoteSignature:
    if not line.startswith(_DASH):
        raise MalformedError("a signature line starts with an em dash and a space")
    name, _, spelled = line[len(_DASH) :].decode().partition(" ")
    material = decode_base64(spelled)
    if not is_key_name(name, bytes_max=NOTE_BYTES_MAX) or len(material) < 5:
        raise MalformedError("a signature line is a key name and base64 of key id and signature")
    return NoteSignature(
        name=name, key_id=int.from_bytes(material[:4], "big"), signature=material[4:]
    )


def check_text(text: bytes) -> None:
    """Check what every note's bytes must be: UTF-8, no control character but newline, newline last.

    Raises MalformedError.
    """
    if not text.endswith(b"\n"):
        raise MalformedError("a note's text ends with a newline")
    # Deleting them looks at a byte in a fifth of the time that a pattern takes.
    if len(text.translate(None, _CONTROLS)) != len(text):
        raise MalformedError("a note holds no control characters")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError("a note is UTF-8") from error


def format(text: bytes, signatures: Iterable[NoteSignature]) -> bytes:  # noqa: A001 - the trade's word
    """Write the note; MalformedError when ``text`` could not be read back as it is."""
    check_text(text)
    lines = b"".join(signature.line() for signature in signatures)
    if not lines:
        raise MalformedError("a note has at least one signature")
    return text + b"\n" + lines
