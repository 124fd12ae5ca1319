"""What operators said of their nodes' keys, as far as the reader knows the operators.

Statements are ``docs/spec/receipt.md``, "Keys". It refuses to learn an operator's key from a file:
only a pinned one counts. The statements themselves may come from anywhere, since they are signed.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from trunkline.base.errors import Error
from trunkline.crypto.keys import VerifierKey
from trunkline.evidence.file import EvidenceKey
from trunkline.receipts import Receipt
from trunkline.receipts.key_statement import KeyStatement, Revocation, open_statement

FILE_STATEMENTS_MAX: Final = 4096
"""Of one operator, that are looked at in a file: as many as 64 nodes show with 64 each."""


class Operators:
    """What the operators said, in one file and in what the reader brings. Read once for all its
    parts."""

    def __init__(self, pinned: Sequence[EvidenceKey], stated: Sequence[EvidenceKey]) -> None:
        self._pinned = pinned
        self._stated = stated
        self._said: dict[str, list[KeyStatement | Revocation]] = {}

    def said(self, receipt: Receipt) -> list[KeyStatement | Revocation]:
        """What the receipt's operator said of the receipt's key, by a key of his that is pinned.

        What he did not sign, or what is none, says nothing, whoever brought it.
        """
        if receipt.operator not in self._said:
            self._said[receipt.operator] = self._read(receipt.operator)
        return [one for one in self._said[receipt.operator] if one.key == receipt.key]

    def _read(self, operator: str) -> list[KeyStatement | Revocation]:
        brought = islice(_notes(operator, self._stated), FILE_STATEMENTS_MAX)
        notes = dict.fromkeys((*_notes(operator, self._pinned), *brought))
        return [
            statement
            for key in _operator_keys(operator, self._pinned)
            for text in notes
            for statement in _opened(text, key)
        ]


def _notes(operator: str, keys: Sequence[EvidenceKey]) -> Iterable[str]:
    """The different ones, in order."""
    return dict.fromkeys(
        text
        for entry in keys
        if entry.role == "operator" and entry.operator == operator
        for text in entry.statements
    )


def vouched(said: Sequence[KeyStatement | Revocation]) -> bool:
    """Whether the operator said that the key is a node's of his, at whatever time."""
    return any(isinstance(one, KeyStatement) for one in said)


def _operator_keys(operator: str, pinned: Sequence[EvidenceKey]) -> Iterator[VerifierKey]:
    for entry in pinned:
        if entry.role == "operator" and entry.operator == operator == entry.name:
            try:
                key = VerifierKey.parse(entry.vkey)
            except Error:
                continue
            if key.name == entry.name:
                yield key


def _opened(text: str, key: VerifierKey) -> Iterator[KeyStatement | Revocation]:
    try:
        yield open_statement(text.encode(), key)
    except (Error, UnicodeEncodeError):
        return
