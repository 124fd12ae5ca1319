"""Key statements: an operator says which key is a node's, from when to when, and takes it back.

Specified in ``docs/spec/receipt.md``, "Keys". Both are texts of C2SP signed notes, signed by the
operator's key alone, whose name is the operator's:

    trunkline.key/v1                     trunkline.revocation/v1
    <operator>                           <operator>
    <the node's vkey>                    <the node's vkey>
    <from, Unix seconds, decimal>        <from, Unix seconds, decimal>
    <to, Unix seconds, decimal>

A key's receipts count from ``from`` until before ``to``, and until before the earliest revocation.
By whose clock is the reader's business (``trunkline.evidence``). Nothing here signs.
"""

import msgspec

from trunkline.base.errors import MalformedError, SignatureError
from trunkline.crypto import note
from trunkline.crypto.canonical import INTEGER_MAX
from trunkline.crypto.encoding import decode_decimal
from trunkline.crypto.keys import ED25519, VerifierKey

KEY_TYPE = "trunkline.key/v1"
REVOCATION_TYPE = "trunkline.revocation/v1"
STATEMENT_NOTE_BYTES_MAX = 8 * 1024


class KeyStatement(msgspec.Struct, frozen=True, kw_only=True):
    """``key`` signs receipts for ``operator`` from ``from_s`` until before ``to_s``."""

    operator: str
    key: str
    """The node's vkey."""
    from_s: int
    """Unix seconds, as is ``to_s``."""
    to_s: int

    def text(self) -> bytes:
        """The text to sign. Raises :class:`MalformedError` for what could not be read back."""
        lines = (KEY_TYPE, self.operator, self.key, self.from_s, self.to_s)
        return _checked("".join(f"{line}\n" for line in lines).encode())


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """What ``key`` signed counts only where it was logged before ``from_s``."""

    operator: str
    key: str
    from_s: int

    def text(self) -> bytes:
        """The text to sign. Raises :class:`MalformedError` for what could not be read back."""
        lines = (REVOCATION_TYPE, self.operator, self.key, self.from_s)
        return _checked("".join(f"{line}\n" for line in lines).encode())


def parse_statement(text: bytes) -> KeyStatement | Revocation:
    """Read either text. Raises :class:`MalformedError` unless every byte is as written."""
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise MalformedError("a key statement is not UTF-8") from error
    if lines.pop() or not lines:
        raise MalformedError("a key statement ends with a newline")
    match lines:
        case [kind, operator, key, since, until] if kind == KEY_TYPE:
            statement = KeyStatement(
                operator=operator, key=_node_key(key), from_s=_time(since), to_s=_time(until)
            )
            if statement.from_s >= statement.to_s:
                raise MalformedError("a key statement ends before it begins")
            return statement
        case [kind, operator, key, since] if kind == REVOCATION_TYPE:
            return Revocation(operator=operator, key=_node_key(key), from_s=_time(since))
        case _:
            raise MalformedError("neither a key statement nor a revocation of version 1")


def open_statement(note_bytes: bytes, operator_key: VerifierKey) -> KeyStatement | Revocation:
    """What the operator's key signed.

    Raises :class:`MalformedError`, or :class:`SignatureError` when that key did not sign it or it
    names another operator.
    """
    statement = note.open_sole(
        note_bytes,
        operator_key,
        parse_statement,
        what="a key statement",
        bytes_max=STATEMENT_NOTE_BYTES_MAX,
    )
    if statement.operator != operator_key.name:
        raise SignatureError("the statement names another operator than its key", code="wrong_key")
    return statement


def _checked(text: bytes) -> bytes:
    parse_statement(text)
    return text


def _node_key(text: str) -> str:
    if VerifierKey.parse(text).algorithm != ED25519:
        raise MalformedError("a node signs with a plain Ed25519 key")
    return text


def _time(text: str) -> int:
    seconds = decode_decimal(text)
    if seconds > INTEGER_MAX:
        raise MalformedError("a time is out of range")
    return seconds
