"""What all signed records about audits have in common: their text, their note, reading them back.

Specified in ``docs/spec/verdict.md``. A record is the text of a C2SP signed note, two lines:

    trunkline.verdict/v1
    {"alpha":"0.001",…,"type":"trunkline.verdict/v1","unix_ms":1780000000000}

its type, which no other signed record begins with, and one line of canonical JSON. The note has
one signature, by the Ed25519 key that the record names. Nothing here signs, and nothing here
judges whether a record is true.
"""

from typing import Annotated, ClassVar, Self, TypeAlias

import msgspec

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto import note
from trunkline.crypto.canonical import INTEGER_MAX, parse_canonical
from trunkline.crypto.keys import ED25519, NAME_BYTES_MAX, VKEY_CHARS_MAX, VerifierKey

SIGNATURE_LINE_BYTES_MAX = 512
"""What a note is longer than its text: an empty line and one Ed25519 signature."""
TEXT_CHARS_MAX = 512

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
Hex32: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
OptionalHex32: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?\Z")]
Digest: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
OptionalDigest: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^(sha256:[0-9a-f]{64})?\Z")]
Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_BYTES_MAX)]
Key: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=VKEY_CHARS_MAX)]
"""A C2SP vkey."""
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=TEXT_CHARS_MAX)]
Decimal: TypeAlias = Annotated[
    str,
    msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,39})(\.[0-9]{1,40})?(e-?[1-9][0-9]{0,3})?\Z"),
]
"""A number that is not negative, as text: records hold no floats. The shortest that reads back as
the same IEEE 754 double (Python's ``repr``)."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A signed record. Subclasses declare their members in the order of their names."""

    TYPE: ClassVar[str]
    """First line of the text, and member ``type``."""
    NOTE_BYTES_MAX: ClassVar[int]
    """Of the signed note; at most what a log's entry may have."""

    def text(self) -> bytes:
        """The text to sign. Raises :class:`MalformedError` for what could not be read back."""
        text = _head(self) + _line(self) + b"\n"
        self.parse(text)
        return text

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a text; nothing in it is verified.

        Raises :class:`MalformedError`. Members of later versions are ignored, and signed all the
        same: keep the bytes.
        """
        if len(text) > cls.NOTE_BYTES_MAX - SIGNATURE_LINE_BYTES_MAX:
            raise MalformedError(f"a {cls.TYPE} of {len(text)} bytes is too long")
        head = _head(cls)
        if not text.startswith(head) or not text.endswith(b"\n"):
            raise MalformedError(f"not a {cls.TYPE}")
        line = text[len(head) : -1]
        try:
            record = msgspec.json.decode(line, type=cls)
        except (ValueError, RecursionError) as error:
            # Not the parser's message: it may quote what it read.
            raise MalformedError(f"not a {cls.TYPE}") from error
        # Writing it again is the cheap proof of canonical bytes; see trunkline.receipts.receipt.
        if _line(record) != line:
            value = parse_canonical(line, bytes_max=cls.NOTE_BYTES_MAX)
            if not isinstance(value, dict) or "type" not in value:
                raise MalformedError(f"not a {cls.TYPE}")
        record.check()
        return record

    @classmethod
    def open_note(cls, note_bytes: bytes, key: VerifierKey) -> Self:
        """What ``key`` signed.

        Raises :class:`MalformedError`, or :class:`SignatureError` when that key did not sign it,
        or the record says that another did.
        """
        record = note.open_sole(
            note_bytes, key, cls.parse, what=f"a {cls.TYPE}", bytes_max=cls.NOTE_BYTES_MAX
        )
        if record.key != str(key):
            raise SignatureError(f"the {cls.TYPE} names another key", code="wrong_key")
        return record

    @property
    def key(self) -> str:
        """The signer's vkey: a member of every record, in its place among the others."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise :class:`MalformedError` for members that can not stand together."""
        check_signer_key(self.key)


def check_signer_key(vkey: str) -> VerifierKey:
    """The key of a record's signer. Raises :class:`MalformedError` unless it is plain Ed25519."""
    key = VerifierKey.parse(vkey)
    if key.algorithm != ED25519:
        raise MalformedError("a record is signed by a plain Ed25519 key")
    return key


def decimal(value: float) -> str:
    """``value`` as a record holds it. Raises :class:`MalformedError` for what is no such number."""
    text = repr(float(value)).removesuffix(".0")
    mantissa, mark, exponent = text.partition("e")
    spelled = f"{mantissa}e{int(exponent)}" if mark else text
    try:
        return msgspec.convert(spelled, type=Decimal)
    except msgspec.ValidationError as error:
        raise MalformedError("a number that no record holds") from error


def _head(record: Record | type[Record]) -> bytes:
    return f"{record.TYPE}\n".encode()


def _line(record: Record) -> bytes:
    try:
        return msgspec.json.encode(record)
    except (ValueError, OverflowError) as error:
        raise MalformedError("a record holds text that is not Unicode") from error
