"""What operators said of their nodes' keys, as far as the reader knows the operators.

Statements are ``docs/spec/receipt.md``, "Keys". It refuses to learn an operator's key from a file:
only a pinned one counts. The statements themselves may come from anywhere, since they are signed.
"""

from collections.abc import Iterator, Sequence

from trunkline.base.errors import Error
from trunkline.crypto.keys import VerifierKey
from trunkline.evidence.file import EvidenceKey
from trunkline.receipts import Receipt
from trunkline.receipts.key_statement import KeyStatement, Revocation, open_statement


def statements(
    receipt: Receipt, pinned: Sequence[EvidenceKey], stated: Sequence[EvidenceKey]
) -> list[KeyStatement | Revocation]:
    """What the receipt's operator said of the receipt's key, by a key of his that is pinned.

    What he did not sign, or what is none, says nothing, whoever brought it.
    """
    notes = [
        text
        for entry in (*pinned, *stated)
        if entry.role == "operator" and entry.operator == receipt.operator
        for text in entry.statements
    ]
    return [
        statement
        for key in _operator_keys(receipt, pinned)
        for text in notes
        for statement in _opened(text, key)
        if statement.key == receipt.key
    ]


def vouched(said: Sequence[KeyStatement | Revocation]) -> bool:
    """Whether the operator said that the key is a node's of his, at whatever time."""
    return any(isinstance(one, KeyStatement) for one in said)


def _operator_keys(receipt: Receipt, pinned: Sequence[EvidenceKey]) -> Iterator[VerifierKey]:
    for entry in pinned:
        if entry.role == "operator" and entry.operator == receipt.operator == entry.name:
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
