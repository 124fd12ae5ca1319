"""Whose key does a node sign with? What the configuration pins, against what the node shows.

A node counts by its own pinned key, or by a key that its operator, whose key is pinned, states for
now (``docs/spec/receipt.md``, "Keys"): then the node's key may change while everything runs. It
refuses a key that nobody pinned, whoever shows it, and a statement that is another operator's, for
another key, or for another time.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from trunkline.base.errors import ConfigError, Error, MalformedError, SignatureError
from trunkline.crypto.keys import VerifierKey
from trunkline.receipts.key_statement import KeyStatement, Revocation, open_statement
from trunkline.schema.attempt import NodeInfo

STATEMENTS_MAX: Final = 64
"""Statements that are read of what a node shows, the newest."""
WRONG_KEY: Final = "wrong_key"


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a node beforehand."""

    name: str
    """Of the node, and so of its key."""
    key: VerifierKey | None
    """None: only the operator's word counts."""
    operator: VerifierKey | None

    @classmethod
    def of(cls, *, url: str, vkey: str, operator_vkey: str, name: str) -> "Pin":
        """As configured; empty: not given. Raises :class:`ConfigError`."""
        try:
            key = VerifierKey.parse(vkey) if vkey else None
            operator = VerifierKey.parse(operator_vkey) if operator_vkey else None
        except MalformedError as error:
            raise ConfigError(f"nodes: key of {url}: {error.message}") from None
        if key is not None and name not in ("", key.name):
            raise ConfigError(f"nodes: {url}: its name is not that of its vkey")
        if key is None and (operator is None or not name):
            raise ConfigError(f"nodes: {url}: give its vkey, or its name and operator_vkey")
        return cls(name=name if key is None else key.name, key=key, operator=operator)

    def accept(self, info: NodeInfo, now_s: int) -> VerifierKey:
        """The key that the node shows, if it counts now. Raises :class:`SignatureError`."""
        if info.node != self.name:
            raise SignatureError("another node answers there", code=WRONG_KEY)
        operator = self.operator
        if operator is not None and info.operator != operator.name:
            raise SignatureError("the node names another operator", code=WRONG_KEY)
        if self.key is not None and info.key == str(self.key):
            return self.key
        if operator is None:
            raise SignatureError("the node shows another key than the pinned one", code=WRONG_KEY)
        try:
            key = VerifierKey.parse(info.key)
        except MalformedError:
            raise SignatureError("the node shows no key", code=WRONG_KEY) from None
        said = [one for one in opened(info.statements, operator) if one.key == info.key]
        revoked = any(isinstance(one, Revocation) and one.from_s <= now_s for one in said)
        spans = [one for one in said if isinstance(one, KeyStatement)]
        stated = any(one.from_s <= now_s < one.to_s for one in spans)
        if key.name != self.name or revoked or not stated:
            raise SignatureError("its operator does not state the node's key", code=WRONG_KEY)
        return key


def opened(notes: Sequence[str], operator: VerifierKey) -> list[KeyStatement | Revocation]:
    """What the operator signed of these; the rest says nothing, whoever brought it."""
    found: list[KeyStatement | Revocation] = []
    for text in notes[-STATEMENTS_MAX:]:
        try:
            found.append(open_statement(text.encode(), operator))
        except (Error, UnicodeEncodeError):
            continue
    return found
