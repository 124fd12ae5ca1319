"""Step 13: was each receipt in the log while its node's key was valid?

The operator's key, which the reader pinned, says when a node's key counts, and takes it back
(``docs/spec/receipt.md``, "Keys"). A stolen key can backdate what it signs; it can not backdate the
witnesses. So what counts is when they had all seen the tree that holds the receipt: honest history
stays verifiable after its key is revoked, and what is signed later is refused.
"""

from trunkline.evidence.inclusion import PROVISIONAL, Logged
from trunkline.evidence.node import NO_RECEIPT
from trunkline.evidence.operators import Operators
from trunkline.evidence.report import Finding, failed, inconclusive, not_applicable, passed
from trunkline.receipts.key_statement import KeyStatement, Revocation


def check_validity(logged: Logged, operators: Operators) -> Finding:
    """Step 13, for one part."""
    receipt, batch = logged.part.receipt, logged.part.batch
    if receipt is None:
        return NO_RECEIPT
    said = operators.said(receipt)
    if not said:
        return not_applicable("no statement of its operator limits the key in time")
    if batch is None:
        return inconclusive("not checked: there is no signed batch")
    if logged.proof is None and not logged.problem:
        return PROVISIONAL
    if not logged.witnessed_s:
        return inconclusive("not checked: no witness says when the log had it")
    seen_s, signed_s = logged.witnessed_s, batch.unix_ms // 1000
    if any(isinstance(one, Revocation) and seen_s >= one.from_s for one in said):
        return failed("the key was revoked before the witnesses saw the receipt in the log")
    spans = [one for one in said if isinstance(one, KeyStatement)]
    if spans and not any(one.from_s <= signed_s and seen_s < one.to_s for one in spans):
        return failed("the receipt was not signed and logged while its key was valid")
    return passed(f"in the log by {seen_s} (Unix seconds), while its key was valid")
