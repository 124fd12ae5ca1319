"""Steps 2 to 5: is each part a receipt, and did its node sign it?

It refuses to take a key's word for who holds it: a key that only the file itself names identifies
nobody, whatever it signs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trunkline.base.errors import Error
from trunkline.crypto.keys import VerifierKey
from trunkline.evidence.file import EvidenceKey, EvidencePart
from trunkline.evidence.operators import Operators, vouched
from trunkline.evidence.report import Finding, failed, inconclusive, passed, plain
from trunkline.receipts import Batch, Receipt, decode, open_batch
from trunkline.receipts.batch import (
    check_audited,
    check_signer,
    note_bytes,
    receipt_bytes,
    verify_path,
)


@dataclass(slots=True, kw_only=True)
class Part:
    """One part while it is checked: each step adds what the next ones need."""

    source: EvidencePart
    data: bytes = b""
    receipt: Receipt | None = None
    key: VerifierKey | None = None
    batch: Batch | None = None


NO_RECEIPT = inconclusive("not checked: there is no receipt")


def check_receipt(part: Part) -> Finding:
    """Step 2: canonical bytes of a receipt v1."""
    try:
        part.data = receipt_bytes(part.source.signed)
        part.receipt = decode(part.data)
    except Error as error:
        return failed(error.message)
    return passed(f"receipt v1 of attempt {plain(part.receipt.attempt)}, {len(part.data)} bytes")


def check_key(
    part: Part,
    pinned: Sequence[EvidenceKey],
    stated: Sequence[EvidenceKey],
    operators: Operators,
) -> Finding:
    """Step 3: who holds the key that the receipt names."""
    if part.receipt is None:
        return NO_RECEIPT
    receipt = part.receipt
    try:
        part.key = VerifierKey.parse(receipt.key)
        check_signer(receipt, part.key)
    except Error as error:
        return failed(error.message)
    who = f"{plain(receipt.node)}, operator {plain(receipt.operator)}"
    if vouched(operators.said(receipt)):
        return passed(f"the key of {who}, by a statement of the operator, whose key is pinned")
    for keys, whose in ((pinned, "pinned"), (stated, "stated in the file")):
        contradiction = _contradiction(receipt, keys, whose)
        if contradiction is not None:
            return failed(contradiction)
    if _holders(receipt, pinned):
        return passed(f"the key of {who}, is pinned")
    return inconclusive(f"the key is known only from the file: whether {who} holds it is not shown")


def _nodes(keys: Sequence[EvidenceKey]) -> list[EvidenceKey]:
    return [key for key in keys if key.role == "node"]


def _holders(receipt: Receipt, keys: Sequence[EvidenceKey]) -> list[EvidenceKey]:
    return [key for key in _nodes(keys) if key.vkey == receipt.key]


def _contradiction(receipt: Receipt, keys: Sequence[EvidenceKey], whose: str) -> str | None:
    """How ``keys`` disagree with what the receipt says of its node, if they do."""
    holders = _holders(receipt, keys)
    if any(holder.operator != receipt.operator for holder in holders):
        return f"the key {whose} belongs to another operator than the receipt says"
    if not holders and any(key.name == receipt.node for key in _nodes(keys)):
        return f"the key {whose} for this node is another one"
    return None


def check_signature(part: Part) -> Finding:
    """Step 4: the key signed the batch."""
    if part.key is None:
        return inconclusive("not checked: there is no key")
    try:
        part.batch = open_batch(note_bytes(part.source.signed), part.key)
    except Error as error:
        return failed(error.message)
    return passed(f"signed by {plain(part.key.name)}, in a batch of {part.batch.count}")


def check_path(part: Part) -> Finding:
    """Step 5: the receipt is in the batch, at its index, and may be audited if that says so."""
    if part.batch is None or part.receipt is None:
        return inconclusive("not checked: there is no signed batch")
    try:
        verify_path(part.data, part.source.signed, part.batch)
        check_audited(part.receipt, part.source.signed.index, part.batch)
    except Error as error:
        return failed(error.message)
    return passed(f"receipt {part.source.signed.index} of {part.batch.count} in the signed batch")
